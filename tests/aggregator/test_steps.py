"""The rules of a round, at each boundary."""

from __future__ import annotations

from typing import Any

import pytest
from fedproof_aggregator.journal import UploadStanding
from fedproof_aggregator.opening import explain_cohort
from fedproof_aggregator.steps import Fail, Finalise, Seal, Wait, choose_finalise, choose_seal, has_quorum

from fedproof.digests import Address
from fedproof.ledger.events import ExclusionReason, FailureReason, OnChainPolicy, Phase
from fedproof.ledger.history import Commitment, RoundRecord
from tests.chain import make_digest

NODES = tuple(Address(bytes([i]) * 20) for i in range(1, 5))
ROOT = make_digest("root")
WHOLE = UploadStanding(ROOT, chunks=3, received=3, reason=None, message="")
PARTIAL = UploadStanding(ROOT, chunks=3, received=2, reason=None, message="")
REFUSED = UploadStanding(ROOT, chunks=3, received=2, reason=ExclusionReason.MALFORMED, message="bad frame")
A, B = make_digest("a"), make_digest("b")
POLICY = OnChainPolicy(
    digest=make_digest("policy"),
    min_contributors=2,
    attestation_quorum=2,
    max_examples=100,
    commit_window=600,
    aggregate_window=600,
    attest_window=600,
)


def make_round(*, cohort: int = 3, committed: int = 3, **changes: Any) -> RoundRecord:
    settings: dict[str, Any] = {
        "number": 5,
        "phase": Phase.OPEN,
        "policy_version": 1,
        "epoch": 1,
        "base_model": make_digest("base"),
        "deadline": 1000,
        "cohort": frozenset(NODES[:cohort]),
        "opened_block": 9,
        "commitments": {node: Commitment(ROOT, 10) for node in NODES[:committed]},
    }
    return RoundRecord(**{**settings, **changes})


def seal(
    *standings: UploadStanding | None, overdue: float = -1, grace: float = 0, most: int = 4, **changes: Any
) -> Wait | Seal | Fail:
    record = make_round(committed=len(standings), **changes)
    return choose_seal(
        record,
        dict(zip(NODES, standings, strict=False)),
        policy=POLICY,
        max_contributors=most,
        seconds_overdue=overdue,
        grace_s=grace,
    )


@pytest.mark.parametrize("overdue", [-100, 0, 100])
def test_a_whole_cohort_is_sealed_at_once(overdue: float) -> None:
    """Nobody is waited for when everybody is in."""
    assert seal(WHOLE, WHOLE, WHOLE, overdue=overdue) == Seal(NODES[:3], ())


@pytest.mark.parametrize(
    "standings",
    [(WHOLE, WHOLE), (WHOLE, WHOLE, PARTIAL), (WHOLE, WHOLE, None), (WHOLE, WHOLE, REFUSED), ()],
    ids=["one has not committed", "one is partial", "one has not begun", "one is refused", "nobody"],
)
def test_before_the_deadline_an_incomplete_cohort_waits(standings: tuple[UploadStanding | None, ...]) -> None:
    """The contract takes an early seal of a whole cohort only, up to and including the deadline's second."""
    assert seal(*standings, overdue=-1) == Wait()
    assert seal(*standings, overdue=0) == Wait()


def test_after_the_deadline_the_whole_are_sealed_and_the_others_excluded() -> None:
    """Each committed node that does not count is excluded for its reason; no other node is named."""
    assert seal(WHOLE, REFUSED, WHOLE, None, cohort=4, overdue=1) == Seal(
        (NODES[0], NODES[2]),
        ((NODES[1], ExclusionReason.MALFORMED), (NODES[3], ExclusionReason.NOT_UPLOADED)),
    )
    assert seal(WHOLE, WHOLE, overdue=1) == Seal(NODES[:2], ())


def test_a_partial_update_gets_the_grace_and_no_more() -> None:
    """An update under way is waited for after the deadline, a refused one is not."""
    assert seal(WHOLE, WHOLE, PARTIAL, overdue=10, grace=10) == Wait()
    assert seal(WHOLE, WHOLE, PARTIAL, overdue=10.1, grace=10) == Seal(
        NODES[:2], ((NODES[2], ExclusionReason.NOT_UPLOADED),)
    )
    assert seal(WHOLE, WHOLE, REFUSED, overdue=1, grace=10) == Seal(
        NODES[:2], ((NODES[2], ExclusionReason.MALFORMED),)
    )


