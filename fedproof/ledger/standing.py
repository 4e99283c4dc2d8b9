"""What the contract's views say: its storage, as far as it is not in the events."""

from __future__ import annotations

from dataclasses import dataclass

from fedproof.ledger.events import MemberStatus, Phase


@dataclass(frozen=True, slots=True)
class Member:
    """A node's standing and its last statement; 0 stands for no round.

    Attributes:
        boundary: first round of an admitted node, last round of any other.
        last_round: last round that it committed or attested in.
        has_attested: whether it has attested in that round.
        commitment: first 24 bytes of the hash over its commitment in that round.
    """

    status: MemberStatus
    boundary: int
    last_round: int
    has_attested: bool
    commitment: bytes


@dataclass(frozen=True, slots=True)
class Round:
    """The newest round's standing; after the Unix time `deadline` it is overdue, 0 once it is over."""

    number: int
    phase: Phase
    deadline: int
    cohort: int
    committed: int
    batched: int
    attested: int
    min_contributors: int
    attestation_quorum: int
    max_examples: int
    aggregate_window: int
    attest_window: int
    batching: bool


@dataclass(frozen=True, slots=True)
class State:
    """The federation's standing: its newest policy's number and terms, its newest epoch, its members."""

    policy_version: int
    epoch: int
    membership: int
    admitted: int
    is_epoch_stale: bool
    is_accounted: bool
    batching: bool
    min_contributors: int
    attestation_quorum: int
    max_examples: int
    commit_window: int
    aggregate_window: int
    attest_window: int


@dataclass(frozen=True, slots=True)
class Privacy:
    """What a round costs, what all may spend, and what they have spent, in the policy's unit."""

    cost: int
    budget: int
    spent: int
