"""`fedproof ledger fail`, `seal` and `finalise`, by somebody who has no part in the federation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import requests
from eth_account.signers.local import LocalAccount

from fedproof.digests import as_address
from fedproof.errors import LedgerError, Reverted
from fedproof.ledger.client import Ledger
from tests.chain import make_account, make_digest
from tests.ledger.test_client import POLICY
from tests.office import Office, chain, office, password, run, run_json

__all__ = ["chain", "office", "password"]  # fixtures

NODES = [make_account(number) for number in (3, 4, 5)]
MODEL = make_digest("model")
# The chain's time runs ahead of ours by a second a block.
OVERDUE_S = 60 + POLICY.rounds.commit_window_s + POLICY.rounds.aggregate_window_s


def ask(office: Office, method: str, *parameters: object) -> None:
    """Make a request of the chain that has no result of interest."""
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    assert "result" in requests.post(office.url, json=request, timeout=10).json()


def wait(office: Office, seconds: int) -> None:
    """Let time pass on the chain."""
    ask(office, "evm_increaseTime", seconds)
    ask(office, "evm_mine")


def connect(office: Office, account: LocalAccount) -> Ledger:
    """Return an account's ledger."""
    contract = as_address(str(run_json("ledger", "show", "--address-book", office.book)["contract"]), "test")
    return Ledger.connect(office.url, contract, account=account)


def open_round(office: Office, *, batching: bool = False) -> Ledger:
    """Deploy a federation of three nodes, open its first round, and return the aggregator's ledger."""
    office.deploy()
    operator = connect(office, office.admin)
    for node in NODES:
        ask(office, "anvil_setBalance", node.address, hex(10**18))
        connect(office, node).register(make_digest("wrapping"), make_digest("certificate"))
        operator.admit(as_address(node.address, "test"))
    operator.adopt_policy(replace(POLICY, rounds=replace(POLICY.rounds, batching=batching)))
    maker = connect(office, NODES[0])
    operator.request_epoch(maker.address)
    membership = operator.state().membership
    maker.publish_epoch(1, make_digest("context"), make_digest("keys"), membership=membership)
    operator.open_round(1)
    return operator


def outsider(office: Office) -> tuple[object, ...]:
    """Return the options of somebody with a wallet, and nothing else."""
    return (
        "--keystore", office.folder / "node.json", "--password-file", office.folder / "password",
        "--address-book", office.book,
    )  # fmt: skip


def test_anybody_fails_an_abandoned_round(office: Office) -> None:
    """Too early, the time is named; afterwards a rehearsal changes nothing, and then it is failed."""
    operator = open_round(office)
    with pytest.raises(LedgerError, match=r"round 1: too early: this may be done after 20\d\d-.* UTC, and"):
        run("ledger", "fail", 1, *outsider(office))
    wait(office, OVERDUE_S)
    assert run_json("ledger", "fail", 1, *outsider(office), "--dry-run")["gas"] > 21_000
    assert operator.round().phase.name == "OPEN"
    run("ledger", "fail", 1, *outsider(office))
    assert operator.round().phase.name == "FAILED"
    with pytest.raises(Reverted, match="WrongRound"):
        run("ledger", "fail", 2, *outsider(office))


def test_anybody_seals_with_all_who_committed(office: Office) -> None:
    """Once the round is overdue, its contributors are those who committed."""
    operator = open_round(office)
    for node in NODES:
        connect(office, node).commit(1, make_digest(node.address), 100)
    with pytest.raises(LedgerError, match="too early"):
        run("ledger", "seal", 1, *outsider(office))
    wait(office, OVERDUE_S)
    assert run_json("ledger", "seal", 1, *outsider(office))["contributors"] == 3
    assert operator.round().phase.name == "SEALED"
    with pytest.raises(LedgerError, match="expected a proposed result, found none: phase sealed"):
        run("ledger", "finalise", 1, *outsider(office))
    with pytest.raises(LedgerError, match="round 2: expected one of the ledger's 1 rounds"):
        run("ledger", "finalise", 2, *outsider(office))


def test_anybody_finalises_what_was_proposed(office: Office) -> None:
    """A proposal that nobody objected to becomes the head without the aggregator."""
    operator = open_round(office, batching=True)
    operator.anchor_commitments(1, make_digest("batch"), 3)
    operator.seal(1, {})
    operator.publish_aggregate(1, make_digest("sum"))
    operator.propose_result(1, MODEL, make_digest("signatures"), 2)
    with pytest.raises(LedgerError, match="too early"):
        run("ledger", "finalise", 1, *outsider(office))
    wait(office, OVERDUE_S)
    assert run_json("ledger", "finalise", 1, *outsider(office))["model"] == "0x" + MODEL.hex()
    assert operator.head_model() == MODEL


def test_only_the_aggregator_seals_a_batch(office: Office) -> None:
    """Nobody else knows whose the leaves are."""
    operator = open_round(office, batching=True)
    operator.anchor_commitments(1, make_digest("batch"), 3)
    wait(office, OVERDUE_S)
    with pytest.raises(Reverted, match="AlreadyAnchored"):
        run("ledger", "seal", 1, *outsider(office))
