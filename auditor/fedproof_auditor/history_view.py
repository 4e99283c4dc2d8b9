"""`fedproof audit history`: the events of a contract, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from fedproof.digests import Address, Digest, checksum_address
from fedproof.errors import ConfigurationError
from fedproof.ledger.events import (
    EVENT_TYPES,
    LEAF_TOO,
    ROLE_NAMES,
    EpochRequested,
    Event,
    ExclusionReason,
    FailureReason,
    OnChainPolicy,
)
from fedproof_auditor.findings import NameBook, spell_node, spell_reason

_PLACE = {field.name for field in fields(Event)}
KINDS = {kind.__name__: kind for kind in EVENT_TYPES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events to show; everything that is not set lets all of them pass."""

    round: int | None = None
    node: Address | None = None
    kinds: tuple[type[Event], ...] = ()

    def accepts(self, event: Event) -> bool:
        """Return whether an event is one of those."""
        return (
            (self.round is None or getattr(event, "round", None) == self.round)
            and (self.node is None or self.node in find_nodes(event))
            and (not self.kinds or isinstance(event, self.kinds))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One event, ready to be shown.

    Attributes:
        gas: what its whole transaction used.
    """

    event: Event
    time: int
    gas: int


def parse_kinds(text: str | None) -> tuple[type[Event], ...]:
    """Return the event types of a comma-separated list of names, any case.

    Raises:
        ConfigurationError: a name is none of them.
    """
    by_name = {name.lower(): kind for name, kind in KINDS.items()}
    found = []
    for name in (text or "").split(","):
        if not name.strip():
            continue
        if name.strip().lower() not in by_name:
            raise ConfigurationError(f"--kind: expected some of {', '.join(KINDS)}, got {name.strip()!r}")
        found.append(by_name[name.strip().lower()])
    return tuple(found)


def find_nodes(event: Event) -> tuple[Address, ...]:
    """Return the nodes that an event is about."""
    if isinstance(event, EpochRequested):
        return (event.key_maker,)
    for name in ("node", "account"):
        if (node := getattr(event, name, None)) is not None:
            return (node,)
    return (*getattr(event, "nodes", ()), *getattr(event, "signers", ()))


def select_lines(
    events: Iterable[Event],
    selection: Filter,
    *,
    time_of: Callable[[int], int],
    gas_of: Callable[[Digest], int],
) -> Iterator[Line]:
    """Yield the events that the filter accepts.

    Args:
        events: in order.
        selection: which to show.
        time_of: returns a block's Unix time.
        gas_of: returns the gas that a transaction used.
    """
    for event in events:
        if selection.accepts(event):
            yield Line(event=event, time=time_of(event.block_number), gas=gas_of(event.transaction_hash))


def as_document(line: Line, names: NameBook) -> dict[str, Any]:
    """Return a line for machines."""
    event = line.event
    facts = {name: _plain(value, names) for name, value in _find_facts(event)}
    node: Address | None = getattr(event, "node", None)
    return {
        "block": event.block_number,
        "time": line.time,
        "kind": type(event).__name__,
        "transaction": "0x" + event.transaction_hash.hex(),
        "log_index": event.log_index,
        "gas": line.gas,
        **facts,
        **({"name": names.get(node)} if node is not None else {}),
    }


def as_row(line: Line, names: NameBook) -> tuple[str, str, str, str, str, str, str]:
    """Return a line for people: block, time, kind, round, node, facts, gas."""
    event = line.event
    when = datetime.fromtimestamp(line.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    node: Address | None = getattr(event, "node", None) or getattr(event, "key_maker", None)
    facts = [
        f"{name}={_show(name, value, names)}"
        for name, value in _find_facts(event)
        if name not in ("round", "node", "key_maker") and value != ()
    ]
    return (
        str(event.block_number),
        when,
        type(event).__name__,
        str(getattr(event, "round", "")),
        "" if node is None else spell_node(node, names),
        " ".join(facts),
        f"{line.gas:,}",
    )


def _find_facts(event: Event) -> Iterator[tuple[str, object]]:
    for field in fields(event):
        if field.name not in _PLACE:
            value = getattr(event, field.name)
            # One code a byte, and no address, however many there are.
            yield field.name, tuple(value) if field.name == "reasons" else value


def _plain(value: object, names: NameBook) -> object:
    match value:
        case bytes() if len(value) == 20:
            return checksum_address(Address(value))
        case bytes():
            return "0x" + value.hex()
        case tuple():
            return [_plain(each, names) for each in value]
        case OnChainPolicy():
            return {field.name: _plain(getattr(value, field.name), names) for field in fields(value)}
        case IntEnum():
            return value.name.lower()
        case _:
            return value


def _show(name: str, value: object, names: NameBook) -> str:
    match name, value:
        # Elsewhere the same bytes mean something else: no metadata has the digest that is the admin's role.
        case "role", bytes() if value in ROLE_NAMES:
            return ROLE_NAMES[Digest(value)]
        case "deadline", int():
            return f"{datetime.fromtimestamp(value, UTC):%H:%M:%S}"
        case "reason", int():
            return spell_reason(value, FailureReason)
        case "reasons", tuple():
            return "[" + ", ".join(map(_spell_code, value)) + "]"
        case _:
            return _short(value, names)


def _spell_code(code: int) -> str:
    """Return a node's code in a seal: why it does not count, and that its leaf in the batch does not."""
    reason, has_leaf = code % LEAF_TOO, code >= LEAF_TOO
    if reason:
        return spell_reason(reason, ExclusionReason) + " (leaf too)" * has_leaf
    return "counts" + " (leaf does not)" * has_leaf


def _short(value: object, names: NameBook) -> str:
    match value:
        case bytes() if len(value) == 20:
            text = spell_node(Address(value), names)
        case bytes():
            text = f"0x{value.hex()[:10]}…"
        case tuple():
            text = "[" + ", ".join(_short(each, names) for each in value) + "]"
        case OnChainPolicy():
            text = _short(value.digest, names)
        case IntEnum():
            text = value.name.lower()
        case _:
            text = str(value)
    return text
