"""Attesting, finalising, failing: how a round ends."""

from __future__ import annotations

import pytest

from fedproof.digests import ZERO_DIGEST
from fedproof.ledger.events import (
    FailureReason,
    MemberStatus,
    ModelAttested,
    Phase,
    RoundFailed,
    RoundFinalised,
)
from tests.chain import AGGREGATE_WINDOW_S, Federation, make_digest
from tests.contracts.refusals import refuses

MODEL = make_digest("model")
OTHER = make_digest("other model")


def test_attest_counts_by_model(aggregated: Federation) -> None:
    """Each model's attestations are counted apart."""
    (event,) = aggregated.nodes[0].attest(1, MODEL).events
    aggregated.nodes[1].attest(1, OTHER)
    aggregated.nodes[2].attest(1, MODEL)
    assert isinstance(event, ModelAttested)
    assert (event.node, event.model_digest) == (aggregated.nodes[0].address, MODEL)
    counts = [aggregated.admin.attestations(1, model) for model in (MODEL, OTHER, make_digest("third"))]
    assert counts == [2, 1, 0]


def test_attest_once(aggregated: Federation) -> None:
    """A node vouches for one model, whether the second is the same or another."""
    node = aggregated.nodes[0]
    node.attest(1, MODEL)
    for model in (MODEL, OTHER):
        with refuses("AlreadyAttested", round=1, node=node.address):
            node.attest(1, model)


def test_attest_at_the_deadline(aggregated: Federation) -> None:
    """The deadline's own second still counts."""
    aggregated.pass_deadline(by_s=0)
    aggregated.nodes[0].attest(1, MODEL)


def test_attest_after_the_deadline(aggregated: Federation) -> None:
    """One second later is too late."""
    deadline = aggregated.admin.round(1).deadline
    aggregated.pass_deadline(by_s=1)
    with refuses("DeadlinePassed", round=1, deadline=deadline, time=deadline + 1):
        aggregated.nodes[0].attest(1, MODEL)


def test_attest_after_the_finalisation(aggregated: Federation) -> None:
    """A slow node may still vouch for the newest round, without a deadline, but not for an older one."""
    aggregated.nodes[0].attest(1, MODEL)
    aggregated.nodes[1].attest(1, MODEL)
    aggregated.aggregator.finalise(1, MODEL)
    aggregated.chain.travel_to(aggregated.admin.latest_block().timestamp + 10**6)
    aggregated.nodes[2].attest(1, MODEL)
    assert aggregated.admin.attestations(1, MODEL) == 3


def test_attest_refuses_an_older_round(aggregated: Federation) -> None:
    """Once the next round is open, the one before is closed for good."""
    aggregated.nodes[0].attest(1, MODEL)
    aggregated.nodes[1].attest(1, MODEL)
    aggregated.aggregator.finalise(1, MODEL)
    aggregated.aggregator.open_round(2)
    with refuses("WrongRound", expected=2, actual=1):
        aggregated.nodes[2].attest(1, MODEL)


def test_attest_refuses_other_phases(opened: Federation) -> None:
    """There is nothing to vouch for before the aggregate, or in a failed round."""
    with refuses("WrongPhase", round=1, actual=Phase.OPEN):
        opened.nodes[0].attest(1, MODEL)
    opened.aggregator.fail(1, FailureReason.ABANDONED)
    with refuses("WrongPhase", round=1, actual=Phase.FAILED):
        opened.nodes[0].attest(1, MODEL)


def test_attest_refuses_who_is_not_of_the_cohort(aggregated: Federation) -> None:
    """Strangers, the suspended and latecomers have no say."""
    late, suspended = aggregated.outsider, aggregated.nodes[0]
    with refuses("NotAdmitted", node=late.address, status=MemberStatus.NONE):
        late.attest(1, MODEL)
    late.register(MODEL, MODEL)
    aggregated.admin.admit(late.address)
    with refuses("NotInCohort", round=1, node=late.address, first_round=2):
        late.attest(1, MODEL)
    aggregated.admin.suspend(suspended.address)
    with refuses("NotAdmitted", node=suspended.address, status=MemberStatus.SUSPENDED):
        suspended.attest(1, MODEL)


def test_attest_refuses_the_zero_digest(aggregated: Federation) -> None:
    """Zero is no model."""
    with refuses("ZeroDigest"):
        aggregated.nodes[0].attest(1, ZERO_DIGEST)


def test_finalise_at_the_quorum(aggregated: Federation) -> None:
    """As many equal attestations as the policy asks for suffice; one fewer do not."""
    aggregated.nodes[0].attest(1, MODEL)
    aggregated.nodes[1].attest(1, OTHER)
    for model in (MODEL, OTHER):
        with refuses("QuorumNotReached", round=1, actual=1, required=2):
            aggregated.aggregator.finalise(1, model)
    aggregated.nodes[2].attest(1, MODEL)
    (event,) = aggregated.outsider.finalise(1, MODEL).events
    assert isinstance(event, RoundFinalised)
    assert (event.model_digest, event.attestations) == (MODEL, 2)
    assert aggregated.admin.head_model() == MODEL
    assert (aggregated.admin.round(1).phase, aggregated.admin.round(1).deadline) == (Phase.FINALISED, 0)


