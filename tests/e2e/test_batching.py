"""Federations of real processes whose nodes sign statements and send no transaction in a round."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedproof.digests import as_address
from fedproof.ledger.history import History
from fedproof.local import LocalFederation, LocalPlan

from .conftest import NODES, POLICY, audit, follow, make_plan, of_kind
from .test_resume import kill_at_each

pytestmark = pytest.mark.e2e


def make_batching_plan(*, rounds: int) -> LocalPlan:
    """Return the plan of rounds in which nothing is checked on the chain that a batch can hold."""
    policy = {**POLICY, "batching": True, "commit-window-s": "120", "attest-window-s": "8"}
    return make_plan(rounds=rounds, policy=policy, aggregator={"most_signatures": 0})


def read_history(federation: LocalFederation) -> History:
    history = History()
    federation.admin_ledger().catch_up(history)
    return history


def test_batched_rounds_are_finalised_and_audited(tmp_path: Path) -> None:
    """Every commitment is anchored, every result proposed and finalised, and the audit proves all of it."""
    with LocalFederation(tmp_path / "run", make_batching_plan(rounds=2)) as federation:
        federation.prepare()
        federation.start()
        events = follow(federation)
        history = read_history(federation)
    assert [event["count"] for event in of_kind(events, "anchored")] == [3, 3]
    assert [event["count"] for event in of_kind(events, "proposed")] == [3, 3]
    assert [event["attestations"] for event in of_kind(events, "finalised")] == [3, 3]
    assert {event["gas"] for event in of_kind(events, "committed") + of_kind(events, "attested")} == {0}
    cohort = {as_address(node, "run.json") for node in federation.node_names}
    for number, record in history.rounds.items():
        models = [event for event in of_kind(events, "applied") if event["round"] == number]
        assert {event["process"] for event in models} == set(NODES)
        assert {event["model"] for event in models} == {"0x" + (record.result or b"").hex()}
        assert (record.cohort, record.commitments, record.attestations) == (cohort, {}, {})
    report = audit(federation.folder)
    assert report.returncode == 0, report.stdout + report.stderr


def test_a_killed_aggregator_goes_on_with_its_batches(tmp_path: Path) -> None:
    """Killed with SIGKILL after each step that only batched rounds have, it finishes them all the same."""
    moments = ("anchored", "proposed")
    with LocalFederation(tmp_path / "run", make_batching_plan(rounds=len(moments))) as federation:
        federation.prepare()
        federation.start()
        events = kill_at_each(federation, "aggregator", moments)
        history = read_history(federation)
    assert [record.phase.name for record in history.rounds.values()] == ["FINALISED"] * 2
    assert not of_kind(events, "round_skipped")
    report = audit(federation.folder)
    assert report.returncode == 0, report.stdout + report.stderr
