"""Sealing the contributors, and publishing the encrypted sum."""

from __future__ import annotations

import pytest

from fedproof.digests import ZERO_DIGEST
from fedproof.ledger.events import AggregatePublished, ExclusionReason, Phase, RoundSealed
from tests.chain import AGGREGATE_WINDOW_S, ATTEST_WINDOW_S, Federation, make_digest
from tests.contracts.refusals import refuses, refuses_all_but_aggregator

ROOT = make_digest("sum")


def test_seal_names_contributors_and_excluded(opened: Federation) -> None:
    """The sealed set and the reasons are on the ledger, ascending whatever order they were given in."""
    nodes = opened.commit(2, 0, 1)
    opened.pass_deadline()
    receipt = opened.aggregator.seal(1, [nodes[2], nodes[1]], [(nodes[0], ExclusionReason.MALFORMED)])
    (event,) = receipt.events
    assert isinstance(event, RoundSealed)
    assert list(event.contributors) == opened.addresses(0, 1)
    assert list(zip(event.excluded, event.reasons, strict=True)) == [(nodes[0], ExclusionReason.MALFORMED)]
    now = opened.admin.block(receipt.block_number).timestamp
    assert event.deadline == opened.admin.round(1).deadline == now + AGGREGATE_WINDOW_S


def test_seal_early_needs_the_whole_cohort(opened: Federation) -> None:
    """Up to the deadline all have to contribute; after it the quorum does."""
    deadline = opened.admin.round(1).deadline
    nodes = opened.commit(0, 1)
    opened.pass_deadline(by_s=0)
    with refuses("DeadlineNotReached", round=1, deadline=deadline, time=deadline):
        opened.aggregator.seal(1, nodes)
    opened.pass_deadline(by_s=1)
    opened.aggregator.seal(1, nodes)


def test_seal_early_does_not_count_who_is_excluded(opened: Federation) -> None:
    """A node that is excluded before the deadline has not contributed."""
    nodes = opened.commit(0, 1, 2)
    deadline = opened.admin.round(1).deadline
    opened.pass_deadline(by_s=0)
    with refuses("DeadlineNotReached", round=1, deadline=deadline, time=deadline):
        opened.aggregator.seal(1, nodes[:2], [(nodes[2], ExclusionReason.NOT_UPLOADED)])


def test_seal_early_is_not_helped_by_a_suspension(opened: Federation) -> None:
    """Suspending a node that committed does not shut out one that has not yet."""
    nodes = opened.commit(0, 1)
    opened.admin.suspend(nodes[0])
    opened.chain.travel_to(opened.admin.round(1).deadline)
    deadline = opened.admin.round(1).deadline
    with refuses("DeadlineNotReached", round=1, deadline=deadline, time=deadline):
        opened.aggregator.seal(1, nodes)


def test_seal_at_the_quorum(opened: Federation) -> None:
    """As many as the policy asks for suffice; one fewer do not."""
    nodes = opened.commit(0, 1)
    opened.pass_deadline()
    with refuses("QuorumNotReached", round=1, actual=1, required=2):
        opened.aggregator.seal(1, nodes[:1])
    opened.aggregator.seal(1, nodes)


def test_seal_counts_commitments_of_the_suspended(opened: Federation) -> None:
    """What a node committed to before its suspension stands."""
    nodes = opened.commit(0, 1, 2)
    opened.admin.suspend(nodes[0])
    opened.aggregator.seal(1, nodes)


def test_seal_refuses_who_has_not_committed(opened: Federation) -> None:
    """Neither list may name a node without a commitment in this round."""
    opened.commit(0, 1)
    absent = opened.nodes[2].address
    opened.pass_deadline()
    with refuses("NotCommitted", round=1, node=absent):
        opened.aggregator.seal(1, opened.addresses(0, 1, 2))
    with refuses("NotCommitted", round=1, node=absent):
        opened.aggregator.seal(1, opened.addresses(0, 1), [(absent, ExclusionReason.NOT_UPLOADED)])


def test_seal_refuses_a_commitment_of_the_round_before(ready: Federation) -> None:
    """A commitment counts in its own round only."""
    ready.run_round(1)
    ready.aggregator.open_round(2)
    ready.commit(0, 1, number=2)
    with refuses("NotCommitted", round=2, node=ready.nodes[2].address):
        ready.aggregator.seal(2, ready.addresses(0, 1, 2))


