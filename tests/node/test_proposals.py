"""Results that the aggregator proposes: examined by every node, and contradicted or disputed where wrong."""

from __future__ import annotations

import grpc
import pytest
from fedproof_node.journal import Stage

from fedproof.errors import NetworkError
from fedproof.ledger.events import FailureReason, Phase, Subject
from fedproof.ledger.rounds import Dispute
from tests.node.batching import (
    STRANGE,
    pass_half_window,
    publish,
    record_of,
    refuse,
    swap_signature,
)
from tests.node.world import World


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
