"""Sealing the contributors, and publishing the encrypted sum."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedproof.digests import ZERO_DIGEST
from fedproof.ledger.events import LEAF_TOO, Phase
from tests.contracts.calls import DIGESTS, POLICY, START
from tests.contracts.differential import Pair
from tests.contracts.refusals import refuses, refuses_all_but_aggregator
from tests.contracts.signing import AGGREGATOR, NODES, OUTSIDER

COMMIT_END = START + POLICY.commit_window
LATE = COMMIT_END + 1
OVERDUE = COMMIT_END + POLICY.aggregate_window
AGGREGATE_END = START + POLICY.aggregate_window
ROOT = DIGESTS[1]


def commit(pair: Pair, count: int) -> tuple[bytes, ...]:
    """Let the first nodes commit to round 1, and return them."""
    for node in NODES[:count]:
        pair.act(node, "commit", 1, ROOT, 7, at=START)
    return NODES[:count]


@pytest.fixture
def anchored(begin: Callable[[str], Pair]) -> Pair:
    """Round 1 is open, and a batch of three is anchored."""
    pair = begin("batched")
    pair.act(AGGREGATOR, "openRound", 1, at=START)
    pair.act(AGGREGATOR, "anchorCommitments", 1, ROOT, 3, at=START)
    return pair


def test_a_seal_names_who_committed_and_who_does_not_count(opened: Pair) -> None:
    """Ascending, with a reason for each, and the time for the sum begins."""
    nodes = commit(opened, 4)
    (event,) = opened.act(AGGREGATOR, "seal", 1, nodes, bytes([0, 2, 0, 0]), at=LATE)
    assert event.contributors == (nodes[0], nodes[2], nodes[3])
    assert event.excluded == {nodes[1]: 2}
    assert event.deadline == opened.view("currentRound").deadline == LATE + POLICY.aggregate_window


def test_seal_early_with_the_whole_cohort(opened: Pair) -> None:
    """Up to the deadline all have to count, none may be missing or excluded; after it the quorum has to."""
    nodes = commit(opened, 4)
    with refuses("DeadlineNotReached", 1, COMMIT_END, COMMIT_END):
        opened.act(AGGREGATOR, "seal", 1, nodes, bytes(4), at=COMMIT_END)
    opened.act(NODES[4], "commit", 1, ROOT, 7, at=COMMIT_END)
    with refuses("DeadlineNotReached", 1, COMMIT_END, COMMIT_END):
        opened.act(AGGREGATOR, "seal", 1, NODES[:5], bytes([1, 0, 0, 0, 0]), at=COMMIT_END)
    (event,) = opened.act(AGGREGATOR, "seal", 1, NODES[:5], bytes(5), at=COMMIT_END)
    assert (event.contributors, event.excluded) == (NODES[:5], {})


def test_seal_after_the_deadline_at_the_quorum(opened: Pair) -> None:
    """Two suffice where the policy asks for two; one does not."""
    nodes = commit(opened, 2)
    with refuses("QuorumNotReached", 1, 1, 2):
        opened.act(AGGREGATOR, "seal", 1, nodes, bytes([0, 1]), at=LATE)
    (event,) = opened.act(AGGREGATOR, "seal", 1, nodes, bytes(2), at=LATE)
    assert (event.contributors, event.excluded) == (nodes, {})


def test_anyone_seals_after_the_overdue_window(opened: Pair) -> None:
    """The aggregator's absence stops no round; but only the aggregator knows which updates did not arrive."""
    nodes = commit(opened, 3)
    with refuses("DeadlineNotReached", 1, OVERDUE, OVERDUE):
        opened.act(OUTSIDER, "seal", 1, nodes, bytes(3), at=OVERDUE)
    with refuses("ExclusionNotAllowed", 1, OUTSIDER):
        opened.act(OUTSIDER, "seal", 1, nodes, bytes([1, 0, 0]), at=OVERDUE + 1)
    (event,) = opened.act(OUTSIDER, "seal", 1, nodes, bytes(3), at=OVERDUE + 1)
    assert (event.contributors, event.excluded) == (nodes, {})


def test_seal_names_all_that_committed(opened: Pair) -> None:
    """Nobody is left out in silence, nobody is named without a commitment, nobody twice."""
    nodes = commit(opened, 4)
    with refuses("CommitmentsMissing", 1, 4, 3):
        opened.act(AGGREGATOR, "seal", 1, nodes[:3], bytes(3), at=LATE)
    with refuses("NotCommitted", 1, NODES[4]):
        opened.act(AGGREGATOR, "seal", 1, NODES[:5], bytes(5), at=LATE)
    for swapped in ((*nodes[:2], nodes[1], nodes[3]), (nodes[1], nodes[0], *nodes[2:])):
        first, second = (1, 1) if swapped[0] == nodes[0] else (1, 0)
        with refuses("NotAscending", nodes[first], nodes[second]):
            opened.act(AGGREGATOR, "seal", 1, swapped, bytes(4), at=LATE)
    with refuses("LengthMismatch", 4, 5):
        opened.act(AGGREGATOR, "seal", 1, nodes, bytes(5), at=LATE)
    assert opened.view("currentRound").phase == Phase.OPEN


