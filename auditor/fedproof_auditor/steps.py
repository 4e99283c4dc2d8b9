"""The steps of one round, and where they contradict the rules: checks 4, 5 and 11. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedproof.digests import Address, Digest
from fedproof.ledger.events import (
    AggregatePublished,
    CommitmentsAnchored,
    Event,
    FailureReason,
    ModelAttested,
    Phase,
    ResultProposed,
    RoundDisputed,
    RoundFailed,
    RoundFinalised,
    RoundSealed,
    UpdateCommitted,
)
from fedproof_auditor.chronicle import RoundRecord
from fedproof_auditor.findings import Findings, spell_reason

RoundEvent = (
    UpdateCommitted
    | CommitmentsAnchored
    | RoundSealed
    | AggregatePublished
    | ModelAttested
    | ResultProposed
    | RoundDisputed
    | RoundFinalised
    | RoundFailed
)

PHASES: Mapping[type[Event], tuple[Phase, ...]] = {
    UpdateCommitted: (Phase.OPEN,),
    CommitmentsAnchored: (Phase.OPEN,),
    RoundSealed: (Phase.OPEN,),
    AggregatePublished: (Phase.SEALED,),
    ModelAttested: (Phase.AGGREGATED, Phase.PROPOSED, Phase.FINALISED),
    ResultProposed: (Phase.AGGREGATED,),
    RoundDisputed: (Phase.SEALED, Phase.AGGREGATED, Phase.PROPOSED),
    RoundFinalised: (Phase.AGGREGATED, Phase.PROPOSED),
    RoundFailed: (Phase.OPEN, Phase.SEALED, Phase.AGGREGATED, Phase.PROPOSED),
}
"""The phases that a round may be in when an event of it comes."""


def spell_outcome(kind: type[Event], reason: int | None = None) -> str:
    """Return an event as the outcome of another: what it is, and why where it says so."""
    return kind.__name__ + ("" if reason is None else f" ({spell_reason(reason, FailureReason)})")


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a round, and what it is measured by.

    Attributes:
        record: the round as the events before left it.
        time: the block's timestamp.
        findings: takes the failures.
    """

    record: RoundRecord
    time: int
    findings: Findings

    def follow(self, event: RoundEvent) -> str:
        """Go on by the event; return the event that it must have brought about at once, if any."""
        record = self.record
        match event:
            case UpdateCommitted():
                self._commit(event)
            case CommitmentsAnchored():
                self._anchor(event)
            case RoundSealed():
                record.sealed, record.sealed_at = event, self.time
                self._enter(Phase.SEALED, event, window_s=record.terms.aggregate_window)
            case AggregatePublished():
                self._verify_in_time(4, "aggregate")
                record.aggregate = event
                self._enter(Phase.AGGREGATED, event, window_s=record.terms.attest_window)
            case ModelAttested():
                return self._attest(event)
            case ResultProposed():
                self._propose(event)
            case RoundDisputed():
                self._verify_cohort(event.node, "disputer")
                record.dispute = event
                return spell_outcome(RoundFailed, FailureReason.DISPUTE)
            case RoundFinalised():
                self._finalise(event)
            case RoundFailed():
                self._expect(
                    event.phase == record.phase,
                    4,
                    "phase in which it failed",
                    expected=record.phase,
                    got=event.phase,
                )
                record.failed, record.phase = event, Phase.FAILED
        return ""

    def _commit(self, event: UpdateCommitted) -> None:
        """Check 5: the committer is of the cohort, commits once, in time, for a count that is allowed."""
        record, node = self.record, event.node
        self._verify_cohort(node, "committer")
        self._verify_in_time(5, "commitment", node=node)
        self._verify_first(node not in record.commitments, "commitments", node)
        most = record.terms.max_examples
        self._expect(
            1 <= event.examples <= most, 5, "examples", expected=f"1 to {most}", got=event.examples, node=node
        )
        record.commitments.setdefault(node, event)

    def _anchor(self, event: CommitmentsAnchored) -> None:
        """Check 4: one batch, if the policy has any, early enough that a node left out can still commit."""
        record = self.record
        self._verify_batching(event)
        self._expect(record.batch is None, 4, "anchored batches", expected="one", got="a second one")
        self._verify_count(event, fewest=1)
        self._verify_in_time(4, "batch", before_s=record.terms.attest_window)
        record.batch = event

    def _attest(self, event: ModelAttested) -> str:
        """Check 5: the attester is of the cohort, attests once, and in time unless the round is finalised.

        Check 11: who attests after the finalisation, names the finalised model.
        """
        record, node, model = self.record, event.node, event.model_digest
        self._verify_cohort(node, "attester")
        self._verify_first(node not in record.attestations, "attestations", node)
        candidate = record.candidate
        record.attestations.setdefault(node, event)
        if record.finalised:
            result = record.finalised.model_digest
            self._expect(model == result, 11, "attested model", expected=result, got=model, node=node)
            return ""
        self._verify_in_time(5, "attestation", node=node)
        if candidate not in (None, model):
            return spell_outcome(RoundFailed, FailureReason.DISAGREEMENT)
        is_enough = len(record.attestations) >= record.terms.attestation_quorum
        return spell_outcome(RoundFinalised) if is_enough else ""

    def _propose(self, event: ResultProposed) -> None:
        """Check 4: a proposal is in time, if the policy has any. Check 11: it is of the attested model."""
        record = self.record
        self._verify_batching(event)
        self._verify_in_time(4, "proposal")
        self._verify_count(event, fewest=record.terms.attestation_quorum)
        self._verify_candidate("proposed model", event.model_digest)
        record.proposal = event
        self._enter(Phase.PROPOSED, event, window_s=record.terms.attest_window)

    def _finalise(self, event: RoundFinalised) -> None:
        """Check 11: the attested model, with the quorum behind it or after a proposal that stood.

        Each signer is of the cohort, named once, and has not attested by transaction.
        """
        record, quorum, signers = self.record, self.record.terms.attestation_quorum, event.signers
        self._verify_candidate("finalised model", event.model_digest)
        attested = len(record.attestations)
        self._expect(
            event.attested == attested,
            11,
            "attestations in RoundFinalised",
            expected=attested,
            got=event.attested,
        )
        self._expect(
            list(signers) == sorted(set(signers)),
            11,
            "signers",
            expected="ascending addresses, each once",
            got="others",
        )
        for node in signers:
            if node not in record.cohort:
                got = "none of it"
            elif node in record.attestations:
                got = "one that had"
            else:
                continue
            expected = "a node of the cohort that had not attested by transaction"
            self._expect(False, 11, "signer", expected=expected, got=got, node=node)
        if attested + len(signers) < quorum:
            has_stood = record.phase is Phase.PROPOSED and not signers and self.time > record.deadline
            # Of a proposal, the quorum stands in signatures that are stored.
            self._expect(
                has_stood,
                11,
                "attestations of the finalised model",
                expected=f"at least {quorum}, or a proposal whose deadline has passed",
                got=attested + len(signers),
            )
        record.finalised, record.phase = event, Phase.FINALISED

    # What several steps have in common

    def _enter(
        self, phase: Phase, event: RoundSealed | AggregatePublished | ResultProposed, *, window_s: int
    ) -> None:
        expected, what = self.time + window_s, f"deadline in {type(event).__name__}"
        self._expect(event.deadline == expected, 4, what, expected=expected, got=event.deadline)
        self.record.phase, self.record.deadline = phase, event.deadline

    def _verify_cohort(self, node: Address, role: str) -> None:
        expected = f"a node of the cohort of round {self.record.number}"
        is_member = node in self.record.cohort
        self._expect(is_member, 5, role, expected=expected, got="one that was not admitted", node=node)

    def _verify_first(self, is_first: bool, what: str, node: Address) -> None:
        self._expect(is_first, 5, what, expected="one", got="a second one", node=node)

    def _verify_in_time(
        self, check: int, what: str, *, before_s: int = 0, node: Address | None = None
    ) -> None:
        latest, field = self.record.deadline - before_s, f"time of the {what}"
        self._expect(
            self.time <= latest, check, field, expected=f"at most {latest}", got=self.time, node=node
        )

    def _verify_batching(self, event: CommitmentsAnchored | ResultProposed) -> None:
        what = type(event).__name__
        expected = "none, as the policy allows no batches"
        self._expect(self.record.terms.batching, 4, what, expected=expected, got="one")

    def _verify_count(self, event: CommitmentsAnchored | ResultProposed, *, fewest: int) -> None:
        most, what = len(self.record.cohort), f"count in {type(event).__name__}"
        self._expect(fewest <= event.count <= most, 4, what, expected=f"{fewest} to {most}", got=event.count)

    def _verify_candidate(self, field: str, model: Digest) -> None:
        candidate = self.record.candidate
        self._expect(candidate in (None, model), 11, field, expected=candidate, got=model)

    def _expect(
        self,
        holds: bool,
        check: int,
        field: str,
        *,
        expected: object,
        got: object,
        node: Address | None = None,
    ) -> None:
        self.findings.require(
            holds, check, field, expected=expected, got=got, round_number=self.record.number, node=node
        )
