"""The report for machines and for people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
from fedproof_auditor.findings import CHECKS, CheckFailed, Failure, Findings
from fedproof_auditor.report import SHOWN_PER_CHECK, Report, as_document, describe
from fedproof_auditor.verify import Audit
from pydantic import BaseModel, ConfigDict, Field

from fedproof.digests import checksum_address
from fedproof.ledger.events import (
    CommitmentsAnchored,
    Event,
    FailureReason,
    ModelAttested,
    Phase,
    PrivacySpent,
    ResultProposed,
    RoundDisputed,
    RoundFailed,
    Subject,
    Succeeded,
)
from fedproof.store import ObjectStore
from tests.auditor.batched import GUEST
from tests.auditor.disputed import OBJECTOR
from tests.auditor.world import NAMES, PRIVACY_BUDGET, ROUND_COST, World, make_base, make_digest

Hash = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
AddressText = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]


class Strict(BaseModel):
    """A table of the report: nothing more, nothing less."""

    model_config = ConfigDict(extra="forbid", strict=True)


class FailureSchema(Strict):
    """One mismatch."""

    check: Annotated[int, Field(ge=1, le=12)]
    round: int | None
    node: str | None
    address: AddressText | None
    chunk: int | None
    field: str
    expected: str
    got: str
    message: str


class BlockSchema(Strict):
    """As of when."""

    number: int
    hash: Hash
    timestamp: int


class CheckSchema(Strict):
    """One numbered check."""

    number: Annotated[int, Field(ge=1, le=12)]
    title: str
    state: Literal["holds", "fails", "not done"]
    covers: str
    failures: list[FailureSchema]


class DisputeSchema(Strict):
    """What a node found wrong."""

    node: str
    address: AddressText
    subject: Literal["chunk", "commitment", "attestation"]
    index: int
    verdict: Literal["upheld", "unfounded", "undecided"] | None
    reason: str | None


class BatchSchema(Strict):
    """Signed commitments."""

    root: Hash
    count: int
    nodes: list[str] | None


class ProposalSchema(BatchSchema):
    """Signed attestations."""

    model: Hash


class RoundSchema(Strict):
    """One round."""

    round: int
    phase: Literal["open", "sealed", "aggregated", "proposed", "finalised", "failed"]
    committed: list[str]
    contributors: list[str]
    batch: BatchSchema | None
    batched: list[str]
    excluded: dict[str, str]
    stored: list[str] | None
    deleted_after_days: int | None
    model: Hash | None
    attestations: int
    proposal: ProposalSchema | None
    models: dict[Hash, list[str]]
    dispute: DisputeSchema | None
    dissenters: list[str]
    failure: str | None


class CountsSchema(Strict):
    """How much was looked at."""

    rounds: int
    updates: int
    chunks: int
    bytes_added: int
    seconds: float


class PredecessorSchema(Strict):
    """The ledger before."""

    contract: AddressText
    history_hash: Hash
    head_model: Hash
    privacy_spent: int


class ReportSchema(Strict):
    """The whole of it, as docs/auditor.md describes it."""

    holds: bool
    first_failure: FailureSchema | None
    chain_id: int
    contract: AddressText
    block: BlockSchema | None
    predecessor: PredecessorSchema | None
    selected_rounds: str
    checks: list[CheckSchema]
    rounds: list[RoundSchema]
    counts: CountsSchema
    notes: list[str]


def report_of(world: World, audit: Audit, *, stopped_at: int = 0) -> Report:
    """Return the report of an audit of the federation."""
    return Report(
        chain_id=world.evidence.chain_id,
        contract=world.evidence.contract,
        block=None if stopped_at else world.evidence.block,
        audit=audit,
        names=world.names,
        seconds=1.25,
        stopped_at=stopped_at,
        events=len(world.evidence.events),
    )


def lines_of(report: Report) -> list[str]:
    """Return what people see."""
    return [line for line, _ in describe(report, tick="✓", cross="✗")]


def test_a_sound_audit_has_the_documented_shape(world: World) -> None:
    """The JSON of an audit that holds follows its schema, and names all twelve checks."""
    document = as_document(report_of(world, world.audit()))
    parsed = ReportSchema.model_validate(document)
    assert parsed.holds
    assert parsed.first_failure is None
    assert [(check.number, check.state) for check in parsed.checks] == [(n, "holds") for n in CHECKS]
    assert [each.phase for each in parsed.rounds] == ["finalised", "finalised", "finalised", "failed"]
    assert parsed.rounds[2].excluded == {NAMES[2]: "not_uploaded"}
    assert parsed.rounds[3].failure == "too_few_contributors"
    assert parsed.counts.chunks == 18
    assert not any(each.batch or each.batched or each.proposal for each in parsed.rounds)


def test_batches_and_proposals_have_the_documented_shape(batched: World) -> None:
    """The JSON names what was anchored and proposed, by whom, and who contributed by signature alone."""
    parsed = ReportSchema.model_validate(as_document(report_of(batched, batched.audit())))
    guest = checksum_address(batched.nodes[GUEST])
    first, second, third, fourth = parsed.rounds
    assert first.batch is not None
    assert (first.batch.count, first.batch.nodes) == (3, [NAMES[0], NAMES[2], guest])
    assert (first.contributors, first.batched) == ([*NAMES, guest], [NAMES[0], guest])
    assert first.proposal is not None
    assert (first.proposal.count, first.proposal.nodes) == (3, [*NAMES[:2], guest])
    assert (first.proposal.model, first.attestations) == (first.model, 3)
    assert (second.proposal, second.batched, second.attestations) == (None, [*NAMES], 3)
    assert (third.model, third.proposal is None, third.attestations) == (None, False, 3)
    assert fourth.batch is not None
    assert (fourth.batch.nodes, fourth.batched) == ([*NAMES[:2]], [])


def test_what_was_not_read_has_no_nodes(batched: World) -> None:
    """Of rounds that were not asked for, the report says what stands on the ledger, and no more."""
    audit = batched.audit(is_selected=lambda number: number == 2)
    report = report_of(batched, audit)
    first = ReportSchema.model_validate(as_document(report)).rounds[0]
    assert first.batch is not None
    assert first.proposal is not None
    assert (first.batch.nodes, first.proposal.nodes, first.batched) == (None, None, [])
    assert sum(line.startswith("round 1: ") and line.endswith(", not read") for line in lines_of(report)) == 2


def test_people_see_batches_and_proposals(batched: World) -> None:
    """Each batch and each proposal has a line that says of whom it is."""
    lines = lines_of(report_of(batched, batched.audit()))
    guest = checksum_address(batched.nodes[GUEST])
    root = "0x" + batched.find(CommitmentsAnchored, round=1).root.hex()[:10]
    proposed = "0x" + batched.find(ResultProposed, round=1).root.hex()[:10]
    for line in (
        f"round 1: batch {root} of 3 commitments; by it alone contributed hospital-a, {guest}",
        f"round 1: proposal {proposed} of 3 attestations by hospital-a, hospital-b, {guest}",
        f"round 2: {guest} was excluded: not_uploaded",
        "round 3 failed while proposed: abandoned; 4 committed updates, 4 stored as a whole",
    ):
        assert line in lines
    assert sum(line.startswith("round 4: batch ") for line in lines) == 1


def test_a_failure_has_the_documented_shape(world: World, store: Path) -> None:
    """The JSON of a refused audit names check, round, node by name and address, chunk and field."""
    path = ObjectStore(store).object_path(world.leaves(2, 1)[1])
    path.write_bytes(b"\x00" + path.read_bytes()[1:])
    parsed = ReportSchema.model_validate(as_document(report_of(world, world.audit(store))))
    first = parsed.first_failure
    assert first is not None
    assert (first.check, first.round, first.node, first.chunk) == (8, 2, NAMES[1], 1)
    assert first.field == "stored ciphertext"
    assert not parsed.holds
    assert [check.number for check in parsed.checks if check.state == "fails"] == [8, 10]


def test_people_see_every_check_with_what_it_covered(world: World) -> None:
    """Each check has a line with a tick and a count; unusual rounds and the verdict follow."""
    lines = lines_of(report_of(world, world.audit()))
    assert sum(line.startswith(" ✓ ") for line in lines) == 12
    assert any(line.endswith(": 18 chunks") for line in lines)
    assert "round 3: hospital-c was excluded: not_uploaded" in lines
    assert "round 4 failed while open: too_few_contributors; 1 committed update, 1 stored as a whole" in lines
    assert lines[-1] == "every check holds"


def test_people_see_what_failed_and_where(world: World) -> None:
    """A failed check has a cross and its mismatches below it, and the last line repeats the first one."""
    attested = world.find(ModelAttested, round=1, node=world.nodes[2])
    audit = world.audit(events=world.change(attested, model_digest=make_digest("x")))
    lines = lines_of(report_of(world, audit))
    crossed = [i for i, line in enumerate(lines) if line.startswith(" ✗ ")]
    assert [lines[i][3:6].strip() for i in crossed] == ["11"]
    assert lines[crossed[0] + 1].strip().startswith("round 1, hospital-c, attested model: expected 0x")
    assert "round 1: hospital-c attested another model" in lines
    assert lines[-1].startswith("REFUSED at check 11: round 1, hospital-c, attested model: ")


@pytest.mark.parametrize("reason", [FailureReason.DISPUTE, FailureReason.DISAGREEMENT])
def test_objections_are_told(world: World, reason: FailureReason) -> None:
    """A dispute, or a second model before the finalisation, is told to everybody, and breaks nothing."""
    second = world.find(ModelAttested, round=3, node=world.nodes[1])
    place = {name: getattr(second, name) for name in ("block_number", "transaction_hash", "log_index")}
    if reason is FailureReason.DISPUTE:
        objection: Event = RoundDisputed(
            round=3, node=world.nodes[1], subject=Subject.CHUNK, index=1, **place
        )
        who = f"hospital-b ({checksum_address(world.nodes[1])})"
        why = "chunk 1 of the sum is that of the committed ones; the node failed the round without cause"
        told = f"round 3: {who} disputed chunk 1: UNFOUNDED, {why}"
    else:
        objection = replace(second, model_digest=make_digest("x"))
        models = make_base(3).digest.hex()[:10], make_digest("x").hex()[:10]
        told = f"round 3: 0x{models[0]} of hospital-a against 0x{models[1]} of hospital-b: which of them "
        told += "follows from the sum, if any, cannot be told without the key"
    failed = RoundFailed(round=3, phase=Phase.AGGREGATED, reason=reason, **place)
    before = world.evidence.events[: world.evidence.events.index(second)]
    audit = world.audit(events=(*before, objection, failed), head_model=make_base(2).digest)
    report = report_of(world, audit)
    assert report.holds
    assert told in lines_of(report)
    third = ReportSchema.model_validate(as_document(report)).rounds[2]
    assert (third.phase, third.failure) == ("failed", reason.name.lower())
    assert (third.dispute is not None, third.dissenters != []) == (
        reason is FailureReason.DISPUTE,
        reason is FailureReason.DISAGREEMENT,
    )


def test_verdicts_have_the_documented_shape(disputed: World) -> None:
    """Machines get who disputed what and the verdict with its reason; people get the same in one line."""
    report = report_of(disputed, disputed.audit())
    assert not report.holds
    parsed = ReportSchema.model_validate(as_document(report)).rounds
    node = disputed.nodes[OBJECTOR]
    for number, verdict in report.audit.verdicts.items():
        dispute = parsed[number - 1].dispute
        assert dispute is not None
        assert (dispute.node, dispute.address) == (NAMES[OBJECTOR], checksum_address(node))
        assert (dispute.verdict, dispute.reason) == (verdict.ruling, verdict.reason)
        line = (
            f"round {number}: {dispute.node} ({dispute.address}) disputed {dispute.subject} {dispute.index}: "
        )
        assert line + f"{verdict.ruling.upper()}, {verdict.reason}" in lines_of(report)


def test_an_unfounded_dispute_breaks_nothing(disputed: World) -> None:
    """A round that a node failed without cause fails no check; one that it failed with cause does."""
    report = report_of(disputed, disputed.audit(is_selected=lambda number: number == 1))
    assert report.holds
    assert any("UNFOUNDED" in line for line in lines_of(report))
    assert any(line.endswith("disputed chunk 1: not looked at") for line in lines_of(report))
    second = ReportSchema.model_validate(as_document(report)).rounds[1].dispute
    assert second is not None
    assert (second.verdict, second.reason) == (None, None)
    assert not report_of(disputed, disputed.audit(is_selected=lambda number: number == 2)).holds


def test_both_sides_of_a_disagreement_are_named(disputed: World) -> None:
    """Of a round that failed by two models, everybody sees who vouched for which, by transaction or not."""
    report = report_of(disputed, disputed.audit(is_selected=lambda number: number > 10))
    *_, first, second = ReportSchema.model_validate(as_document(report)).rounds
    genesis, other, proposed = (f"0x{make_base(number).digest.hex()}" for number in (0, 1, 12))
    assert first.models == {genesis: [NAMES[0]], other: [NAMES[1]]}
    assert second.models == {other: [NAMES[2]], proposed: [*NAMES]}  # which signed both
    assert (first.dissenters, second.dissenters) == ([NAMES[1]], [])
    cannot = "which of them follows from the sum, if any, cannot be told without the key"
    sides = f"{other[:12]} of {NAMES[2]} against {proposed[:12]} of {', '.join(NAMES)}"
    assert f"round 12: {sides}: {cannot}" in lines_of(report)
    unread = lines_of(report_of(disputed, disputed.audit(is_selected=lambda number: number < 11)))
    assert any(f"against {proposed[:12]} of the proposal: " in line for line in unread)


def test_a_predecessor_is_named(world: World) -> None:
    """A ledger that goes on from another says from which, and where that one's history has to end."""
    succeeded = Succeeded(
        predecessor=world.nodes[0],
        history_hash=make_digest("end"),
        head_model=make_base(0).digest,
        privacy_spent=PRIVACY_BUDGET - 4 * ROUND_COST,
        block_number=world.evidence.events[0].block_number,
        transaction_hash=world.evidence.events[0].transaction_hash,
        log_index=2,
    )
    events = (*world.evidence.events[:2], succeeded, *world.evidence.events[2:])
    before = succeeded.privacy_spent  # what the rounds cost comes on top of that
    events = tuple(
        replace(event, spent=before + event.spent) if isinstance(event, PrivacySpent) else event
        for event in events
    )
    report = report_of(world, world.audit(events=events))
    assert report.holds
    parsed = ReportSchema.model_validate(as_document(report)).predecessor
    assert parsed is not None
    assert parsed.history_hash == "0x" + make_digest("end").hex()
    assert parsed.privacy_spent == succeeded.privacy_spent
    assert any(line.startswith(f"goes on from {parsed.contract}") for line in lines_of(report))


