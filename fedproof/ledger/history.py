"""The ledger's history: events replayed into the state that they leave behind. Pure; nothing is fetched here.

The running hash over the events is kept on the way. Where it equals the contract's, no event is missing,
altered or out of order. Of commitments it shows less: those of one round have no order among themselves, and
those of a round that was never sealed are not covered.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

from fedproof.digests import ZERO_DIGEST, Address, Digest, checksum_address
from fedproof.errors import HistoryBroken
from fedproof.ledger.encoding import RunningHash
from fedproof.ledger.events import (
    CheckpointReleased,
    EpochPublished,
    EpochRequested,
    Event,
    KeysRotated,
    MemberAdmitted,
    MemberApplied,
    MemberLeft,
    MemberStatus,
    MemberSuspended,
    OnChainPolicy,
    Phase,
    PolicyAdopted,
    PolicyApproved,
    PrivacySpent,
    Retired,
    RoleGranted,
    RoleRevoked,
    RoundFinalised,
    RoundOpened,
    Succeeded,
)
from fedproof.ledger.past import Rounds
from fedproof.ledger.rounds import RoundRecord, advance, expect, refuse


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
    """A published epoch of the shared key, wrapped for the members at a count of membership changes."""

    number: int
    key_maker: Address
    context_digest: Digest
    wrapped_keys_root: Digest
    membership: int
    published_block: int


class History:
    """The state after the events replayed so far. After HistoryBroken, start again with a new one.

    Attributes:
        next_block: the first block whose events have not been replayed.
        event_count: how many events have been replayed.
        roles: accounts by role.
        members: by address.
        policies: by version, from 1.
        approvals: nodes that agreed in public, by policy version.
        head_model: digest of the model that the next round starts from; zero before the first policy.
        epochs: by number, from 1.
        key_maker: who may publish the next epoch, if one is asked for.
        rounds: by number, from 1.
        membership: how many admissions, suspensions and departures there were.
        privacy_spent: by all rounds, in the policies' unit.
        predecessor: the ledger that this one goes on from, if any.
        is_retired: whether no more rounds open.
    """

    def __init__(self, *, from_block: int = 0) -> None:
        """Begin before any event.

        Args:
            from_block: a block before which the contract had no events, such as the address book's.
        """
        self._hash = RunningHash()
        self.next_block = from_block
        self.event_count = 0
        self.roles: dict[Digest, frozenset[Address]] = {}
        self.members: dict[Address, MemberRecord] = {}
        self.policies: dict[int, OnChainPolicy] = {}
        self.approvals: dict[int, frozenset[Address]] = {}
        self.head_model = ZERO_DIGEST
        self.epochs: dict[int, EpochRecord] = {}
        self.key_maker: Address | None = None
        self.rounds = Rounds()
        self.membership = 0
        self.privacy_spent = 0
        self.predecessor: Address | None = None
        self.is_retired = False
        self._last = (-1, -1)

    def copy(self) -> History:
        """Return a history of the same events, which goes on by itself."""
        other = copy.copy(self)
        other._hash = self._hash.copy()
        other.roles = dict(self.roles)
        other.members = dict(self.members)
        other.policies = dict(self.policies)
        other.approvals = dict(self.approvals)
        other.epochs = dict(self.epochs)
        other.rounds = self.rounds.copy()
        return other

    @property
    def history_hash(self) -> Digest:
        """The running hash; the contract's `historyHash` at the same block."""
        return self._hash.value

    @property
    def current_round(self) -> RoundRecord | None:
        """The newest round, or None before the first."""
        return self.rounds.newest

    @property
    def current_epoch(self) -> EpochRecord | None:
        """The newest epoch, or None before the first."""
        return self.epochs.get(len(self.epochs))

    @property
    def is_epoch_stale(self) -> bool:
        """Whether the membership has changed since the newest epoch's key was wrapped."""
        return self.current_epoch is None or self.current_epoch.membership != self.membership

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
            LedgerError: as `Rounds.put`.
        """
        for event in events:
            position = (event.block_number, event.log_index)
            if position <= self._last or event.block_number < self.next_block:
                refuse(event, f"an event after block {self._last[0]}, log {self._last[1]}")
            self._apply(event)
            self._hash.add(event)
            self.event_count += 1
            self._last = position
        if to_block is not None:
            self.next_block = to_block + 1

    def verify(self, history_hash: Digest) -> None:
        """Return if no event is missing, altered or out of order; of commitments, as the module says.

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
            case MemberApplied() | MemberAdmitted() | MemberSuspended() | MemberLeft() | KeysRotated():
                self._apply_membership(event)
            case PolicyAdopted():
                expect(event, "version", len(self.policies) + 1, event.version)
                self.policies[event.version] = event.policy
                self.head_model = event.head_model
            case PolicyApproved():
                expect(event, "version", len(self.policies), event.version)
                self.approvals[event.version] = self.approvals.get(event.version, frozenset()) | {event.node}
            case EpochRequested():
                expect(event, "epoch", len(self.epochs) + 1, event.epoch)
                self.key_maker = event.key_maker
            case EpochPublished():
                self._apply_epoch(event)
            case RoundOpened():
                self._open(event)
            case PrivacySpent():
                expect(event, "privacy spent", self.privacy_spent + event.cost, event.spent)
                self.privacy_spent = event.spent
            case RoleGranted() | RoleRevoked() | CheckpointReleased() | Retired() | Succeeded():
                self._apply_governance(event)
            case _:
                self._apply_round(event)

    def _apply_governance(
        self, event: RoleGranted | RoleRevoked | CheckpointReleased | Retired | Succeeded
    ) -> None:
        match event:
            case RoleGranted(role=role, account=account):
                self.roles[role] = self.roles.get(role, frozenset()) | {account}
            case RoleRevoked(role=role, account=account):
                self.roles[role] = self.roles.get(role, frozenset()) - {account}
            case CheckpointReleased():
                expect(event, "head model", self.head_model.hex(), event.head_model.hex())
            case Retired():
                self.is_retired = True
            case Succeeded():
                self.predecessor, self.head_model = event.predecessor, event.head_model
                self.privacy_spent = event.privacy_spent

    def _apply_membership(
        self, event: MemberApplied | MemberAdmitted | MemberSuspended | MemberLeft | KeysRotated
    ) -> None:
        if isinstance(event, MemberApplied):
            self.members[event.node] = MemberRecord(
                status=MemberStatus.APPLIED,
                wrapping_key_digest=event.wrapping_key_digest,
                certificate_digest=event.certificate_digest,
            )
            return
        member = self.members.get(event.node)
        if member is None:
            refuse(event, f"a node that has applied, got {checksum_address(event.node)}, which has not")
        match event:
            case MemberAdmitted():
                member = replace(
                    member,
                    status=MemberStatus.ADMITTED,
                    first_round=event.first_round,
                    admitted_block=event.block_number,
                )
            case MemberSuspended():
                member = replace(member, status=MemberStatus.SUSPENDED)
            case MemberLeft():
                member = replace(member, status=MemberStatus.LEFT)
            case KeysRotated():
                member = replace(
                    member,
                    wrapping_key_digest=event.wrapping_key_digest,
                    certificate_digest=event.certificate_digest,
                )
        if not isinstance(event, KeysRotated):
            self.membership += 1
        self.members[event.node] = member

    def _apply_epoch(self, event: EpochPublished) -> None:
        expect(event, "epoch", len(self.epochs) + 1, event.epoch)
        expect(event, "membership", self.membership, event.membership)
        if self.key_maker is None:
            refuse(event, "an epoch that was asked for")
        self.epochs[event.epoch] = EpochRecord(
            number=event.epoch,
            key_maker=self.key_maker,
            context_digest=event.context_digest,
            wrapped_keys_root=event.wrapped_keys_root,
            membership=event.membership,
            published_block=event.block_number,
        )
        self.key_maker = None

    def _open(self, event: RoundOpened) -> None:
        expect(event, "round", len(self.rounds) + 1, event.round)
        if self.current_round is not None and not self.current_round.phase.is_over:
            refuse(event, f"round {self.current_round.number} to end first")
        expect(event, "base model", self.head_model.hex(), event.base_model.hex())
        if self.is_epoch_stale:
            refuse(event, "an epoch of the present membership")
        self.rounds.put(
            RoundRecord(
                number=event.round,
                phase=Phase.OPEN,
                policy_version=event.policy_version,
                epoch=event.epoch,
                base_model=event.base_model,
                deadline=event.deadline,
                cohort=frozenset(self.admitted),
                opened_block=event.block_number,
            )
        )

    def _apply_round(self, event: Event) -> None:
        record = self.current_round
        if record is None:
            refuse(event, "an opened round first")
        self.rounds.put(advance(record, event))
        if isinstance(event, RoundFinalised):
            self.head_model = event.model_digest
