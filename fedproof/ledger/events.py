"""The contract's events as typed values; `fedproof.ledger.encoding` decodes and encodes them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from eth_utils.crypto import keccak

from fedproof.digests import Address, Digest

DEFAULT_ADMIN_ROLE = Digest(bytes(32))
AGGREGATOR_ROLE = Digest(keccak(text="AGGREGATOR_ROLE"))
ROLE_NAMES = {DEFAULT_ADMIN_ROLE: "admin", AGGREGATOR_ROLE: "aggregator"}


class MemberStatus(IntEnum):
    """Where a node stands; only ADMITTED nodes belong to the rounds that open."""

    NONE = 0
    APPLIED = 1
    ADMITTED = 2
    SUSPENDED = 3
    LEFT = 4


class Phase(IntEnum):
    """Where a round stands; FINALISED and FAILED are final, and after RETIRED there are no more rounds."""

    NONE = 0
    OPEN = 1
    SEALED = 2
    AGGREGATED = 3
    PROPOSED = 4
    FINALISED = 5
    FAILED = 6
    RETIRED = 7

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens in it."""
        return self in (Phase.NONE, Phase.FINALISED, Phase.FAILED, Phase.RETIRED)


class Subject(IntEnum):
    """What a node finds wrong: a chunk of the sum, or a leaf of what was anchored or proposed."""

    CHUNK = 0
    COMMITMENT = 1
    ATTESTATION = 2


class ExclusionReason(IntEnum):
    """Why a committed node does not count. The ledger takes any code below 128, so events carry integers."""

    NOT_UPLOADED = 1
    MALFORMED = 2
    OVER_MAX_EXAMPLES = 3


class FailureReason(IntEnum):
    """Why a round was given up. The ledger takes any code, so events carry plain integers."""

    TOO_FEW_CONTRIBUTORS = 1
    NO_AGGREGATE = 2
    NO_QUORUM = 3
    ABANDONED = 4
    # These two the contract gives by itself, and takes from nobody.
    DISAGREEMENT = 5
    DISPUTE = 6


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
    batching: bool
    privacy_cost: int
    privacy_budget: int


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
    """A node asked to take part, naming the digests of its public keys and of what it says about itself."""

    node: Address
    wrapping_key_digest: Digest
    certificate_digest: Digest
    metadata_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberAdmitted(Event):
    """A node belongs to every cohort from a round on."""

    node: Address
    first_round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSuspended(Event):
    """A node belongs to no round that opens from now on."""

    node: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberLeft(Event):
    """A node takes part no longer, by its own will."""

    node: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRotated(Event):
    """A node named other keys, which count from the next epoch on."""

    node: Address
    wrapping_key_digest: Digest
    certificate_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAdopted(Event):
    """Rounds opened from now on follow this policy."""

    version: int
    policy: OnChainPolicy
    head_model: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyApproved(Event):
    """A node agreed to a policy."""

    version: int
    node: Address
    policy_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRequested(Event):
    """A node was named to make the next epoch's secret key."""

    epoch: int
    key_maker: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPublished(Event):
    """The key maker published the next epoch, for the members at that count of membership changes."""

    epoch: int
    context_digest: Digest
    wrapped_keys_root: Digest
    membership: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundOpened(Event):
    """A round began on a base model."""

    round: int
    policy_version: int
    epoch: int
    base_model: Digest
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacySpent(Event):
    """What a round costs was added to what all rounds have spent."""

    round: int
    cost: int
    spent: int
    budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateCommitted(Event):
    """A node bound itself to one encrypted update."""

    round: int
    node: Address
    update_root: Digest
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentsAnchored(Event):
    """The aggregator bound itself to signed commitments."""

    round: int
    root: Digest
    count: int


LEAF_TOO = 128
"""Added to the reason of a node that committed by transaction and in the batch, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSealed(Event):
    """The contributors became final.

    Attributes:
        nodes: all that committed by transaction, and those of the batch that do not count; ascending.
        reasons: a code for each; 0 where it counts, and LEAF_TOO more where its leaf in the batch does not.
    """

    round: int
    nodes: tuple[Address, ...]
    reasons: bytes
    deadline: int

    @property
    def contributors(self) -> tuple[Address, ...]:
        """The nodes that count by their own transactions."""
        return tuple(node for node, code in self._pairs if code % LEAF_TOO == 0)

    @property
    def excluded(self) -> dict[Address, int]:
        """The nodes that do not count, with the reason's code."""
        return {node: code % LEAF_TOO for node, code in self._pairs if code % LEAF_TOO}

    @property
    def doubled(self) -> frozenset[Address]:
        """The nodes whose leaf in the batch does not count, as they committed by transaction, too."""
        return frozenset(node for node, code in self._pairs if code >= LEAF_TOO)

    @property
    def _pairs(self) -> list[tuple[Address, int]]:
        return list(zip(self.nodes, self.reasons, strict=False))


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
class ResultProposed(Event):
    """The aggregator bound itself to signed attestations of a model."""

    round: int
    model_digest: Digest
    root: Digest
    count: int
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundDisputed(Event):
    """A node found a chunk or a leaf wrong."""

    round: int
    node: Address
    subject: Subject
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFinalised(Event):
    """A model became the head; `signers` attested by signatures, `attested` nodes by transactions before."""

    round: int
    model_digest: Digest
    attested: int
    signers: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFailed(Event):
    """A round was given up in a phase, for a reason."""

    round: int
    phase: Phase
    reason: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointReleased(Event):
    """The head model left the federation, as a file."""

    head_model: Digest
    file_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired(Event):
    """No more rounds open."""

    head_model: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded(Event):
    """This ledger goes on from a retired one: from its head, its history hash and its privacy spent."""

    predecessor: Address
    history_hash: Digest
    head_model: Digest
    privacy_spent: int


EVENT_TYPES: tuple[type[Event], ...] = (
    RoleGranted,
    RoleRevoked,
    MemberApplied,
    MemberAdmitted,
    MemberSuspended,
    MemberLeft,
    KeysRotated,
    PolicyAdopted,
    PolicyApproved,
    EpochRequested,
    EpochPublished,
    RoundOpened,
    PrivacySpent,
    UpdateCommitted,
    CommitmentsAnchored,
    RoundSealed,
    AggregatePublished,
    ModelAttested,
    ResultProposed,
    RoundDisputed,
    RoundFinalised,
    RoundFailed,
    CheckpointReleased,
    Retired,
    Succeeded,
)
