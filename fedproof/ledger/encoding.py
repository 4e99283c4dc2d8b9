"""The contract's events and values as bytes: decoded from logs, and encoded as the running hash takes them.

Python names are the Solidity ones in snake case; the ABI of the artifact gives types and order.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import event_abi_to_log_topic
from eth_utils.crypto import keccak

from fedproof.digests import ZERO_DIGEST, Address, Digest, as_address
from fedproof.errors import LedgerError
from fedproof.ledger.answers import quote
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.events import (
    EVENT_TYPES,
    Event,
    MemberStatus,
    OnChainPolicy,
    Phase,
    RoundOpened,
    RoundSealed,
    Subject,
    UpdateCommitted,
)

_ENUMS: dict[str, Callable[[Any], object]] = {
    "enum IFederation.MemberStatus": MemberStatus,
    "enum IFederation.Phase": Phase,
    "enum IFederation.Subject": Subject,
}
_NO_COMMITMENT = bytes(24)


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of an event or error: its Python name, its type, and the ways between the two."""

    field: str
    abi_type: str
    indexed: bool
    to_python: Callable[[Any], object]
    to_abi: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class _Form:
    event_type: type[Event]
    topic: bytes
    arguments: tuple[Argument, ...]


def decode_event(
    *, topics: Sequence[bytes], data: bytes, block_number: int, transaction_hash: bytes, log_index: int
) -> Event:
    """Return a log of the contract as the event that it records.

    Raises:
        LedgerError: the log is none of this contract's events, or is not encoded as its ABI says.
    """
    where = f"block {block_number}, log {log_index}"
    form = _forms_by_topic().get(bytes(topics[0]) if topics else b"")
    if form is None:
        raise LedgerError(f"{where}: expected an event of the Federation contract, got {quote(topics)}")
    indexed = [argument for argument in form.arguments if argument.indexed]
    plain = [argument for argument in form.arguments if not argument.indexed]
    if len(topics) != 1 + len(indexed):
        raise LedgerError(
            f"{where}: expected {1 + len(indexed)} topics of {form.event_type.__name__}, got {len(topics)}"
        )
    try:
        values = decode([argument.abi_type for argument in plain], data)
        keys = [
            decode([argument.abi_type], topic)[0] for argument, topic in zip(indexed, topics[1:], strict=True)
        ]
        parsed = {
            argument.field: argument.to_python(value)
            for argument, value in [*zip(plain, values, strict=True), *zip(indexed, keys, strict=True)]
        }
    except (DecodingError, ValueError) as error:
        raise LedgerError(
            f"{where}: expected {form.event_type.__name__} as its ABI says, got: {quote(error)}"
        ) from error
    return form.event_type(
        block_number=block_number,
        transaction_hash=Digest(bytes(transaction_hash)),
        log_index=log_index,
        **cast("Any", parsed),
    )


@dataclass(slots=True)
class RunningHash:
    """The contract's running hash over its events, computed from them.

    Each event adds ``keccak256(abi.encode(topic, arguments...))``, the arguments in the event's order with
    the indexed ones among them. Commitments alone enter later: the seal of their round adds, after its
    arguments, the hash over the commitments that the contract holds of the nodes that it names.

    Attributes:
        value: the hash after the events that were added; zero before the first.
    """

    value: Digest = ZERO_DIGEST
    _commitments: dict[Address, bytes] = field(default_factory=dict)

    def copy(self) -> RunningHash:
        """Return the hash over the same events, which goes on by itself."""
        return RunningHash(self.value, dict(self._commitments))

    def add(self, event: Event) -> None:
        """Go on by one event."""
        if isinstance(event, UpdateCommitted):
            self._commitments[event.node] = compute_commitment(event)
            return
        form = _forms()[type(event)]
        types = ["bytes32", *(argument.abi_type for argument in form.arguments)]
        values = [
            form.topic,
            *(argument.to_abi(getattr(event, argument.field)) for argument in form.arguments),
        ]
        match event:
            case RoundOpened():
                self._commitments.clear()
            case RoundSealed():
                held = [self._commitments.get(node, _NO_COMMITMENT) for node in event.nodes]
                types.append("bytes32")
                values.append(keccak(encode(["bytes24[]"], [held])))
        self.value = Digest(keccak(self.value + keccak(encode(types, values))))


def compute_commitment(event: UpdateCommitted) -> bytes:
    """Return what the contract keeps of a commitment: 24 bytes of the hash over it."""
    form = _forms()[UpdateCommitted]
    values = [argument.to_abi(getattr(event, argument.field)) for argument in form.arguments]
    return keccak(encode([argument.abi_type for argument in form.arguments], values))[:24]


@functools.cache
def _forms() -> dict[type[Event], _Form]:
    entries = load_artifact().entries("event")
    return {event_type: _make_form(event_type, entries[event_type.__name__]) for event_type in EVENT_TYPES}


@functools.cache
def _forms_by_topic() -> dict[bytes, _Form]:
    return {form.topic: form for form in _forms().values()}


def _make_form(event_type: type[Event], entry: dict[str, Any]) -> _Form:
    return _Form(
        event_type=event_type,
        topic=event_abi_to_log_topic(cast("Any", entry)),
        arguments=tuple(make_argument(item) for item in entry["inputs"]),
    )


def make_argument(item: dict[str, Any]) -> Argument:
    """Return an argument as an ABI entry's input describes it."""
    abi_type = item["type"]
    to_python: Callable[[Any], object] = _identity
    to_abi: Callable[[Any], object] = _identity
    if abi_type == "tuple":
        abi_type = "({})".format(",".join(component["type"] for component in item["components"]))
        to_python, to_abi = _to_policy, _from_policy
    elif item["internalType"] in _ENUMS:
        to_python = _ENUMS[item["internalType"]]
    elif abi_type == "address":
        to_python = _to_address
    elif abi_type == "address[]":
        to_python = _to_addresses
    elif abi_type == "bytes32":
        to_python = Digest
    return Argument(snake_case(item["name"]), abi_type, item.get("indexed", False), to_python, to_abi)


def snake_case(name: str) -> str:
    """Return a Solidity name as Python spells it: ``wrappedKeysRoot`` as ``wrapped_keys_root``."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def _identity(value: Any) -> object:
    return value


@functools.lru_cache(maxsize=4096)  # the same few, again and again
def _to_address(value: str) -> Address:
    return as_address(value, "event")


def _to_addresses(values: Sequence[str]) -> tuple[Address, ...]:
    return tuple(_to_address(value) for value in values)


def _to_policy(value: Sequence[Any]) -> OnChainPolicy:
    names = [each.name for each in fields(OnChainPolicy)]
    return OnChainPolicy(**dict(zip(names, value, strict=True)))


def _from_policy(policy: OnChainPolicy) -> tuple[object, ...]:
    return tuple(getattr(policy, each.name) for each in fields(OnChainPolicy))
