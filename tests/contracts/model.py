"""The ledger in plain Python, as the interface describes it: what the contract is held against.

One method for each external function, in the interface's order and with its arguments, each written from the
rules and not from the contract's storage: a cohort is a set of nodes, what somebody said is a dictionary, and
counts are counted. Only the order in which a call's faults are looked for is the contract's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any

from fedproof.digests import ZERO_DIGEST, Address, Digest
from fedproof.ledger import events
from fedproof.ledger.encoding import RunningHash, compute_commitment, snake_case
from fedproof.ledger.events import (
    AGGREGATOR_ROLE,
    DEFAULT_ADMIN_ROLE,
    LEAF_TOO,
    Event,
    FailureReason,
    MemberStatus,
    OnChainPolicy,
    Phase,
    Subject,
)
from tests.contracts.signing import hash_attestation, is_signed_by

NOBODY = Address(bytes(20))
_TERMS: dict[str, Any] = {item.name: 0 for item in fields(OnChainPolicy)}
NO_POLICY = OnChainPolicy(**{**_TERMS, "digest": ZERO_DIGEST, "batching": False})


class Refused(Exception):
    """A call that changes nothing: the custom error that says why, and its arguments in their order."""

    def __init__(self, name: str, *arguments: object) -> None:
        super().__init__(name, *arguments)
        self.name, self.arguments = name, arguments


@dataclass(slots=True)
class Node:
    """What the ledger says of a node, as `Member` has it."""

    status: MemberStatus = MemberStatus.NONE
    boundary: int = 0
    last_round: int = 0
    has_attested: bool = False
    commitment: bytes = bytes(24)


@dataclass(slots=True)
class CurrentRound:
    """The newest round.

    Attributes:
        terms: the policy that it was opened under.
        cohort: how many it was opened for; `members` are these nodes.
        attestations: all by transaction, also one that contradicted and those that came after the end.
        attested: how many of them count.
    """

    number: int = 0
    phase: Phase = Phase.NONE
    deadline: int = 0
    terms: OnChainPolicy = NO_POLICY
    cohort: int = 0
    members: set[Address] = field(default_factory=set)
    committed: set[Address] = field(default_factory=set)
    batched: int = 0
    proposal: Digest | None = None
    attestations: dict[Address, Digest] = field(default_factory=dict)
    attested: int = 0

    @property
    def is_under_way(self) -> bool:
        return not self.phase.is_over

    @property
    def overdue(self) -> int:
        return self.deadline + self.terms.aggregate_window

    @property
    def candidate(self) -> Digest | None:
        """What somebody has proposed or attested, if anybody has."""
        return self.proposal or next(iter(self.attestations.values()), None)


def require(condition: bool, name: str, *arguments: object) -> None:
    if not condition:
        raise Refused(name, *arguments)


class Model:
    """A ledger. `call` calls it; `sender`, `now` and `recorded` are that call's, the rest is its state."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.sender, self.now, self.recorded = NOBODY, 0, list[Event]()
        self.history = RunningHash()
        self.roles: dict[Digest, set[Address]] = defaultdict(set)
        self.nodes: dict[Address, Node] = defaultdict(Node)
        self.membership = 0
        self.version, self.policy = 0, NO_POLICY
        self.epoch, self.epoch_membership, self.key_maker = 0, 0, NOBODY
        self.round = CurrentRound()
        self.head = self.candidate = ZERO_DIGEST
        self.spent = 0
        self.predecessor = NOBODY

    def call(self, sender: Address, now: int, function: str, arguments: Sequence[Any]) -> list[Event]:
        """Return the events of a call.

        Raises:
            Refused: the call changes nothing.
        """
        is_retired = self.round.phase is Phase.RETIRED
        ledger = deepcopy(self) if is_retired else self
        ledger.sender, ledger.now, ledger.recorded = sender, now, []
        getattr(ledger, snake_case(function))(*arguments)
        # Nothing is recorded in a retired ledger, whatever it is that somebody may do there.
        require(not (is_retired and ledger.recorded), "WrongPhase", self.round.number, Phase.RETIRED)
        return ledger.recorded

    def constructor(self, admin: Address, aggregator: Address, before: Model | None) -> None:
        require(NOBODY not in (admin, aggregator), "ZeroAddress")
        require(
            before is None or before.round.phase is Phase.RETIRED, "NotRetired", before and before.address
        )
        self._grant(DEFAULT_ADMIN_ROLE, admin)
        self._grant(AGGREGATOR_ROLE, aggregator)
        if before is not None:
            self.predecessor, self.head, self.spent = before.address, before.head, before.spent
            self._emit(events.Succeeded, before.address, before.history.value, before.head, before.spent)

    # Roles

    def grant_role(self, role: Digest, account: Address) -> None:
        self._require_role(DEFAULT_ADMIN_ROLE)
        is_safe = role != AGGREGATOR_ROLE or not self.round.is_under_way
        require(is_safe, "WrongPhase", self.round.number, self.round.phase)
        self._grant(role, account)

    def revoke_role(self, role: Digest, account: Address) -> None:
        self._require_role(DEFAULT_ADMIN_ROLE)
        self._revoke(role, account)

    def renounce_role(self, role: Digest, confirmation: Address) -> None:
        require(confirmation == self.sender, "AccessControlBadConfirmation")
        self._revoke(role, self.sender)

    # Membership

    def register(self, wrapping_key: Digest, certificate: Digest, metadata: Digest) -> None:
        require(ZERO_DIGEST not in (wrapping_key, certificate), "ZeroDigest")
        node = self.nodes[self.sender]
        may_apply = node.status in (MemberStatus.NONE, MemberStatus.APPLIED, MemberStatus.LEFT)
        require(may_apply, "WrongStatus", self.sender, MemberStatus.APPLIED, node.status)
        node.status = MemberStatus.APPLIED
        self._emit(events.MemberApplied, self.sender, wrapping_key, certificate, metadata)

    def admit(self, address: Address) -> None:
        self._require_role(DEFAULT_ADMIN_ROLE)
        node = self.nodes[address]
        may_join = node.status in (MemberStatus.APPLIED, MemberStatus.SUSPENDED)
        require(may_join, "WrongStatus", address, MemberStatus.APPLIED, node.status)
        # Who returns to the newest round never left its cohort.
        node.status = MemberStatus.ADMITTED
        node.boundary = self.round.number + (address not in self.round.members)
        self.membership += 1
        self._emit(events.MemberAdmitted, address, node.boundary)

    def suspend(self, address: Address) -> None:
        self._require_role(DEFAULT_ADMIN_ROLE)
        self._dismiss(address, MemberStatus.SUSPENDED)
        self._emit(events.MemberSuspended, address)

    def leave(self) -> None:
        self._dismiss(self.sender, MemberStatus.LEFT)
        self._emit(events.MemberLeft, self.sender)

    def rotate_keys(self, wrapping_key: Digest, certificate: Digest) -> None:
        require(ZERO_DIGEST not in (wrapping_key, certificate), "ZeroDigest")
        self._require_admitted(self.sender)
        self._emit(events.KeysRotated, self.sender, wrapping_key, certificate)

    # Policy and keys

    def adopt_policy(self, policy: OnChainPolicy, genesis: Digest) -> None:
        self._require_role(DEFAULT_ADMIN_ROLE)
        require(policy.digest != ZERO_DIGEST, "ZeroDigest")
        windows = policy.commit_window, policy.aggregate_window, policy.attest_window
        require(policy.min_contributors >= 2, "InvalidPolicy")
        require(min(policy.attestation_quorum, policy.max_examples, *windows) > 0, "InvalidPolicy")
        require(not policy.batching or policy.attest_window < policy.commit_window, "InvalidPolicy")
        require(policy.privacy_cost == 0 or policy.privacy_budget > 0, "InvalidPolicy")
        head = genesis if self.head == ZERO_DIGEST else self.head
        require(head != ZERO_DIGEST, "ZeroDigest")
        self.version, self.policy, self.head = self.version + 1, policy, head
        self._emit(events.PolicyAdopted, self.version, policy, head)

    def approve_policy(self, version: int, digest: Digest) -> None:
        newest = self.policy.digest
        is_newest = 0 < version == self.version and digest == newest
        require(is_newest, "WrongPolicy", self.version, newest, digest)
        self._require_admitted(self.sender)
        self._emit(events.PolicyApproved, version, self.sender, digest)

    def request_epoch(self, key_maker: Address) -> None:
        if self.sender not in self.roles[AGGREGATOR_ROLE]:
            self._require_role(DEFAULT_ADMIN_ROLE)
        self._require_admitted(key_maker)
        self.key_maker = key_maker
        self._emit(events.EpochRequested, self.epoch + 1, key_maker)

    def publish_epoch(self, epoch: int, context: Digest, wrapped_keys: Digest, membership: int) -> None:
        require(epoch == self.epoch + 1, "WrongEpoch", self.epoch + 1, epoch)
        require(self.sender == self.key_maker, "NotKeyMaker", epoch, self.key_maker, self.sender)
        self._require_admitted(self.sender)
        require(ZERO_DIGEST not in (context, wrapped_keys), "ZeroDigest")
        require(membership == self.membership, "StaleEpoch", epoch, self.membership)
        self.epoch, self.epoch_membership, self.key_maker = epoch, membership, NOBODY
        self._emit(events.EpochPublished, epoch, context, wrapped_keys, membership)

    # Rounds

    def open_round(self, number: int) -> None:
        self._require_role(AGGREGATOR_ROLE)
        before, terms = self.round, self.policy
        require(number == before.number + 1, "WrongRound", before.number + 1, number)
        has_ended = not before.is_under_way and before.phase is not Phase.RETIRED
        require(has_ended, "WrongPhase", before.number, before.phase)
        require(self.version > 0, "NoPolicy")
        require(self.epoch > 0, "NoEpoch")
        require(self.membership == self.epoch_membership, "StaleEpoch", self.epoch, self.membership)
        members = self.admitted
        cohort, quorum = len(members), terms.attestation_quorum
        require(cohort >= terms.min_contributors, "QuorumNotReached", number, cohort, terms.min_contributors)
        require(cohort >= quorum, "QuorumNotReached", number, cohort, quorum)
        # Otherwise two models could reach the quorum, each among other nodes.
        require(cohort - quorum < quorum, "QuorumAmbiguous", number, quorum, cohort)
        spent, budget = self.spent + terms.privacy_cost, terms.privacy_budget
        require(budget == 0 or spent <= budget, "BudgetExceeded", number, spent, budget)
        deadline = self.now + terms.commit_window
        self.round = CurrentRound(number, Phase.OPEN, deadline, terms, cohort, members)
        self._emit(events.RoundOpened, number, self.version, self.epoch, self.head, deadline)
        if budget:
            self.spent = spent
            self._emit(events.PrivacySpent, number, terms.privacy_cost, spent, budget)

    def commit(self, number: int, update_root: Digest, examples: int) -> None:
        require(update_root != ZERO_DIGEST, "ZeroDigest")
        this, sender = self._require_round(number, Phase.OPEN), self.sender
        self._require_until(this.deadline)
        most = this.terms.max_examples
        require(1 <= examples <= most, "ExamplesOutOfRange", examples, most)
        self._require_in_cohort(sender)
        require(sender not in this.committed, "AlreadyCommitted", number, sender)
        this.committed.add(sender)
        event = self._emit(events.UpdateCommitted, number, sender, update_root, examples)
        node = self.nodes[sender]
        node.last_round, node.has_attested, node.commitment = number, False, compute_commitment(event)

    def anchor_commitments(self, number: int, root: Digest, count: int) -> None:
        self._require_role(AGGREGATOR_ROLE)
        this = self._require_round(number, Phase.OPEN)
        require(this.terms.batching, "BatchingNotAllowed", number)
        require(not this.batched, "AlreadyAnchored", number)
        require(root != ZERO_DIGEST, "ZeroDigest")
        require(1 <= count <= this.cohort, "CountOutOfRange", count, 1, this.cohort)
        self._require_until(this.deadline - this.terms.attest_window)
        this.batched = count
        self._emit(events.CommitmentsAnchored, number, root, count)

    def seal(self, number: int, addresses: Sequence[Address], reasons: bytes) -> None:
        this = self._require_round(number, Phase.OPEN)
        require(len(addresses) == len(reasons), "LengthMismatch", len(addresses), len(reasons))
        for previous, address, reason in zip((NOBODY, *addresses), addresses, reasons, strict=False):
            require(previous < address, "NotAscending", previous, address)
            # The contract does not know whose leaves the batch has: it believes that a node has one.
            is_leaf = 0 < reason < LEAF_TOO
            require(address in this.committed or is_leaf, "NotCommitted", number, address)
        listed = dict(zip(addresses, reasons, strict=True))
        named, committed = len(this.committed & set(listed)), len(this.committed)
        require(named == committed, "CommitmentsMissing", number, committed, named)
        spoiled = sum(node not in this.committed or reason >= LEAF_TOO for node, reason in listed.items())
        require(spoiled <= this.batched, "CountOutOfRange", spoiled, 0, this.batched)
        direct = sum(listed[node] % LEAF_TOO == 0 for node in this.committed)
        count, least = direct + this.batched - spoiled, this.terms.min_contributors
        require(count >= least, "QuorumNotReached", number, count, least)
        require(count <= this.cohort, "CountOutOfRange", count, 0, this.cohort)
        if self.sender not in self.roles[AGGREGATOR_ROLE]:
            self._require_after(this.overdue)
            excludes = any(reason % LEAF_TOO for reason in reasons)
            require(not excludes, "ExclusionNotAllowed", number, self.sender)
            require(not this.batched, "AlreadyAnchored", number)
        elif count != this.cohort:
            self._require_after(this.deadline)
        this.phase, this.deadline = Phase.SEALED, self.now + this.terms.aggregate_window
        self._emit(events.RoundSealed, number, tuple(addresses), reasons, this.deadline)

    def publish_aggregate(self, number: int, aggregate_root: Digest) -> None:
        self._require_role(AGGREGATOR_ROLE)
        this = self._require_round(number, Phase.SEALED)
        self._require_until(this.deadline)
        require(aggregate_root != ZERO_DIGEST, "ZeroDigest")
        this.phase, this.deadline = Phase.AGGREGATED, self.now + this.terms.attest_window
        self._emit(events.AggregatePublished, number, aggregate_root, this.deadline)

    def attest(self, number: int, model: Digest) -> None:
        this = self._require_round(number, Phase.AGGREGATED, Phase.PROPOSED, Phase.FINALISED)
        sender, candidate = self.sender, this.candidate
        if this.is_under_way:
            self._require_until(this.deadline)
        self._require_in_cohort(sender)
        require(sender not in this.attestations, "AlreadyAttested", number, sender)
        require(model != ZERO_DIGEST, "ZeroDigest")
        this.attestations[sender] = model
        node = self.nodes[sender]
        node.last_round, node.has_attested = number, True
        node.commitment = node.commitment if sender in this.committed else bytes(24)
        self._emit(events.ModelAttested, number, sender, model)
        if not this.is_under_way:
            return
        if candidate not in (None, model):
            self._end_failed(FailureReason.DISAGREEMENT)
            return
        self.candidate = model
        this.attested += 1
        if this.attested == this.terms.attestation_quorum:
            self._end_finalised(model, ())

    def propose_result(self, number: int, model: Digest, root: Digest, count: int) -> None:
        self._require_role(AGGREGATOR_ROLE)
        this = self._require_round(number, Phase.AGGREGATED)
        self._require_until(this.deadline)
        require(this.terms.batching, "BatchingNotAllowed", number)
        require(ZERO_DIGEST not in (model, root), "ZeroDigest")
        least, most = this.terms.attestation_quorum, this.cohort
        require(least <= count <= most, "CountOutOfRange", count, least, most)
        require(this.candidate in (None, model), "ModelsDiffer", number, this.candidate, model)
        self.candidate = this.proposal = model
        this.phase, this.deadline = Phase.PROPOSED, self.now + this.terms.attest_window
        self._emit(events.ResultProposed, number, model, root, count, this.deadline)

    def finalise(
        self, number: int, model: Digest, signers: Sequence[Address], signatures: Sequence[bytes]
    ) -> None:
        this = self._require_round(number, Phase.AGGREGATED, Phase.PROPOSED)
        require(model != ZERO_DIGEST, "ZeroDigest")
        require(this.candidate in (None, model), "ModelsDiffer", number, this.candidate, model)
        require(len(signers) == len(signatures), "LengthMismatch", len(signers), len(signatures))
        if this.proposal is not None and not signers:
            self._require_after(this.deadline)
            self._end_finalised(model, ())
            return
        for previous, signer, signature in zip((NOBODY, *signers), signers, signatures, strict=False):
            require(previous < signer, "NotAscending", previous, signer)
            self._require_in_cohort(signer)
            require(signer not in this.attestations, "AlreadyAttested", number, signer)
            digest = hash_attestation(self.address, number, signer, model)
            require(is_signed_by(signer, digest, signature), "InvalidSignature", number, signer)
        count, quorum = this.attested + len(signers), this.terms.attestation_quorum
        require(count >= quorum, "QuorumNotReached", number, count, quorum)
        self._end_finalised(model, tuple(signers))

    def dispute(self, number: int, subject: Subject, index: int) -> None:
        self._require_round(number, Phase.SEALED, Phase.AGGREGATED, Phase.PROPOSED)
        self._require_in_cohort(self.sender)
        self._emit(events.RoundDisputed, number, self.sender, subject, index)
        self._end_failed(FailureReason.DISPUTE)

    def fail(self, number: int, reason: int) -> None:
        this = self.round
        require(0 < number == this.number, "WrongRound", this.number, number)
        require(this.is_under_way, "WrongPhase", number, this.phase)
        is_reserved = reason in (FailureReason.DISAGREEMENT, FailureReason.DISPUTE)
        require(not is_reserved, "ReservedReason", reason)
        if self.sender not in self.roles[AGGREGATOR_ROLE]:
            self._require_after(this.overdue)
        self._end_failed(reason)

    # Lineage

    def release_checkpoint(self, file_digest: Digest) -> None:
        self._require_role(DEFAULT_ADMIN_ROLE)
        require(ZERO_DIGEST not in (file_digest, self.head), "ZeroDigest")
        self._emit(events.CheckpointReleased, self.head, file_digest)

    def retire(self) -> None:
        self._require_role(DEFAULT_ADMIN_ROLE)
        this = self.round
        may_retire = not this.is_under_way and this.phase is not Phase.RETIRED
        require(may_retire, "WrongPhase", this.number, this.phase)
        this.phase = Phase.RETIRED
        self._emit(events.Retired, self.head)

    # Views

    @property
    def admitted(self) -> set[Address]:
        return {address for address, node in self.nodes.items() if node.status is MemberStatus.ADMITTED}

    # Internals

    def _emit(self, kind: type[Event], *arguments: object) -> Any:
        names = [item.name for item in fields(kind)[3:]]
        place: dict[str, Any] = {"block_number": 0, "transaction_hash": ZERO_DIGEST}
        named: dict[str, Any] = dict(zip(names, arguments, strict=True))
        event = kind(**place, log_index=len(self.recorded), **named)
        self.recorded.append(event)
        self.history.add(event)
        return event

    def _grant(self, role: Digest, account: Address) -> None:
        if account not in self.roles[role]:
            self.roles[role].add(account)
            self._emit(events.RoleGranted, role, account, self.sender)

    def _revoke(self, role: Digest, account: Address) -> None:
        if account in self.roles[role]:
            self.roles[role].remove(account)
            self._emit(events.RoleRevoked, role, account, self.sender)

    def _dismiss(self, address: Address, status: MemberStatus) -> None:
        self._require_admitted(address)
        node = self.nodes[address]
        node.status = status
        node.boundary = self.round.number if address in self.round.members else 0
        self.membership += 1

    def _end_finalised(self, model: Digest, signers: tuple[Address, ...]) -> None:
        this = self.round
        this.phase, this.deadline, self.head = Phase.FINALISED, 0, model
        self._emit(events.RoundFinalised, this.number, model, this.attested, signers)

    def _end_failed(self, reason: int) -> None:
        this = self.round
        self._emit(events.RoundFailed, this.number, this.phase, reason)
        this.phase, this.deadline = Phase.FAILED, 0

    def _require_role(self, role: Digest) -> None:
        has_role = self.sender in self.roles[role]
        require(has_role, "AccessControlUnauthorizedAccount", self.sender, role)

    def _require_admitted(self, address: Address) -> None:
        status = self.nodes[address].status
        require(status is MemberStatus.ADMITTED, "NotAdmitted", address, status)

    def _require_round(self, number: int, *phases: Phase) -> CurrentRound:
        this = self.round
        require(number == this.number, "WrongRound", this.number, number)
        require(this.phase in phases, "WrongPhase", number, this.phase)
        return this

    def _require_in_cohort(self, address: Address) -> None:
        require(address in self.round.members, "NotInCohort", self.round.number, address)

    def _require_until(self, deadline: int) -> None:
        require(self.now <= deadline, "DeadlinePassed", self.round.number, deadline, self.now)

    def _require_after(self, deadline: int) -> None:
        require(self.now > deadline, "DeadlineNotReached", self.round.number, deadline, self.now)
