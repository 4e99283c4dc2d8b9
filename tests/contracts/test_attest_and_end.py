"""Attesting, proposing, finalising, disputing, failing: how a round ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedproof.digests import Address, Digest
from fedproof.ledger.events import (
    FailureReason,
    ModelAttested,
    Phase,
    RoundDisputed,
    RoundFailed,
    RoundFinalised,
    Subject,
)
from tests.contracts.calls import DIGESTS, POLICY, START
from tests.contracts.differential import Pair
from tests.contracts.refusals import refuses
from tests.contracts.signing import AGGREGATOR, NODES, OUTSIDER, WALLET, hash_attestation, sign

ATTEST_END = START + POLICY.attest_window
ROOT, MODEL, OTHER = DIGESTS
GENESIS = DIGESTS[0]


def sign_all(pair: Pair, signers: tuple[Address, ...], model: Digest = MODEL) -> list[bytes]:
    """Return the signatures of nodes that attest a model of round 1."""
    return [sign(node, hash_attestation(pair.model.address, 1, node, model)) for node in signers]


def test_the_quorum_of_attestations_finalises(aggregated: Pair) -> None:
    """The third of five equal attestations makes the model the head; the second does not."""
    for node in NODES[:2]:
        aggregated.act(node, "attest", 1, MODEL, at=START)
    assert aggregated.view("headModel") == GENESIS
    attested, finalised = aggregated.act(NODES[2], "attest", 1, MODEL, at=START)
    assert isinstance(attested, ModelAttested)
    assert isinstance(finalised, RoundFinalised)
    assert (finalised.model_digest, finalised.attested, finalised.signers) == (MODEL, 3, ())
    assert aggregated.view("headModel") == MODEL
    with refuses("WrongPhase", 1, Phase.FINALISED):
        aggregated.act(AGGREGATOR, "fail", 1, 0, at=START)


def test_a_contradiction_fails_the_round(aggregated: Pair) -> None:
    """Two models from one sum are somebody's fault, so neither becomes the head."""
    aggregated.act(NODES[0], "attest", 1, MODEL, at=START)
    attested, failed = aggregated.act(NODES[1], "attest", 1, OTHER, at=START)
    assert isinstance(attested, ModelAttested)
    assert isinstance(failed, RoundFailed)
    assert (failed.phase, failed.reason) == (Phase.AGGREGATED, FailureReason.DISAGREEMENT)
    assert aggregated.view("headModel") == GENESIS


def test_attest_until_the_deadline(aggregated: Pair) -> None:
    """The deadline's own second still counts; one second later is too late."""
    aggregated.act(NODES[0], "attest", 1, MODEL, at=ATTEST_END)
    with refuses("DeadlinePassed", 1, ATTEST_END, ATTEST_END + 1):
        aggregated.act(NODES[1], "attest", 1, MODEL, at=ATTEST_END + 1)


def test_attest_once(aggregated: Pair) -> None:
    """The same or another: a node vouches for one model."""
    aggregated.act(NODES[0], "attest", 1, MODEL, at=START)
    for model in (MODEL, OTHER):
        with refuses("AlreadyAttested", 1, NODES[0]):
            aggregated.act(NODES[0], "attest", 1, model, at=START)


def test_attest_late_for_the_record(aggregated: Pair) -> None:
    """Without a deadline, until the next round opens; it changes nothing."""
    for node in NODES[:3]:
        aggregated.act(node, "attest", 1, MODEL, at=START)
    aggregated.act(NODES[3], "attest", 1, OTHER, at=START + 10**6)
    assert (aggregated.view("headModel"), aggregated.view("currentRound").attested) == (MODEL, 3)
    aggregated.act(AGGREGATOR, "openRound", 2, at=START + 10**6)
    with refuses("WrongRound", 2, 1):
        aggregated.act(NODES[4], "attest", 1, MODEL, at=START + 10**6)


def test_attest_what_was_summed_up(sealed: Pair) -> None:
    """Not before there is a sum, and only for nodes of the cohort."""
    with refuses("WrongPhase", 1, Phase.SEALED):
        sealed.act(NODES[0], "attest", 1, MODEL, at=START)
    sealed.act(AGGREGATOR, "publishAggregate", 1, ROOT, at=START)
    with refuses("NotInCohort", 1, OUTSIDER):
        sealed.act(OUTSIDER, "attest", 1, MODEL, at=START)


