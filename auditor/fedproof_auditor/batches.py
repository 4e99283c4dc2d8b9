"""Checks 9 and 11 on signed statements: the leaves under anchored and proposed roots, as they are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from fedproof.digests import Digest
from fedproof.errors import PeerError
from fedproof.ledger.events import Phase, UpdateCommitted
from fedproof.ledger.statements import (
    AskContract,
    RoundStatements,
    SignedCommitment,
    decode_batch,
    decode_proposal,
)
from fedproof_auditor.chronicle import RoundRecord
from fedproof_auditor.findings import Failure, Findings
from fedproof_auditor.updates import RoundFacts

Leaves = TypeVar("Leaves")


class StatementStore(Protocol):
    """Where signed statements are read from: `fedproof_auditor.stored.StoredEvidence`."""

    def get_statements(self, root: Digest) -> bytes:
        """Return the document of that root, or raise PeerError."""
        ...


def read_batches(
    facts: RoundFacts, store: StatementStore, ask_contract: AskContract, findings: Findings
) -> None:
    """Read what a round's batch and proposal hold, collecting failures; what is sound counts as committed.

    Check 9:
    1. The stored leaves are those under the anchored root, ascending by node, each signed by a node of the
       cohort for a count of examples that the policy allows.
    2. The seal counts each node once, and excludes from the batch only nodes that are in it.

    Check 11:
    3. The stored leaves are those under the proposed root, each the signature of a node of the cohort under
       the finalised model.

    Args:
        facts: of the round.
        store: what the aggregator has stored.
        ask_contract: asks a node's contract about a signature (EIP-1271).
        findings: takes the failures.
    """
    record = facts.record
    statements = RoundStatements(
        chain_id=facts.chain_id,
        contract=facts.contract,
        round=record.number,
        base_model=record.opened.base_model,
        cohort=record.cohort,
        ask_contract=ask_contract,
    )
    if (anchored := record.batch) is not None:

        def read_batch() -> tuple[SignedCommitment, ...]:
            leaves = decode_batch(store.get_statements(anchored.root))
            most = record.terms.max_examples
            statements.verify_batch(leaves, root=anchored.root, count=anchored.count, max_examples=most)  # 1
            return leaves

        leaves = _try(read_batch, record, findings, check=9, field="batch", is_binding=facts.is_binding)
        if leaves is not None:
            _merge(record, leaves, findings)  # 2
    if (proposed := record.proposal) is not None and record.phase is Phase.FINALISED:

        def read_proposal() -> None:
            attestations = decode_proposal(store.get_statements(proposed.root))
            model = proposed.model_digest
            statements.verify_proposal(attestations, model, root=proposed.root, count=proposed.count)  # 3

        _try(read_proposal, record, findings, check=11, field="proposal", is_binding=True)


def _merge(record: RoundRecord, leaves: tuple[SignedCommitment, ...], findings: Findings) -> None:
    """Let the leaves count as commitments of nodes that sent no transaction."""
    sealed, anchored = record.sealed, record.batch
    if anchored is None:
        return
    by_transaction = set(record.commitments)
    signed = {leaf.node: leaf for leaf in leaves}
    if sealed is not None:
        twice = by_transaction & set(signed)
        strangers = set(sealed.excluded) - by_transaction - set(signed)
        wrong = [(node, "once", "twice") for node in twice - sealed.doubled]
        wrong += [(node, "a leaf in the batch, too", "none") for node in sealed.doubled - twice]
        wrong += [(node, "to be excluded after it committed", "excluded without") for node in strangers]
        for node, expected, got in sorted(wrong):
            what = Failure(check=9, round=record.number, node=node, field="seal", expected=expected, got=got)
            findings.expect(False, what)
    for node in sorted(set(signed) - by_transaction):
        record.commitments[node] = UpdateCommitted(
            block_number=anchored.block_number,
            transaction_hash=anchored.transaction_hash,
            log_index=anchored.log_index,
            round=record.number,
            node=node,
            update_root=signed[node].update_root,
            examples=signed[node].examples,
        )
    record.signed = frozenset(set(signed) - by_transaction)


def _try(
    read: Callable[[], Leaves],
    record: RoundRecord,
    findings: Findings,
    *,
    check: int,
    field: str,
    is_binding: bool,
) -> Leaves | None:
    """Return what is read, or nothing and a failure, where the evidence has to be there."""
    try:
        return read()
    except PeerError as error:
        failure = Failure(
            check=check, round=record.number, field=field, expected="stored, sound leaves", got=str(error)
        )
        findings.expect(not is_binding, failure)
        return None
