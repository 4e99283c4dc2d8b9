"""Which step a round needs next. Pure: the ledger's state, the uploads and the time come in as arguments.

    Open        signed commitments are whole, and everybody's is or it is time ... Anchor
                every node of the cohort is whole ................................ Seal
                deadline passed, enough are whole ................................ Seal, excluding the others
                deadline passed, too few are whole ............................... Fail
    Sealed      .................................................................. Aggregate
                deadline passed .................................................. Fail
    Aggregated  quorum reached, and nobody is left to attest, the grace is over,
                or the deadline passed ........................................... Finalise, or Propose
                the same, and a signed attestation differs ....................... Propose, or
                a quarter of the window is left .................................. Finalise
                deadline passed without a quorum, or a transaction differs ....... Fail
    Proposed    deadline passed .................................................. Finalise

Whoever runs this after a crash, on the same ledger and journal, gets the same step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fedproof.digests import Address, Digest, checksum_address
from fedproof.ledger.events import LEAF_TOO, ExclusionReason, FailureReason, OnChainPolicy, Phase
from fedproof.ledger.rounds import Commitment, RoundRecord
from fedproof.ledger.statements import SignedAttestation
from fedproof_aggregator.journal import UploadStanding


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done now."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Bind this aggregator to the signed commitments of these nodes, ascending."""

    nodes: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Seal:
    """Make the contributors final, ascending.

    Attributes:
        reasons: of each node that committed by transaction, 0 or why it does not count; LEAF_TOO is added
            where its leaf in the batch does not.
    """

    contributors: tuple[Address, ...]
    reasons: Mapping[Address, int]


@dataclass(frozen=True, slots=True)
class Propose:
    """Bind this aggregator to signed attestations of a model."""

    model: Digest
    attestations: Mapping[Address, SignedAttestation]


@dataclass(frozen=True, slots=True)
class Finalise:
    """Make an attested model the head, on these signatures."""

    model: Digest
    attestations: Mapping[Address, SignedAttestation]


@dataclass(frozen=True, slots=True)
class Fail:
    """Give the round up; the message is for the log."""

    reason: FailureReason
    message: str


def choose_seal(
    record: RoundRecord,
    commitments: Mapping[Address, Commitment],
    standings: Mapping[Address, UploadStanding | None],
    *,
    batched: Collection[Address],
    policy: OnChainPolicy,
    max_contributors: int,
    seconds_overdue: float,
    grace_s: float,
    anchor_spare_s: float,
    anchor_margin_s: float,
) -> Wait | Anchor | Seal | Fail:
    """Return the next step of an open round.

    Args:
        record: the round.
        commitments: by transaction and by signature; once a batch is anchored, no signed ones beside it.
        standings: of each committed node's upload.
        batched: the nodes in the anchored batch.
        policy: the round's.
        max_contributors: most updates that the codec can add.
        seconds_overdue: chain time since the commit deadline; negative before it.
        grace_s: how long after the deadline an update may still become whole.
        anchor_spare_s: how long the contract still takes a batch, so that who is left out has time to commit;
            negative when it no longer does.
        anchor_margin_s: how long before the last moment the batch is anchored without who is not whole.
    """
    cohort = len(record.cohort)
    if cohort > max_contributors:
        return Fail(
            FailureReason.ABANDONED,
            f"expected a cohort of at most {max_contributors} nodes (max_contributors), it has {cohort}",
        )
    whole = [node for node in sorted(commitments) if _is_whole(standings.get(node))]
    if record.batch is None:
        signed = tuple(node for node in whole if node not in record.commitments)
        if signed and anchor_spare_s >= 0 and (len(whole) == cohort or anchor_spare_s <= anchor_margin_s):
            return Anchor(signed)
        whole = [node for node in whole if node in record.commitments]
    reasons = {
        node: _explain(standings.get(node)) + (LEAF_TOO if node in batched else 0)
        for node in record.commitments
    }
    if len(whole) == cohort:
        return Seal(tuple(whole), reasons)
    is_pending = any(code % LEAF_TOO == ExclusionReason.NOT_UPLOADED for code in reasons.values())
    if seconds_overdue <= 0 or (is_pending and seconds_overdue <= grace_s):
        return Wait()
    if len(whole) < policy.min_contributors:
        return Fail(
            FailureReason.TOO_FEW_CONTRIBUTORS,
            f"expected at least {policy.min_contributors} whole updates at the deadline, got {len(whole)} of "
            f"{len(commitments)} committed ones",
        )
    return Seal(tuple(whole), reasons)