@pytest.mark.parametrize("by_transaction", [0, 1, 2])
def test_signatures_make_up_the_quorum(aggregated: Pair, by_transaction: int) -> None:
    """Anyone finalises with as many as are missing, of keys and of a wallet; not with fewer."""
    assert WALLET in NODES[:5]
    for node in NODES[:by_transaction]:
        aggregated.act(node, "attest", 1, MODEL, at=START)
    signers = NODES[by_transaction:3]
    with refuses("QuorumNotReached", 1, 2, 3):
        aggregated.act(
            OUTSIDER, "finalise", 1, MODEL, signers[:-1], sign_all(aggregated, signers[:-1]), at=START
        )
    arguments = (1, MODEL, signers, sign_all(aggregated, signers))
    (event,) = aggregated.act(OUTSIDER, "finalise", *arguments, at=START + 10**6)
    assert (event.attested, event.signers) == (by_transaction, signers)
    assert aggregated.view("headModel") == MODEL


def test_each_signature_is_looked_at(aggregated: Pair) -> None:
    """Of another model, of nobody, twice, or beside an attestation by transaction: none counts."""
    signers = NODES[:3]
    signatures = sign_all(aggregated, signers)
    with refuses("InvalidSignature", 1, signers[0]):
        aggregated.act(OUTSIDER, "finalise", 1, OTHER, signers, signatures, at=START)
    with refuses("InvalidSignature", 1, signers[1]):
        aggregated.act(OUTSIDER, "finalise", 1, MODEL, signers, [signatures[0], b"", signatures[2]], at=START)
    with refuses("NotAscending", signers[0], signers[0]):
        aggregated.act(OUTSIDER, "finalise", 1, MODEL, signers[:1] * 3, signatures[:1] * 3, at=START)
    with refuses("LengthMismatch", 3, 2):
        aggregated.act(OUTSIDER, "finalise", 1, MODEL, signers, signatures[:2], at=START)
    with refuses("NotInCohort", 1, NODES[5]):
        strangers = NODES[3:6]
        aggregated.act(OUTSIDER, "finalise", 1, MODEL, strangers, sign_all(aggregated, strangers), at=START)
    aggregated.act(signers[0], "attest", 1, MODEL, at=START)
    with refuses("AlreadyAttested", 1, signers[0]):
        aggregated.act(OUTSIDER, "finalise", 1, MODEL, signers, signatures, at=START)
    with refuses("ModelsDiffer", 1, MODEL, OTHER):
        aggregated.act(OUTSIDER, "finalise", 1, OTHER, (), (), at=START)


@pytest.fixture
def proposed(begin: Callable[[str], Pair]) -> Pair:
    """A result of round 1 is proposed on three signed attestations; nodes have until ATTEST_END to object."""
    pair = begin("aggregated")
    pair.act(AGGREGATOR, "proposeResult", 1, MODEL, ROOT, 3, at=START)
    return pair


def test_a_proposal_that_stood_is_final(proposed: Pair) -> None:
    """Anyone finalises it after the deadline, and not in its last second."""
    with refuses("DeadlineNotReached", 1, ATTEST_END, ATTEST_END):
        proposed.act(OUTSIDER, "finalise", 1, MODEL, (), (), at=ATTEST_END)
    (event,) = proposed.act(OUTSIDER, "finalise", 1, MODEL, (), (), at=ATTEST_END + 1)
    assert (event.model_digest, event.attested, event.signers) == (MODEL, 0, ())


def test_a_proposal_is_final_early_by_its_quorum(proposed: Pair) -> None:
    """Signatures on chain, or attestations by transaction, need no waiting."""
    with proposed.rolled_back():
        proposed.act(OUTSIDER, "finalise", 1, MODEL, NODES[:3], sign_all(proposed, NODES[:3]), at=START)
        assert proposed.view("headModel") == MODEL
    for node in NODES[:3]:
        proposed.act(node, "attest", 1, MODEL, at=START)
    assert proposed.view("headModel") == MODEL


def test_a_contradiction_ends_a_proposal(proposed: Pair) -> None:
    """One node that derived another model suffices."""
    _attested, failed = proposed.act(NODES[0], "attest", 1, OTHER, at=ATTEST_END)
    assert (failed.phase, failed.reason) == (Phase.PROPOSED, FailureReason.DISAGREEMENT)


