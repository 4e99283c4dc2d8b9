"""The contract's events as typed values; `fedproof.ledger.encoding` decodes and encodes them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from eth_utils.crypto import keccak

from fedproof.digests import Address, Digest

DEFAULT_ADMIN_ROLE = Digest(bytes(32))
AGGREGATOR_ROLE = Digest(keccak(text="AGGREGATOR_ROLE"))


class MemberStatus(IntEnum):
    """Where a node stands; only ADMITTED nodes commit and attest."""

    NONE = 0
    APPLIED = 1
    ADMITTED = 2
    SUSPENDED = 3


class Phase(IntEnum):
    """Where a round stands; FINALISED and FAILED are final."""

    NONE = 0
    OPEN = 1
    SEALED = 2
    AGGREGATED = 3
    FINALISED = 4
    FAILED = 5

    @property
    def is_over(self) -> bool:
        """Whether the next round may open."""
        return self in (Phase.NONE, Phase.FINALISED, Phase.FAILED)


class ExclusionReason(IntEnum):
    """Why a committed node does not count. The ledger takes any code, so events carry plain integers."""

    NOT_UPLOADED = 1
    MALFORMED = 2
    OVER_MAX_EXAMPLES = 3


class FailureReason(IntEnum):
    """Why a round was given up. The ledger takes any code, so events carry plain integers."""

    TOO_FEW_CONTRIBUTORS = 1
    NO_AGGREGATE = 2
    NO_QUORUM = 3
    ABANDONED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OnChainPolicy:
    """What the contract enforces of a policy document, and the digest of the whole of it."""

    digest: Digest
    min_contributors: int
    attestation_quorum: int
    max_examples: int
    commit_window: int
    aggregate_window: int
    attest_window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that the contract recorded, and where on the chain it stands."""

    block_number: int
    transaction_hash: Digest
    log_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleGranted(Event):
    """An account got a role."""

    role: Digest
    account: Address
    sender: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRevoked(Event):
    """An account lost a role."""

    role: Digest
    account: Address
    sender: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberApplied(Event):
    """A node asked to take part, naming the digests of its public keys."""

    node: Address
    wrapping_key_digest: Digest
    certificate_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberAdmitted(Event):
    """A node belongs to every cohort from a round on."""

    node: Address
    first_round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSuspended(Event):
    """A node may no longer commit or attest."""

    node: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAdopted(Event):
    """Rounds opened from now on follow this policy."""

    version: int
    policy: OnChainPolicy
    head_model: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRequested(Event):
    """A node was named to make the next epoch's secret key."""

    epoch: int
    key_maker: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPublished(Event):
    """The key maker published the next epoch."""

    epoch: int
    context_digest: Digest
    wrapped_keys_root: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundOpened(Event):
    """A round began on a base model."""

    round: int
    policy_version: int
    epoch: int
    base_model: Digest
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateCommitted(Event):
    """A node bound itself to one encrypted update."""

    round: int
    node: Address
    update_root: Digest
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSealed(Event):
    """The contributors became final; `excluded` committed but do not count, each with a reason code."""

    round: int
    contributors: tuple[Address, ...]
    excluded: tuple[Address, ...]
    reasons: tuple[int, ...]
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatePublished(Event):
    """The aggregator published the root of the encrypted sum."""

    round: int
    aggregate_root: Digest
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAttested(Event):
    """A node vouched for the model that it derived."""

    round: int
    node: Address
    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFinalised(Event):
    """A model became the head."""

    round: int
    model_digest: Digest
    attestations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFailed(Event):
    """A round was given up in a phase, for a reason."""

    round: int
    phase: Phase
    reason: int


EVENT_TYPES: tuple[type[Event], ...] = (
    RoleGranted,
    RoleRevoked,
    MemberApplied,
    MemberAdmitted,
    MemberSuspended,
    PolicyAdopted,
    EpochRequested,
    EpochPublished,
    RoundOpened,
    UpdateCommitted,
    RoundSealed,
    AggregatePublished,
    ModelAttested,
    RoundFinalised,
    RoundFailed,
)
