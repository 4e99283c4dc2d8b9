"""One round as its events leave it behind. Pure; `fedproof.ledger.history` replays the events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn

from fedproof.digests import Address, Digest, checksum_address
from fedproof.errors import HistoryBroken
from fedproof.ledger.events import (
    AggregatePublished,
    CommitmentsAnchored,
    Event,
    ModelAttested,
    Phase,
    ResultProposed,
    RoundDisputed,
    RoundFailed,
    RoundFinalised,
    RoundSealed,
    Subject,
    UpdateCommitted,
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Signed commitments that the aggregator anchored: the root over them, and how many there are."""

    root: Digest
    count: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """Signed attestations of a model that the aggregator bound itself to."""

    model_digest: Digest
    root: Digest
    count: int


@dataclass(frozen=True, slots=True)
class Dispute:
    """Who found what wrong."""

    node: Address
    subject: Subject
    index: int


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
        cohort: who may commit and attest.
        commitments: by node, of those that committed by transaction.
        batch: the signed commitments that were anchored, if any were.
        contributors: the sealed nodes among `commitments`, ascending; empty before the seal.
        excluded: reason codes of the nodes that do not count.
        doubled: nodes among `commitments` that have a leaf in the batch as well, which does not count.
        aggregate_root: root of the encrypted sum, once it is published.
        attestations: the model digest that each node vouched for, by transaction or in the finalisation.
        signers: the nodes among `attestations` whose signatures came with the finalisation.
        proposal: the signed attestations that the aggregator bound itself to, if it did.
        dispute: the objection that failed the round, if one did.
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
    batch: Batch | None = None
    contributors: tuple[Address, ...] = ()
    excluded: Mapping[Address, int] = field(default_factory=dict)
    doubled: frozenset[Address] = frozenset()
    aggregate_root: Digest | None = None
    attestations: Mapping[Address, Digest] = field(default_factory=dict)
    signers: frozenset[Address] = frozenset()
    proposal: Proposal | None = None
    dispute: Dispute | None = None
    result: Digest | None = None
    failure: int | None = None
    failed_in: Phase | None = None
    sealed_block: int | None = None
    aggregated_block: int | None = None
    ended_block: int | None = None


def advance(record: RoundRecord, event: Event) -> RoundRecord:
    """Return the newest round after one more event of it.

    Raises:
        HistoryBroken: it is no event of a round, one of another round, or one that cannot follow.
    """
    if type(event) not in _STEPS:
        refuse(event, "an event that the contract has")
    phases, step = _STEPS[type(event)]
    number = event.round  # type: ignore[attr-defined]
    if number != record.number:
        refuse(event, f"round {record.number}, got round {number}")
    if record.phase not in phases:
        wanted = " or ".join(phase.name for phase in phases)
        refuse(event, f"round {number} to be {wanted}, it is {record.phase.name}")
    return step(record, event)


def _commit(record: RoundRecord, event: UpdateCommitted) -> RoundRecord:
    if event.node in record.commitments or event.node not in record.cohort:
        refuse(event, f"the first commitment of a node of the cohort, got {_who(event.node)}")
    commitment = Commitment(event.update_root, event.examples)
    return replace(record, commitments={**record.commitments, event.node: commitment})


def _anchor(record: RoundRecord, event: CommitmentsAnchored) -> RoundRecord:
    if record.batch is not None:
        refuse(event, "the round's only batch, got a second one")
    return replace(record, batch=Batch(event.root, event.count))


def _seal(record: RoundRecord, event: RoundSealed) -> RoundRecord:
    missing = set(record.commitments) - set(event.nodes)
    if missing:
        refuse(event, f"every committed node, {', '.join(map(_who, sorted(missing)))} is missing")
    strangers = {*event.contributors, *event.doubled} - set(record.commitments)
    if strangers:
        refuse(event, f"committed nodes, got {', '.join(map(_who, sorted(strangers)))} as well")
    return replace(
        record,
        phase=Phase.SEALED,
        contributors=event.contributors,
        excluded=event.excluded,
        doubled=event.doubled,
        deadline=event.deadline,
        sealed_block=event.block_number,
    )


def _publish(record: RoundRecord, event: AggregatePublished) -> RoundRecord:
    return replace(
        record,
        phase=Phase.AGGREGATED,
        aggregate_root=event.aggregate_root,
        deadline=event.deadline,
        aggregated_block=event.block_number,
    )


def _attest(record: RoundRecord, event: ModelAttested) -> RoundRecord:
    is_first = event.node not in record.attestations or event.node in record.signers
    if not is_first or event.node not in record.cohort:
        refuse(event, f"the first attestation of a node of the cohort, got {_who(event.node)}")
    # A signer who then sends a transaction may contradict itself, which is for everybody to see.
    attestations = {**record.attestations, event.node: event.model_digest}
    return replace(record, attestations=attestations, signers=record.signers - {event.node})


def _propose(record: RoundRecord, event: ResultProposed) -> RoundRecord:
    proposal = Proposal(event.model_digest, event.root, event.count)
    return replace(record, phase=Phase.PROPOSED, proposal=proposal, deadline=event.deadline)


def _dispute(record: RoundRecord, event: RoundDisputed) -> RoundRecord:
    return replace(record, dispute=Dispute(event.node, event.subject, event.index))


def _finalise(record: RoundRecord, event: RoundFinalised) -> RoundRecord:
    expect(event, "attestations by transaction", len(record.attestations), event.attested)
    return replace(
        record,
        phase=Phase.FINALISED,
        attestations={**record.attestations, **dict.fromkeys(event.signers, event.model_digest)},
        signers=frozenset(event.signers),
        result=event.model_digest,
        deadline=0,
        ended_block=event.block_number,
    )


def _fail(record: RoundRecord, event: RoundFailed) -> RoundRecord:
    expect(event, "phase", record.phase.name, event.phase.name)
    return replace(
        record,
        phase=Phase.FAILED,
        failure=event.reason,
        failed_in=event.phase,
        deadline=0,
        ended_block=event.block_number,
    )


_UNDER_WAY = (Phase.OPEN, Phase.SEALED, Phase.AGGREGATED, Phase.PROPOSED)
_STEPS: dict[type[Event], tuple[tuple[Phase, ...], Callable[[RoundRecord, Any], RoundRecord]]] = {
    UpdateCommitted: ((Phase.OPEN,), _commit),
    CommitmentsAnchored: ((Phase.OPEN,), _anchor),
    RoundSealed: ((Phase.OPEN,), _seal),
    AggregatePublished: ((Phase.SEALED,), _publish),
    ModelAttested: ((Phase.AGGREGATED, Phase.PROPOSED, Phase.FINALISED), _attest),
    ResultProposed: ((Phase.AGGREGATED,), _propose),
    RoundDisputed: ((Phase.SEALED, Phase.AGGREGATED, Phase.PROPOSED), _dispute),
    RoundFinalised: ((Phase.AGGREGATED, Phase.PROPOSED), _finalise),
    RoundFailed: (_UNDER_WAY, _fail),
}
"""The phases that a round may be in when an event of it comes, and what the event does to it."""


def expect(event: Event, what: str, expected: object, came: object) -> None:
    """Raise HistoryBroken unless an event says what it has to."""
    if expected != came:
        refuse(event, f"{what} {expected}, got {came}")


def refuse(event: Event, expected: str) -> NoReturn:
    """Raise HistoryBroken: an event that cannot follow the ones before it."""
    raise HistoryBroken(
        f"block {event.block_number}, log {event.log_index}, {type(event).__name__}: expected {expected}"
    )


def _who(node: Address) -> str:
    return checksum_address(node)
