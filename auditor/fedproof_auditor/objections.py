"""How a report tells what nodes objected to: disputes, with the verdict, and models that differ. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fedproof.digests import Address, Digest, checksum_address
from fedproof.ledger.events import FailureReason, RoundDisputed
from fedproof_auditor.chronicle import RoundRecord
from fedproof_auditor.disputes import Verdict
from fedproof_auditor.findings import NameBook, spell, spell_node


def describe_objections(record: RoundRecord, verdict: Verdict | None, names: NameBook) -> Iterator[str]:
    """Yield what nodes objected to in a round, for people.

    Args:
        record: the round.
        verdict: on its dispute; none where there is no dispute, or the round was not looked at.
        names: what people call the nodes.
    """
    number = record.number
    if dispute := record.dispute:
        who = spell_node(dispute.node, names)
        who += f" ({checksum_address(dispute.node)})" * (dispute.node in names)
        ruling = f"{verdict.ruling.upper()}, {verdict.reason}" if verdict else "not looked at"
        yield f"round {number}: {who} disputed {spell(dispute.subject)} {dispute.index}: {ruling}"
    if record.failed and record.failed.reason == FailureReason.DISAGREEMENT:
        sides = (
            f"{spell(model)[:12]} of {', '.join(spell_node(node, names) for node in nodes) or 'the proposal'}"
            for model, nodes in find_models(record).items()
        )
        cannot = "which of them follows from the sum, if any, cannot be told without the key"
        yield f"round {number}: {' against '.join(sides)}: {cannot}"
        return
    for node in find_dissenters(record):
        yield f"round {number}: {spell_node(node, names)} attested another model"


def as_dispute_document(dispute: RoundDisputed, verdict: Verdict | None, names: NameBook) -> dict[str, Any]:
    """Return a dispute and its verdict for machines; docs/auditor.md describes it."""
    return {
        "node": spell_node(dispute.node, names),
        "address": checksum_address(dispute.node),
        "subject": spell(dispute.subject),
        "index": dispute.index,
        "verdict": str(verdict.ruling) if verdict else None,
        "reason": verdict.reason if verdict else None,
    }


def find_models(record: RoundRecord) -> dict[Digest, list[Address]]:
    """Return each model on record, as they came, with the nodes that vouched for it."""
    models: dict[Digest, set[Address]] = {}
    for node, attested in record.attestations.items():
        models.setdefault(attested.model_digest, set()).add(node)
    if record.proposal:
        models.setdefault(record.proposal.model_digest, set()).update(record.endorsers)
    if record.finalised:
        models.setdefault(record.finalised.model_digest, set()).update(record.finalised.signers)
    return {model: sorted(nodes) for model, nodes in models.items()}


def find_dissenters(record: RoundRecord) -> list[Address]:
    """Return who attested another model than the finalised one, or in a failed round than most did."""
    models = [each.model_digest for each in record.attestations.values()]
    if not models:
        return []
    model: Digest = record.finalised.model_digest if record.finalised else max(models, key=models.count)
    return [node for node, each in record.attestations.items() if each.model_digest != model]
