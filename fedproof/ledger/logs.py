"""A chain's logs as events: what JSON-RPC answers, and what web3 makes of it in a receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedproof.ledger.answers import as_hash, as_int64
from fedproof.ledger.encoding import decode_event
from fedproof.ledger.events import Event


def decode_logs(logs: Sequence[Mapping[str, Any]]) -> list[Event]:
    """Return logs of the contract as its events, in the chain's order.

    Raises:
        LedgerError: one is none of its events.
        KeyError, TypeError, ValueError: one is no log, or they are no list of them.
    """
    if not isinstance(logs, list | tuple):  # what is empty in another way would be no events
        raise TypeError(f"expected a list of logs, got {type(logs).__name__}")
    places = [(_read_number(log["blockNumber"]), _read_number(log["logIndex"]), log) for log in logs]
    return [
        decode_event(
            topics=[_read_bytes(topic) for topic in log["topics"]],
            data=_read_bytes(log["data"]),
            block_number=block_number,
            transaction_hash=as_hash(_read_bytes(log["transactionHash"]), "log"),
            log_index=log_index,
        )
        for block_number, log_index, log in sorted(places, key=lambda place: place[:2])
    ]


def _read_number(value: int | str) -> int:
    return as_int64(int(value, 16) if isinstance(value, str) else value, "log")


def _read_bytes(value: bytes | str) -> bytes:
    if isinstance(value, bytes):
        return bytes(value)
    if not value.startswith("0x"):
        raise ValueError(f"expected 0x and hex digits, got {value[:40]!r}")
    return bytes.fromhex(value[2:])