@pytest.mark.parametrize("order", [(1, 0), (0, 0)])
def test_seal_refuses_lists_out_of_order(opened: Federation, order: tuple[int, int]) -> None:
    """Both lists ascend strictly, so nobody is named twice."""
    opened.commit(0, 1, 2)
    opened.pass_deadline()
    previous, following = opened.addresses(*order)
    named = [previous, following]
    with refuses("NotAscending", previous=previous, next=following):
        opened.transact(opened.aggregator, "seal", 1, named, [], [])
    others = opened.addresses(0, 1)
    with refuses("NotAscending", previous=previous, next=following):
        opened.transact(opened.aggregator, "seal", 1, others, named, [1, 1])


@pytest.mark.parametrize("both", [0, 1, 2])
def test_seal_refuses_a_node_in_both_lists(opened: Federation, both: int) -> None:
    """Nobody both counts and does not, wherever in the lists they stand."""
    nodes = opened.commit(0, 1, 2)
    with refuses("ContributorExcluded", round=1, node=nodes[both]):
        opened.aggregator.seal(1, nodes, [(nodes[both], ExclusionReason.MALFORMED)])


@pytest.mark.parametrize(
    ("contributors", "excluded", "both"),
    [((1, 2), (0, 1), 1), ((1, 2), (0, 2), 2), ((0, 1), (1, 2), 1), ((0, 2), (1, 2), 2)],
)
def test_seal_refuses_a_node_in_lists_that_interleave(
    opened: Federation, contributors: tuple[int, int], excluded: tuple[int, int], both: int
) -> None:
    """Nobody hides behind a smaller or larger neighbour."""
    nodes = opened.commit(0, 1, 2)
    opened.pass_deadline()
    with refuses("ContributorExcluded", round=1, node=nodes[both]):
        opened.aggregator.seal(
            1,
            [nodes[index] for index in contributors],
            [(nodes[index], ExclusionReason.MALFORMED) for index in excluded],
        )


def test_seal_refuses_reasons_that_do_not_match(opened: Federation) -> None:
    """Each excluded node has one reason."""
    opened.commit(0, 1, 2)
    opened.pass_deadline()
    nodes = opened.addresses(0, 1, 2)
    for reasons in ([], [1, 2]):
        with refuses("LengthMismatch", excluded=1, reasons=len(reasons)):
            opened.transact(opened.aggregator, "seal", 1, nodes[:2], nodes[2:], reasons)


def test_seal_once_and_by_the_aggregator(sealed: Federation) -> None:
    """A sealed set is final, and nobody else makes one."""
    with refuses("WrongPhase", round=1, actual=Phase.SEALED):
        sealed.aggregator.seal(1, sealed.addresses(0, 1))
    with refuses("WrongRound", expected=1, actual=2):
        sealed.aggregator.seal(2, sealed.addresses(0, 1))
    with refuses_all_but_aggregator(sealed.admin):
        sealed.admin.seal(1, sealed.addresses(0, 1))


def test_publish_aggregate(sealed: Federation) -> None:
    """The sum's root is on the ledger, and the time for attestations begins."""
    receipt = sealed.aggregator.publish_aggregate(1, ROOT)
    (event,) = receipt.events
    assert isinstance(event, AggregatePublished)
    assert event.aggregate_root == ROOT
    now = sealed.admin.block(receipt.block_number).timestamp
    assert event.deadline == sealed.admin.round(1).deadline == now + ATTEST_WINDOW_S


def test_publish_aggregate_at_the_deadline(sealed: Federation) -> None:
    """The deadline's own second still counts."""
    sealed.pass_deadline(by_s=0)
    sealed.aggregator.publish_aggregate(1, ROOT)


def test_publish_aggregate_after_the_deadline(sealed: Federation) -> None:
    """One second later is too late."""
    deadline = sealed.admin.round(1).deadline
    sealed.pass_deadline(by_s=1)
    with refuses("DeadlinePassed", round=1, deadline=deadline, time=deadline + 1):
        sealed.aggregator.publish_aggregate(1, ROOT)


def test_publish_aggregate_once_and_by_the_aggregator(sealed: Federation) -> None:
    """A published sum is final, it is not zero, and nobody else publishes one."""
    with refuses_all_but_aggregator(sealed.nodes[0]):
        sealed.nodes[0].publish_aggregate(1, ROOT)
    with refuses("ZeroDigest"):
        sealed.aggregator.publish_aggregate(1, ZERO_DIGEST)
    sealed.aggregator.publish_aggregate(1, ROOT)
    with refuses("WrongPhase", round=1, actual=Phase.AGGREGATED):
        sealed.aggregator.publish_aggregate(1, make_digest("another sum"))


def test_publish_aggregate_waits_for_the_seal(opened: Federation) -> None:
    """There is no sum of a set that is not final."""
    with refuses("WrongPhase", round=1, actual=Phase.OPEN):
        opened.aggregator.publish_aggregate(1, ROOT)
