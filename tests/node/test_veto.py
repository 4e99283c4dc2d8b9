"""Objections: what calls for one, what does not, and by when it is on the ledger."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import grpc
import pytest
from fedproof_node.batches import Batches
from fedproof_node.journal import Stage

from fedproof.errors import LedgerError, NetworkError
from fedproof.ledger.client import Receipt
from fedproof.ledger.events import Phase, Subject
from fedproof.ledger.rounds import Dispute, RoundRecord
from fedproof.ledger.statements import SignedAttestation
from tests.node.batching import (
    WINDOW_S,
    forge_leaf,
    forge_sum,
    look,
    pass_half_window,
    publish,
    record_of,
    refuse,
)
from tests.node.world import Node, World

MakeWorld = Callable[..., World]
LONG_WINDOW_S = 320
DEADLINE_S = 30.0


def play_to_sum(world: World, *, forge: Callable[[list[bytes]], None] | None = None) -> None:
    """Take round 1 to its published sum, without a look of the nodes."""
    world.begin_epoch()
    world.open_round(1)
    world.settle()
    publish(world, forge=forge)


def play_to_proposal(world: World, *, spoil: Callable[[list[SignedAttestation]], None] | None = None) -> None:
    """Take round 1 to a proposal that no watchtower has looked at, nor at the batch."""
    play_to_sum(world)
    for node in world.nodes:
        while node.daemon.turn():
            pass
        node.stop()
    world.propose(1, spoil=spoil)


def forget_leaves(node: Node) -> None:
    """Let a node that was started begin anew, as if no leaves had been seen."""
    node.stop()
    with closing(sqlite3.connect(node.journal.path, isolation_level=None)) as database:
        database.execute("DELETE FROM sound_leaves")


@pytest.fixture
def proposed(make_world: MakeWorld) -> World:
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    play_to_proposal(world)
    return world


# Said until it is heard


class Deceived:
    """An endpoint's receipts of disputes that never reached the chain."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[object, ...]] = []
        self._block = node.ledger.block(1).hash
        monkeypatch.setattr(node.ledger, "dispute", self.dispute)

    def dispute(self, *arguments: object) -> Receipt:
        self.told.append(arguments)
        return Receipt(self._block, 1, 50_000, ())


