"""What JSON-RPC parameters may be, parsed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eth_typing import Address

from fedproof.devchain.backend import Block, DevChain
from fedproof.devchain.calls import CallRequest
from fedproof.devchain.refusal import InvalidParameters, Refusal

TAGS_OF_HEAD = ("latest", "safe", "finalized", "pending")
"""There is no mempool and no consensus, so all of them name the last block's state."""

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_UINT256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which logs are asked for.

    Attributes:
        addresses: lower-case; any, when empty.
        topics: for each position the topics that match, lower-case; any, when empty.
    """

    blocks: Sequence[Block]
    addresses: frozenset[str]
    topics: tuple[frozenset[str], ...]

    def is_match(self, log: Mapping[str, object]) -> bool:
        """Return whether a log is one of those asked for."""
        topics = log["topics"]
        if not isinstance(topics, list) or len(topics) < len(self.topics):
            return False
        if self.addresses and log["address"] not in self.addresses:
            return False
        return all(not wanted or topic in wanted for wanted, topic in zip(self.topics, topics, strict=False))


def parse_quantity(raw: object, what: str) -> int:
    """Return an unsigned integer of up to 256 bits, from 0x and hexadecimal digits or from a JSON number."""
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 1 << 256:
        return raw
    if isinstance(raw, str) and raw.startswith("0x"):
        digits = raw[2:]
        if 0 < len(digits) <= _UINT256_DIGITS and set(digits) <= _HEX_DIGITS:
            return int(digits, 16)
    raise InvalidParameters(f"{what}: expected a quantity such as 0x1f, got {_show(raw)}")


def parse_data(raw: object, what: str, *, length: int | None = None) -> bytes:
    """Return bytes, from 0x and two hexadecimal digits each."""
    if isinstance(raw, str) and raw.startswith("0x"):
        digits = raw[2:]
        if len(digits) % 2 == 0 and set(digits) <= _HEX_DIGITS and length in (None, len(digits) // 2):
            return bytes.fromhex(digits)
    size = "bytes" if length is None else f"{length} bytes"
    raise InvalidParameters(f"{what}: expected {size} as 0x and two hex digits each, got {_show(raw)}")


def parse_address(raw: object, what: str) -> Address:
    """Return an account's 20 bytes."""
    return Address(parse_data(raw, what, length=20))


def find_block(chain: DevChain, raw: object) -> Block | None:
    """Return the block that a number, a tag or an object (EIP-1898) names, if it was mined."""
    match raw:
        case {"blockHash": block_hash}:
            return chain.find_block(parse_data(block_hash, "blockHash", length=32))
        case {"blockNumber": number}:
            return find_block(chain, number)
        case "earliest":
            return chain.blocks[0]
        case str() if raw in TAGS_OF_HEAD:
            return chain.head
    number = parse_quantity(raw, "block")
    return chain.blocks[number] if number < len(chain.blocks) else None


def require_block(chain: DevChain, raw: object) -> Block:
    """Return the block that is named, of which the state is asked for."""
    block = find_block(chain, raw)
    if block is None:
        raise Refusal(f"header not found: block {_show(raw)}, the head is block {chain.head.number}")
    return block


def parse_call(raw: object) -> CallRequest:
    """Return a call from a transaction object, whose fees and nonce do not matter to a call."""
    if not isinstance(raw, dict):
        raise InvalidParameters(f"transaction: expected an object, got {_show(raw)}")
    given = {key: value for key, value in raw.items() if value is not None}
    payload = given.get("input", given.get("data", "0x"))
    if given.get("data", payload) != payload:
        raise InvalidParameters("transaction: expected the same in data and in input, got two values")
    return CallRequest(
        sender=parse_address(given.get("from", "0x" + "00" * 20), "from"),
        to=parse_address(given["to"], "to") if given.get("to", "0x") != "0x" else Address(b""),
        gas=parse_quantity(given.get("gas", "0x0"), "gas"),
        value=parse_quantity(given.get("value", "0x0"), "value"),
        data=parse_data(payload, "data"),
    )


def parse_log_filter(chain: DevChain, raw: object) -> LogFilter:
    """Return a filter, and the blocks to which it applies."""
    if not isinstance(raw, dict):
        raise InvalidParameters(f"filter: expected an object, got {_show(raw)}")
    given = {key: value for key, value in raw.items() if value is not None}
    addresses = given.get("address", [])
    topics = given.get("topics", [])
    if not isinstance(topics, list):
        raise InvalidParameters(f"topics: expected a list, got {_show(topics)}")
    return LogFilter(
        blocks=_find_blocks_with_logs(chain, given),
        addresses=frozenset(
            "0x" + parse_address(address, "address").hex()
            for address in (addresses if isinstance(addresses, list) else [addresses])
        ),
        topics=tuple(_parse_topics(position) for position in topics),
    )


def _find_blocks_with_logs(chain: DevChain, given: Mapping[str, object]) -> Sequence[Block]:
    if "blockHash" in given:
        if "fromBlock" in given or "toBlock" in given:
            raise InvalidParameters("filter: expected either blockHash or fromBlock and toBlock, got both")
        block = chain.find_block(parse_data(given["blockHash"], "blockHash", length=32))
        if block is None:
            raise Refusal(f"unknown block {_show(given['blockHash'])}")
        return [block]
    bounds = given.get("fromBlock", "latest"), given.get("toBlock", "latest")
    first, last = (_parse_bound(chain, bound) for bound in bounds)
    # Whoever polls from the block after the head to "latest" asks for nothing yet, which is no mistake.
    if first > last and not any(bound in TAGS_OF_HEAD for bound in bounds):
        raise InvalidParameters(f"filter: expected fromBlock up to toBlock, got {first} and {last}")
    return chain.blocks_with_logs(first, last)


def _parse_bound(chain: DevChain, raw: object) -> int:
    if isinstance(raw, str) and raw in TAGS_OF_HEAD:
        return chain.head.number
    return 0 if raw == "earliest" else parse_quantity(raw, "block")


def _parse_topics(position: object) -> frozenset[str]:
    choices = position if isinstance(position, list) else [position]
    if None in choices:
        return frozenset()
    return frozenset("0x" + parse_data(choice, "topic", length=32).hex() for choice in choices)


def _show(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= 80 else text[:77] + "..."
