"""What the events of one federation's contract say happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedproof.digests import ZERO_DIGEST, Address, Digest
from fedproof.ledger.events import (
    AggregatePublished,
    CommitmentsAnchored,
    EpochPublished,
    ModelAttested,
    OnChainPolicy,
    Phase,
    PolicyAdopted,
    ResultProposed,
    RoundDisputed,
    RoundFailed,
    RoundFinalised,
    RoundOpened,
    RoundSealed,
    Succeeded,
    UpdateCommitted,
)


@dataclass(slots=True)
class RoundRecord:
    """One round, as far as it went.

    Attributes:
        cohort: the nodes that were admitted when it opened; nothing changes it afterwards.
        terms: those of the newest policy when it opened.
        deadline: of its phase; the last one, once it is over.
        commitments: by node, in no order that means anything; those of the batch, too, once it has been read.
        batch: the signed commitments that were anchored.
        batched: the nodes that have a leaf in the batch, once it has been read; there are none in it before.
        attestations: by node, in the order in which they came, also after the finalisation; those that came
            as signatures with it are in `finalised`.
        proposal: the model that the aggregator holds signatures under.
        endorsers: the nodes whose signatures stand in the proposal, once it has been read.
        sealed_at: the block timestamp of its seal; 0 before it.
    """

    opened: RoundOpened
    cohort: frozenset[Address]
    terms: OnChainPolicy
    deadline: int
    phase: Phase = Phase.OPEN
    commitments: dict[Address, UpdateCommitted] = field(default_factory=dict)
    batch: CommitmentsAnchored | None = None
    batched: frozenset[Address] = frozenset()
    sealed: RoundSealed | None = None
    aggregate: AggregatePublished | None = None
    attestations: dict[Address, ModelAttested] = field(default_factory=dict)
    proposal: ResultProposed | None = None
    endorsers: frozenset[Address] = frozenset()
    dispute: RoundDisputed | None = None
    finalised: RoundFinalised | None = None
    failed: RoundFailed | None = None
    sealed_at: int = 0

    @property
    def number(self) -> int:
        """Which round."""
        return self.opened.round

    @property
    def contributors(self) -> tuple[Address, ...]:
        """The sealed set, ascending: by transaction, and from the batch once it has been read."""
        if self.sealed is None:
            return ()
        return tuple(sorted({*self.sealed.contributors, *self.batched} - set(self.sealed.excluded)))

    @property
    def batched_contributors(self) -> tuple[Address, ...]:
        """The nodes of the sealed set that committed by signature alone, ascending."""
        by_transaction = self.sealed.contributors if self.sealed else ()
        return tuple(node for node in self.contributors if node not in by_transaction)

    @property
    def is_batch_unread(self) -> bool:
        """Whether the contributors are not all known."""
        return self.batch is not None and not self.batched

    @property
    def candidate(self) -> Digest | None:
        """The model that its nodes attest, as the first of them has it, or else the proposal."""
        first = next(iter(self.attestations.values()), self.proposal)
        return first.model_digest if first else None

    @property
    def attesters(self) -> frozenset[Address]:
        """Who vouched for a model, by transaction or by signature."""
        signers = self.finalised.signers if self.finalised else ()
        return self.endorsers.union(self.attestations, signers)


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch's publication.

    Attributes:
        policy_version: the newest policy then; 0 for none.
        members: the nodes that were admitted then.
        wrapping_keys: the digest of the public key that each node had named by then.
    """

    published: EpochPublished
    policy_version: int
    members: frozenset[Address]
    wrapping_keys: Mapping[Address, Digest]


@dataclass(slots=True)
class Chronicle:
    """Everything that the events say, in one place.

    Attributes:
        current: the round that was opened last, if any was.
        head_model: what the head model must be after the last event; zero before the first policy.
        succeeded: the retired ledger that this one goes on from, if any.
        is_retired: whether no more rounds open.
    """

    policies: dict[int, PolicyAdopted] = field(default_factory=dict)
    epochs: dict[int, EpochRecord] = field(default_factory=dict)
    rounds: dict[int, RoundRecord] = field(default_factory=dict)
    current: RoundRecord | None = None
    head_model: Digest = ZERO_DIGEST
    succeeded: Succeeded | None = None
    is_retired: bool = False

    @property
    def has_inherited(self) -> bool:
        """Whether the first round starts from the predecessor's head, not from the first policy's genesis."""
        return self.succeeded is not None and self.succeeded.head_model != ZERO_DIGEST
