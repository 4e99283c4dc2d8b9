"""Which step a round needs next. Pure: the ledger's state, the uploads and the time come in as arguments.

    Open        every node of the cohort is whole ............................. Seal
                deadline passed, enough are whole .............................. Seal, excluding the others
                deadline passed, too few are whole ............................. Fail
    Sealed      ................................................................ Aggregate
                deadline passed ................................................ Fail
    Aggregated  quorum reached, and nobody is left to attest, the grace is over,
                or the deadline passed ......................................... Finalise
                deadline passed or everybody attested, without a quorum ........ Fail

Whoever runs this after a crash, on the same ledger and journal, gets the same step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fedproof.digests import Address, Digest
from fedproof.ledger.events import ExclusionReason, FailureReason, OnChainPolicy
from fedproof.ledger.history import RoundRecord
from fedproof_aggregator.journal import UploadStanding


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done now."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Make the contributors final, ascending; each other committed node is excluded for a reason."""

    contributors: tuple[Address, ...]
    excluded: tuple[tuple[Address, ExclusionReason], ...]


@dataclass(frozen=True, slots=True)
class Finalise:
    """Make an attested model the head."""

    model: Digest
    attestations: int


@dataclass(frozen=True, slots=True)
class Fail:
    """Give the round up; the message is for the log."""

    reason: FailureReason
    message: str


def choose_seal(
    record: RoundRecord,
    standings: Mapping[Address, UploadStanding | None],
    *,
    policy: OnChainPolicy,
    max_contributors: int,
    seconds_overdue: float,
    grace_s: float,
) -> Wait | Seal | Fail:
    """Return the next step of an open round.

    Args:
        record: the round.
        standings: of each committed node's upload.
        policy: the round's.
        max_contributors: most updates that the codec can add.
        seconds_overdue: chain time since the commit deadline; negative before it.
        grace_s: how long after the deadline an update may still become whole.
    """
    cohort = len(record.cohort)
    if cohort > max_contributors:
        return Fail(
            FailureReason.ABANDONED,
            f"expected a cohort of at most {max_contributors} nodes (max_contributors), it has {cohort}",
        )
    whole: list[Address] = []
    excluded: list[tuple[Address, ExclusionReason]] = []
    is_pending = False
    for node in sorted(record.commitments):
        standing = standings.get(node)
        if standing is not None and standing.is_complete:
            whole.append(node)
        elif standing is not None and standing.reason is not None:
            excluded.append((node, ExclusionReason(standing.reason)))
        else:
            excluded.append((node, ExclusionReason.NOT_UPLOADED))
            is_pending = True
    if len(whole) == cohort:
        return Seal(tuple(whole), ())
    if seconds_overdue <= 0 or (is_pending and seconds_overdue <= grace_s):
        return Wait()
    if len(whole) < policy.min_contributors:
        return Fail(
            FailureReason.TOO_FEW_CONTRIBUTORS,
            f"expected at least {policy.min_contributors} whole updates at the deadline, got {len(whole)} of "
            f"{len(record.commitments)} committed ones",
        )
    return Seal(tuple(whole), tuple(excluded))


def choose_finalise(
    record: RoundRecord,
    *,
    policy: OnChainPolicy,
    admitted: Collection[Address],
    seconds_overdue: float,
    is_grace_over: bool,
) -> Wait | Finalise | Fail:
    """Return the next step of a round whose sum is published.

    Args:
        record: the round.
        policy: the round's.
        admitted: nodes that may attest now, if they are of the cohort.
        seconds_overdue: chain time since the attestation deadline; negative before it.
        is_grace_over: whether the others had their time since the quorum was reached.
    """
    counts = Counter(record.attestations.values())
    model, count = max(counts.items(), key=lambda item: item[1], default=(None, 0))
    is_everybody_in = all(node in record.attestations for node in record.cohort if node in admitted)
    if model is not None and count >= policy.attestation_quorum:
        # After the deadline the contract takes no attestation that the grace could wait for.
        is_nobody_awaited = is_everybody_in or is_grace_over or seconds_overdue > 0
        return Finalise(model, count) if is_nobody_awaited else Wait()
    if is_everybody_in or seconds_overdue > 0:
        return Fail(
            FailureReason.NO_QUORUM,
            f"expected {policy.attestation_quorum} equal attestations, got at most {count} of "
            f"{len(record.attestations)} for {len(counts)} different models",
        )
    return Wait()


def has_quorum(record: RoundRecord, policy: OnChainPolicy) -> bool:
    """Return whether enough nodes attested the same model."""
    return max(Counter(record.attestations.values()).values(), default=0) >= policy.attestation_quorum
