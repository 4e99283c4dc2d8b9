"""Checks 9 and 11 on signed statements: the leaves under anchored and proposed roots, as they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from fedproof.digests import Digest
from fedproof.errors import BadLeaf, DigestMismatch, MalformedMessage, MissingObject
from fedproof.ledger.events import CommitmentsAnchored, ResultProposed, UpdateCommitted
from fedproof.ledger.statements import (
    AskContract,
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
    ask_contract_at: Callable[[int], AskContract],
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
        ask_contract_at: returns what asks a node's contract about a signature (EIP-1271), as of a block.
        findings: takes the failures.
    """
    record = facts.record
    reader = _Reader(facts, store, findings)
    if (anchored := record.batch) is not None:
        statements = _describe(facts, ask_contract_at(anchored.block_number))
        most = record.terms.max_examples

        def verify_batch(leaves: tuple[SignedCommitment, ...]) -> None:
            statements.verify_batch(leaves, root=anchored.root, count=anchored.count, max_examples=most)  # 1

        _merge(record, anchored, reader.read(anchored, decode_batch, verify_batch), findings)  # 2
    if (proposed := record.proposal) is not None:
        statements = _describe(facts, ask_contract_at(proposed.block_number))

        def verify_proposal(leaves: tuple[SignedAttestation, ...]) -> None:
            statements.verify_proposal(
                leaves, proposed.model_digest, root=proposed.root, count=proposed.count
            )  # 3

        endorsements = reader.read(proposed, decode_proposal, verify_proposal)
        record.endorsers = frozenset(leaf.node for leaf in endorsements)


def _describe(facts: RoundFacts, ask_contract: AskContract) -> RoundStatements:
    record = facts.record
    return RoundStatements(
        chain_id=facts.chain_id,
        contract=facts.contract,
        round=record.number,
        base_model=record.opened.base_model,
        cohort=record.cohort,
        ask_contract=ask_contract,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    facts: RoundFacts
    store: StatementStore
    findings: Findings

    def read(
        self,
        event: CommitmentsAnchored | ResultProposed,
        decode: Callable[[bytes], tuple[Leaf, ...]],
        verify: Callable[[tuple[Leaf, ...]], None],
    ) -> tuple[Leaf, ...]:
        """Return the leaves under an event's root, and keep what is wrong with one.

        None, and a failure, if others are stored under it; none if nothing is, a failure where it has to be.
        """
        check, what = (9, "batch") if isinstance(event, CommitmentsAnchored) else (11, "proposal")
        leaves: tuple[Leaf, ...] = ()
        try:
            leaves = decode(self.store.get_statements(event.root))
            verify(leaves)
            return leaves
        except MissingObject as error:
            if not self.facts.is_binding:
                return ()
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


def _merge(
    record: RoundRecord,
    anchored: CommitmentsAnchored,
    leaves: tuple[SignedCommitment, ...],
    findings: Findings,
) -> None:
    """Let leaves count as commitments of nodes that sent no transaction."""
    by_transaction = set(record.commitments)
    signed = {leaf.node: leaf for leaf in leaves}
    if leaves and (sealed := record.sealed):
        twice = by_transaction & set(signed)
        strangers = set(sealed.excluded) - by_transaction - set(signed)
        wrong = [
            (node, "to count once, as it committed in both ways", "twice") for node in twice - sealed.doubled
        ]
        wrong += [(node, "a leaf in the batch as well", "none") for node in sealed.doubled - twice]
        wrong += [(node, "a node that committed in either way", "one that did not") for node in strangers]
        for node, expected, got in sorted(wrong):
            findings.require(
                False, 9, "seal", expected=expected, got=got, round_number=record.number, node=node
            )
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
    # Of two equal ciphertexts, the one that was committed to first is no copy.
    in_order = sorted(record.commitments.items(), key=lambda each: (each[1].block_number, each[1].log_index))
    record.commitments = dict(in_order)
    record.batched = frozenset(signed)
