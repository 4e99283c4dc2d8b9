"""Federations of real processes whose nodes sign statements and send no transaction in a round."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedproof.digests import as_address
from fedproof.ledger.history import History
from fedproof.ledger.receipts import load_receipt
from fedproof.local import LocalFederation

from .conftest import NODES, POLICY, audit, make_plan, of_kind
from .test_resume import kill_at_each

pytestmark = pytest.mark.e2e

# An aggregator that is killed has to be back within half of the attestation window.
POLICY_OF_BATCHES = {**POLICY, "batching": True, "commit-window-s": "120", "attest-window-s": "12"}


def test_batched_rounds_are_finalised_and_audited(tmp_path: Path) -> None:
    """Every commitment is anchored, every result proposed and finalised, and the audit proves all of it.

    All the same if the aggregator is killed with SIGKILL after each step that only batched rounds have.
    """
    # With no signature checked on the chain that a batch can hold.
    plan = make_plan(rounds=2, policy=POLICY_OF_BATCHES, aggregator={"most_signatures": 0})
    with LocalFederation(tmp_path / "run", plan) as federation:
        federation.prepare()
        federation.start()
        events = kill_at_each(federation, "aggregator", [(1, "anchored"), (2, "proposed")])
        ledger = federation.admin_ledger()
        history = History()
        ledger.catch_up(history)
        receipts = [load_receipt(path) for path in federation.folder.glob("nodes/*/state/receipts/*.json")]
        for receipt in receipts:
            receipt.verify(history.rounds[receipt.round], ledger=ledger)
    assert [event["count"] for event in of_kind(events, "anchored")] == [3, 3]
    assert [event["count"] for event in of_kind(events, "proposed")] == [3, 3]
    assert [event["attestations"] for event in of_kind(events, "finalised")] == [3, 3]
    assert {event["gas"] for event in of_kind(events, "committed") + of_kind(events, "attested")} == {0}
    assert not of_kind(events, "round_skipped")
    assert len({(receipt.round, receipt.index) for receipt in receipts}) == 6, "one for each node and round"
    cohort = {as_address(node, "run.json") for node in federation.node_names}
    for number, record in history.rounds.items():
        models = [event for event in of_kind(events, "applied") if event["round"] == number]
        assert {event["process"] for event in models} == set(NODES)
        assert {event["model"] for event in models} == {"0x" + (record.result or b"").hex()}
        assert (record.cohort, record.commitments, record.attestations) == (cohort, {}, {})
    report = audit(federation.folder)
    assert report.returncode == 0, report.stdout + report.stderr