def choose_finalise(
    record: RoundRecord,
    signed: Mapping[Address, tuple[Digest, SignedAttestation]],
    *,
    policy: OnChainPolicy,
    seconds_overdue: float,
    is_grace_over: bool,
    most_signatures: int,
    contracts: Collection[Address] = (),
) -> Wait | Propose | Finalise | Fail:
    """Return the next step of a round whose sum is published.

    Args:
        record: the round. The contract finalises it by itself once transactions alone reach the quorum.
        signed: the attestations of nodes that sent no transaction, with their models.
        policy: the round's.
        seconds_overdue: chain time since the phase's deadline; negative before it.
        is_grace_over: whether the others had their time since the quorum was reached.
        most_signatures: how many one transaction may carry, where the policy has batching.
        contracts: the nodes whose signatures only their contracts vouch for: none goes into a proposal.
    """
    if record.phase is Phase.PROPOSED and record.proposal is not None:
        return Finalise(record.proposal.model_digest, {}) if seconds_overdue > 0 else Wait()
    models = collect_models(record, signed)
    model, count = find_favourite(models)
    # A transaction for another model has the last word, in its node's name: the contract takes no other.
    is_contradicted = any(each != model for each in record.attestations.values())
    if model is not None and count >= policy.attestation_quorum and not is_contradicted:
        # After the deadline the contract takes no attestation that the grace could wait for.
        is_nobody_awaited = len(models) == len(record.cohort) or is_grace_over or seconds_overdue > 0
        attestations = {node: each for node, (attested, each) in signed.items() if attested == model}
        is_differing = count < len(models)
        leaves = {node: each for node, each in attestations.items() if node not in contracts}
        # The contract takes no proposal after the deadline, and none of fewer signatures than the quorum.
        is_proposable = len(leaves) >= policy.attestation_quorum and seconds_overdue <= 0
        is_worth_it = policy.batching and (is_differing or len(attestations) > most_signatures)
        step = Propose(model, leaves) if is_worth_it and is_proposable else Finalise(model, attestations)
        # Who signed another model says so by a transaction, or it does not count: while the result is
        # proposed, or between half and three quarters of this window.
        had_time = isinstance(step, Propose) or seconds_overdue >= -policy.attest_window / 4
        return step if is_nobody_awaited and (had_time or not is_differing) else Wait()
    if seconds_overdue > 0:
        return Fail(
            FailureReason.NO_QUORUM,
            f"expected {policy.attestation_quorum} equal attestations, got "
            + (
                "; ".join(f"{checksum_address(node)}: {each.hex()}" for node, each in models.items())
                or "none"
            ),
        )
    return Wait()


def collect_models(
    record: RoundRecord, signed: Mapping[Address, tuple[Digest, SignedAttestation]]
) -> dict[Address, Digest]:
    """Return the model that each node attested, by its signature or its transaction."""
    return {**{node: model for node, (model, _) in signed.items()}, **record.attestations}


def find_favourite(models: Mapping[Address, Digest]) -> tuple[Digest | None, int]:
    """Return the model that most nodes attested, and how many did."""
    return next(iter(Counter(models.values()).most_common(1)), (None, 0))


def _is_whole(standing: UploadStanding | None) -> bool:
    return standing is not None and standing.is_complete


def _explain(standing: UploadStanding | None) -> int:
    if standing is None or (standing.reason is None and not standing.is_complete):
        return ExclusionReason.NOT_UPLOADED
    return standing.reason or 0
