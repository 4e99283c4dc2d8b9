"""The history's filters and lines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fedproof_auditor.history_view import Filter, Line, as_document, as_row, parse_kinds, select_lines

from fedproof.digests import Digest, checksum_address
from fedproof.errors import ConfigurationError
from fedproof.ledger.events import (
    LEAF_TOO,
    CommitmentsAnchored,
    EpochRequested,
    Event,
    MemberApplied,
    ModelAttested,
    PolicyAdopted,
    ResultProposed,
    RoleGranted,
    RoundFailed,
    RoundFinalised,
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
    assert [type(event).__name__ for event in events] == [
        "RoundOpened",
        "PrivacySpent",
        "UpdateCommitted",
        "RoundFailed",
    ]


def test_a_node_is_selected(world: World) -> None:
    """What a node did passes, and what was decided about it."""
    events = select(world, Filter(node=world.nodes[2], round=3))
    assert [type(event).__name__ for event in events] == ["UpdateCommitted", "RoundSealed", "ModelAttested"]
    assert {type(event) for event in select(world, Filter(node=world.nodes[0]))} >= {EpochRequested}


def test_signers_are_found(world: World) -> None:
    """A finalisation is about the nodes whose signatures came with it."""
    finalised = replace(world.find(RoundFinalised, round=1), signers=world.nodes[:1])
    assert Filter(node=world.nodes[0]).accepts(finalised)
    assert not Filter(node=world.nodes[1]).accepts(finalised)


def test_many_reasons_are_no_address(world: World) -> None:
    """The reasons of twenty nodes, twenty bytes, are shown as codes."""
    sealed = replace(world.find(RoundSealed, round=1), nodes=world.nodes[:1] * 20, reasons=bytes(20))
    assert as_document(Line(event=sealed, time=0, gas=0), {})["reasons"] == [0] * 20


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
    assert sealed["nodes"] == [checksum_address(node) for node in world.nodes]
    assert sealed["reasons"] == [0, 0, 1]
    assert as_document(Line(event=world.find(RoundFailed), time=0, gas=0), {})["phase"] == "open"


def test_batches_and_proposals_are_lines_as_well(batched: World) -> None:
    """Rows of an anchoring, a proposal, and a seal tell roots, counts, and which leaf does not count."""

    def facts(event: Event) -> str:
        return as_row(Line(event=event, time=0, gas=0), batched.names)[5]

    anchored, proposed = batched.find(CommitmentsAnchored, round=1), batched.find(ResultProposed, round=1)
    assert facts(anchored) == f"root=0x{anchored.root.hex()[:10]}… count=3"
    assert f"root=0x{proposed.root.hex()[:10]}… count=3 deadline=" in facts(proposed)
    sealed = facts(batched.find(RoundSealed, round=1))
    assert sealed.startswith("nodes=[hospital-b, hospital-c] reasons=[counts, counts (leaf does not)] ")
    assert as_document(Line(event=anchored, time=0, gas=0), {})["root"] == "0x" + anchored.root.hex()


def test_only_a_role_is_named_as_one(world: World) -> None:
    """A member without metadata has a digest of zeros, as the admin's role: it is shown as a digest."""
    applied = replace(world.find(MemberApplied), metadata_digest=Digest(bytes(32)))
    facts = as_row(Line(event=applied, time=0, gas=0), world.names)[5]
    assert "metadata_digest=0x0000000000…" in facts
    assert "admin" not in facts


def test_a_line_for_people_is_short(world: World) -> None:
    """A row names nodes, roles and reasons, and shortens digests."""
    row = as_row(Line(event=world.find(RoundSealed, round=3), time=0, gas=54_758), world.names)
    assert row[1:4] == ("1970-01-01 00:00:00", "RoundSealed", "3")
    assert "nodes=[hospital-a, hospital-b, hospital-c] reasons=[counts, counts, not_uploaded]" in row[5]
    assert row[6] == "54,758"
    both = replace(world.find(RoundSealed, round=3), reasons=bytes([LEAF_TOO, 0, LEAF_TOO + 3]))
    spelled = "reasons=[counts (leaf does not), counts, over_max_examples (leaf too)]"
    assert spelled in as_row(Line(event=both, time=0, gas=0), world.names)[5]
    granted = as_row(Line(event=world.find(RoleGranted), time=0, gas=0), world.names)
    assert granted[5].startswith("role=admin ")
    committed = as_row(Line(event=world.commitment(1, 0), time=0, gas=0), world.names)
    assert committed[4] == NAMES[0]
    assert f"update_root=0x{world.commitment(1, 0).update_root.hex()[:10]}…" in committed[5]
