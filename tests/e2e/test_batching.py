"""A federation of real processes on a chain that is not ours, whose nodes send no transaction in a round."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedproof.digests import as_address
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.history import History
from fedproof.ledger.receipts import load_receipt
from fedproof.local import LocalFederation
from tests.foundry import run_anvil

from .conftest import NODES, POLICY, audit, follow, kill_at_each, make_plan, of_kind, pass_time

pytestmark = pytest.mark.e2e

# An aggregator that is killed has to be back within half of the attestation window.
POLICY_OF_BATCHES = {**POLICY, "batching": True, "commit-window-s": "240", "attest-window-s": "120"}


def test_a_batched_round_on_anvil_is_finalised_and_audited(tmp_path: Path) -> None:
    """All commitments are anchored, the result proposed and finalised, and the audit proves all of it.

    And that although blocks count only once two others follow, and the aggregator is killed with SIGKILL
    after each step that only batched rounds have.
    """
    # Blocks come by themselves, as on a real chain: nodes draw chunks from the block after the sum's.
    with run_anvil(tmp_path, "--block-time", "1") as url:
        Endpoint.connect(url, attempts=8)
        # With no signature checked on the chain that a batch can hold.
        settings = {"aggregator": {"most_signatures": 0}, "chain": {"finality": 2}}
        plan = make_plan(rounds=1, rpc_url=url, policy=POLICY_OF_BATCHES, **settings)
        with LocalFederation(tmp_path / "run", plan) as federation:
            federation.prepare()
            federation.start()
            events = kill_at_each(federation, "aggregator", [(1, "anchored"), (1, "proposed")])
            events += follow(federation, lambda event: event["event"] == "serving")
            # What is left of the window is time enough for each node to look, and to object.
            ledger, history = federation.admin_ledger(), History()
            left_s = ledger.round().deadline - ledger.latest_block().timestamp
            pass_time(federation, left_s - 15)
            events += follow(federation)
            ledger.catch_up(history)
            record = history.rounds[1]
            receipts = [
                load_receipt(path) for path in federation.folder.glob("nodes/*/state/receipts/1.json")
            ]
            for receipt in receipts:
                receipt.verify(record, ledger=ledger)
            report = audit(federation.folder)
    assert [event["count"] for event in of_kind(events, "anchored")] == [3]
    assert [event["count"] for event in of_kind(events, "proposed")] == [3]
    assert [event["attestations"] for event in of_kind(events, "finalised")] == [3]
    assert {event["gas"] for event in of_kind(events, "committed") + of_kind(events, "attested")} == {0}
    assert not of_kind(events, "round_skipped")
    assert {receipt.index for receipt in receipts} == {0, 1, 2}
    models = of_kind(events, "applied")
    assert {event["process"] for event in models} == set(NODES)
    assert {event["model"] for event in models} == {"0x" + (record.result or b"").hex()}
    cohort = {as_address(node, "run.json") for node in federation.node_names}
    assert (record.cohort, record.commitments, record.attestations) == (cohort, {}, {})
    assert report.returncode == 0, report.stdout + report.stderr
