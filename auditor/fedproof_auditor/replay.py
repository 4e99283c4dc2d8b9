"""The events, followed one by one, and where they contradict the rules: checks 4, 5 and 11. Pure.

The contract enforces these rules already. They are checked again because the events come from an endpoint
that nobody has to trust, and because an auditor should depend on no code that the audited parties run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fedproof.digests import ZERO_DIGEST, Address
from fedproof.ledger.events import (
    CheckpointReleased,
    EpochPublished,
    EpochRequested,
    Event,
    FailureReason,
    KeysRotated,
    MemberAdmitted,
    MemberApplied,
    MemberLeft,
    MemberSuspended,
    ModelAttested,
    Phase,
    PolicyAdopted,
    PolicyApproved,
    PrivacySpent,
    Retired,
    RoundDisputed,
    RoundFailed,
    RoundOpened,
    Succeeded,
    UpdateCommitted,
)
from fedproof_auditor.chronicle import Chronicle, EpochRecord, RoundRecord
from fedproof_auditor.findings import Findings, spell
from fedproof_auditor.members import Members
from fedproof_auditor.steps import PHASES, RoundEvent, Step, spell_outcome

_RESERVED = (FailureReason.DISAGREEMENT, FailureReason.DISPUTE)
"""For which the contract alone gives up a round, upon an objection."""


def replay(events: Iterable[Event], timestamps: Mapping[int, int], findings: Findings) -> Chronicle:
    """Return what happened, collecting the failures of checks 4, 5 and 11.

    An event that breaks a rule is still followed where it can be, so that one failure does not hide the next.

    Args:
        events: all of the contract's, in order.
        timestamps: of each block that holds one of them.
        findings: takes the failures.
    """
    walk = _Walk(findings)
    for index, event in enumerate(events):
        walk.take(event, timestamps[event.block_number], index=index)
    walk.end()
    return walk.chronicle


class _Walk:
    def __init__(self, findings: Findings) -> None:
        self.chronicle = Chronicle()
        self._findings = findings
        self._members = Members(findings)
        self._newest: PolicyAdopted | None = None
        self._key_maker: Address | None = None
        # How many changes of the membership there were when the newest epoch was published.
        self._changes_at_epoch = 0
        self._privacy_spent = 0
        # What the last event must have brought about within its transaction, and in which round.
        self._outcome = ("", 0)

    def take(self, event: Event, time: int, *, index: int) -> None:
        self._verify_outcome(event)
        match event:
            case MemberApplied() | MemberAdmitted() | MemberSuspended() | MemberLeft() | KeysRotated():
                self._members.follow(event, self.chronicle.current)
            case PolicyAdopted():
                self._take_policy(event)
            case PolicyApproved():
                self._take_approval(event)
            case EpochRequested():
                self._expect_next("requested epoch", self.chronicle.epochs, event.epoch)
                self._members.verify_admitted(event.key_maker, "key maker")
                self._key_maker = event.key_maker
            case EpochPublished():
                self._take_epoch(event)
            case RoundOpened():
                self._open(event, time)
            case PrivacySpent():
                self._spend(event)
            case CheckpointReleased():
                self._verify_head(event)
            case Retired():
                self._verify_head(event)
                self._verify_between_rounds("the retirement")
                self.chronicle.is_retired = True
            case Succeeded():
                place = f"after {index} events"
                self._expect(index == 2, "Succeeded", expected="after 2 events, of the roles", got=place)
                self.chronicle.succeeded, self.chronicle.head_model = event, event.head_model
                self._privacy_spent = event.privacy_spent
            case _ if isinstance(event, RoundEvent):
                self._take_round_event(event, time)

    def end(self) -> None:
        self._verify_outcome(None)

    def _verify_outcome(self, event: Event | None) -> None:
        """Check 4: what an event brings about follows at once, and some events come in no other way."""
        expected, number = self._outcome
        self._outcome = ("", 0)
        came = "nothing"
        if event is not None:
            came = spell_outcome(type(event), event.reason if isinstance(event, RoundFailed) else None)
        if not expected and isinstance(event, PrivacySpent):
            expected, number = "another event, as no round that spends privacy was opened", event.round
        if not expected and isinstance(event, RoundFailed) and event.reason in _RESERVED:
            expected, number = "another event, as nobody objected", event.round
        if expected:
            self._expect(came == expected, "next event", expected=expected, got=came, round_number=number)

    # Policies, epochs, lineage

    def _take_policy(self, event: PolicyAdopted) -> None:
        chronicle = self.chronicle
        self._expect_next("policy version", chronicle.policies, event.version)
        if chronicle.head_model == ZERO_DIGEST:
            chronicle.head_model = event.head_model
        self._verify_head(event)
        chronicle.policies[event.version] = self._newest = event

    def _take_approval(self, event: PolicyApproved) -> None:
        newest, node = self._newest, event.node
        version, digest = (newest.version, newest.policy.digest) if newest else (0, ZERO_DIGEST)
        is_newest = (event.version, event.policy_digest) == (version, digest)
        expected = f"version {version}, {spell(digest)}"
        got = f"version {event.version}, {spell(event.policy_digest)}"
        self._expect(is_newest, "approved policy", expected=expected, got=got, node=node)
        self._members.verify_admitted(node, "approver")

    def _take_epoch(self, event: EpochPublished) -> None:
        """Check 4: an epoch was asked for, and its key is wrapped for the present members."""
        epochs, number = self.chronicle.epochs, event.epoch
        self._expect_next("epoch", epochs, number)
        changes, came = self._members.changes, event.membership
        self._expect(came == changes, f"membership of epoch {number}", expected=changes, got=came)
        if self._key_maker is None:
            self._expect(False, f"request for epoch {number}", expected="one", got="none")
        else:
            self._members.verify_admitted(self._key_maker, "key maker")
        self._key_maker, self._changes_at_epoch = None, changes
        epochs[number] = EpochRecord(
            event,
            policy_version=len(self.chronicle.policies),
            members=self._members.admitted,
            wrapping_keys=dict(self._members.wrapping_keys),
        )

    def _verify_head(self, event: PolicyAdopted | CheckpointReleased | Retired) -> None:
        head, what = self.chronicle.head_model, f"head model in {type(event).__name__}"
        self._expect(event.head_model == head, what, expected=head, got=event.head_model)

    # Rounds

    def _open(self, event: RoundOpened, time: int) -> None:
        """Check 4: a round opens after the one before has ended, on the newest policy, epoch and result.

        The epoch's key is that of the round's cohort, which can reach both quorums, but not with two models.
        """
        chronicle, cohort, number = self.chronicle, self._members.admitted, event.round
        self._verify_between_rounds(f"the opening of round {number}", round_number=number)
        if self._newest is None:
            self._expect(False, "policy", expected="an adopted one", got="none", round_number=number)
            return  # there is nothing to measure the round by
        terms = self._newest.policy
        for what, wanted, came in (
            ("number", self._current_number + 1, number),
            ("policy version", self._newest.version, event.policy_version),
            ("epoch", len(chronicle.epochs) or "a published one", event.epoch),
            ("membership changes since the epoch", 0, self._members.changes - self._changes_at_epoch),
            ("base model", chronicle.head_model, event.base_model),
            ("commitment deadline", time + terms.commit_window, event.deadline),
        ):
            self._expect(came == wanted, what, expected=wanted, got=came, round_number=number)
        enough = max(terms.min_contributors, terms.attestation_quorum)
        too_many = 2 * terms.attestation_quorum
        expected, got = f"at least {enough} nodes, and fewer than {too_many}", f"{len(cohort)} nodes"
        is_allowed = enough <= len(cohort) < too_many
        self._expect(is_allowed, "cohort", expected=expected, got=got, round_number=number)
        if terms.privacy_budget:
            self._outcome = (spell_outcome(PrivacySpent), number)
        # A second opening of one number must not hide what came under it before.
        record = RoundRecord(event, cohort=cohort, terms=terms, deadline=event.deadline)
        chronicle.current = chronicle.rounds.setdefault(number, record)

    def _spend(self, event: PrivacySpent) -> None:
        """Check 4: the newest round costs what its policy says, and the budget lasts."""
        record = self.chronicle.current
        if record is None:
            return  # it follows no opening, which is a failure already
        terms = record.terms
        self._privacy_spent += terms.privacy_cost
        for what, wanted, came in (
            ("round that spends privacy", record.number, event.round),
            ("privacy cost", terms.privacy_cost, event.cost),
            ("privacy budget", terms.privacy_budget, event.budget),
            ("privacy spent", self._privacy_spent, event.spent),
        ):
            self._expect(came == wanted, what, expected=wanted, got=came, round_number=record.number)
        self._expect(
            event.spent <= terms.privacy_budget,
            "privacy spent",
            expected=f"at most the budget of {terms.privacy_budget}",
            got=event.spent,
            round_number=record.number,
        )

    def _take_round_event(self, event: RoundEvent, time: int) -> None:
        """Check 4: an event is of the newest round, in a phase that has such events."""
        chronicle = self.chronicle
        record = chronicle.rounds.get(event.round)
        phase = Phase.RETIRED if chronicle.is_retired else record.phase if record else Phase.NONE
        allowed = PHASES[type(event)]
        self._expect(
            phase in allowed and record is chronicle.current,
            f"phase at {type(event).__name__}",
            expected=" or ".join(map(spell, allowed)) + ", in the current round",
            got=f"{spell(phase)}, while the current round is {self._current_number}",
            round_number=event.round,
            node=event.node if isinstance(event, UpdateCommitted | ModelAttested | RoundDisputed) else None,
        )
        if record is None:
            return
        self._outcome = (Step(record, time, self._findings).follow(event), event.round)
        if record.finalised is event:
            chronicle.head_model = record.finalised.model_digest

    @property
    def _current_number(self) -> int:
        return self.chronicle.current.number if self.chronicle.current else 0

    def _verify_between_rounds(self, what: str, *, round_number: int | None = None) -> None:
        current = self.chronicle.current
        phase = Phase.RETIRED if self.chronicle.is_retired else current.phase if current else Phase.NONE
        self._expect(
            phase.is_over and phase is not Phase.RETIRED,
            f"phase of round {self._current_number} at {what}",
            expected="none, finalised or failed",
            got=phase,
            round_number=round_number,
        )

    def _expect_next(self, what: str, numbered: Mapping[int, object], came: int) -> None:
        self._expect(came == len(numbered) + 1, what, expected=len(numbered) + 1, got=came)

    def _expect(
        self,
        holds: bool,
        field: str,
        *,
        expected: object,
        got: object,
        round_number: int | None = None,
        node: Address | None = None,
    ) -> None:
        """Check 4."""
        self._findings.require(
            holds, 4, field, expected=expected, got=got, round_number=round_number, node=node
        )
