"""The rules of a round, at each boundary."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
from fedproof_aggregator.journal import UploadStanding
from fedproof_aggregator.opening import explain_cohort
from fedproof_aggregator.steps import (
    Anchor,
    Fail,
    Finalise,
    Propose,
    Seal,
    Wait,
    choose_finalise,
    choose_seal,
)

from fedproof.digests import Address, checksum_address
from fedproof.ledger.events import LEAF_TOO, ExclusionReason, FailureReason, OnChainPolicy, Phase
from fedproof.ledger.rounds import Batch, Commitment, Proposal, RoundRecord
from fedproof.ledger.statements import SignedAttestation
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
    attest_window=200,
    batching=False,
    privacy_cost=0,
    privacy_budget=0,
)
BATCHING = replace(POLICY, batching=True)


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
    *standings: UploadStanding | None,
    overdue: float = -1,
    grace: float = 0,
    most: int = 4,
    signed: Collection[int] = (),
    batched: Collection[int] | None = None,
    **changes: Any,
) -> Wait | Anchor | Seal | Fail:
    """Return the step of a round in which so many nodes committed, by transaction unless they are `signed`.

    Args:
        signed: whose commitments are signed ones only.
        batched: who is in the anchored batch, if one is anchored.
    """
    everybody = {node: Commitment(ROOT, 10) for node in NODES[: len(standings)]}
    by_transaction = {node: each for i, (node, each) in enumerate(everybody.items()) if i not in signed}
    batch = None if batched is None else Batch(make_digest("batch"), len(batched))
    return choose_seal(
        make_round(commitments=by_transaction, batch=batch, **changes),
        everybody,
        dict(zip(NODES, standings, strict=False)),
        batched=[NODES[i] for i in batched or ()],
        policy=BATCHING if signed or batched else POLICY,
        max_contributors=most,
        seconds_overdue=overdue,
        grace_s=grace,
        anchor_spare_s=-overdue - BATCHING.attest_window,
        anchor_margin_s=30,
    )


def counted(*indices: int, **others: int) -> Seal:
    """Return the seal of these nodes, who committed by transaction, excluding others."""
    nodes = tuple(NODES[i] for i in indices)
    return Seal(
        nodes, {**dict.fromkeys(nodes, 0), **{NODES[int(name[1:])]: code for name, code in others.items()}}
    )


@pytest.mark.parametrize("overdue", [-100, 0, 100])
def test_a_whole_cohort_is_sealed_at_once(overdue: float) -> None:
    """Nobody is waited for when everybody is in."""
    assert seal(WHOLE, WHOLE, WHOLE, overdue=overdue) == counted(0, 1, 2)


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
    assert seal(WHOLE, REFUSED, WHOLE, None, cohort=4, overdue=1) == counted(
        0, 2, n1=ExclusionReason.MALFORMED, n3=ExclusionReason.NOT_UPLOADED
    )
    assert seal(WHOLE, WHOLE, overdue=1) == counted(0, 1)


def test_a_partial_update_gets_the_grace_and_no_more() -> None:
    """An update under way is waited for after the deadline, a refused one is not."""
    assert seal(WHOLE, WHOLE, PARTIAL, overdue=10, grace=10) == Wait()
    assert seal(WHOLE, WHOLE, PARTIAL, overdue=10.1, grace=10) == counted(
        0, 1, n2=ExclusionReason.NOT_UPLOADED
    )
    assert seal(WHOLE, WHOLE, REFUSED, overdue=1, grace=10) == counted(0, 1, n2=ExclusionReason.MALFORMED)


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
    assert seal(WHOLE, WHOLE, WHOLE, most=3) == counted(0, 1, 2)


# Signed commitments. The last moment to anchor them is 200 s before the deadline, the margin is 30 s.


@pytest.mark.parametrize("overdue", [-600, -231, -200])
def test_signed_commitments_are_anchored_once_everybody_is_whole(overdue: float) -> None:
    """Nobody is waited for when everybody is in; who committed by transaction is not in the batch."""
    assert seal(WHOLE, WHOLE, WHOLE, signed=(0, 1, 2), overdue=overdue) == Anchor(NODES[:3])
    assert seal(WHOLE, WHOLE, WHOLE, signed=(0, 2), overdue=overdue) == Anchor((NODES[0], NODES[2]))


@pytest.mark.parametrize("slow", [PARTIAL, None, REFUSED], ids=["partial", "not begun", "refused"])
def test_the_batch_waits_for_the_slow_until_its_margin(slow: UploadStanding | None) -> None:
    """Before the margin everybody may become whole, from it on the batch is of those who are."""
    assert seal(WHOLE, slow, WHOLE, signed=(0, 1, 2), overdue=-231) == Wait()
    assert seal(WHOLE, slow, WHOLE, signed=(0, 1, 2), overdue=-230) == Anchor((NODES[0], NODES[2]))
    assert seal(WHOLE, signed=(0,), overdue=-230) == Anchor((NODES[0],))


def test_nothing_is_anchored_later_than_the_contract_takes_it() -> None:
    """Up to the second that leaves nodes the window to commit by themselves, and not after it."""
    assert seal(WHOLE, WHOLE, WHOLE, signed=(0, 1, 2), overdue=-200) == Anchor(NODES[:3])
    assert seal(WHOLE, WHOLE, WHOLE, signed=(0, 1, 2), overdue=-199.9) == Wait()
    step = seal(WHOLE, WHOLE, WHOLE, signed=(0, 1, 2), overdue=1)
    assert isinstance(step, Fail), "what was not anchored does not count"
    assert seal(WHOLE, WHOLE, WHOLE, signed=(2,), overdue=1) == counted(0, 1)


def test_nothing_is_anchored_without_a_whole_signed_update() -> None:
    """A batch of nobody is none."""
    assert seal(WHOLE, WHOLE, PARTIAL, signed=(2,), overdue=-230) == Wait()
    assert seal(WHOLE, WHOLE, WHOLE, overdue=-230) == counted(0, 1, 2)


def test_an_anchored_batch_is_sealed_without_naming_its_nodes() -> None:
    """The seal lists who committed by transaction; who is in the batch counts by its leaf."""
    assert seal(WHOLE, WHOLE, WHOLE, signed=(0, 1, 2), batched=(0, 1, 2)) == Seal(NODES[:3], {})
    step = seal(WHOLE, WHOLE, WHOLE, signed=(0, 1), batched=(0, 1))
    assert step == Seal(NODES[:3], {NODES[2]: 0})


def test_a_node_that_was_left_out_is_waited_for_and_then_excluded() -> None:
    """Beside a batch, a node that committed by itself gets the same grace and the same reason."""
    settings: dict[str, Any] = {"signed": (0, 1), "batched": (0, 1)}
    assert seal(WHOLE, WHOLE, PARTIAL, overdue=10, grace=10, **settings) == Wait()
    assert seal(WHOLE, WHOLE, PARTIAL, overdue=11, grace=10, **settings) == Seal(
        NODES[:2], {NODES[2]: ExclusionReason.NOT_UPLOADED}
    )
    assert seal(WHOLE, WHOLE, overdue=0, **settings) == Wait()
    assert seal(WHOLE, WHOLE, overdue=1, **settings) == Seal(NODES[:2], {})


def test_a_node_in_both_ways_counts_once() -> None:
    """Where a node of the batch committed by transaction as well, its leaf does not count."""
    step = seal(WHOLE, WHOLE, WHOLE, signed=(0, 1), batched=(0, 1, 2))
    assert step == Seal(NODES[:3], {NODES[2]: LEAF_TOO})
    step = seal(WHOLE, WHOLE, REFUSED, signed=(0, 1), batched=(0, 1, 2), overdue=1)
    assert step == Seal(NODES[:2], {NODES[2]: LEAF_TOO + ExclusionReason.MALFORMED})


SIGNATURE = bytes(65)


def sign(*models: Any) -> dict[Address, tuple[Any, SignedAttestation]]:
    return {
        node: (model, SignedAttestation(node, SIGNATURE))
        for node, model in zip(NODES, models, strict=False)
        if model is not None
    }


def leaves(*indices: int) -> dict[Address, SignedAttestation]:
    return {NODES[i]: SignedAttestation(NODES[i], SIGNATURE) for i in indices}


def finalise(
    *models: Any,
    sent: tuple[Any, ...] = (),
    overdue: float = -1,
    grace_over: bool = False,
    policy: OnChainPolicy = POLICY,
    most: int = 6,
    contracts: Collection[int] = (),
    **changes: Any,
) -> Wait | Propose | Finalise | Fail:
    """Return the step after these signed models; those sent by transaction are of the last nodes."""
    attestations = dict(zip(reversed(NODES[:3]), sent, strict=False))
    settings = {"phase": Phase.AGGREGATED, "attestations": attestations, **changes}
    return choose_finalise(
        make_round(**settings),
        sign(*models),
        policy=policy,
        seconds_overdue=overdue,
        is_grace_over=grace_over,
        most_signatures=most,
        contracts=[NODES[index] for index in contracts],
    )


def test_everybody_agreeing_finalises_at_once() -> None:
    """Nobody is waited for when nobody is left; transactions count without their signatures."""
    assert finalise(A, A, A) == Finalise(A, leaves(0, 1, 2))
    assert finalise(A, A, sent=(A,)) == Finalise(A, leaves(0, 1))


def test_a_quorum_waits_for_the_rest_until_the_grace_is_over() -> None:
    """A node that is a little slower may still attest."""
    assert finalise(A, A) == Wait()
    assert finalise(A, sent=(A,)) == Wait()
    assert finalise(A, A, grace_over=True) == Finalise(A, leaves(0, 1))
    assert finalise(A, A, overdue=1, grace_over=True) == Finalise(A, leaves(0, 1))


def test_after_the_deadline_a_quorum_waits_for_nobody() -> None:
    """The contract takes an attestation in the deadline's own second and none after it."""
    assert finalise(A, A, overdue=0) == Wait()
    assert finalise(A, A, overdue=1) == Finalise(A, leaves(0, 1))


