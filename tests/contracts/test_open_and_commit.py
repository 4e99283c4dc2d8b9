"""Opening a round, and committing to updates."""

from __future__ import annotations

import pytest

from fedproof.digests import ZERO_DIGEST
from fedproof.ledger.client import Round
from fedproof.ledger.events import FailureReason, MemberStatus, Phase, RoundOpened, UpdateCommitted
from tests.chain import COMMIT_WINDOW_S, MAX_EXAMPLES, Federation, make_digest
from tests.contracts.refusals import refuses, refuses_all_but_aggregator

ROOT = make_digest("root")


def test_open_round_begins_on_the_head_model(ready: Federation) -> None:
    """A round takes its numbers from the policy, the epoch and the members of that moment."""
    receipt = ready.aggregator.open_round(1)
    deadline = ready.admin.block(receipt.block_number).timestamp + COMMIT_WINDOW_S
    (event,) = receipt.events
    assert isinstance(event, RoundOpened)
    assert (event.base_model, event.deadline) == (make_digest("genesis"), deadline)
    assert ready.admin.round(1) == Round(Phase.OPEN, 2, 2, 3, MAX_EXAMPLES, 1, 1, deadline)


@pytest.mark.parametrize("number", [0, 2])
def test_open_round_refuses_any_but_the_next(ready: Federation, number: int) -> None:
    """Rounds are counted one by one."""
    with refuses("WrongRound", expected=1, actual=number):
        ready.aggregator.open_round(number)


def test_open_round_waits_for_the_round_before(opened: Federation) -> None:
    """Two rounds are never under way, and a number is never used twice."""
    with refuses("WrongRound", expected=2, actual=1):
        opened.aggregator.open_round(1)
    with refuses("WrongPhase", round=1, actual=Phase.OPEN):
        opened.aggregator.open_round(2)
    opened.aggregator.fail(1, FailureReason.ABANDONED)
    opened.aggregator.open_round(2)
    assert opened.admin.round(2).phase is Phase.OPEN


def test_open_round_needs_a_policy_and_an_epoch(bare: Federation) -> None:
    """Without a policy or a key there is nothing to train under."""
    bare.admit_all()
    with refuses("NoPolicy"):
        bare.aggregator.open_round(1)
    bare.adopt_policy()
    with refuses("NoEpoch"):
        bare.aggregator.open_round(1)
    bare.publish_epoch()
    bare.aggregator.open_round(1)


def test_open_round_needs_enough_members(ready: Federation) -> None:
    """A cohort that could reach neither quorum is not sent to work."""
    ready.adopt_policy(min_contributors=4)
    with refuses("QuorumNotReached", round=1, actual=3, required=4):
        ready.aggregator.open_round(1)
    ready.adopt_policy(attestation_quorum=4)
    with refuses("QuorumNotReached", round=1, actual=3, required=4):
        ready.aggregator.open_round(1)
    ready.adopt_policy(min_contributors=3, attestation_quorum=3)
    ready.aggregator.open_round(1)


def test_open_round_needs_a_majority_for_its_quorum(ready: Federation) -> None:
    """Half of the cohort is no quorum, as two models could reach it; more than half is one."""
    ready.outsider.register(ROOT, ROOT)
    ready.admin.admit(ready.outsider.address)
    with refuses("QuorumAmbiguous", round=1, quorum=2, cohort=4):
        ready.aggregator.open_round(1)
    ready.adopt_policy(attestation_quorum=3)
    ready.aggregator.open_round(1)


def test_open_round_is_the_aggregators(ready: Federation) -> None:
    """Neither the admin nor a node opens rounds."""
    for caller in (ready.admin, ready.nodes[0]):
        with refuses_all_but_aggregator(caller):
            caller.open_round(1)


def test_commit_is_recorded(opened: Federation) -> None:
    """A commitment names its round, node, root and examples."""
    node = opened.nodes[0]
    (event,) = node.commit(1, ROOT, 7).events
    assert isinstance(event, UpdateCommitted)
    assert (event.round, event.node, event.update_root, event.examples) == (1, node.address, ROOT, 7)
    assert node.member(node.address).last_committed == 1


def test_commit_cannot_be_overwritten(opened: Federation) -> None:
    """One commitment for each node and round, whether the second is the same or another."""
    node = opened.nodes[0]
    node.commit(1, ROOT, 7)
    for root in (ROOT, make_digest("another root")):
        with refuses("AlreadyCommitted", round=1, node=node.address):
            node.commit(1, root, 7)


def test_commit_at_the_deadline(opened: Federation) -> None:
    """The deadline's own second still counts."""
    opened.pass_deadline(by_s=0)
    opened.commit(0)


def test_commit_after_the_deadline(opened: Federation) -> None:
    """One second later is too late."""
    deadline = opened.admin.round(1).deadline
    opened.pass_deadline(by_s=1)
    with refuses("DeadlinePassed", round=1, deadline=deadline, time=deadline + 1):
        opened.commit(0)


def test_commit_bounds_the_examples(opened: Federation) -> None:
    """From one to the policy's maximum."""
    for examples in (0, MAX_EXAMPLES + 1):
        with refuses("ExamplesOutOfRange", examples=examples, maximum=MAX_EXAMPLES):
            opened.nodes[0].commit(1, ROOT, examples)
    opened.nodes[0].commit(1, ROOT, 1)
    opened.nodes[1].commit(1, ROOT, MAX_EXAMPLES)


def test_commit_refuses_the_zero_root(opened: Federation) -> None:
    """Zero is no Merkle root."""
    with refuses("ZeroDigest"):
        opened.nodes[0].commit(1, ZERO_DIGEST, 1)


def test_commit_refuses_strangers_and_the_suspended(opened: Federation) -> None:
    """Only admitted nodes commit."""
    stranger, suspended = opened.outsider, opened.nodes[0]
    with refuses("NotAdmitted", node=stranger.address, status=MemberStatus.NONE):
        stranger.commit(1, ROOT, 1)
    opened.admin.suspend(suspended.address)
    with refuses("NotAdmitted", node=suspended.address, status=MemberStatus.SUSPENDED):
        suspended.commit(1, ROOT, 1)


def test_commit_refuses_latecomers(opened: Federation) -> None:
    """A node admitted after the opening waits for the next round, also one that was suspended."""
    late, returned = opened.outsider, opened.nodes[0]
    late.register(ROOT, ROOT)
    opened.admin.admit(late.address)
    opened.admin.suspend(returned.address)
    opened.admin.admit(returned.address)
    for node in (late, returned):
        with refuses("NotInCohort", round=1, node=node.address, first_round=2):
            node.commit(1, ROOT, 1)
    opened.aggregator.fail(1, FailureReason.ABANDONED)
    opened.adopt_policy(attestation_quorum=3)
    opened.aggregator.open_round(2)
    late.commit(2, ROOT, 1)


@pytest.mark.parametrize("number", [0, 2])
def test_commit_refuses_other_rounds(opened: Federation, number: int) -> None:
    """Only the current round takes commitments."""
    with refuses("WrongRound", expected=1, actual=number):
        opened.nodes[0].commit(number, ROOT, 1)


def test_commit_refuses_a_round_that_is_sealed(sealed: Federation) -> None:
    """A sealed set stays as it is."""
    with refuses("WrongPhase", round=1, actual=Phase.SEALED):
        sealed.nodes[0].commit(1, ROOT, 1)
