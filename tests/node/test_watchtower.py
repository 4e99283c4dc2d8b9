"""What cannot wait is done while the daemon is kept waiting by the aggregator."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from fedproof_node.journal import Stage
from fedproof_node.relay import Relay
from fedproof_node.watchtower import make_patience

from fedproof.errors import LedgerUnreachable, NetworkError
from fedproof.ledger.events import FailureReason, Phase, Subject
from fedproof.ledger.rounds import Dispute
from fedproof.wire import aggregation_pb2 as wire
from tests.node.aggregator import RunningAggregator, make_tls
from tests.node.batching import (
    STRANGE,
    forge_leaf,
    leave_out,
    look,
    pass_anchoring,
    pass_half_window,
    record_of,
    refuse,
)
from tests.node.world import Node, World

DEADLINE_S = 30.0


@pytest.fixture
def opened(batched: World) -> World:
    """Round 1 is open, with batching."""
    batched.open_round(1)
    return batched


@contextmanager
def dragging(node: Node, method: str) -> Iterator[None]:
    """Let the daemon's turn wait for an answer that does not come before the block ends."""
    servicer = node.world.servicer
    asked_before = len(servicer.requests)
    servicer.held[method] = threading.Event()
    turn = threading.Thread(target=take_turns, args=(node,))
    turn.start()
    deadline = time.monotonic() + DEADLINE_S
    while len(servicer.requests) == asked_before:
        assert time.monotonic() < deadline, f"{method} was not asked for"
        time.sleep(0.01)
    try:
        yield
        assert turn.is_alive(), "the daemon was to wait all the while"
    finally:
        servicer.held.pop(method).set()
        turn.join(DEADLINE_S)


def take_turns(node: Node) -> None:
    while node.daemon.turn():
        pass


def test_a_dragged_download_keeps_nobody_from_objecting(opened: World) -> None:
    """While the sum does not come, the forged signatures of the proposal are disputed."""
    *others, victim = opened.nodes
    opened.settle()
    opened.anchor(1)
    opened.seal(1)
    opened.aggregate(1)
    for node in others:
        node.settle()
    opened.servicer.requests.clear()
    with dragging(victim, "DownloadAggregate"):
        opened.propose(1, spoil=forge_leaf)
        assert victim.daemon.watchtower.attend()
        assert record_of(opened).dispute == Dispute(victim.address, Subject.ATTESTATION, 0)


def test_a_dragged_handover_keeps_nobody_from_committing(opened: World) -> None:
    """A node whose signature the aggregator neither takes nor refuses commits in time, once."""
    *others, victim = opened.nodes
    for node in others:
        node.settle()
    while victim.journal.entry(1).stage is not Stage.ENCRYPTED:
        victim.daemon.turn()
    with dragging(victim, "PutCommitment"):
        opened.anchor(1)
        assert not victim.daemon.watchtower.attend(), "there is time"
        pass_half_window(opened)
        assert victim.daemon.watchtower.attend()
        assert set(record_of(opened).commitments) == {victim.address}
        assert not victim.daemon.watchtower.attend()
    victim.settle()
    assert victim.transactions == 1
    assert victim.journal.entry(1).stage is Stage.UPLOADED


def test_a_dragged_upload_keeps_nobody_from_claiming(opened: World) -> None:
    """A node that the batch leaves out, its chunks not taken, shows on the ledger that it committed."""
    victim = opened.nodes[-1]
    for node in opened.nodes[:-1]:
        node.settle()
    while victim.journal.entry(1).stage is not Stage.COMMITTED:
        victim.daemon.turn()
    opened.servicer.requests.clear()
    with dragging(victim, "Upload"):
        opened.anchor(1, spoil=leave_out(victim))
        assert victim.daemon.watchtower.attend()
        assert set(record_of(opened).commitments) == {victim.address}


def test_a_dragged_attestation_is_pressed(opened: World) -> None:
    """A model that was applied, its attestation not taken, is attested by a transaction in time."""
    victim = opened.nodes[0]
    opened.settle()
    opened.anchor(1)
    opened.seal(1)
    opened.aggregate(1)
    while victim.journal.entry(1).stage is not Stage.APPLIED:
        victim.daemon.turn()
    with dragging(victim, "PutAttestation"):
        pass_half_window(opened)
        assert victim.daemon.watchtower.attend()
        assert set(record_of(opened).attestations) == {victim.address}