def test_finalise_after_the_deadline(aggregated: Federation) -> None:
    """A quorum that was reached in time counts, and in the overdue window no outsider can undo it."""
    aggregated.nodes[0].attest(1, MODEL)
    aggregated.nodes[1].attest(1, MODEL)
    deadline = aggregated.admin.round(1).deadline
    aggregated.pass_deadline(by_s=1)
    with refuses("DeadlineNotReached", round=1, deadline=deadline + AGGREGATE_WINDOW_S, time=deadline + 1):
        aggregated.outsider.fail(1, FailureReason.NO_QUORUM)
    aggregated.outsider.finalise(1, MODEL)
    assert aggregated.admin.head_model() == MODEL


def test_finalise_once(aggregated: Federation) -> None:
    """A result is final."""
    for node in aggregated.nodes[:2]:
        node.attest(1, MODEL)
    aggregated.aggregator.finalise(1, MODEL)
    with refuses("WrongPhase", round=1, actual=Phase.FINALISED):
        aggregated.aggregator.finalise(1, MODEL)
    with refuses("WrongPhase", round=1, actual=Phase.FINALISED):
        aggregated.aggregator.fail(1, FailureReason.ABANDONED)


@pytest.mark.parametrize("stage", ["opened", "sealed", "aggregated"])
def test_the_aggregator_fails_a_round_at_any_time(stage: str, request: pytest.FixtureRequest) -> None:
    """The aggregator may give up in every phase, and the head model stays."""
    federation: Federation = request.getfixturevalue(stage)
    phase = federation.admin.round(1).phase
    (event,) = federation.aggregator.fail(1, FailureReason.ABANDONED).events
    assert isinstance(event, RoundFailed)
    assert (event.phase, event.reason) == (phase, FailureReason.ABANDONED)
    assert federation.admin.round(1).phase is Phase.FAILED
    assert federation.admin.head_model() == make_digest("genesis")


@pytest.mark.parametrize("stage", ["opened", "sealed", "aggregated"])
def test_anyone_fails_a_round_after_the_overdue_window(stage: str, request: pytest.FixtureRequest) -> None:
    """Nobody is held up by an aggregator that has gone: after the overdue window, not at its end."""
    federation: Federation = request.getfixturevalue(stage)
    overdue = federation.admin.round(1).deadline + AGGREGATE_WINDOW_S
    federation.pass_deadline(by_s=AGGREGATE_WINDOW_S)
    with refuses("DeadlineNotReached", round=1, deadline=overdue, time=overdue):
        federation.outsider.fail(1, FailureReason.NO_QUORUM)
    federation.pass_deadline(by_s=AGGREGATE_WINDOW_S + 1)
    federation.outsider.fail(1, FailureReason.NO_QUORUM)
    assert federation.admin.round(1).phase is Phase.FAILED


def test_an_outsider_cannot_fail_a_round_before_its_seal(opened: Federation) -> None:
    """With one node silent, the aggregator seals after the deadline, also where an outsider comes first."""
    contributors = opened.commit(0, 1)
    deadline = opened.admin.round(1).deadline
    opened.pass_deadline(by_s=1)
    with refuses("DeadlineNotReached", round=1, deadline=deadline + AGGREGATE_WINDOW_S, time=deadline + 1):
        opened.outsider.fail(1, FailureReason.NO_QUORUM)
    opened.aggregator.seal(1, contributors)
    assert opened.admin.round(1).phase is Phase.SEALED


def test_seal_after_the_overdue_window(opened: Federation) -> None:
    """A round that nobody has failed can still be sealed, however late."""
    contributors = opened.commit(0, 1)
    opened.pass_deadline(by_s=AGGREGATE_WINDOW_S + 1)
    opened.aggregator.seal(1, contributors)
    assert opened.admin.round(1).phase is Phase.SEALED


def test_the_overdue_window_is_of_the_rounds_own_policy(opened: Federation) -> None:
    """A policy that is adopted meanwhile does not shorten it."""
    opened.adopt_policy(aggregate_window=1)
    overdue = opened.admin.round(1).deadline + AGGREGATE_WINDOW_S
    opened.pass_deadline(by_s=AGGREGATE_WINDOW_S)
    with refuses("DeadlineNotReached", round=1, deadline=overdue, time=overdue):
        opened.outsider.fail(1, FailureReason.NO_QUORUM)


def test_fail_refuses_rounds_that_are_not_under_way(opened: Federation) -> None:
    """A round fails once, and not before it is opened."""
    with refuses("WrongRound", expected=1, actual=2):
        opened.aggregator.fail(2, FailureReason.ABANDONED)
    opened.aggregator.fail(1, FailureReason.ABANDONED)
    with refuses("WrongPhase", round=1, actual=Phase.FAILED):
        opened.aggregator.fail(1, FailureReason.ABANDONED)


def test_a_failed_round_loses_nothing(aggregated: Federation) -> None:
    """The next round starts from the same model, and everybody may commit again."""
    aggregated.aggregator.fail(1, FailureReason.NO_QUORUM)
    assert aggregated.run_round(2) == aggregated.admin.head_model()
