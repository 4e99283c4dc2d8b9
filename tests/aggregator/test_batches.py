"""Batched rounds on a real contract: what is anchored and proposed, given out, and goes on after a crash."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from web3 import Web3

from fedproof.digests import Address, Digest, as_digest
from fedproof.errors import BadLeaf, LedgerUnreachable, Reverted
from fedproof.ledger.events import Phase, Subject
from fedproof.ledger.history import RoundRecord
from fedproof.ledger.statements import SignedAttestation, SignedCommitment
from fedproof.manifest import AggregateManifest
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.federation import ATTEST_WINDOW_S, EXAMPLES
from tests.aggregator.world import World, refusal
from tests.chain import make_digest


def record_of(world: World, number: int = 1) -> RoundRecord:
    world.view.refresh()
    record = world.view.find_round(number)
    assert record is not None
    return record


def take(world: World, *events: str) -> None:
    """Take one step for each of these events, in this order."""
    for event in events:
        before = len(world.logs)
        assert world.daemon.step()
        assert event in [line["event"] for line in world.logs[before:]]


def get_batch(world: World, number: int = 1) -> list[SignedCommitment]:
    """Ask for the anchored batch, as a node does."""
    response = world.stub().GetBatch(wire.GetBatchRequest(round=number))
    return [
        SignedCommitment(
            Address(each.node),
            as_digest(each.update_root, "test"),
            each.examples,
            each.nonce,
            each.signature,
        )
        for each in response.commitments
    ]


def get_proposal(world: World, number: int = 1) -> list[SignedAttestation]:
    """Ask for the proposed attestations, as a node does."""
    response = world.stub().GetProposal(wire.GetProposalRequest(round=number))
    return [SignedAttestation(Address(each.node), each.signature) for each in response.attestations]


def count_transactions(world: World) -> int:
    """Return how many transactions the nodes have sent."""
    eth = world.federation.chain.web3.eth
    return sum(eth.get_transaction_count(Web3.to_checksum_address(n.address)) for n in world.federation.nodes)


def pass_margin(world: World) -> None:
    """Go to where the batch waits for nobody, ten seconds before the last moment."""
    world.pass_deadline(by_s=-ATTEST_WINDOW_S - 10)


def contributors(world: World, number: int = 1) -> Sequence[tuple[Address, Digest, int]]:
    """Return whom the published sum's manifest names."""
    root = record_of(world, number).aggregate_root
    assert root is not None
    manifest = AggregateManifest.parse(world.store.get_header(root).manifest)
    return [(each.node, each.update_root, each.examples) for each in manifest.contributors]


def test_a_batched_round_runs_to_its_end(batching: World) -> None:
    """Anchor, seal, aggregate, finalise: five transactions with the opening, and none is a node's."""
    sent = count_transactions(batching)
    updates = batching.deliver_signed(0, 1, 2)
    take(batching, "anchored", "sealed", "aggregated")
    model = batching.attest_signed(0, 1, 2)
    take(batching, "finalised")
    record = record_of(batching)
    assert (record.phase, record.result, record.commitments) == (Phase.FINALISED, model, {})
    assert record.signers == set(record.cohort)
    assert batching.of_kind("anchored")[0]["count"] == 3
    sealed = batching.of_kind("sealed")[0]
    assert (len(sealed["contributors"]), sealed["excluded"]) == (3, {})
    assert contributors(batching) == [
        (batching.node(i).address, update.root, EXAMPLES[i]) for i, update in enumerate(updates)
    ]
    assert count_transactions(batching) == sent


def test_an_anchored_batch_is_given_out(batching: World) -> None:
    """Whoever asks gets the leaves under the anchored root, each with the signature that its node gave."""
    batching.deliver_signed(0, 1, 2)
    take(batching, "anchored")
    record, leaves = record_of(batching), get_batch(batching)
    assert record.batch is not None
    statements = batching.describe()
    statements.verify_batch(leaves, root=record.batch.root, count=record.batch.count, max_examples=1000)
    assert [leaf.node for leaf in leaves] == [batching.node(i).address for i in range(3)]
    batching.restart()
    assert get_batch(batching) == leaves


def test_a_batched_contributor_can_be_downloaded_once_it_is_sealed(batching: World) -> None:
    """As one that committed by a transaction; before the seal, nobody gets a frame of it."""
    update, *_ = batching.deliver_signed(0, 1, 2)
    request = wire.DownloadUpdateRequest(round=1, node=batching.node(0).address)
    take(batching, "anchored")
    assert "it is open" in refusal(lambda: list(batching.stub().DownloadUpdate(request)))[1]
    take(batching, "sealed")
    header, *rest = batching.stub().DownloadUpdate(request)
    assert header.header == update.header
    assert [part.chunk.data for part in rest] == list(update.chunks)


def test_a_node_that_is_not_in_the_batch_cannot_be_downloaded(batching: World) -> None:
    """Its update came too late to count, so a round may still count a copy of it."""
    batching.deliver_signed(0, 1)
    late = batching.signed_update(2)
    pass_margin(batching)
    take(batching, "anchored")
    assert record_of(batching).batch is not None
    request = wire.DownloadUpdateRequest(round=1, node=batching.node(2).address)
    assert "expected a commitment" in refusal(lambda: batching.upload(2, late))[1]
    batching.pass_deadline(by_s=1)
    take(batching, "sealed")
    assert "no contributor" in refusal(lambda: list(batching.stub().DownloadUpdate(request)))[1]


