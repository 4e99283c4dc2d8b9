"""What a node disputes before it decrypts: leaves of a batch that nobody signed so, and wrong sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from fedproof.codec.workers import CodecWorkers
from fedproof.errors import NetworkError
from fedproof.ledger.events import FailureReason, Phase, Subject
from fedproof.ledger.rounds import Dispute
from fedproof.ledger.statements import SignedCommitment
from tests.node.batching import (
    forge_sum,
    pass_half_window,
    publish,
    record_of,
    refuse,
    swap_signature,
)
from tests.node.world import World


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
    ("spoil", "index"),
    [(swap_signature, 1), (inflate, 2), (repeat, 1)],
    ids=["signature", "examples", "order"],
)
def test_a_bad_leaf_is_disputed(
    uploaded: World, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], None], index: int
) -> None:
    """An anchored statement that nobody signed so ends the round by its index, and nothing is decrypted."""
    uploaded.anchor(1, spoil=spoil)
    uploaded.seal(1)
    uploaded.aggregate(1)
    assert_not_decrypted(uploaded, monkeypatch)
    record, first = record_of(uploaded), uploaded.nodes[0]
    assert record.dispute == Dispute(first.address, Subject.COMMITMENT, index)
    assert (record.phase, record.failure) == (Phase.FAILED, FailureReason.DISPUTE)
    assert [node.transactions for node in uploaded.nodes] == [1, 0, 0], "one objection is enough"
    assert uploaded.play_round(2) == uploaded.history().head_model


def drop_leaf(world: World) -> None:
    world.servicer.batches[1].pop()


def drop_batch(world: World) -> None:
    del world.servicer.batches[1]


def refuse_batch(world: World) -> None:
    refuse(world, "GetBatch", grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize("withhold", [drop_leaf, drop_batch, refuse_batch])
def test_a_batch_that_is_not_there_is_waited_for(
    uploaded: World, monkeypatch: pytest.MonkeyPatch, withhold: Callable[[World], None]
) -> None:
    """While the leaves do not come, nothing is decrypted or said; afterwards the round goes on."""
    publish(uploaded)
    served = list(uploaded.servicer.batches[1])
    withhold(uploaded)
    decrypted: list[object] = []
    monkeypatch.setattr(CodecWorkers, "decode", lambda *arguments, **_: decrypted.append(arguments))
    with pytest.raises(NetworkError, match=r"GetBatch|round 1: the batch: "):
        uploaded.nodes[0].settle()
    pass_half_window(uploaded)
    with pytest.raises(NetworkError, match=r"GetBatch|round 1: the batch: "):
        uploaded.nodes[0].settle()
    assert not decrypted
    assert record_of(uploaded).dispute is None
    monkeypatch.undo()
    uploaded.servicer.batches[1] = served
    uploaded.servicer.failures.clear()
    uploaded.settle()
    assert record_of(uploaded).phase is Phase.FINALISED, "pressed home after half of the window"


def test_a_batch_that_never_came_ends_with_its_round(uploaded: World) -> None:
    """A node that waits for leaves gives them up when the round is over, and takes part in the next one."""
    publish(uploaded)
    drop_batch(uploaded)
    with pytest.raises(NetworkError, match="the leaves are not there yet"):
        uploaded.nodes[0].settle()
    uploaded.fail(1)
    uploaded.settle()
    assert uploaded.play_round(2) == uploaded.history().head_model


def test_a_late_node_disputes_too(batched: World) -> None:
    """One that had nothing to upload looks at the batch once it is sealed, before there is a sum."""
    *others, late = batched.nodes
    batched.open_round(1)
    for node in others:
        node.settle()
    batched.anchor(1, spoil=swap_signature)
    batched.seal(1, after_deadline=True)
    late.settle()
    assert record_of(batched).dispute == Dispute(late.address, Subject.COMMITMENT, 1)


def test_a_wrong_chunk_is_disputed_by_its_index(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever recomputes a chunk that is not the sum names it on the ledger, and attests nothing."""
    world = make_world(nodes=2, length=2 * 131_072 + 1000)
    world.nodes[0].settings = {"verify": {"chunks": "all"}}
    world.begin_epoch()
    world.open_round(1)
    world.settle()
    world.seal(1)

    def forge(sums: list[bytes]) -> None:
        sums[2] = sums[2][:100] + bytes([sums[2][100] ^ 1]) + sums[2][101:]

    world.aggregate(1, forge=forge)
    assert_not_decrypted(world, monkeypatch)
    assert record_of(world).dispute == Dispute(world.nodes[0].address, Subject.CHUNK, 2)


def test_an_outsider_cannot_dispute_and_does_not_try(batched: World) -> None:
    """A node that was admitted after the opening follows the round, and keeps its objection to itself."""
    batched.open_round(1)
    batched.settle()
    (late,) = batched.admit(1)
    publish(batched, forge=forge_sum)
    late.settle()
    assert record_of(batched).dispute is None