def test_a_claim_that_comes_too_late_is_made_once(opened: World) -> None:
    """After the deadline the ledger takes no commitment; the node says so, and does not repeat itself."""
    victim = opened.nodes[0]
    opened.settle()
    pass_anchoring(opened)
    opened.pass_deadline()
    for _ in range(3):
        victim.daemon.watchtower.attend()
    assert len([entry for entry in victim.log.of("error") if "not claimed" in entry["message"]]) == 1
    assert victim.transactions == 0


def test_the_thread_looks_by_itself_and_ends_with_the_daemon(opened: World) -> None:
    """Nobody calls it: it claims, and is gone after the block."""
    victim = opened.nodes[0]
    opened.settle()
    opened.anchor(1, spoil=leave_out(victim))
    with victim.daemon.watchtower.watching():
        deadline = time.monotonic() + DEADLINE_S
        while len(victim.log.of("committed")) != 2:
            victim.daemon.watchtower.check()
            assert time.monotonic() < deadline, victim.log.events[-3:]
            time.sleep(0.01)
    assert "watchtower" not in {thread.name for thread in threading.enumerate()}
    assert record_of(opened).phase is Phase.OPEN
    assert set(record_of(opened).commitments) == {victim.address}


def test_a_defect_of_the_thread_is_raised_in_the_daemon(opened: World) -> None:
    """A watchtower that has ended is not missed silently."""
    victim = opened.nodes[0]
    victim.daemon.watchtower.check()
    victim.journal.close()
    with victim.daemon.watchtower.watching():
        deadline = time.monotonic() + DEADLINE_S
        while "watchtower" in {thread.name for thread in threading.enumerate()}:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        victim.daemon.watchtower.check()


def test_its_patience_leaves_time_to_object() -> None:
    """One answer takes no more than a sixteenth of the window, and is asked for once."""
    patience = make_patience(16)
    assert (patience.attempts, patience.call_s) == (1, 1.0)


def test_an_aggregator_that_is_back_is_not_taken_for_absent(
    aggregator: RunningAggregator, tmp_path: Path
) -> None:
    """Once it listens again, the next question is answered."""
    tls = make_tls(tmp_path, "node", authority=tmp_path / "authority")
    aggregator.servicer.federation = wire.GetFederationResponse(chain_id=5)
    aggregator.stop()
    with Relay(aggregator.target, tls, patience=make_patience(16)) as relay:
        with pytest.raises(NetworkError):
            relay.fetch_federation()
        aggregator.start()
        assert relay.fetch_federation().chain_id == 5


# Rounds that nobody ends


def pass_overdue(world: World, *, turns: int) -> None:
    """Go to where as many nodes as that may have ended the round, one after the other."""
    rounds = world.policy.rounds
    waited_s = rounds.aggregate_window_s + turns * (rounds.attest_window_s / 32)
    world.pass_deadline(by_s=int(waited_s) + 1)


def seal(world: World) -> None:
    world.settle()
    world.anchor(1)
    world.seal(1)


def aggregate(world: World) -> None:
    seal(world)
    world.aggregate(1)


@pytest.mark.parametrize(
    ("play", "reason"),
    [
        (World.settle, FailureReason.ABANDONED),
        (seal, FailureReason.NO_AGGREGATE),
        (aggregate, FailureReason.NO_QUORUM),
    ],
)
def test_a_round_that_nobody_ends_is_ended(
    opened: World, play: Callable[[World], None], reason: FailureReason
) -> None:
    """Without an aggregator, one node after the other is to fail the round, and the first one does."""
    first, second, _ = sorted(opened.nodes, key=lambda node: node.address)
    play(opened)
    pass_overdue(opened, turns=0)
    first.daemon.watchtower.attend()
    pass_overdue(opened, turns=1)
    second.daemon.watchtower.attend()
    assert not record_of(opened).phase.is_over, "it is the aggregator's turn, then the first node's"
    first.daemon.watchtower.attend()
    assert (record_of(opened).phase, record_of(opened).failure) == (Phase.FAILED, reason)
    assert not second.daemon.watchtower.attend()
    assert (len(first.log.of("ended")), len(second.log.of("overdue"))) == (1, 0)
    opened.settle()
    assert opened.play_round(2) == opened.history().head_model