def test_a_node_that_is_left_out_counts_by_its_transaction(batching: World) -> None:
    """Batched and direct commitments make one sum."""
    updates = batching.deliver_signed(0, 1)
    late = batching.signed_update(2)
    pass_margin(batching)
    take(batching, "anchored")
    assert not batching.daemon.step()
    batching.commit(2, late)
    batching.upload(2, late)
    take(batching, "sealed", "aggregated")
    record = record_of(batching)
    assert record.contributors == (batching.node(2).address,)
    assert [root for _, root, _ in contributors(batching)] == [each.root for each in (*updates, late)]


def test_a_node_that_committed_in_both_ways_counts_once(batching: World) -> None:
    """By its transaction; its leaf is named in the seal as one that does not count."""
    updates = batching.deliver_signed(0, 1, 2)
    take(batching, "anchored")
    batching.commit(1, updates[1])
    take(batching, "sealed", "aggregated")
    record = record_of(batching)
    assert record.doubled == {batching.node(1).address}
    assert record.contributors == (batching.node(1).address,)
    assert [root for _, root, _ in contributors(batching)] == [each.root for each in updates]


def test_what_comes_too_late_for_the_batch_waits_for_transactions(batching: World) -> None:
    """After the last moment nothing is anchored; what nodes then commit by transaction counts."""
    updates = batching.deliver_signed(0, 1, 2)
    batching.pass_deadline(by_s=-ATTEST_WINDOW_S + 1)
    assert not batching.daemon.step()
    for index, update in enumerate(updates):
        batching.commit(index, update)
    take(batching, "sealed")
    assert record_of(batching).batch is None


def test_a_batch_is_anchored_in_time_where_blocks_count_later(batching: World) -> None:
    """One that waits for a late update goes by the newest block's time, as the contract does."""
    batching.deliver_signed(0, 1)
    batching.reconfigure(chain=batching.config.chain.model_copy(update={"finality": 2}))
    assert not batching.daemon.step()
    batching.pass_deadline(by_s=-ATTEST_WINDOW_S - 10)
    assert batching.daemon.step()
    assert batching.of_kind("anchored")[0]["count"] == 2


def test_a_batch_that_the_contract_refuses_is_no_end(batching: World) -> None:
    """In the very last second the next block may be too late for it: the round goes on without."""
    updates = batching.deliver_signed(0, 1, 2)
    batching.pass_deadline(by_s=-ATTEST_WINDOW_S)
    with pytest.raises(Reverted, match="DeadlinePassed"):
        batching.daemon.step()
    batching.federation.chain.mine()
    assert not batching.daemon.step()
    batching.commit(0, updates[0])
    assert not batching.daemon.step()


def test_a_crash_before_the_anchoring_changes_nothing(batching: World) -> None:
    """The leaves that were stored and not anchored are made again, and anchored once."""
    batching.deliver_signed(0, 1, 2)
    batching.link.down.add("eth_estimateGas")
    with pytest.raises(LedgerUnreachable):
        batching.daemon.step()
    batching.link.down.clear()
    (stored,) = (batching.store.root / "statements").iterdir()
    assert record_of(batching).batch is None
    batching.restart()
    take(batching, "anchored", "sealed")
    batch = record_of(batching).batch
    assert batch is not None
    assert (batch.root.hex(), len(batching.of_kind("anchored"))) == (stored.name, 1)


def test_a_crash_after_the_anchoring_changes_nothing(batching: World) -> None:
    """An anchoring whose answer never came is found on the ledger, and the round goes on from it."""
    batching.deliver_signed(0, 1, 2)
    batching.link.down.add("eth_getTransactionReceipt")
    with pytest.raises(LedgerUnreachable):
        batching.daemon.step()
    batching.link.down.clear()
    batching.restart()
    take(batching, "sealed", "aggregated")
    assert len(contributors(batching)) == 3


def test_what_no_key_signed_is_never_anchored(batching: World) -> None:
    """Also where an older aggregator has taken it: this round does without a batch."""
    batching.deliver_signed(0, 1)
    update = batching.make_update(2)
    wallets = SignedCommitment(batching.node(2).address, update.root, EXAMPLES[2], 0, b"what a wallet took")
    batching.journal.record_commitment(1, wallets)
    batching.upload(2, update)
    with pytest.raises(BadLeaf, match="expected its signature"):
        batching.daemon.step()
    assert record_of(batching).batch is None


@pytest.mark.parametrize("moment", range(6))
def test_a_restart_at_any_point_changes_nothing(batching: World, moment: int) -> None:
    """Whatever was done before the restart is not done again, and the round ends the same."""
    batching.reconfigure(most_signatures=2)
    for number, event in enumerate(("anchored", "sealed", "aggregated", "proposed", "finalised")):
        if event == "anchored":
            batching.deliver_signed(0, 1, 2)
        if event == "proposed":
            batching.attest_signed(0, 1, 2)
        if event == "finalised":
            batching.pass_deadline()
        if number == moment:
            batching.restart()
        take(batching, event)
    assert record_of(batching).phase is Phase.FINALISED


