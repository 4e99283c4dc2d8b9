"""The contract's refusals: a revert's bytes become the error that callers see here, and nowhere else."""

from __future__ import annotations

import functools
from typing import Any, cast

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import function_abi_to_4byte_selector

from fedproof.digests import Digest, checksum_address
from fedproof.errors import Reverted
from fedproof.ledger.answers import quote
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.encoding import Argument, make_argument
from fedproof.ledger.events import ROLE_NAMES

_ERROR_STRING = bytes.fromhex("08c379a0")  # Error(string), of a require with a reason
_PANIC = bytes.fromhex("4e487b71")  # Panic(uint256), of overflows and the like


def decode_revert(data: bytes, *, what: str) -> Reverted:
    """Return the error that a revert's bytes stand for.

    Args:
        data: what the contract reverted with; empty where the endpoint does not say.
        what: what was asked of the contract and where, for the message.
    """
    selector, body = data[:4], data[4:]
    try:
        if selector in _errors():
            name, arguments = _errors()[selector]
            values = decode([argument.abi_type for argument in arguments], body)
            named = {
                argument.field: argument.to_python(value)
                for argument, value in zip(arguments, values, strict=True)
            }
            spelled = ", ".join(f"{field}={_spell(field, value)}" for field, value in named.items())
            return Reverted(f"{what}: the contract refused: {name}({spelled})", name=name, arguments=named)
        if selector == _ERROR_STRING:
            (reason,) = decode(["string"], body)
            return Reverted(f"{what}: reverted: {quote(reason)}", name="Revert", arguments={"reason": reason})
        if selector == _PANIC:
            (code,) = decode(["uint256"], body)
            return Reverted(
                f"{what}: panicked with code 0x{code:02x}", name="Panic", arguments={"code": code}
            )
    except (DecodingError, ValueError) as error:
        spelled = quote("0x" + data.hex())
        return _unknown(f"{what}: reverted with {spelled}, which cannot be decoded: {quote(error)}", data)
    return _unknown(f"{what}: reverted with {quote('0x' + data.hex()) if data else 'no reason'}", data)


def _unknown(message: str, data: bytes) -> Reverted:
    return Reverted(message, name="Revert", arguments={"data": data} if data else {})


def _spell(field: str, value: object) -> str:
    if isinstance(value, bytes):
        if field == "needed_role" and value in ROLE_NAMES:
            return ROLE_NAMES[Digest(value)]
        return checksum_address(cast("Any", value)) if len(value) == 20 else "0x" + value.hex()
    return getattr(value, "name", str(value))


@functools.cache
def _errors() -> dict[bytes, tuple[str, tuple[Argument, ...]]]:
    return {
        function_abi_to_4byte_selector(cast("Any", {**entry, "type": "function"})): (
            name,
            tuple(make_argument(item) for item in entry["inputs"]),
        )
        for name, entry in load_artifact().entries("error").items()
    }