def test_many_failures_are_cut_for_people(world: World) -> None:
    """People see the first few failures of a check and how many more there are; machines see all."""
    failures = [Failure(check=8, field="x", expected="a", got="b", round=1, chunk=i) for i in range(20)]
    report = report_of(world, Audit(findings=Findings(failures=failures)))
    lines = lines_of(report)
    assert sum("round 1, chunk" in line for line in lines[:-1]) == SHOWN_PER_CHECK
    assert any("and 15 more" in line for line in lines)
    assert len(as_document(report)["checks"][7]["failures"]) == 20


def test_checks_that_were_not_done_do_not_hold(world: World) -> None:
    """When the contract is another one, the other checks are neither ticked nor crossed."""
    failure = Failure(check=1, field="code", expected="a", got="b")
    report = report_of(world, Audit(findings=Findings(failures=[failure])), stopped_at=1)
    parsed = ReportSchema.model_validate(as_document(report))
    assert not parsed.holds
    assert [check.state for check in parsed.checks] == ["fails", *["not done"] * 11]
    assert sum(": not done" in line for line in lines_of(report)) == 11


def test_the_first_failure_is_the_one_that_explains_the_others() -> None:
    """The lowest check comes first, and within it the earliest round and chunk."""
    findings = Findings()
    for check, number, chunk in ((10, 1, 0), (8, 2, 0), (8, 1, 3), (8, 1, 2)):
        with findings.collect():
            raise CheckFailed(
                Failure(check=check, field="x", expected="a", got="b", round=number, chunk=chunk)
            )
    first = findings.first()
    assert first is not None
    assert (first.check, first.round, first.chunk) == (8, 1, 2)


def test_a_failure_says_where_it_is() -> None:
    """Without names a node is its address, and an error's text carries the check's number."""
    failure = Failure(check=8, field="x", expected="a", got="b", round=3, node=bytes(20), chunk=1)  # type: ignore[arg-type]
    with pytest.raises(CheckFailed, match=r"check 8: round 3, 0x0{40}, chunk 1, x: expected a, got b"):
        raise CheckFailed(failure)