@pytest.mark.parametrize("damage", ["lost", "altered"])
def test_a_store_that_lost_the_batch_fails_the_round(batching: World, damage: str) -> None:
    """Nobody could check what was anchored, so nothing is made of it; the log says what is missing."""
    batching.deliver_signed(0, 1, 2)
    take(batching, "anchored")
    (path,) = (batching.store.root / "statements").iterdir()
    raw = path.read_bytes()
    path.unlink()
    if damage == "altered":
        path.write_bytes(raw[:-40] + bytes(40))
    batching.restart()
    take(batching, "round_failed")
    (line,) = batching.of_kind("round_failed")
    assert (line["reason"], record_of(batching).phase) == ("NO_AGGREGATE", Phase.FAILED)


# Proposals


def test_many_attestations_are_proposed_and_given_out(batching: World) -> None:
    """The proposal waits for its deadline, and then becomes the result without a signature on the chain."""
    batching.reconfigure(most_signatures=2)
    batching.deliver_signed(0, 1, 2)
    take(batching, "anchored", "sealed", "aggregated")
    model = batching.attest_signed(0, 1, 2)
    take(batching, "proposed")
    record, leaves = record_of(batching), get_proposal(batching)
    assert record.proposal is not None
    assert (record.phase, record.proposal.model_digest, record.proposal.count) == (Phase.PROPOSED, model, 3)
    batching.describe().verify_proposal(leaves, model, root=record.proposal.root, count=3)
    batching.pass_deadline(by_s=0)
    assert not batching.daemon.step()
    batching.pass_deadline()
    take(batching, "finalised")
    record = record_of(batching)
    assert (record.result, record.signers) == (model, frozenset())
    assert batching.of_kind("finalised")[0]["attestations"] == 3


def test_a_differing_signature_costs_no_node_a_transaction(batching: World) -> None:
    """The others' attestations are proposed at once, however few; nobody objects, and they are the result."""
    batching.deliver_signed(0, 1, 2)
    take(batching, "anchored", "sealed", "aggregated")
    sent = count_transactions(batching)
    batching.attest_signed(0, model="another")
    model = batching.attest_signed(1, 2)
    take(batching, "proposed")
    assert [leaf.node for leaf in get_proposal(batching)] == [batching.node(i).address for i in (1, 2)]
    batching.pass_deadline()
    take(batching, "finalised")
    assert record_of(batching).result == model
    assert count_transactions(batching) == sent


def test_a_proposal_that_is_finalised_too_early_is_tried_again(
    batching: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On slow blocks that is the ordinary first answer, and some endpoints give no reason for it."""
    batching.reconfigure(most_signatures=2)
    batching.deliver_signed(0, 1, 2)
    take(batching, "anchored", "sealed", "aggregated")
    model = batching.attest_signed(0, 1, 2)
    take(batching, "proposed")
    deadline = record_of(batching).deadline
    monkeypatch.setattr(batching.daemon._clock, "fetch_time", lambda: deadline + 1.0)
    batching.link.is_terse = True
    for _ in range(4):
        with pytest.raises(Reverted, match="no reason"):
            batching.daemon.step()
    batching.pass_deadline()
    take(batching, "finalised")
    assert record_of(batching).result == model


def test_a_contradicted_proposal_is_reported(batching: World) -> None:
    """A node that attests another model meanwhile fails the round in the contract; the log says why."""
    batching.reconfigure(most_signatures=2)
    batching.deliver_signed(0, 1, 2)
    take(batching, "anchored", "sealed", "aggregated")
    batching.attest_signed(0, 1, 2)
    take(batching, "proposed")
    batching.attest(2, model="another")
    batching.daemon.step()
    (line,) = batching.of_kind("round_failed")
    assert (line["reason"], line["gas"]) == ("DISAGREEMENT", 0)


def test_a_disputed_round_is_reported(batching: World) -> None:
    """A node's objection fails the round; the log says so, and the loop goes on."""
    batching.deliver_signed(0, 1, 2)
    take(batching, "anchored", "sealed", "aggregated")
    batching.node(1).dispute(1, Subject.CHUNK, 0)
    batching.daemon.step()
    (line,) = batching.of_kind("round_failed")
    assert (line["reason"], line["gas"]) == ("DISPUTE", 0)


def test_signatures_of_everybody_let_the_loop_leave(batching: World) -> None:
    """After a proposal too, nobody is waited for who has attested by a signature."""
    batching.reconfigure(most_signatures=2, rounds=1, exit_when_finished=True, finish_grace_s=1000.0)
    batching.deliver_signed(0, 1, 2)
    take(batching, "anchored", "sealed", "aggregated")
    batching.attest_signed(0, 1, 2)
    take(batching, "proposed")
    batching.pass_deadline()
    batching.daemon.run()
    assert batching.of_kind("finished")
    assert record_of(batching).result == make_digest("model")
