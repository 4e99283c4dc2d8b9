"""The ledger's history: events replayed into the state that they leave behind. Pure; nothing is fetched here.

The running hash over the events is kept on the way. Where it equals the contract's, no event is missing,
altered or out of order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, NoReturn

from fedproof.digests import ZERO_DIGEST, Address, Digest, checksum_address
from fedproof.errors import HistoryBroken
from fedproof.ledger.encoding import chain_entry, compute_entry
from fedproof.ledger.events import (
    AggregatePublished,
    EpochPublished,
    EpochRequested,
    Event,
    MemberAdmitted,
    MemberApplied,
    MemberStatus,
    MemberSuspended,
    ModelAttested,
    OnChainPolicy,
    Phase,
    PolicyAdopted,
    RoleGranted,
    RoleRevoked,
    RoundFailed,
    RoundFinalised,
    RoundOpened,
    RoundSealed,
    UpdateCommitted,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRecord:
    """A node's standing and the digests of the keys that it named last.

    Attributes:
        first_round: the first that it can take part in since its last admission; 0 before the first one.
        admitted_block: number of the block of its last admission; 0 before the first one.
    """

    status: MemberStatus
    wrapping_key_digest: Digest
    certificate_digest: Digest
    first_round: int = 0
    admitted_block: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """A published epoch of the shared secret key."""

    number: int
    key_maker: Address
    context_digest: Digest
    wrapped_keys_root: Digest
    published_block: int


class Commitment(NamedTuple):
    """What a node bound itself to in one round."""

    update_root: Digest
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """What the ledger says of one round.

    Attributes:
        number: 1 for the first.
        phase: where it stands.
        policy_version: the policy that it follows.
        epoch: the key that its updates are encrypted under.
        base_model: digest of the model that its nodes start from.
        deadline: Unix time after which its phase is overdue; 0 once it is over.
        cohort: who may commit and attest, if not suspended since.
        commitments: by node.
        contributors: the sealed set, ascending; empty before the seal.
        excluded: reason codes of the committed nodes that do not count.
        aggregate_root: root of the encrypted sum, once it is published.
        attestations: the model digest that each node vouched for.
        result: the new head model, once the round is finalised.
        failure: the reason code, once the round has failed.
        failed_in: the phase in which it failed.
        opened_block: number of the block in which it was opened; likewise sealed, aggregated and ended.
    """

    number: int
    phase: Phase
    policy_version: int
    epoch: int
    base_model: Digest
    deadline: int
    cohort: frozenset[Address]
    opened_block: int
    commitments: Mapping[Address, Commitment] = field(default_factory=dict)
    contributors: tuple[Address, ...] = ()
    excluded: Mapping[Address, int] = field(default_factory=dict)
    aggregate_root: Digest | None = None
    attestations: Mapping[Address, Digest] = field(default_factory=dict)
    result: Digest | None = None
    failure: int | None = None
    failed_in: Phase | None = None
    sealed_block: int | None = None
    aggregated_block: int | None = None
    ended_block: int | None = None

    @property
    def unaccounted(self) -> tuple[Address, ...]:
        """Committed nodes that the seal neither counts nor excludes: an honest aggregator leaves none."""
        if self.sealed_block is None:
            return ()
        return tuple(sorted(set(self.commitments) - set(self.contributors) - set(self.excluded)))


class History:
    """The state after the events replayed so far. After HistoryBroken, start again with a new one.

    Attributes:
        history_hash: the running hash; the contract's `historyHash` at the same block.
        next_block: the first block whose events have not been replayed.
        event_count: how many events have been replayed.
        roles: accounts by role.
        members: by address.
        policies: by version, from 1.
        head_model: digest of the model that the next round starts from; zero before the first policy.
        epochs: by number, from 1.
        key_maker: who may publish the next epoch, if one is asked for.
        rounds: by number, from 1.
    """

    def __init__(self, *, from_block: int = 0) -> None:
        """Begin before any event.

        Args:
            from_block: a block before which the contract had no events, such as the address book's.
        """
        self.history_hash = ZERO_DIGEST
        self.next_block = from_block
        self.event_count = 0
        self.roles: dict[Digest, frozenset[Address]] = {}
        self.members: dict[Address, MemberRecord] = {}
        self.policies: dict[int, OnChainPolicy] = {}
        self.head_model = ZERO_DIGEST
        self.epochs: dict[int, EpochRecord] = {}
        self.key_maker: Address | None = None
        self.rounds: dict[int, RoundRecord] = {}
        self._last = (-1, -1)

    def copy(self) -> History:
        """Return a history of the same events, which goes on by itself."""
        other = copy.copy(self)
        other.roles = dict(self.roles)
        other.members = dict(self.members)
        other.policies = dict(self.policies)
        other.epochs = dict(self.epochs)
        other.rounds = dict(self.rounds)
        return other

    @property
    def current_round(self) -> RoundRecord | None:
        """The newest round, or None before the first."""
        return self.rounds.get(len(self.rounds))

    @property
    def current_epoch(self) -> EpochRecord | None:
        """The newest epoch, or None before the first."""
        return self.epochs.get(len(self.epochs))

    @property
    def admitted(self) -> tuple[Address, ...]:
        """The nodes that are admitted, ascending."""
        return tuple(
            sorted(node for node, member in self.members.items() if member.status is MemberStatus.ADMITTED)
        )

    def extend(self, events: Iterable[Event], *, to_block: int | None = None) -> None:
        """Replay more events.

        Args:
            events: in the chain's order, from `next_block` on.
            to_block: the last block of the range that they are all the events of.

        Raises:
            HistoryBroken: an event is out of order, or cannot follow the ones before it.
        """
        for event in events:
            position = (event.block_number, event.log_index)
            if position <= self._last or event.block_number < self.next_block:
                _refuse(event, f"an event after block {self._last[0]}, log {self._last[1]}")
            self._apply(event)
            self.history_hash = chain_entry(self.history_hash, compute_entry(event))
            self.event_count += 1
            self._last = position
        if to_block is not None:
            self.next_block = to_block + 1

    def verify(self, history_hash: Digest) -> None:
        """Return if no event is missing, altered or out of order.

        Args:
            history_hash: the contract's, at the last block that was replayed.

        Raises:
            HistoryBroken: the running hash over the replayed events is another one.
        """
        if self.history_hash != history_hash:
            raise HistoryBroken(
                f"history up to block {self._last[0]}: expected the contract's hash 0x{history_hash.hex()}, "
                f"got 0x{self.history_hash.hex()} over {self.event_count} events: "
                "at least one is missing, altered or out of order"
            )

    def _apply(self, event: Event) -> None:
        match event:
            case RoleGranted(role=role, account=account):
                self.roles[role] = self.roles.get(role, frozenset()) | {account}
            case RoleRevoked(role=role, account=account):
                self.roles[role] = self.roles.get(role, frozenset()) - {account}
            case MemberApplied() | MemberAdmitted() | MemberSuspended():
                self._apply_membership(event)
            case PolicyAdopted():
                _expect(event, "version", len(self.policies) + 1, event.version)
                self.policies[event.version] = event.policy
                self.head_model = event.head_model
            case EpochRequested():
                _expect(event, "epoch", len(self.epochs) + 1, event.epoch)
                self.key_maker = event.key_maker
            case EpochPublished():
                self._apply_epoch(event)
            case RoundOpened():
                self._open(event)
            case _:
                self._apply_round(event)

    def _apply_membership(self, event: MemberApplied | MemberAdmitted | MemberSuspended) -> None:
        if isinstance(event, MemberApplied):
            self.members[event.node] = MemberRecord(
                status=MemberStatus.APPLIED,
                wrapping_key_digest=event.wrapping_key_digest,
                certificate_digest=event.certificate_digest,
            )
            return
        member = self.members.get(event.node)
        if member is None:
            _refuse(event, f"a node that has applied, got {checksum_address(event.node)}, which has not")
        if isinstance(event, MemberAdmitted):
            member = replace(
                member,
                status=MemberStatus.ADMITTED,
                first_round=event.first_round,
                admitted_block=event.block_number,
            )
        else:
            member = replace(member, status=MemberStatus.SUSPENDED)
        self.members[event.node] = member

    def _apply_epoch(self, event: EpochPublished) -> None:
        _expect(event, "epoch", len(self.epochs) + 1, event.epoch)
        if self.key_maker is None:
            _refuse(event, "an epoch that was asked for")
        self.epochs[event.epoch] = EpochRecord(
            number=event.epoch,
            key_maker=self.key_maker,
            context_digest=event.context_digest,
            wrapped_keys_root=event.wrapped_keys_root,
            published_block=event.block_number,
        )
        self.key_maker = None

    def _open(self, event: RoundOpened) -> None:
        _expect(event, "round", len(self.rounds) + 1, event.round)
        if self.current_round is not None and not self.current_round.phase.is_over:
            _refuse(event, f"round {self.current_round.number} to end first")
        _expect(event, "base model", self.head_model.hex(), event.base_model.hex())
        self.rounds[event.round] = RoundRecord(
            number=event.round,
            phase=Phase.OPEN,
            policy_version=event.policy_version,
            epoch=event.epoch,
            base_model=event.base_model,
            deadline=event.deadline,
            cohort=frozenset(self.admitted),
            opened_block=event.block_number,
        )

    def _apply_round(self, event: Event) -> None:
        block = event.block_number
        match event:
            case UpdateCommitted():
                record = self._require(event, event.round, Phase.OPEN)
                if event.node in record.commitments or event.node not in record.cohort:
                    _refuse(event, f"the first commitment of a node of the cohort, got {_who(event.node)}")
                commitment = Commitment(event.update_root, event.examples)
                record = replace(record, commitments={**record.commitments, event.node: commitment})
            case RoundSealed():
                record = replace(
                    self._require(event, event.round, Phase.OPEN),
                    phase=Phase.SEALED,
                    contributors=event.contributors,
                    excluded=dict(zip(event.excluded, event.reasons, strict=True)),
                    deadline=event.deadline,
                    sealed_block=block,
                )
                strangers = {*record.contributors, *record.excluded} - set(record.commitments)
                if strangers:
                    _refuse(event, f"committed nodes, got {', '.join(map(_who, sorted(strangers)))} as well")
            case AggregatePublished():
                record = replace(
                    self._require(event, event.round, Phase.SEALED),
                    phase=Phase.AGGREGATED,
                    aggregate_root=event.aggregate_root,
                    deadline=event.deadline,
                    aggregated_block=block,
                )
            case ModelAttested():
                record = self._require(event, event.round, Phase.AGGREGATED, Phase.FINALISED)
                if event.node in record.attestations or event.node not in record.cohort:
                    _refuse(event, f"the first attestation of a node of the cohort, got {_who(event.node)}")
                attestations = {**record.attestations, event.node: event.model_digest}
                record = replace(record, attestations=attestations)
            case RoundFinalised():
                record = self._require(event, event.round, Phase.AGGREGATED)
                count = list(record.attestations.values()).count(event.model_digest)
                _expect(event, "attestations", count, event.attestations)
                record = replace(
                    record, phase=Phase.FINALISED, result=event.model_digest, deadline=0, ended_block=block
                )
                self.head_model = event.model_digest
            case RoundFailed():
                record = replace(
                    self._require(event, event.round, event.phase),
                    phase=Phase.FAILED,
                    failure=event.reason,
                    failed_in=event.phase,
                    deadline=0,
                    ended_block=block,
                )
            case _:
                _refuse(event, "an event that the contract has")
        self.rounds[record.number] = record

    def _require(self, event: Event, number: int, *phases: Phase) -> RoundRecord:
        """Return the current round, which alone may change, in one of the phases."""
        record = self.current_round
        if record is None or record.number != number:
            _refuse(event, f"round {len(self.rounds)}, got round {number}")
        if record.phase not in phases:
            wanted = " or ".join(phase.name for phase in phases)
            _refuse(event, f"round {number} to be {wanted}, it is {record.phase.name}")
        return record


def _expect(event: Event, what: str, expected: object, came: object) -> None:
    if expected != came:
        _refuse(event, f"{what} {expected}, got {came}")


def _refuse(event: Event, expected: str) -> NoReturn:
    raise HistoryBroken(
        f"block {event.block_number}, log {event.log_index}, {type(event).__name__}: expected {expected}"
    )


def _who(node: Address) -> str:
    return checksum_address(node)
