"""Checks 9 and 11 on signed statements: the leaves under anchored and proposed roots, as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from fedproof.digests import Digest
from fedproof.errors import BadLeaf, DigestMismatch, MalformedMessage, MissingObject
from fedproof.ledger.events import CommitmentsAnchored, ResultProposed, UpdateCommitted
from fedproof.ledger.statements import (
    RoundStatements,
    SignedAttestation,
    SignedCommitment,
    decode_batch,
    decode_proposal,
)
from fedproof_auditor.chronicle import RoundRecord
from fedproof_auditor.findings import Failure, Findings
from fedproof_auditor.updates import RoundFacts

Leaf = TypeVar("Leaf", SignedCommitment, SignedAttestation)


class StatementStore(Protocol):
    """Where signed statements are read from: `fedproof_auditor.stored.StoredEvidence`."""

    def get_statements(self, root: Digest) -> bytes:
        """Return the document of that root, or raise MissingObject."""
        ...


def read_statements(
    facts: RoundFacts,
    store: StatementStore,
    findings: Findings,
) -> None:
    """Read what a round's batch and proposal hold into its record, collecting failures.

    Check 9:
    1. The stored leaves are those under the anchored root, ascending by node, each signed by a node of the
       cohort for a count of examples that the policy allows.
    2. The seal counts each node once, and excludes only nodes that committed by transaction or in the batch.

    Check 11:
    3. The stored leaves are those under the proposed root, ascending by node, each the signature of a node of
       the cohort under the proposed model.

    Leaves that are the anchored ones count as commitments even where one of them is not sound: so the seal
    has it, and the sum is to be held against that.

    Args:
        facts: of the round.
        store: what the aggregator has stored.
        findings: takes the failures.
    """
    reader = _Reader(facts, store, findings)
    if facts.record.batch is not None:
        reader.read_batch(facts.record.batch)
    if facts.record.proposal is not None:
        reader.read_proposal(facts.record.proposal)


def describe_statements(facts: RoundFacts) -> RoundStatements:
    """Return what the signatures of a round are bound to."""
    return RoundStatements(
        chain_id=facts.chain_id,
        contract=facts.contract,
        round=facts.record.number,
        base_model=facts.record.opened.base_model,
        cohort=facts.record.cohort,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    facts: RoundFacts
    store: StatementStore
    findings: Findings

    def read_batch(self, anchored: CommitmentsAnchored) -> None:
        """Check 9."""
        record, root, count = self.facts.record, anchored.root, anchored.count
        statements = describe_statements(self.facts)
        most = record.terms.max_examples

        def verify(leaves: tuple[SignedCommitment, ...]) -> None:
            statements.verify_batch(leaves, root=root, count=count, max_examples=most)  # 1

        leaves = self._read(anchored, decode_batch, verify)
        self.findings.failures += _verify_counted(record, leaves)  # 2
        _merge(record, anchored, leaves)

    def read_proposal(self, proposed: ResultProposed) -> None:
        """Check 11."""
        model, root, count = proposed.model_digest, proposed.root, proposed.count
        statements = describe_statements(self.facts)

        def verify(leaves: tuple[SignedAttestation, ...]) -> None:
            statements.verify_proposal(leaves, model, root=root, count=count)  # 3

        leaves = self._read(proposed, decode_proposal, verify)
        self.facts.record.endorsers = frozenset(leaf.node for leaf in leaves)

    def _read(
        self,
        event: CommitmentsAnchored | ResultProposed,
        decode: Callable[[bytes], tuple[Leaf, ...]],
        verify: Callable[[tuple[Leaf, ...]], None],
    ) -> tuple[Leaf, ...]:
        """Return the leaves under an event's root, and keep what is wrong with one.

        None, and a failure, if others are stored under it or nothing is: the aggregator keeps them.
        """
        check, what = (9, "batch") if isinstance(event, CommitmentsAnchored) else (11, "proposal")
        leaves: tuple[Leaf, ...] = ()
        try:
            leaves = decode(self.store.get_statements(event.root))
            verify(leaves)
            return leaves
        except MissingObject as error:
            failure = self._fail(check, what, expected="stored leaves", got=error)
        except (MalformedMessage, DigestMismatch) as error:
            leaves = ()
            failure = self._fail(check, what, expected="the leaves under its root", got=error)
        except BadLeaf as error:
            expected = "ascending, each signed by a node of the cohort"
            failure = self._fail(check, f"leaf {error.index} of the {what}", expected=expected, got=error)
            failure = replace(failure, node=leaves[error.index].node)
        self.findings.failures.append(failure)
        return leaves

    def _fail(self, check: int, field: str, *, expected: str, got: object) -> Failure:
        return Failure(
            check=check, round=self.facts.record.number, field=field, expected=expected, got=str(got)
        )


def _verify_counted(record: RoundRecord, leaves: tuple[SignedCommitment, ...]) -> Iterator[Failure]:
    """Yield what is wrong with how a seal counts the leaves; nothing where there are none to be seen."""
    sealed = record.sealed
    if sealed is None or not leaves:
        return
    by_transaction, signed = set(record.commitments), {leaf.node for leaf in leaves}
    twice = by_transaction & signed
    for nodes, expected, got in (
        (twice - sealed.doubled, "to count once, as it committed in both ways", "twice"),
        (sealed.doubled - twice, "a leaf in the batch as well", "none"),
        (set(sealed.excluded) - by_transaction - signed, "a node that committed in either way", "another"),
    ):
        for node in sorted(nodes):
            yield Failure(check=9, round=record.number, node=node, field="seal", expected=expected, got=got)


def _merge(record: RoundRecord, anchored: CommitmentsAnchored, leaves: tuple[SignedCommitment, ...]) -> None:
    """Let leaves count as commitments of nodes that sent no transaction."""
    for leaf in leaves:
        committed = UpdateCommitted(
            block_number=anchored.block_number,
            transaction_hash=anchored.transaction_hash,
            log_index=anchored.log_index,
            round=record.number,
            node=leaf.node,
            update_root=leaf.update_root,
            examples=leaf.examples,
        )
        record.commitments.setdefault(leaf.node, committed)
    record.batched = frozenset(leaf.node for leaf in leaves)