@pytest.mark.parametrize("count", [2, 6])
def test_a_proposal_has_a_quorum_of_the_cohort(begin: Callable[[str], Pair], count: int) -> None:
    """Of five nodes three to five attestations, and of the model that is attested already."""
    pair = begin("aggregated")
    with refuses("CountOutOfRange", count, 3, 5):
        pair.act(AGGREGATOR, "proposeResult", 1, MODEL, ROOT, count, at=START)
    pair.act(NODES[0], "attest", 1, MODEL, at=START)
    with refuses("ModelsDiffer", 1, MODEL, OTHER):
        pair.act(AGGREGATOR, "proposeResult", 1, OTHER, ROOT, 3, at=START)
    for allowed in (3, 5):
        with pair.rolled_back():
            pair.act(AGGREGATOR, "proposeResult", 1, MODEL, ROOT, allowed, at=ATTEST_END)


def test_proposals_where_the_policy_allows_them(aggregated: Pair) -> None:
    """Not in rounds whose policy wants every attestation on chain."""
    with refuses("BatchingNotAllowed", 1):
        aggregated.act(AGGREGATOR, "proposeResult", 1, MODEL, ROOT, 3, at=START)


@pytest.mark.parametrize("stage", ["sealed", "aggregated", "proposed"])
def test_a_dispute_fails_the_round(stage: str, request: pytest.FixtureRequest) -> None:
    """Any node of the cohort, once there is something to object to, and nobody else."""
    pair: Pair = request.getfixturevalue(stage)
    phase = pair.view("currentRound").phase
    with refuses("NotInCohort", 1, OUTSIDER):
        pair.act(OUTSIDER, "dispute", 1, Subject.CHUNK, 3, at=START)
    disputed, failed = pair.act(NODES[0], "dispute", 1, Subject.CHUNK, 3, at=START)
    assert isinstance(disputed, RoundDisputed)
    assert (disputed.subject, disputed.index) == (Subject.CHUNK, 3)
    assert (failed.phase, failed.reason) == (phase, FailureReason.DISPUTE)


def test_nothing_is_disputed_in_an_open_round(opened: Pair) -> None:
    """Whoever misses itself in a batch commits by transaction."""
    with refuses("WrongPhase", 1, Phase.OPEN):
        opened.act(NODES[0], "dispute", 1, Subject.COMMITMENT, 0, at=START)


@pytest.mark.parametrize("stage", ["opened", "sealed", "aggregated", "proposed"])
def test_the_aggregator_fails_a_round_at_any_time(stage: str, request: pytest.FixtureRequest) -> None:
    """In every phase, for any reason but those that the contract gives by itself; the head stays."""
    pair: Pair = request.getfixturevalue(stage)
    phase = pair.view("currentRound").phase
    for reserved in (FailureReason.DISAGREEMENT, FailureReason.DISPUTE):
        with refuses("ReservedReason", reserved):
            pair.act(AGGREGATOR, "fail", 1, reserved, at=START)
    (event,) = pair.act(AGGREGATOR, "fail", 1, FailureReason.ABANDONED, at=START)
    assert (event.phase, event.reason) == (phase, FailureReason.ABANDONED)
    assert pair.view("headModel") == GENESIS


@pytest.mark.parametrize("stage", ["opened", "sealed", "aggregated", "proposed"])
def test_anyone_fails_a_round_after_the_overdue_window(stage: str, request: pytest.FixtureRequest) -> None:
    """Nobody is held up by an aggregator that has gone: after the window, not in its last second."""
    pair: Pair = request.getfixturevalue(stage)
    overdue = pair.view("currentRound").deadline + POLICY.aggregate_window
    with refuses("DeadlineNotReached", 1, overdue, overdue):
        pair.act(OUTSIDER, "fail", 1, FailureReason.NO_QUORUM, at=overdue)
    pair.act(OUTSIDER, "fail", 1, FailureReason.NO_QUORUM, at=overdue + 1)
    with refuses("WrongPhase", 1, Phase.FAILED):
        pair.act(AGGREGATOR, "fail", 1, FailureReason.ABANDONED, at=overdue + 1)


def test_there_is_no_round_before_the_first(ready: Pair) -> None:
    """Round 0 cannot fail, nor be sealed."""
    with refuses("WrongRound", 0, 0):
        ready.act(AGGREGATOR, "fail", 0, 0, at=START)
    with refuses("WrongPhase", 0, Phase.NONE):
        ready.act(AGGREGATOR, "seal", 0, (), b"", at=START)
