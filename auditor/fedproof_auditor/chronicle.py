"""What the events of one federation's contract say happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedproof.digests import Address, Digest
from fedproof.ledger.events import (
    AggregatePublished,
    EpochPublished,
    ModelAttested,
    Phase,
    PolicyAdopted,
    RoundFailed,
    RoundFinalised,
    RoundOpened,
    RoundSealed,
    UpdateCommitted,
)


@dataclass(slots=True)
class RoundRecord:
    """One round, as far as it went.

    Attributes:
        cohort: the nodes that were admitted when it opened.
        commitments: by node, in the order in which they came.
        attestations: by node, in the order in which they came.
        sealed_at: the block timestamp of its seal; 0 before it.
    """

    opened: RoundOpened
    cohort: frozenset[Address]
    phase: Phase = Phase.OPEN
    commitments: dict[Address, UpdateCommitted] = field(default_factory=dict)
    sealed: RoundSealed | None = None
    aggregate: AggregatePublished | None = None
    attestations: dict[Address, ModelAttested] = field(default_factory=dict)
    finalised: RoundFinalised | None = None
    failed: RoundFailed | None = None
    sealed_at: int = 0

    @property
    def number(self) -> int:
        """Which round."""
        return self.opened.round


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch's publication.

    Attributes:
        policy_version: the newest policy then; 0 for none.
        memberships: the sets of admitted nodes from the first request of this epoch to its publication. The
            key maker wraps the key some time before its transaction is mined: any of them may be what it saw.
        wrapping_keys: the digest of the public key that each node had named by then.
    """

    published: EpochPublished
    policy_version: int
    memberships: tuple[frozenset[Address], ...]
    wrapping_keys: Mapping[Address, Digest]


@dataclass(slots=True)
class Chronicle:
    """Everything that the events say, in one place.

    Attributes:
        head_model: what the head model must be after the last event; nothing before the first policy.
    """

    policies: dict[int, PolicyAdopted] = field(default_factory=dict)
    epochs: dict[int, EpochRecord] = field(default_factory=dict)
    rounds: dict[int, RoundRecord] = field(default_factory=dict)
    head_model: Digest | None = None
