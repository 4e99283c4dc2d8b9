"""The events, followed one by one, and where they contradict the rules: checks 4 and 5. Pure.

The contract enforces these rules already. They are checked again because the events come from an endpoint
that nobody has to trust, and because an auditor should depend on no code that the audited parties run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedproof.digests import Address, Digest
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
    RoundFailed,
    RoundFinalised,
    RoundOpened,
    RoundSealed,
    UpdateCommitted,
)
from fedproof_auditor.chronicle import Chronicle, EpochRecord, RoundRecord
from fedproof_auditor.findings import Failure, Findings, spell

RoundEvent = UpdateCommitted | RoundSealed | AggregatePublished | ModelAttested | RoundFinalised | RoundFailed

_PHASES: Mapping[type[Event], tuple[Phase, ...]] = {
    UpdateCommitted: (Phase.OPEN,),
    RoundSealed: (Phase.OPEN,),
    AggregatePublished: (Phase.SEALED,),
    ModelAttested: (Phase.AGGREGATED, Phase.FINALISED),
    RoundFinalised: (Phase.AGGREGATED,),
    RoundFailed: (Phase.OPEN, Phase.SEALED, Phase.AGGREGATED),
}
"""The phases that a round may be in when an event of it comes."""


def replay(events: Iterable[Event], timestamps: Mapping[int, int], findings: Findings) -> Chronicle:
    """Return what happened, collecting the failures of checks 4 and 5.

    An event that breaks a rule is still followed where it can be, so that one failure does not hide the next.

    Args:
        events: all of the contract's, in order.
        timestamps: of each block that holds one of them.
        findings: takes the failures.
    """
    walk = _Walk(findings)
    for event in events:
        walk.take(event, timestamps[event.block_number])
    return walk.chronicle


@dataclass(slots=True)
class _Standing:
    status: MemberStatus = MemberStatus.NONE
    first_round: int = 0


class _Walk:
    def __init__(self, findings: Findings) -> None:
        self.chronicle = Chronicle()
        self._findings = findings
        self._members: dict[Address, _Standing] = {}
        self._wrapping_keys: dict[Address, Digest] = {}
        # The admitted nodes since the next epoch was asked for, one set for each change.
        self._memberships: list[frozenset[Address]] = [frozenset()]
        self._is_epoch_awaited = False

    def take(self, event: Event, time: int) -> None:
        match event:
            case MemberApplied() | MemberAdmitted() | MemberSuspended():
                self._take_membership(event)
            case PolicyAdopted():
                self._take_policy(event)
            case EpochRequested():
                if not self._is_epoch_awaited:  # a second request may come while the first is followed
                    self._memberships = self._memberships[-1:]
                self._is_epoch_awaited = True
            case EpochPublished():
                self._take_epoch(event)
            case RoundOpened():
                self._open(event, time)
            case (
                UpdateCommitted()
                | RoundSealed()
                | AggregatePublished()
                | ModelAttested()
                | RoundFinalised()
                | RoundFailed()
            ):
                self._take_round_event(event, time)

    def _expect(
        self,
        holds: bool,
        check: int,
        field: str,
        *,
        expected: object,
        got: object,
        round_number: int | None = None,
        node: Address | None = None,
    ) -> None:
        self._findings.expect(
            holds,
            Failure(
                check=check,
                field=field,
                expected=spell(expected),
                got=spell(got),
                round=round_number,
                node=node,
            ),
        )

    # Members, policies, epochs

    def _take_membership(self, event: MemberApplied | MemberAdmitted | MemberSuspended) -> None:
        standing = self._members.setdefault(event.node, _Standing())
        match event:
            case MemberApplied():
                standing.status = MemberStatus.APPLIED
                self._wrapping_keys[event.node] = event.wrapping_key_digest
            case MemberAdmitted():
                self._expect(
                    standing.status in (MemberStatus.APPLIED, MemberStatus.SUSPENDED),
                    5,
                    "status before the admission",
                    expected="applied or suspended",
                    got=standing.status,
                    node=event.node,
                )
                standing.status = MemberStatus.ADMITTED
                standing.first_round = event.first_round
                self._memberships.append(self._memberships[-1] | {event.node})
            case MemberSuspended():
                standing.status = MemberStatus.SUSPENDED
                self._memberships.append(self._memberships[-1] - {event.node})

    def _take_policy(self, event: PolicyAdopted) -> None:
        chronicle = self.chronicle
        version, came = len(chronicle.policies) + 1, event.version
        self._expect(version == came, 4, "policy version", expected=version, got=came)
        if chronicle.head_model is None:
            chronicle.head_model = event.head_model
        head = chronicle.head_model
        what = f"head model in policy version {came}"
        self._expect(head == event.head_model, 4, what, expected=head, got=event.head_model)
        chronicle.policies[came] = event

    def _take_epoch(self, event: EpochPublished) -> None:
        epochs = self.chronicle.epochs
        self._is_epoch_awaited = False
        number, came = len(epochs) + 1, event.epoch
        self._expect(number == came, 4, "epoch", expected=number, got=came)
        epochs[came] = EpochRecord(
            event,
            policy_version=len(self.chronicle.policies),
            memberships=tuple(self._memberships),
            wrapping_keys=dict(self._wrapping_keys),
        )

    # Rounds

    def _open(self, event: RoundOpened, time: int) -> None:
        """Check 4: a round opens after the one before has ended, on the newest policy, epoch and result."""
        chronicle = self.chronicle
        last = max(chronicle.rounds, default=0)
        expectations: list[tuple[str, object, object]] = [
            ("number", last + 1, event.round),
            ("policy version", len(chronicle.policies), event.policy_version),
            ("epoch", len(chronicle.epochs), event.epoch),
            ("base model", chronicle.head_model, event.base_model),
        ]
        if policy := self._policy(event):
            expectations.append(("commitment deadline", time + policy.commit_window, event.deadline))
        for name, expected, got in expectations:
            self._expect(got == expected, 4, name, expected=expected, got=got, round_number=event.round)
        if last:
            phase = chronicle.rounds[last].phase
            self._expect(
                phase.is_over,
                4,
                f"phase of round {last} when the next one opened",
                expected="finalised or failed",
                got=phase,
                round_number=event.round,
            )
        # A second opening of one number must not hide what came under it before.
        chronicle.rounds.setdefault(event.round, RoundRecord(event, cohort=self._memberships[-1]))

    def _take_round_event(self, event: RoundEvent, time: int) -> None:
        record = self.chronicle.rounds.get(event.round)
        current = max(self.chronicle.rounds, default=0)
        kind = type(event).__name__
        allowed = _PHASES[type(event)]
        phase = record.phase if record else Phase.NONE
        self._expect(
            phase in allowed and event.round == current,
            4,
            f"phase at {kind}",
            expected=" or ".join(spell(each) for each in allowed) + ", in the current round",
            got=f"{spell(phase)}, while the current round is {current}",
            round_number=event.round,
            node=event.node if isinstance(event, UpdateCommitted | ModelAttested) else None,
        )
        if record is None:
            return
        match event:
            case UpdateCommitted():
                self._commit(record, event, time)
            case RoundSealed():
                self._verify_deadline(record, event, time, window="aggregate_window")
                record.sealed, record.sealed_at, record.phase = event, time, Phase.SEALED
            case AggregatePublished():
                self._verify_in_time(4, record, record.sealed, time, what="aggregate")
                self._verify_deadline(record, event, time, window="attest_window")
                record.aggregate, record.phase = event, Phase.AGGREGATED
            case ModelAttested():
                self._attest(record, event, time)
            case RoundFinalised():
                record.finalised, record.phase = event, Phase.FINALISED
                self.chronicle.head_model = event.model_digest
            case RoundFailed():
                self._expect(
                    event.phase == phase,
                    4,
                    "phase in which it failed",
                    expected=phase,
                    got=event.phase,
                    round_number=event.round,
                )
                record.failed, record.phase = event, Phase.FAILED

    def _commit(self, record: RoundRecord, event: UpdateCommitted, time: int) -> None:
        """Check 5: the committer is of the cohort, commits once, in time, for a count that is allowed."""
        self._verify_cohort(record, event.node, "committer")
        self._verify_in_time(5, record, record.opened, time, what="commitment", node=event.node)
        self._verify_first(record, event.node, "commitments", is_first=event.node not in record.commitments)
        if policy := self._policy(record.opened):
            self._expect(
                1 <= event.examples <= policy.max_examples,
                5,
                "examples",
                expected=f"1 to {policy.max_examples}",
                got=event.examples,
                round_number=event.round,
                node=event.node,
            )
        record.commitments.setdefault(event.node, event)

    def _attest(self, record: RoundRecord, event: ModelAttested, time: int) -> None:
        """Check 5: the attester is of the cohort, attests once, and in time unless the round is finalised."""
        self._verify_cohort(record, event.node, "attester")
        if record.phase is not Phase.FINALISED:
            self._verify_in_time(5, record, record.aggregate, time, what="attestation", node=event.node)
        self._verify_first(record, event.node, "attestations", is_first=event.node not in record.attestations)
        record.attestations.setdefault(event.node, event)

    def _verify_cohort(self, record: RoundRecord, node: Address, role: str) -> None:
        standing = self._members.get(node, _Standing())
        self._expect(
            standing.status is MemberStatus.ADMITTED and standing.first_round <= record.number,
            5,
            f"standing of the {role}",
            expected=f"admitted for round {record.number}",
            got=f"{spell(standing.status)}, first round {standing.first_round}",
            round_number=record.number,
            node=node,
        )

    def _verify_first(self, record: RoundRecord, node: Address, what: str, *, is_first: bool) -> None:
        number = record.number
        self._expect(is_first, 5, what, expected="one", got="a second one", round_number=number, node=node)

    def _verify_in_time(
        self,
        check: int,
        record: RoundRecord,
        before: RoundOpened | RoundSealed | AggregatePublished | None,
        time: int,
        *,
        what: str,
        node: Address | None = None,
    ) -> None:
        if before is None:
            return  # the step that is missing before it is a failure of check 4 already
        self._expect(
            time <= before.deadline,
            check,
            f"time of the {what}",
            expected=f"at most {before.deadline}",
            got=time,
            round_number=record.number,
            node=node,
        )

    def _verify_deadline(
        self, record: RoundRecord, event: RoundSealed | AggregatePublished, time: int, *, window: str
    ) -> None:
        if policy := self._policy(record.opened):
            expected = time + int(getattr(policy, window))
            what = f"deadline in {type(event).__name__}"
            number = record.number
            self._expect(
                event.deadline == expected,
                4,
                what,
                expected=expected,
                got=event.deadline,
                round_number=number,
            )

    def _policy(self, opened: RoundOpened) -> OnChainPolicy | None:
        # A version that was never adopted is a failure of check 4 already.
        adopted = self.chronicle.policies.get(opened.policy_version)
        return adopted.policy if adopted else None