def test_an_objection_is_repeated_until_the_round_is_over(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that shows a receipt of a dispute which never reached the chain silences nobody."""
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    play_to_proposal(world, spoil=forge_leaf)
    victim = world.nodes[0]
    deceived = Deceived(victim, monkeypatch)
    for _ in range(3):
        victim.daemon.watchtower.attend()
    assert deceived.told == [(1, Subject.ATTESTATION, 0)] * 3
    monkeypatch.undo()
    victim.daemon.watchtower.attend()
    assert record_of(world).dispute == Dispute(victim.address, Subject.ATTESTATION, 0)
    assert not victim.daemon.watchtower.attend(), "it is over"


def test_what_the_daemon_found_is_repeated_too(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk that recomputation found to be wrong is disputed in each look."""
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    play_to_sum(world, forge=forge_sum)
    victim = world.nodes[0]
    deceived = Deceived(victim, monkeypatch)
    while victim.daemon.turn():
        pass
    assert victim.journal.entry(1).stage is Stage.REFUSED
    victim.daemon.watchtower.attend()
    assert deceived.told == [(1, Subject.CHUNK, 0)] * 2
    monkeypatch.undo()
    victim.daemon.watchtower.attend()
    assert record_of(world).dispute == Dispute(victim.address, Subject.CHUNK, 0)


# Faults that pass


PASSING = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


@pytest.mark.parametrize("is_late", [False, True], ids=["early", "late"])
def test_one_bad_answer_is_no_reason_to_object(proposed: World, *, is_late: bool) -> None:
    """What a proxy says, or an aggregator that has just been started, is asked about again; also in the
    second half of the window."""
    node = proposed.nodes[0]
    if is_late:
        pass_half_window(proposed)
    for code in PASSING:
        for method in ("GetBatch", "GetProposal"):
            refuse(proposed, method, code, times=1)
        with pytest.raises(NetworkError, match=code.name):
            node.daemon.watchtower.attend()
        assert node.daemon.watchtower.attend(), "it looks again, and finds both sound"
        assert not node.daemon.watchtower.attend()
        forget_leaves(node)
    assert record_of(proposed).phase is Phase.PROPOSED
    assert node.transactions == 0


def test_a_daemon_asks_again_too(make_world: MakeWorld) -> None:
    """One answer without a batch does not end a node's part in the round."""
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    play_to_sum(world)
    refuse(world, "GetBatch", grpc.StatusCode.NOT_FOUND, times=1)
    with pytest.raises(NetworkError, match="the leaves are not there yet"):
        world.nodes[0].daemon.turn()
    world.settle()
    assert len(world.attestations(1)) == 3


@pytest.mark.parametrize("method", ["GetBatch", "GetProposal"])
def test_one_subject_keeps_nobody_from_the_other(proposed: World, method: str) -> None:
    """While one is withheld, the other is looked at in the same look."""
    node = proposed.nodes[0]
    refuse(proposed, method, grpc.StatusCode.UNAVAILABLE)
    proposed.servicer.requests.clear()
    with pytest.raises(NetworkError, match=method):
        node.daemon.watchtower.attend()
    asked = {type(request).__name__ for request in proposed.servicer.requests}
    assert asked >= {"GetBatchRequest", "GetProposalRequest"}


def test_a_withheld_batch_is_disputed(proposed: World) -> None:
    """Whoever is shown no leaves under the anchored root by half of the window objects."""
    node = proposed.nodes[0]
    proposed.servicer.batches[1].pop()
    with pytest.raises(NetworkError, match="the leaves are not there yet"):
        node.settle()
    pass_half_window(proposed)
    node.settle()
    assert record_of(proposed).dispute == Dispute(node.address, Subject.COMMITMENT, 0)


# What is no reason to object


def pass_deadline(world: World) -> None:
    world.pass_deadline(by_s=5)


def take_aggregator_away(world: World) -> None:
    for method in ("GetBatch", "GetProposal"):
        refuse(world, method, grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize("pass_time_on", [pass_half_window, pass_deadline])
def test_a_restart_takes_nothing_back(proposed: World, pass_time_on: Callable[[World], None]) -> None:
    """What a node has found sound stays so, also when it comes back late and the aggregator is gone."""
    node = proposed.nodes[0]
    node.settle()
    node.stop()
    take_aggregator_away(proposed)
    pass_time_on(proposed)
    for _ in range(3):
        assert not node.daemon.watchtower.attend()
    assert record_of(proposed).phase is Phase.PROPOSED
    assert node.transactions == 0


def test_its_own_end_is_no_reason_to_object(proposed: World) -> None:
    """A daemon that ends waits for no answer, and does not call withheld what it has cut off itself."""
    node, servicer = proposed.nodes[0], proposed.servicer
    refuse(proposed, "GetProposal", grpc.StatusCode.UNAVAILABLE, times=1)
    look(node)
    pass_half_window(proposed)
    servicer.held["GetProposal"] = threading.Event()
    servicer.requests.clear()
    with node.daemon.watchtower.watching():
        deadline = time.monotonic() + DEADLINE_S
        while "GetProposalRequest" not in {type(request).__name__ for request in servicer.requests}:
            assert time.monotonic() < deadline, "the proposal was not asked for"
            time.sleep(0.01)
    assert "watchtower" not in {thread.name for thread in threading.enumerate()}
    servicer.held.pop("GetProposal").set()
    assert record_of(proposed).dispute is None


def test_nothing_is_missed_after_the_window(proposed: World) -> None:
    """A result that stood for its window is not objected to for leaves that are gone by then."""
    node = proposed.nodes[0]
    take_aggregator_away(proposed)
    pass_deadline(proposed)
    for _ in range(3):
        with pytest.raises(NetworkError):
            node.daemon.watchtower.attend()
    assert record_of(proposed).phase is Phase.PROPOSED
    assert node.transactions == 0


def test_what_is_provably_wrong_is_never_too_late(make_world: MakeWorld) -> None:
    """A forged signature is disputed after the window, too, as long as nobody has finalised on it."""
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    play_to_proposal(world, spoil=forge_leaf)
    pass_deadline(world)
    node = world.nodes[0]
    assert node.daemon.watchtower.attend()
    assert record_of(world).dispute == Dispute(node.address, Subject.ATTESTATION, 0)


def test_trouble_with_the_chain_is_no_reason_to_object(
    proposed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While this node's own endpoint fails, it says nothing of the leaves, and tries again."""
    node = proposed.nodes[0]

    def fail(_batches: Batches, _record: RoundRecord) -> None:
        raise LedgerError("429: too many requests")

    monkeypatch.setattr(Batches, "verify_proposal", fail)
    pass_half_window(proposed)
    for _ in range(3):
        with pytest.raises(LedgerError, match="too many requests"):
            node.daemon.watchtower.attend()
    monkeypatch.undo()
    node.daemon.watchtower.attend()
    assert record_of(proposed).phase is Phase.PROPOSED
    assert node.transactions == 0


# What is one all the same


def test_no_contract_speaks_for_a_leaf(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no node's own key signed is disputed, whatever the ledger would say of it."""
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    play_to_proposal(world, spoil=forge_leaf)
    node = world.nodes[0]
    monkeypatch.setattr(node.ledger, "is_signed_by", lambda *_question, **_options: True, raising=False)
    node.daemon.watchtower.attend()
    assert record_of(world).dispute == Dispute(node.address, Subject.ATTESTATION, 0)


def test_a_sound_batch_is_no_proposal(make_world: MakeWorld) -> None:
    """Whoever proposes a result under the root of the batch shows no signatures of it, and is objected to."""
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    play_to_sum(world)
    world.settle()
    batch, node = record_of(world).batch, world.nodes[0]
    model = node.journal.entry(1).model
    assert batch is not None
    assert model is not None
    world.operator.propose_result(1, model, batch.root, batch.count)
    pass_half_window(world)
    for _ in range(2):
        look(node)
    assert record_of(world).dispute == Dispute(node.address, Subject.ATTESTATION, 0)


# By when


@dataclass
class Drag:
    """An aggregator that lets every answer wait for as long as a watchtower does.

    Attributes:
        truths: whether it tells the truth in the end, one after the other; nothing any more after the last.
        told: of which methods it did.
    """

    world: World
    truths: list[bool]
    told: set[str]

    def __call__(self, method: str, context: grpc.ServicerContext) -> None:
        pass_time(self.world, LONG_WINDOW_S // 16)
        if self.truths and self.truths.pop(0):
            self.told.add(method)
            return
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "dragged")


def time_of(world: World) -> int:
    return world.admin.latest_block().timestamp


def pass_time(world: World, seconds: int) -> None:
    world.chain.travel_to(time_of(world) + seconds)
    world.chain.mine()


def drag_out(world: World, truths: list[bool]) -> float | None:
    """Return how much of the window is over when the dispute is mined, where the aggregator answers like
    that from just before half of it; none if it proved batch and proposal sound."""
    node, drag = world.nodes[0], Drag(world, truths, set())
    proposed_at = world.admin.round().deadline - LONG_WINDOW_S
    for method in ("GetBatch", "GetProposal"):
        refuse(world, method, grpc.StatusCode.UNAVAILABLE, times=1)
    look(node)
    for method in ("GetBatch", "GetProposal"):
        world.servicer.before[method] = lambda context, method=method: drag(method, context)  # type: ignore[misc]
    while not (is_over := world.admin.round().phase is Phase.FAILED) and len(drag.told) < 2:
        look(node)
        if world.admin.round().phase is not Phase.FAILED:
            pass_time(world, int(node.daemon.watchtower.pause_s))
    world.servicer.before.clear()
    return (time_of(world) - proposed_at) / LONG_WINDOW_S if is_over else None


def test_the_last_objection_goes_out_in_time(make_world: MakeWorld) -> None:
    """However an aggregator that withholds something mixes delays and truths, the dispute is mined when at
    most 23/32 of the window are over, and not before half of it."""
    world = make_world(batching=True, attest_window_s=LONG_WINDOW_S)
    play_to_proposal(world)
    world.pass_deadline(by_s=-LONG_WINDOW_S // 2)
    node = world.nodes[0]
    shares: dict[tuple[bool, ...], float | None] = {}
    for truths in itertools.product((True, False), repeat=4):
        with world.chain.rolled_back():
            shares[truths] = drag_out(world, list(truths))
        forget_leaves(node)
    spans = [share for share in shares.values() if share is not None]
    assert min(spans) > 1 / 2
    assert max(spans) <= 23 / 32 + 2 / LONG_WINDOW_S, "a second for each block on the way"
    assert {truths for truths, share in shares.items() if share is None}, "both were proved sound"
