"""Opening a round, committing to updates by transaction, and anchoring those that were signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fedproof.digests import ZERO_DIGEST
from fedproof.ledger.events import Phase
from fedproof.ledger.standing import Round
from tests.contracts.calls import DIGESTS, POLICY, START
from tests.contracts.differential import Pair
from tests.contracts.refusals import refuses, refuses_all_but_aggregator
from tests.contracts.signing import ADMIN, AGGREGATOR, NODES

COMMIT_END = START + POLICY.commit_window
ROOT = DIGESTS[1]


def test_a_round_has_the_terms_of_its_opening(ready: Pair) -> None:
    """Its base model, its cohort and the policy's terms."""
    (event,) = ready.act(AGGREGATOR, "openRound", 1, at=START)
    assert (event.base_model, event.deadline) == (ready.view("headModel"), COMMIT_END)
    terms = POLICY.min_contributors, POLICY.attestation_quorum, POLICY.max_examples
    windows = POLICY.aggregate_window, POLICY.attest_window
    assert ready.view("currentRound") == Round(1, Phase.OPEN, COMMIT_END, 5, 0, 0, 0, *terms, *windows, False)


def test_rounds_follow_each_other(opened: Pair) -> None:
    """Two are never under way, and a number is never used twice."""
    with refuses("WrongRound", 2, 1):
        opened.act(AGGREGATOR, "openRound", 1, at=START)
    with refuses("WrongPhase", 1, Phase.OPEN):
        opened.act(AGGREGATOR, "openRound", 2, at=START)
    opened.act(AGGREGATOR, "fail", 1, 0, at=START)
    opened.act(AGGREGATOR, "openRound", 2, at=START)


def test_a_round_needs_a_policy_and_an_epoch(begin: Callable[[str], Pair]) -> None:
    """Without them there is nothing to train under."""
    pair = begin("deployed")
    with refuses("NoPolicy"):
        pair.act(AGGREGATOR, "openRound", 1, at=START)
    pair.act(ADMIN, "adoptPolicy", POLICY, ROOT, at=START)
    with refuses("NoEpoch"):
        pair.act(AGGREGATOR, "openRound", 1, at=START)


@pytest.mark.parametrize("term", ["min_contributors", "attestation_quorum"])
def test_a_cohort_has_to_be_able_to_reach_the_quorums(ready: Pair, term: str) -> None:
    """All five may be asked for, and not six."""
    ready.act(ADMIN, "adoptPolicy", replace(POLICY, **{term: 6}), ROOT, at=START)
    with refuses("QuorumNotReached", 1, 5, 6):
        ready.act(AGGREGATOR, "openRound", 1, at=START)
    ready.act(ADMIN, "adoptPolicy", replace(POLICY, **{term: 5}), ROOT, at=START)
    ready.act(AGGREGATOR, "openRound", 1, at=START)


def test_the_attestation_quorum_is_a_majority(ready: Pair) -> None:
    """Two of five are none, as two models could reach it; three are."""
    ready.act(ADMIN, "adoptPolicy", replace(POLICY, attestation_quorum=2), ROOT, at=START)
    with refuses("QuorumAmbiguous", 1, 2, 5):
        ready.act(AGGREGATOR, "openRound", 1, at=START)
    ready.act(ADMIN, "adoptPolicy", replace(POLICY, attestation_quorum=3), ROOT, at=START)
    ready.act(AGGREGATOR, "openRound", 1, at=START)


def test_rounds_are_the_aggregators(ready: Pair) -> None:
    """Neither the admin nor a node opens one."""
    for caller in (ADMIN, NODES[0]):
        with refuses_all_but_aggregator(caller):
            ready.act(caller, "openRound", 1, at=START)


def test_commit_until_the_deadline(opened: Pair) -> None:
    """The deadline's own second still counts; one second later is too late."""
    opened.act(NODES[0], "commit", 1, ROOT, 7, at=COMMIT_END)
    with refuses("DeadlinePassed", 1, COMMIT_END, COMMIT_END + 1):
        opened.act(NODES[1], "commit", 1, ROOT, 7, at=COMMIT_END + 1)


def test_commit_once(opened: Pair) -> None:
    """A commitment is never overwritten, with the same or another."""
    opened.act(NODES[0], "commit", 1, ROOT, 7, at=START)
    for root in (ROOT, DIGESTS[2]):
        with refuses("AlreadyCommitted", 1, NODES[0]):
            opened.act(NODES[0], "commit", 1, root, 7, at=START)


def test_commit_bounds_the_examples(opened: Pair) -> None:
    """From one to the policy's maximum; and zero is no root."""
    most = POLICY.max_examples
    for examples in (0, most + 1):
        with refuses("ExamplesOutOfRange", examples, most):
            opened.act(NODES[0], "commit", 1, ROOT, examples, at=START)
    with refuses("ZeroDigest"):
        opened.act(NODES[0], "commit", 1, ZERO_DIGEST, 1, at=START)
    opened.act(NODES[0], "commit", 1, ROOT, 1, at=START)
    opened.act(NODES[1], "commit", 1, ROOT, most, at=START)


def test_anchor_early_enough_to_answer(begin: Callable[[str], Pair]) -> None:
    """Whoever is left out has the attestation window to commit by a transaction of its own."""
    pair = begin("batched")
    pair.act(AGGREGATOR, "openRound", 1, at=START)
    latest = COMMIT_END - POLICY.attest_window
    with refuses("DeadlinePassed", 1, latest, latest + 1):
        pair.act(AGGREGATOR, "anchorCommitments", 1, ROOT, 4, at=latest + 1)
    pair.act(AGGREGATOR, "anchorCommitments", 1, ROOT, 4, at=latest)
    with refuses("AlreadyAnchored", 1):
        pair.act(AGGREGATOR, "anchorCommitments", 1, ROOT, 4, at=latest)
    pair.act(NODES[4], "commit", 1, ROOT, 7, at=COMMIT_END)
    assert pair.view("currentRound").batched == 4


@pytest.mark.parametrize("count", [0, 6])
def test_anchor_no_more_than_the_cohort(begin: Callable[[str], Pair], count: int) -> None:
    """A batch holds one to five signed commitments."""
    pair = begin("batched")
    pair.act(AGGREGATOR, "openRound", 1, at=START)
    with refuses("CountOutOfRange", count, 1, 5):
        pair.act(AGGREGATOR, "anchorCommitments", 1, ROOT, count, at=START)
    for allowed in (1, 5):
        with pair.rolled_back():
            pair.act(AGGREGATOR, "anchorCommitments", 1, ROOT, allowed, at=START)


def test_anchor_where_the_policy_allows_it(opened: Pair) -> None:
    """Not in rounds whose policy wants every commitment by transaction."""
    with refuses("BatchingNotAllowed", 1):
        opened.act(AGGREGATOR, "anchorCommitments", 1, ROOT, 4, at=START)
