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
from fedproof.ledger.statements import SignedCommitment
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
    world.chain.mine()


def pass_anchoring(world: World) -> None:
    """Go to where nothing can be anchored any more."""
    world.chain_federation.pass_deadline(by_s=1 - WINDOW_S)
    world.chain.mine()


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
    uploaded.settle()
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
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
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
    publish(batched, forge=lambda sums: sums.__setitem__(0, sums[0][:-1] + bytes([sums[0][-1] ^ 1])))
    late.settle()
    assert record_of(batched).dispute is None


# Proposals


@pytest.fixture
def attested(uploaded: World) -> World:
    """Everybody's signed attestation of round 1 is with the aggregator."""
    publish(uploaded)
    uploaded.settle()
    assert len(uploaded.attestations(1)) == 3
    return uploaded


def finish_proposal(world: World) -> None:
    world.chain_federation.pass_deadline()
    proposal = record_of(world).proposal
    assert proposal is not None
    world.operator.finalise(1, proposal.model_digest)
    world.settle()


def test_a_sound_proposal_stands(attested: World) -> None:
    """Every node looks at its signatures once, says nothing, and goes on from the result."""
    attested.propose(1)
    attested.settle()
    attested.settle()
    assert (
        len([each for each in attested.servicer.requests if type(each).__name__ == "GetProposalRequest"]) == 3
    )
    finish_proposal(attested)
    assert record_of(attested).phase is Phase.FINALISED
    assert [node.transactions for node in attested.nodes] == [0, 0, 0]
    assert [node.journal.entry(1).stage for node in attested.nodes] == [Stage.FINISHED] * 3


def test_a_forged_signature_in_a_proposal_is_disputed(attested: World) -> None:
    """The leaf is named by its index, and the round fails."""
    attested.propose(1, spoil=swap_signature)
    attested.settle()
    assert record_of(attested).dispute == Dispute(attested.nodes[0].address, Subject.ATTESTATION, 1)
    assert [node.transactions for node in attested.nodes] == [1, 0, 0]


def test_a_proposal_of_another_model_is_contradicted(attested: World) -> None:
    """A node that derived another model says so by a transaction, which fails the round."""
    attested.propose(1, model=STRANGE)
    attested.settle()
    record = record_of(attested)
    assert (record.phase, record.failure) == (Phase.FAILED, FailureReason.DISAGREEMENT)
    assert set(record.attestations) == {attested.nodes[0].address}


@pytest.mark.parametrize("is_other", [False, True], ids=["refused", "other leaves"])
def test_withheld_signatures_are_disputed(attested: World, *, is_other: bool) -> None:
    """A proposal whose leaves are not shown by half of the window rests on nothing."""
    attested.propose(1)
    if is_other:
        attested.servicer.proposals[1].pop()
    else:
        del attested.servicer.proposals[1]
    node = attested.nodes[0]
    with pytest.raises(NetworkError, match="the leaves are not there yet"):
        node.settle()
    assert record_of(attested).dispute is None
    pass_half_window(attested)
    node.settle()
    assert record_of(attested).dispute == Dispute(node.address, Subject.ATTESTATION, 0)
    assert "the leaves are withheld" in node.log.of("error")[0]["message"]


def test_signatures_that_cannot_be_fetched_are_disputed_in_time(attested: World) -> None:
    """An aggregator that does not answer is asked again, until half of the window is over."""
    attested.propose(1)
    refuse(attested, "GetProposal", grpc.StatusCode.UNAVAILABLE)
    node = attested.nodes[0]
    with pytest.raises(NetworkError, match="GetProposal"):
        node.settle()
    assert record_of(attested).dispute is None
    pass_half_window(attested)
    node.settle()
    assert record_of(attested).dispute == Dispute(node.address, Subject.ATTESTATION, 0)


def test_a_node_without_a_model_examines_the_signatures_and_then_the_model(uploaded: World) -> None:
    """One that was away while the others attested looks at the proposal, and contradicts it if it has to."""
    *others, away = uploaded.nodes
    publish(uploaded)
    for node in others:
        node.settle()
    away.stop()
    uploaded.propose(1)
    away.settle()
    assert away.log.of("applied")
    assert record_of(uploaded).phase is Phase.PROPOSED
    assert away.transactions == 0
    finish_proposal(uploaded)
    assert record_of(uploaded).result == away.log.of("applied")[0]["model"]


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


def mine(world: World, blocks: int) -> None:
    world.chain.mine(blocks)


def test_what_is_mined_and_not_final_is_sent_once(batched: World) -> None:
    """A node that trusts blocks of a certain depth only does not repeat itself until they are as deep."""
    depth = 4
    node, *_ = batched.nodes
    node.finality = depth
    node.stop()
    batched.open_round(1)
    mine(batched, depth)
    batched.settle()
    batched.anchor(1, spoil=leave_out(node))
    mine(batched, depth)
    node.settle()
    node.settle()
    assert node.transactions == 1, "the claim"
    assert len(node.log.of("left_out")) == 1
    mine(batched, depth)
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
    publish(world, forge=lambda sums: sums.__setitem__(0, sums[0][:-1] + bytes([sums[0][-1] ^ 1])))
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
