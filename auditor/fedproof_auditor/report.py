"""What an audit found, for people and for machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fedproof.digests import Address, checksum_address
from fedproof.ledger.events import (
    CommitmentsAnchored,
    ExclusionReason,
    FailureReason,
    Phase,
    ResultProposed,
)
from fedproof.ledger.reader import BlockRef
from fedproof_auditor.chronicle import RoundRecord
from fedproof_auditor.findings import CHECKS, Failure, NameBook, spell, spell_node, spell_reason
from fedproof_auditor.objections import (
    as_dispute_document,
    describe_objections,
    find_dissenters,
    find_models,
)
from fedproof_auditor.verify import Audit

SHOWN_PER_CHECK = 5
"""How many failures of one check people are shown; machines get all of them."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An audit, and what it was about.

    Attributes:
        block: as of which block; nothing when the audit ended at check 1.
        events: how many the contract has emitted.
        stopped_at: number of the check after which nothing more could be done; 0 if all were made.
        selection: which rounds' stored evidence was asked for.
    """

    chain_id: int
    contract: Address
    block: BlockRef | None
    audit: Audit
    names: NameBook
    seconds: float
    selection: str = "all"
    stopped_at: int = 0
    notes: tuple[str, ...] = ()
    events: int = 0

    @property
    def holds(self) -> bool:
        """Whether every check was made and holds."""
        return not self.audit.findings.failures and not self.stopped_at

    def state(self, check: int) -> str:
        """Return ``holds``, ``fails``, or ``not done``."""
        if self.audit.findings.of(check):
            return "fails"
        return "not done" if self.stopped_at and check != self.stopped_at else "holds"

    def coverage(self, check: int) -> str:
        """Return what a check looked at, so that one that had nothing to look at is seen to."""
        audit, chronicle = self.audit, self.audit.chronicle
        rounds = chronicle.rounds.values()
        counts: Mapping[int, tuple[int, str]] = {
            2: (self.events, "event"),
            3: (len(chronicle.policies), "version"),
            4: (len(rounds), "round"),
            5: (
                sum(len(each.commitments) + len(each.attesters) for each in rounds),
                "action",
            ),
            6: (len(chronicle.epochs), "epoch"),
            7: (audit.updates, "update"),
            8: (audit.chunks, "chunk"),
            9: (sum(each.sealed is not None for each in rounds), "sealed round"),
            10: (audit.sums, "sum"),
            11: (sum(each.finalised is not None for each in rounds), "finalised round"),
        }
        return count(*counts[check]) if check in counts else ""


def as_document(report: Report) -> Document:
    """Return the report for machines; docs/auditor.md describes it."""
    audit, names = report.audit, report.names
    first = audit.findings.first()
    block, before = report.block, audit.chronicle.succeeded
    return {
        "holds": report.holds,
        "first_failure": None if first is None else _failure_document(first, names),
        "chain_id": report.chain_id,
        "contract": checksum_address(report.contract),
        "block": None
        if block is None
        else {"number": block.number, "hash": spell(block.hash), "timestamp": block.timestamp},
        "predecessor": None
        if before is None
        else {
            "contract": checksum_address(before.predecessor),
            "history_hash": spell(before.history_hash),
            "head_model": spell(before.head_model),
            "privacy_spent": before.privacy_spent,
        },
        "selected_rounds": report.selection,
        "checks": [
            {
                "number": number,
                "title": title,
                "state": report.state(number),
                "covers": report.coverage(number),
                "failures": [_failure_document(each, names) for each in audit.findings.of(number)],
            }
            for number, title in CHECKS.items()
        ],
        "rounds": [_round_document(report, record) for record in audit.chronicle.rounds.values()],
        "counts": {
            "rounds": len(audit.examined),
            "updates": audit.updates,
            "chunks": audit.chunks,
            "bytes_added": audit.bytes_added,
            "seconds": round(report.seconds, 3),
        },
        "notes": [*report.notes],
    }


def _failure_document(failure: Failure, names: NameBook) -> Document:
    return {
        "check": failure.check,
        "round": failure.round,
        "node": None if failure.node is None else spell_node(failure.node, names),
        "address": None if failure.node is None else checksum_address(failure.node),
        "chunk": failure.chunk,
        "field": failure.field,
        "expected": failure.expected,
        "got": failure.got,
        "message": failure.describe(names),
    }


def _round_document(report: Report, record: RoundRecord) -> Document:
    names = report.names
    sealed, finalised, failed = record.sealed, record.finalised, record.failed
    stored, verdict = report.audit.examined.get(record.number), report.audit.verdicts.get(record.number)
    return {
        "round": record.number,
        "phase": spell(record.phase),
        "committed": [spell_node(node, names) for node in sorted(record.commitments)],
        "contributors": [spell_node(node, names) for node in record.contributors],
        "batch": _statements_document(record.batch, record.batched, names),
        "batched": [spell_node(node, names) for node in record.batched_contributors],
        "excluded": {
            spell_node(node, names): spell_reason(reason, ExclusionReason)
            for node, reason in sealed.excluded.items()
        }
        if sealed
        else {},
        "stored": None if stored is None else sorted(spell_node(node, names) for node in stored),
        "deleted_after_days": report.audit.deleted.get(record.number),
        "model": spell(finalised.model_digest) if finalised else None,
        "attestations": len(record.attesters),
        "proposal": _statements_document(record.proposal, record.endorsers, names),
        "models": {
            spell(model): [spell_node(node, names) for node in nodes]
            for model, nodes in find_models(record).items()
        },
        "dispute": as_dispute_document(record.dispute, verdict, names) if record.dispute else None,
        "dissenters": [spell_node(node, names) for node in find_dissenters(record)],
        "failure": spell_reason(failed.reason, FailureReason) if failed else None,
    }


def _statements_document(
    event: CommitmentsAnchored | ResultProposed | None, nodes: frozenset[Address], names: NameBook
) -> Document | None:
    if event is None:
        return None
    model = {"model": spell(event.model_digest)} if isinstance(event, ResultProposed) else {}
    signers = [spell_node(node, names) for node in sorted(nodes)] or None
    return {"root": spell(event.root), "count": event.count, "nodes": signers, **model}


def describe(report: Report, *, tick: str, cross: str) -> Iterator[tuple[str, str]]:
    """Yield the report line by line for people, each line with its style.

    Args:
        report: what to tell.
        tick: marks a check that holds.
        cross: marks one that does not.
    """
    yield f"contract {checksum_address(report.contract)} on chain {report.chain_id}", "bold"
    if report.block is not None:
        when = datetime.fromtimestamp(report.block.timestamp, UTC)
        block = f"block {report.block.number} ({spell(report.block.hash)[:12]}, {when:%Y-%m-%d %H:%M:%S} UTC)"
        yield f"as of {block}", ""
    for note in report.notes:
        yield f"note: {note}", "yellow"
    marks: Mapping[str, tuple[str, str]] = {
        "holds": (tick, "green"),
        "fails": (cross, "red"),
        "not done": ("-", "yellow"),
    }
    for number, title in CHECKS.items():
        mark, style = marks[report.state(number)]
        coverage = "not done" if report.state(number) == "not done" else report.coverage(number)
        yield f" {mark} {number:>2}  {title}" + (f": {coverage}" if coverage else ""), style
        failures = report.audit.findings.of(number)
        for failure in failures[:SHOWN_PER_CHECK]:
            yield f"       {failure.describe(report.names)}", style
        if len(failures) > SHOWN_PER_CHECK:
            yield f"       and {len(failures) - SHOWN_PER_CHECK} more (all of them with --json)", style
    if (before := report.audit.chronicle.succeeded) is not None:
        where, ended = checksum_address(before.predecessor), spell(before.history_hash)
        ended += f" and which had spent {before.privacy_spent} of privacy" * bool(before.privacy_spent)
        yield f"goes on from {where}, whose history ended in {ended}: that is for another audit", "yellow"
    for record in report.audit.chronicle.rounds.values():
        yield from ((line, "") for line in _describe_statements(report, record))
        yield from ((line, "yellow") for line in _describe_round(report, record))
    yield _describe_counts(report), ""
    first = report.audit.findings.first()
    if report.holds:
        yield "every check holds", "bold green"
    elif first is not None:
        yield f"REFUSED at check {first.check}: {first.describe(report.names)}", "bold red"


def _describe_round(report: Report, record: RoundRecord) -> Iterator[str]:
    """Yield what is unusual about a round, although nothing contradicts it."""
    names, number = report.names, record.number
    stored = report.audit.examined.get(number)
    if record.phase is not Phase.FINALISED:
        failed = record.failed
        how = (
            f"failed while {spell(failed.phase)}: {spell_reason(failed.reason, FailureReason)}"
            if failed
            else f"is {spell(record.phase)}"
        )
        kept = "" if stored is None else f", {len(stored)} stored as a whole"
        yield f"round {number} {how}; {count(len(record.commitments), 'committed update')}{kept}"
    if record.sealed:
        for node, reason in record.sealed.excluded.items():
            why = spell_reason(reason, ExclusionReason)
            yield f"round {number}: {spell_node(node, names)} was excluded: {why}"
    if days := report.audit.deleted.get(number):
        kept = f"round {number}: updates deleted after {count(days, 'day')}, as the policy says"
        yield kept + ": sum not recomputed" * bool(record.aggregate)
    yield from describe_objections(record, report.audit.verdicts.get(number), names)


def _describe_statements(report: Report, record: RoundRecord) -> Iterator[str]:
    """Yield what nodes did in a round by signing alone."""
    number, names = record.number, report.names

    def spell_nodes(nodes: Iterable[Address]) -> str:
        return ", ".join(spell_node(node, names) for node in nodes) or "nobody"

    if anchored := record.batch:
        line = f"round {number}: batch {spell(anchored.root)[:12]} of {count(anchored.count, 'commitment')}"
        if record.is_batch_unread:
            line += ", not read"
        elif record.sealed:
            line += f"; by it alone contributed {spell_nodes(record.batched_contributors)}"
        else:
            line += f" of {spell_nodes(sorted(record.batched))}"
        yield line
    if proposed := record.proposal:
        line = (
            f"round {number}: proposal {spell(proposed.root)[:12]} of {count(proposed.count, 'attestation')}"
        )
        yield line + (f" by {spell_nodes(sorted(record.endorsers))}" if record.endorsers else ", not read")


def _describe_counts(report: Report) -> str:
    audit = report.audit
    return (
        f"{count(len(audit.examined), 'round')}, {count(audit.updates, 'update')}, "
        f"{count(audit.chunks, 'chunk')}, {audit.bytes_added:,} bytes of ciphertext added up again, "
        f"{report.seconds:.1f} s"
    )


def count(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural where it has to be."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
