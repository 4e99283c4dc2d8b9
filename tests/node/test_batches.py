"""Signed statements: handed over, and pressed home by transactions where they are not used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from fedproof_node.journal import Stage

from fedproof.errors import NetworkError
from fedproof.ledger.events import Phase
from tests.node.batching import (
    STRANGE,
    forge_sum,
    leave_out,
    pass_anchoring,
    pass_half_window,
    publish,
    record_of,
    refuse,
)
from tests.node.world import World

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


def test_without_batching_only_attestations_are_signed(make_world: Callable[..., World]) -> None:
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
    uploaded.settle()
    assert [node.journal.entry(1).stage for node in uploaded.nodes] == [Stage.FINISHED] * 3


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


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE])
def test_a_withheld_batch_counts_nobody(uploaded: World, code: grpc.StatusCode) -> None:
    """A node that is not shown the batch commits by itself when half of its time is over."""
    node = uploaded.nodes[0]
    uploaded.anchor(1)
    refuse(uploaded, "GetBatch", code)
    with pytest.raises(NetworkError, match="GetBatch"):
        node.settle()
    assert node.transactions == 0
    pass_half_window(uploaded)
    node.settle()
    assert set(record_of(uploaded).commitments) == {node.address}
    uploaded.servicer.failures.clear()
    uploaded.seal(1)
    assert record_of(uploaded).doubled == {node.address}
    uploaded.aggregate(1)
    uploaded.settle()
    assert len(uploaded.attestations(1)) == 3


# Pressing


def test_attestations_that_are_not_used_are_pressed(attested: World) -> None:
    """When half of the window is over, transactions of the quorum finalise without the aggregator."""
    attested.settle()
    assert [node.transactions for node in attested.nodes] == [0, 0, 0]
    pass_half_window(attested)
    attested.settle()
    record = record_of(attested)
    assert (record.phase, record.signers) == (Phase.FINALISED, frozenset())
    assert [node.transactions for node in attested.nodes] == [1, 1, 0], "the quorum is two"


def test_what_is_mined_and_not_final_is_sent_once(batched: World) -> None:
    """A node that trusts blocks of a certain depth only does not repeat itself until they are as deep."""
    depth = 4
    node, *_ = batched.nodes
    node.finality = depth
    node.stop()
    batched.open_round(1)
    batched.chain.mine(depth)
    batched.settle()
    batched.anchor(1, spoil=leave_out(node))
    batched.chain.mine(depth)
    node.settle()
    node.settle()
    assert node.transactions == 1, "the claim"
    assert len(node.log.of("left_out")) == 1
    batched.chain.mine(depth)
    batched.seal(1)
    batched.aggregate(1, blocks_after=depth + 1)
    batched.settle()
    assert len(batched.attestations(1)) == 3
    pass_half_window(batched)
    node.settle()
    node.settle()
    assert node.transactions == 2, "the claim and the attestation"


# Crashes


def play_a_refused_handover(world: World) -> None:
    refuse(world, "PutCommitment", grpc.StatusCode.INVALID_ARGUMENT, times=2)
    world.open_round(1)
    world.settle()


def play_a_claim(world: World) -> None:
    world.open_round(1)
    world.settle()
    world.anchor(1, spoil=leave_out(world.nodes[0]))
    world.settle()


def play_a_dispute(world: World) -> None:
    world.open_round(1)
    world.settle()
    publish(world, forge=forge_sum)
    world.settle()


def play_a_press(world: World) -> None:
    world.open_round(1)
    world.settle()
    publish(world)
    world.settle()
    pass_half_window(world)
    world.settle()


def play_a_contradiction(world: World) -> None:
    world.open_round(1)
    world.settle()
    publish(world)
    world.nodes[0].turn()
    for liar in world.nodes[1:]:
        liar.stop()
        liar.ledger.attest(1, STRANGE)
    world.nodes[0].settle()


@pytest.mark.parametrize(
    ("play", "event"),
    [
        (play_a_refused_handover, "committed"),
        (play_a_claim, "left_out"),
        (play_a_claim, "committed"),
        (play_a_dispute, "error"),
        (play_a_dispute, "disputed"),
        (play_a_press, "attested"),
        (play_a_contradiction, "attested"),
    ],
)
def test_a_crash_repeats_no_transaction(batched: World, play: Callable[[World], None], event: str) -> None:
    """A node that dies at each event of a kind, once, goes on from the ledger and says nothing twice."""
    node = batched.nodes[0]
    seen: list[dict[str, Any]] = []

    def crash_at_each(entry: dict[str, Any]) -> bool:
        is_new = entry["event"] == event and entry not in seen
        seen.append(entry)
        return is_new

    node.log.crash_at = crash_at_each
    play(batched)
    assert any(entry["event"] == event for entry in seen)
    assert node.transactions == 1
    node.log.crash_at = lambda _entry: False
    node.settle()
    assert node.transactions == 1