def test_a_signature_that_differs_has_three_quarters_of_the_window() -> None:
    """From half on its node may say so by a transaction; if it does not, the quorum's model is the result."""
    for models, overdue in (((A, A, B), -50), ((B, A, A), -50), ((A, A, B), 1)):
        assert finalise(*models, overdue=-50.1, grace_over=True) == Wait()
        others = [index for index, model in enumerate(models) if model == A]
        assert finalise(*models, overdue=overdue) == Finalise(A, leaves(*others))
    assert finalise(A, B, sent=(A,), overdue=-50.1) == Wait()
    assert finalise(A, B, sent=(A,), overdue=-50) == Finalise(A, leaves(0))


def test_with_batching_a_signature_that_differs_is_left_to_the_proposal() -> None:
    """Its node has the proposal's window to say so by a transaction, and nobody else has to send one."""
    assert finalise(A, B, A, policy=BATCHING, overdue=-200) == Propose(A, leaves(0, 2))
    assert finalise(A, B, A, policy=BATCHING, overdue=0) == Propose(A, leaves(0, 2))
    assert finalise(A, B, A, policy=BATCHING, overdue=1) == Finalise(A, leaves(0, 2))
    four: dict[str, Any] = {"policy": BATCHING, "cohort": 4}
    assert finalise(A, B, A, **four) == Wait(), "the fourth may still attest"
    assert finalise(A, B, A, grace_over=True, **four) == Propose(A, leaves(0, 2))
    assert finalise(A, B, sent=(A,), policy=BATCHING, overdue=-50.1) == Wait(), "one signature is no quorum"