def test_too_few_whole_updates_fail_the_round() -> None:
    """One below the minimum fails, the minimum is sealed."""
    step = seal(WHOLE, PARTIAL, overdue=1)
    assert isinstance(step, Fail)
    assert step.reason is FailureReason.TOO_FEW_CONTRIBUTORS
    assert step.message == "expected at least 2 whole updates at the deadline, got 1 of 2 committed ones"
    assert isinstance(seal(WHOLE, WHOLE, overdue=1), Seal)
    assert isinstance(seal(overdue=1), Fail)


def test_a_cohort_beyond_the_codec_is_given_up() -> None:
    """A sum of more updates than the policy's would overflow, so none is made."""
    step = seal(WHOLE, WHOLE, WHOLE, most=2)
    assert isinstance(step, Fail)
    assert step.reason is FailureReason.ABANDONED
    assert seal(WHOLE, WHOLE, WHOLE, most=3) == Seal(NODES[:3], ())


def finalise(
    *models: Any, overdue: float = -1, grace_over: bool = False, admitted: int = 3, cohort: int = 3
) -> Wait | Finalise | Fail:
    attestations = {node: model for node, model in zip(NODES, models, strict=False) if model is not None}
    return choose_finalise(
        make_round(phase=Phase.AGGREGATED, attestations=attestations, cohort=cohort),
        policy=POLICY,
        admitted=NODES[:admitted],
        seconds_overdue=overdue,
        is_grace_over=grace_over,
    )


def test_everybody_agreeing_finalises_at_once() -> None:
    """Nobody is waited for when nobody is left."""
    assert finalise(A, A, A) == Finalise(A, 3)


def test_a_quorum_waits_for_the_rest_until_the_grace_is_over() -> None:
    """A node that is a little slower may still attest."""
    assert finalise(A, A) == Wait()
    assert finalise(A, A, grace_over=True) == Finalise(A, 2)
    assert finalise(A, A, overdue=1, grace_over=True) == Finalise(A, 2)


def test_after_the_deadline_a_quorum_waits_for_nobody() -> None:
    """The contract takes an attestation in the deadline's own second and none after it."""
    assert finalise(A, A, overdue=0) == Wait()
    assert finalise(A, A, overdue=1) == Finalise(A, 2)


def test_a_suspended_node_is_not_waited_for() -> None:
    """Only admitted nodes of the cohort can still attest."""
    assert finalise(A, A, admitted=2) == Finalise(A, 2)


def test_a_dissenter_does_not_outvote_the_quorum() -> None:
    """The digest that reached the quorum counts, whoever attested first."""
    assert finalise(B, A, A) == Finalise(A, 2)


@pytest.mark.parametrize("grace_over", [False, True])
def test_below_the_quorum_it_waits_until_the_deadline(*, grace_over: bool) -> None:
    """One attestation too few waits, and fails once the deadline has passed."""
    assert finalise(A, grace_over=grace_over) == Wait()
    assert finalise(A, overdue=0, grace_over=grace_over) == Wait()
    step = finalise(A, overdue=1, grace_over=grace_over)
    assert isinstance(step, Fail)
    assert step.reason is FailureReason.NO_QUORUM
    assert step.message == "expected 2 equal attestations, got at most 1 of 1 for 1 different models"


def test_disagreement_of_everybody_fails_at_once() -> None:
    """When nobody is left to attest, waiting for the deadline would change nothing."""
    step = finalise(A, B, make_digest("c"))
    assert isinstance(step, Fail)
    assert step.message == "expected 2 equal attestations, got at most 1 of 3 for 3 different models"
    step = finalise(overdue=1)
    assert isinstance(step, Fail)
    assert step.message == "expected 2 equal attestations, got at most 0 of 0 for 0 different models"


@pytest.mark.parametrize(
    ("models", "expected"), [((), False), ((A,), False), ((A, B), False), ((A, A), True)]
)
def test_the_quorum_is_of_equal_attestations(models: tuple[Any, ...], expected: bool) -> None:
    """Attestations of different models do not add up."""
    record = make_round(attestations=dict(zip(NODES, models, strict=False)))
    assert has_quorum(record, POLICY) is expected


@pytest.mark.parametrize(
    ("admitted", "expected"),
    [
        (2, "2 of 3 nodes are admitted"),
        (3, None),
        (4, "the attestation quorum of 2 is not more than half of them"),
        (5, "the policy's codec adds at most 4 updates"),
    ],
)
def test_a_cohort_must_suit_policy_and_configuration(admitted: int, expected: str | None) -> None:
    """Too few, too many for the quorum, too many for the codec: each is explained."""
    reason = explain_cohort(POLICY, max_contributors=4, expected_nodes=3, admitted=admitted)
    assert reason is None if expected is None else reason is not None and expected in reason