def test_an_unopposed_proposal_is_finalised_by_a_node(opened: World) -> None:
    """What stood for its window is no failure because the aggregator is gone."""
    aggregate(opened)
    opened.settle()
    opened.propose(1)
    opened.settle()
    pass_overdue(opened, turns=1)
    opened.settle()
    record = record_of(opened)
    assert record.proposal is not None
    assert (record.phase, record.result) == (Phase.FINALISED, record.proposal.model_digest)


def test_who_has_another_model_finalises_nothing(opened: World) -> None:
    """A node that could not contradict in time fails the round that nobody ended."""
    aggregate(opened)
    opened.settle()
    opened.propose(1, model=STRANGE)
    pass_overdue(opened, turns=1)
    min(opened.nodes, key=lambda node: node.address).daemon.watchtower.attend()
    assert (record_of(opened).phase, record_of(opened).failure) == (Phase.FAILED, FailureReason.ABANDONED)


def propose_without(world: World, *absent: Node) -> None:
    """Propose what the others derived; the signatures can be fetched of nobody."""
    aggregate(world)
    for node in world.nodes:
        if node not in absent:
            node.settle()
    world.propose(1)
    for node in world.nodes:
        node.stop()
    for method in ("GetBatch", "GetProposal"):
        refuse(world, method, grpc.StatusCode.UNAVAILABLE)


def test_who_derived_the_same_finalises_without_the_leaves(opened: World) -> None:
    """A node that comes back late, its aggregator gone, ends the round with the result that is its own."""
    propose_without(opened)
    pass_overdue(opened, turns=1)
    look(min(opened.nodes, key=lambda node: node.address))
    record = record_of(opened)
    assert record.proposal is not None
    assert (record.phase, record.result) == (Phase.FINALISED, record.proposal.model_digest)


def test_who_can_say_nothing_leaves_it_to_the_others(opened: World) -> None:
    """A node without the model and the leaves lets every other one end the round before it fails it."""
    first, second, third = sorted(opened.nodes, key=lambda node: node.address)
    propose_without(opened, first)
    pass_overdue(opened, turns=3)
    look(first)
    assert record_of(opened).phase is Phase.PROPOSED
    with opened.chain.rolled_back():
        look(second)
        assert opened.admin.round().phase is Phase.FINALISED
    pass_overdue(opened, turns=4)
    look(first)
    assert (record_of(opened).phase, record_of(opened).failure) == (Phase.FAILED, FailureReason.ABANDONED)
    assert third.transactions == 0


def test_who_saw_a_bad_leaf_finalises_nothing(opened: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dispute that did not arrive, and leaves that are gone since, make no result right."""
    first = min(opened.nodes, key=lambda node: node.address)
    aggregate(opened)
    opened.settle()
    opened.propose(1, spoil=forge_leaf)
    monkeypatch.setattr(first.ledger, "dispute", refuse_to_send)
    look(first)
    monkeypatch.undo()
    refuse(opened, "GetProposal", grpc.StatusCode.UNAVAILABLE)
    pass_overdue(opened, turns=1)
    look(first)
    assert (record_of(opened).phase, record_of(opened).failure) == (Phase.FAILED, FailureReason.ABANDONED)


def refuse_to_send(*_arguments: object) -> None:
    raise LedgerUnreachable("no endpoint answers")


def test_whoever_comes_second_says_so_and_goes_on(opened: World) -> None:
    """A round that was ended in a block that does not count yet is refused by the ledger, and no defect."""
    node = opened.nodes[0]
    node.finality = 2
    node.stop()
    opened.chain.mine(2)
    pass_overdue(opened, turns=3)
    opened.chain.mine(3)
    opened.fail(1)
    assert node.daemon.watchtower.attend()
    assert "not ended" in node.log.of("error")[-1]["message"]