def test_leaves_of_the_batch_count_unless_they_are_named(anchored: Pair) -> None:
    """Three by the batch and two by transaction are the cohort of five."""
    nodes = commit(anchored, 2)
    (event,) = anchored.act(AGGREGATOR, "seal", 1, nodes, bytes(2), at=START)
    assert (event.contributors, event.excluded) == (nodes, {})
    assert anchored.view("currentRound").phase == Phase.SEALED


def test_who_committed_both_ways_counts_once(anchored: Pair) -> None:
    """The transaction counts and the leaf does not."""
    nodes = commit(anchored, 3)
    with refuses("CountOutOfRange", 6, 0, 5):
        anchored.act(AGGREGATOR, "seal", 1, nodes, bytes(3), at=LATE)
    (event,) = anchored.act(AGGREGATOR, "seal", 1, nodes, bytes([LEAF_TOO, 0, 0]), at=LATE)
    assert (event.contributors, event.excluded) == (nodes, {})


def test_nobody_else_speaks_for_a_batch(anchored: Pair) -> None:
    """Whose its leaves are an outsider could say as he likes, so all that he can do is to fail the round."""
    nodes = commit(anchored, 3)
    with refuses("AlreadyAnchored", 1):
        anchored.act(OUTSIDER, "seal", 1, nodes, bytes([LEAF_TOO, 0, 0]), at=OVERDUE + 1)
    anchored.act(OUTSIDER, "fail", 1, 2, at=OVERDUE + 1)
    assert anchored.view("currentRound").phase == Phase.FAILED


def test_no_more_leaves_are_excluded_than_the_batch_has(anchored: Pair) -> None:
    """Three can be, of nodes that committed by transaction or did not; a fourth cannot."""
    nodes = commit(anchored, 2)
    with refuses("CountOutOfRange", 4, 0, 3):
        anchored.act(AGGREGATOR, "seal", 1, NODES[:5], bytes([LEAF_TOO, 0, 1, 1, 1]), at=LATE)
    with refuses("NotCommitted", 1, NODES[2]):
        anchored.act(AGGREGATOR, "seal", 1, NODES[:3], bytes([0, 0, LEAF_TOO + 1]), at=LATE)
    (event,) = anchored.act(AGGREGATOR, "seal", 1, (*nodes, *NODES[2:5]), bytes([0, 0, 1, 1, 1]), at=LATE)
    assert (event.contributors, event.excluded) == (nodes, dict.fromkeys(NODES[2:5], 1))


def test_without_a_batch_no_leaf_is_excluded(opened: Pair) -> None:
    """Neither beside a commitment by transaction nor without one."""
    nodes = commit(opened, 3)
    for named, reasons in ((nodes, [LEAF_TOO, 0, 0]), (NODES[:4], [0, 0, 0, 1])):
        with refuses("CountOutOfRange", 1, 0, 0):
            opened.act(AGGREGATOR, "seal", 1, named, bytes(reasons), at=LATE)


def test_a_seal_is_final(sealed: Pair) -> None:
    """It is not made again, and nobody commits any more."""
    with refuses("WrongPhase", 1, Phase.SEALED):
        sealed.act(AGGREGATOR, "seal", 1, NODES[:5], bytes(5), at=START)
    with refuses("WrongPhase", 1, Phase.SEALED):
        sealed.act(NODES[0], "commit", 1, ROOT, 7, at=START)


def test_publish_the_sum_until_the_deadline(sealed: Pair) -> None:
    """The deadline's own second still counts; one second later is too late."""
    with refuses("DeadlinePassed", 1, AGGREGATE_END, AGGREGATE_END + 1):
        sealed.act(AGGREGATOR, "publishAggregate", 1, ROOT, at=AGGREGATE_END + 1)
    (event,) = sealed.act(AGGREGATOR, "publishAggregate", 1, ROOT, at=AGGREGATE_END)
    assert event.deadline == AGGREGATE_END + POLICY.attest_window


def test_publish_one_sum_and_by_the_aggregator(sealed: Pair) -> None:
    """It is final and not zero, and nobody else publishes one."""
    with refuses_all_but_aggregator(NODES[0]):
        sealed.act(NODES[0], "publishAggregate", 1, ROOT, at=START)
    with refuses("ZeroDigest"):
        sealed.act(AGGREGATOR, "publishAggregate", 1, ZERO_DIGEST, at=START)
    sealed.act(AGGREGATOR, "publishAggregate", 1, ROOT, at=START)
    with refuses("WrongPhase", 1, Phase.AGGREGATED):
        sealed.act(AGGREGATOR, "publishAggregate", 1, DIGESTS[2], at=START)
