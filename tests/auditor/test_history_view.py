"""The history's filters and lines."""

from __future__ import annotations

import pytest
from fedproof_auditor.history_view import Filter, Line, as_document, as_row, parse_kinds, select_lines

from fedproof.digests import checksum_address
from fedproof.errors import ConfigurationError
from fedproof.ledger.events import (
    EpochRequested,
    Event,
    ModelAttested,
    PolicyAdopted,
    RoleGranted,
    RoundFailed,
    RoundSealed,
    UpdateCommitted,
)
from tests.auditor.world import NAMES, World


def select(world: World, selection: Filter) -> list[Event]:
    """Return the events that a filter lets pass."""
    lines = select_lines(world.evidence.events, selection, time_of=lambda _: 0, gas_of=lambda _: 0)
    return [line.event for line in lines]


def test_without_a_filter_everything_is_shown(world: World) -> None:
    """Every event passes an empty filter, in order."""
    assert select(world, Filter()) == list(world.evidence.events)


def test_a_round_is_selected(world: World) -> None:
    """A round's events pass, and nothing that belongs to none."""
    events = select(world, Filter(round=4))
    assert [type(event).__name__ for event in events] == ["RoundOpened", "UpdateCommitted", "RoundFailed"]


def test_a_node_is_selected(world: World) -> None:
    """What a node did passes, and what was decided about it."""
    events = select(world, Filter(node=world.nodes[2], round=3))
    assert [type(event).__name__ for event in events] == ["UpdateCommitted", "RoundSealed", "ModelAttested"]
    assert {type(event) for event in select(world, Filter(node=world.nodes[0]))} >= {EpochRequested}


def test_kinds_are_selected(world: World) -> None:
    """Only events of the named kinds pass, whatever the case of their names."""
    events = select(world, Filter(kinds=parse_kinds("updatecommitted, ModelAttested")))
    assert {type(event) for event in events} == {UpdateCommitted, ModelAttested}


def test_an_unknown_kind_is_refused() -> None:
    """A misspelt kind is refused with those that there are."""
    with pytest.raises(ConfigurationError, match=r"RoundOpened.*got 'RoundOpend'"):
        parse_kinds("RoundOpend")


def test_a_line_for_machines_has_every_fact(world: World) -> None:
    """A JSON line carries place, time, gas, the event's own fields in full, and the node's name."""
    event = world.commitment(2, 1)
    document = as_document(Line(event=event, time=7, gas=37_633), world.names)
    assert document == {
        "block": event.block_number,
        "time": 7,
        "kind": "UpdateCommitted",
        "transaction": "0x" + event.transaction_hash.hex(),
        "log_index": event.log_index,
        "gas": 37_633,
        "round": 2,
        "node": checksum_address(world.nodes[1]),
        "update_root": "0x" + event.update_root.hex(),
        "examples": 110,
        "name": NAMES[1],
    }


def test_a_line_for_machines_spells_nested_facts(world: World) -> None:
    """Policies, lists and phases are spelled out."""
    policy = as_document(Line(event=world.find(PolicyAdopted), time=0, gas=0), {})["policy"]
    assert policy["digest"] == "0x" + world.policy.digest.hex()
    assert policy["commit_window"] == 600
    sealed = as_document(Line(event=world.find(RoundSealed, round=3), time=0, gas=0), {})
    assert sealed["contributors"] == [checksum_address(node) for node in world.nodes[:2]]
    assert as_document(Line(event=world.find(RoundFailed), time=0, gas=0), {})["phase"] == "open"


def test_a_line_for_people_is_short(world: World) -> None:
    """A row names nodes, roles and reasons, and shortens digests."""
    row = as_row(Line(event=world.find(RoundSealed, round=3), time=0, gas=54_758), world.names)
    assert row[1:4] == ("1970-01-01 00:00:00", "RoundSealed", "3")
    assert "contributors=[hospital-a, hospital-b] excluded=[hospital-c] reasons=[not_uploaded]" in row[5]
    assert row[6] == "54,758"
    granted = as_row(Line(event=world.find(RoleGranted), time=0, gas=0), world.names)
    assert granted[5].startswith("role=admin ")
    committed = as_row(Line(event=world.commitment(1, 0), time=0, gas=0), world.names)
    assert committed[4] == NAMES[0]
    assert f"update_root=0x{world.commitment(1, 0).update_root.hex()[:10]}…" in committed[5]
