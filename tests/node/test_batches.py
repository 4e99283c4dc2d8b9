"""Signed statements: handed over, pressed home by transactions where they are not used, and examined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
from fedproof_node.journal import Stage

from fedproof.codec.workers import CodecWorkers
from fedproof.digests import Digest
from fedproof.errors import NetworkError
from fedproof.ledger.events import FailureReason, Phase, Subject
from fedproof.ledger.rounds import Dispute, RoundRecord
from fedproof.ledger.statements import SignedAttestation, SignedCommitment
from tests.node.world import Node, World

MakeWorld = Callable[..., World]
WINDOW_S = 200
STRANGE = Digest(b"\x66" * 32)


@pytest.fixture
def batched(make_world: MakeWorld) -> World:
    """Three nodes with their key, in a policy with batching."""
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    world.begin_epoch()
    return world


@pytest.fixture
def uploaded(batched: World) -> World:
    """Round 1 with everybody's signed commitment and whole update, and nothing anchored."""
    batched.open_round(1)
    batched.settle()
    return batched


def record_of(world: World, number: int = 1) -> RoundRecord:
    return world.history().rounds[number]


def pass_half_window(world: World) -> None:
    """Go to where half of the time is over that nodes have to answer."""
    world.chain_federation.pass_deadline(by_s=1 - WINDOW_S // 2)
    world.chain.tester.mine_block()


def pass_anchoring(world: World) -> None:
    """Go to where nothing can be anchored any more."""
    world.chain_federation.pass_deadline(by_s=1 - WINDOW_S)
    world.chain.tester.mine_block()


def refuse(world: World, method: str, code: grpc.StatusCode, *, times: int = 1000) -> None:
    world.servicer.failures[method] = [code] * times


def leave_out(node: Node) -> Callable[[list[SignedCommitment]], None]:
    def spoil(leaves: list[SignedCommitment]) -> None:
        leaves[:] = [leaf for leaf in leaves if leaf.node != node.address]

    return spoil


# Handing over


def test_batched_rounds_need_no_transaction_of_a_node(batched: World) -> None:
    """Commitments and attestations are signed and handed over; the next round starts from the result."""
    for number in (1, 2):
        model = batched.play_round(number)
        record = record_of(batched, number)
        assert record.commitments == {}
        assert record.signers == record.cohort
        assert record.result == model
    for node in batched.nodes:
        assert node.transactions == 0
        assert [entry["gas"] for entry in node.log.of("committed") + node.log.of("attested")] == [0] * 4
        assert node.journal.entry(2).stage is Stage.FINISHED
        assert not node.log.of("error")


def test_without_batching_only_attestations_are_signed(make_world: MakeWorld) -> None:
    """Commitments are transactions, attestations come with the finalisation."""
    world = make_world(nodes=2)
    world.begin_epoch()
    world.play_round(1)
    record = record_of(world)
    assert set(record.commitments) == record.cohort == record.signers
    assert [node.transactions for node in world.nodes] == [1, 1]


def test_a_refused_commitment_becomes_a_transaction(batched: World) -> None:
    """An aggregator that does not take a signature cannot keep the node out."""
    refuse(batched, "PutCommitment", grpc.StatusCode.INVALID_ARGUMENT, times=1)
    batched.open_round(1)
    batched.settle()
    first = batched.nodes[0].address
    assert set(record_of(batched).commitments) == {first}
    assert len(batched.servicer.commitments) == 2
    batched.anchor(1)
    batched.seal(1)
    batched.aggregate(1)
    batched.settle()
    assert len(batched.attestations(1)) == 3


def test_an_unreachable_aggregator_gets_a_transaction_in_time(batched: World) -> None:
    """While a batch may still come the node asks again; after that it commits by itself."""
    node = batched.nodes[0]
    refuse(batched, "PutCommitment", grpc.StatusCode.UNAVAILABLE)
    batched.open_round(1)
    with pytest.raises(NetworkError, match="PutCommitment"):
        node.settle()
    assert node.transactions == 0
    pass_anchoring(batched)
    node.settle()
    assert node.address in record_of(batched).commitments
    assert node.journal.entry(1).stage is Stage.UPLOADED


def test_a_refused_attestation_becomes_a_transaction(uploaded: World) -> None:
    """An aggregator that does not take a signature cannot keep the node's word from the ledger."""
    publish(uploaded)
    refuse(uploaded, "PutAttestation", grpc.StatusCode.INVALID_ARGUMENT, times=1)
    uploaded.settle()
    assert set(record_of(uploaded).attestations) == {uploaded.nodes[0].address}
    assert len(set(uploaded.attestations(1).values())) == 1
    assert len(uploaded.attestations(1)) == 3


def test_an_aggregator_that_is_gone_gets_attestations_by_transaction(uploaded: World) -> None:
    """Until half of the window is over the node asks again; after that the quorum needs no aggregator."""
    publish(uploaded)
    refuse(uploaded, "PutAttestation", grpc.StatusCode.UNAVAILABLE)
    for node in uploaded.nodes:
        with pytest.raises(NetworkError, match="PutAttestation"):
            node.settle()
        assert node.transactions == 0
    pass_half_window(uploaded)
    uploaded.settle()
    assert record_of(uploaded).phase is Phase.FINALISED
    assert [node.journal.entry(1).stage for node in uploaded.nodes] == [Stage.FINISHED] * 3


def publish(world: World, *, forge: Callable[[list[bytes]], None] | None = None) -> None:
    """Take round 1 from the uploads to its published sum, without a look of the nodes."""
    world.anchor(1)
    world.seal(1)
    world.aggregate(1, forge=forge)


# Left out


def test_a_node_that_is_left_out_commits_itself(uploaded: World) -> None:
    """The batch without it makes the node send the transaction, once, and it contributes."""
    *_, victim = uploaded.nodes
    uploaded.anchor(1, spoil=leave_out(victim))
    uploaded.settle()
    assert set(record_of(uploaded).commitments) == {victim.address}
    assert [node.transactions for node in uploaded.nodes] == [0, 0, 1]
    assert len(victim.log.of("left_out")) == 1
    uploaded.seal(1)
    uploaded.aggregate(1)
    uploaded.settle()
    model = uploaded.finalise(1)
    uploaded.settle()
    assert [node.log.of("applied")[0]["model"] for node in uploaded.nodes] == [model] * 3


def test_a_node_that_was_too_slow_for_the_batch_commits_before_it_uploads(batched: World) -> None:
    """Its signature came in time and its chunks did not: without the transaction nobody would take them."""
    *others, slow = batched.nodes
    slow.log.crash_at = lambda entry: entry.get("phase") == "uploading"
    batched.open_round(1)
    for node in others:
        node.settle()
    while not slow.log.of("committed"):
        slow.turn()
    slow.stop()
    slow.log.crash_at = lambda _entry: False
    batched.anchor(1)
    assert len(batched.leaves[1]) == 2
    slow.settle()
    assert set(record_of(batched).commitments) == {slow.address}
    assert slow.journal.entry(1).stage is Stage.UPLOADED
    assert len(slow.log.of("encrypted")) == 1
    batched.seal(1)
    batched.aggregate(1)
    batched.settle()
    assert len(batched.attestations(1)) == 3


def test_when_nothing_is_anchored_everybody_commits(uploaded: World) -> None:
    """After the last moment for a batch, each node sends its own transaction."""
    assert not record_of(uploaded).commitments
    pass_anchoring(uploaded)
    uploaded.settle()
    assert set(record_of(uploaded).commitments) == record_of(uploaded).cohort
    assert len(uploaded.seal(1)) == 3


@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "unreachable"])
def test_a_withheld_batch_counts_nobody(uploaded: World, *, is_refused: bool) -> None:
    """A node that is not shown the batch commits by itself: at once, or when half of its time is over."""
    node = uploaded.nodes[0]
    uploaded.anchor(1)
    if is_refused:
        refuse(uploaded, "GetBatch", grpc.StatusCode.NOT_FOUND)
    else:
        refuse(uploaded, "GetBatch", grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(NetworkError, match="GetBatch"):
            node.settle()
        pass_half_window(uploaded)
    node.settle()
    assert set(record_of(uploaded).commitments) == {node.address}
    uploaded.servicer.failures.clear()
    uploaded.seal(1)
    assert record_of(uploaded).doubled == {node.address}
    uploaded.aggregate(1)
    uploaded.settle()
    assert len(uploaded.attestations(1)) == 3


# Disputes


def swap_signature(leaves: list[Any]) -> None:
    leaves[1] = replace(leaves[1], signature=leaves[0].signature)


def inflate(leaves: list[SignedCommitment]) -> None:
    leaves[2] = replace(leaves[2], examples=100)


def repeat(leaves: list[SignedCommitment]) -> None:
    leaves[1] = leaves[0]


def assert_not_decrypted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the nodes go on, and check that no key touched the sum."""
    decrypted: list[object] = []
    monkeypatch.setattr(CodecWorkers, "decode", lambda *arguments, **_: decrypted.append(arguments))
    world.settle()
    monkeypatch.undo()
    assert not decrypted
    assert not world.attestations(1)


@pytest.mark.parametrize(
    ("spoil", "index"), [(swap_signature, 1), (inflate, 2), (repeat, 1)], ids=["signature", "examples", "order"]
)
def test_a_bad_leaf_is_disputed(
    uploaded: World, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], None], index: int
) -> None:
    """An anchored statement that nobody signed so ends the round by its index, and nothing is decrypted."""
    uploaded.anchor(1, spoil=spoil)
    uploaded.operator.seal  # noqa: B018