def test_a_transaction_that_differs_has_the_last_word() -> None:
    """The contract takes no other model then: the round waits for its end, and each node is named."""
    for policy in (POLICY, BATCHING):
        assert finalise(A, A, sent=(B,), grace_over=True, policy=policy) == Wait()
        assert finalise(A, A, sent=(B,), overdue=0, policy=policy) == Wait()
    step = finalise(A, A, sent=(B,), overdue=1)
    assert isinstance(step, Fail)
    assert step.reason is FailureReason.NO_QUORUM
    names = [
        f"{checksum_address(node)}: {model.hex()}" for node, model in zip(NODES, (A, A, B), strict=False)
    ]
    assert step.message == "expected 2 equal attestations, got " + "; ".join(names)


@pytest.mark.parametrize("grace_over", [False, True])
def test_below_the_quorum_it_waits_until_the_deadline(*, grace_over: bool) -> None:
    """One attestation too few waits, and fails once the deadline has passed."""
    assert finalise(A, grace_over=grace_over) == Wait()
    assert finalise(A, overdue=0, grace_over=grace_over) == Wait()
    for models in ((A,), ()):
        step = finalise(*models, overdue=1, grace_over=grace_over)
        assert isinstance(step, Fail)
        assert step.reason is FailureReason.NO_QUORUM
        named = [f"{checksum_address(NODES[0])}: {A.hex()}"] if models else ["none"]
        assert step.message == f"expected 2 equal attestations, got {named[0]}"


def test_many_signatures_are_proposed_and_few_are_checked_on_chain() -> None:
    """From one more than `most_signatures` on, where the policy has batching."""
    assert finalise(A, A, A, policy=BATCHING, most=3) == Finalise(A, leaves(0, 1, 2))
    assert finalise(A, A, A, policy=BATCHING, most=2) == Propose(A, leaves(0, 1, 2))
    assert finalise(A, A, A, policy=POLICY, most=0) == Finalise(A, leaves(0, 1, 2))


def test_nothing_is_proposed_that_the_contract_would_not_take() -> None:
    """Fewer signatures than the quorum, or the deadline passed: then they are checked on the chain."""
    assert finalise(A, sent=(A, A), policy=BATCHING, most=0) == Finalise(A, leaves(0))
    assert finalise(A, A, A, policy=BATCHING, most=0, overdue=0) == Propose(A, leaves(0, 1, 2))
    assert finalise(A, A, A, policy=BATCHING, most=0, overdue=1) == Finalise(A, leaves(0, 1, 2))


def test_no_contracts_signature_is_proposed() -> None:
    """It is left out; without it the keys' have to reach the quorum, or all are checked on the chain."""
    assert finalise(A, A, A, policy=BATCHING, most=2, contracts=[2]) == Propose(A, leaves(0, 1))
    assert finalise(A, A, A, policy=BATCHING, most=2, contracts=[1, 2]) == Finalise(A, leaves(0, 1, 2))
    assert finalise(A, A, A, policy=BATCHING, most=3, contracts=[2]) == Finalise(A, leaves(0, 1, 2))


def test_a_proposal_waits_for_its_deadline() -> None:
    """Nodes may object up to and including the deadline's second, whatever else was signed."""
    proposed = {"phase": Phase.PROPOSED, "proposal": Proposal(A, make_digest("root"), 3)}
    for models in ((A, A, A), (B,)):
        assert finalise(*models, policy=BATCHING, **proposed) == Wait()
        assert finalise(*models, policy=BATCHING, overdue=0, **proposed) == Wait()
        assert finalise(*models, policy=BATCHING, overdue=1, **proposed) == Finalise(A, {})


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
