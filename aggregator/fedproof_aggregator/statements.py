"""Taking in what nodes sign instead of sending transactions, and giving out the batches that came of it.

If a peer is malicious, then at most it is not taken: a statement is journalled once its signature is checked,
the first that a node makes in a round is the one that counts, and nobody can make one for another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fedproof.digests import Address, Digest, as_address, as_digest, checksum_address
from fedproof.errors import BadLeaf, MissingObject
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import Phase
from fedproof.ledger.rounds import Commitment, RoundRecord
from fedproof.ledger.statements import (
    RoundStatements,
    SignedAttestation,
    SignedCommitment,
    compute_batch_root,
    compute_contributions,
    decode_batch,
    decode_proposal,
    encode_leaves,
)
from fedproof.manifest import Contribution
from fedproof.store import ObjectStore
from fedproof.wire import aggregation_pb2 as wire
from fedproof_aggregator.journal import Journal
from fedproof_aggregator.refusal import malformed, not_found, out_of_turn
from fedproof_aggregator.view import LedgerView


class Statements:
    """The signed commitments and attestations of each round; for all threads."""

    def __init__(self, *, ledger: Ledger, view: LedgerView, journal: Journal, store: ObjectStore) -> None:
        self._ledger = ledger
        self._view = view
        self._journal = journal
        self._store = store
        self._batches: dict[Digest, tuple[SignedCommitment, ...]] = {}

    def describe(self, record: RoundRecord) -> RoundStatements:
        """Return what the signatures of a round are bound to; only keys sign."""
        return RoundStatements(
            chain_id=self._view.chain_id,
            contract=self._view.contract,
            round=record.number,
            base_model=record.base_model,
            cohort=record.cohort,
        )

    # Commitments

    def put_commitment(self, number: int, raw: wire.SignedCommitment) -> None:
        """Take a node's signed commitment.

        1. The round is open, its policy has batching, and no batch is anchored yet.
        2. The node is of the cohort and signed it with its own key, for a count of examples that the policy
           allows.
        3. It is the node's first in this round, or the same again.

        Raises:
            Refused: a check fails.
            MalformedMessage: a field is not as long as it should be.
        """
        where = f"round {number}: commitment"
        signed = SignedCommitment(
            as_address(raw.node, where),
            as_digest(raw.update_root, where),
            raw.examples,
            raw.nonce,
            raw.signature,
        )
        record = self._require(number, lambda record: record.phase is Phase.OPEN, "an open round")  # 1
        policy = self._view.round_policy(record)
        if not policy.batching:
            raise out_of_turn(f"{where}: the policy has no batching: commit by a transaction")
        if record.batch is not None:
            raise out_of_turn(f"{where}: the batch is anchored already: commit by a transaction")
        if signed.nonce >= 1 << 63:
            raise malformed(f"{where}: expected a nonce below 2^63, got {signed.nonce}")
        try:
            self.describe(record).verify_commitment(signed, max_examples=policy.max_examples)  # 2
        except BadLeaf as error:
            raise malformed(f"{error}; a node that is a contract commits by a transaction") from error
        first = self._journal.record_commitment(number, signed)
        if (first.update_root, first.examples) != (signed.update_root, signed.examples):  # 3
            raise out_of_turn(
                f"{where} of {checksum_address(signed.node)}: expected the one of root "
                f"{first.update_root.hex()} again, got {signed.update_root.hex()}"
            )

    def find_commitments(self, record: RoundRecord) -> Mapping[Address, Commitment]:
        """Return what nodes committed to in an open round: what the ledger says, and what they signed.

        Where a node did both, the ledger's counts. After the anchoring, only what was anchored counts.
        """
        leaves = self.find_batch(record)
        if record.batch is None:
            leaves = tuple(self._journal.find_commitments(record.number).values())
        signed = {each.node: Commitment(each.update_root, each.examples) for each in leaves}
        return {**signed, **record.commitments}

    def find_commitment(self, record: RoundRecord, node: Address) -> Commitment | None:
        """Return what one node committed to in an open round, if it did."""
        return record.commitments.get(node) or self.find_commitments(record).get(node)

    def prepare_batch(self, record: RoundRecord, nodes: Sequence[Address]) -> tuple[Digest, int]:
        """Store the signed commitments of these nodes, ascending; return root and count, to be anchored.

        A crash after it leaves a document that no ledger names.

        Raises:
            BadLeaf: the journal is older than the rule that only keys sign these.
        """
        statements, most = self.describe(record), self._view.round_policy(record).max_examples
        signed = self._journal.find_commitments(record.number)
        leaves = [signed[node] for node in nodes]
        for leaf in leaves:
            statements.verify_commitment(leaf, max_examples=most)
        root = compute_batch_root(leaves)
        self._store.put_statements(root, encode_leaves(leaves))
        return root, len(leaves)

    def find_batch(self, record: RoundRecord) -> tuple[SignedCommitment, ...]:
        """Return the leaves of a round's anchored batch; none where nothing was anchored.

        Raises:
            MissingObject: the store has lost them.
            MalformedMessage: or altered them.
        """
        if record.batch is None:
            return ()
        root = record.batch.root
        # Every chunk that is asked for leads here.
        if root not in self._batches:
            leaves = decode_batch(self._store.get_statements(root))
            if compute_batch_root(leaves) != root:
                raise MissingObject(f"round {record.number}: the store has altered the batch's leaves")
            self._batches = {root: leaves}
        return self._batches[root]

    def compute_contributions(self, record: RoundRecord) -> tuple[Contribution, ...]:
        """Return what a sealed round adds up, ascending by node."""
        return compute_contributions(record, self.find_batch(record))

    # Attestations

    def put_attestation(self, number: int, raw_model: bytes, raw: wire.SignedAttestation) -> None:
        """Take a node's signed attestation.

        1. The round's sum is published, and the round is not over.
        2. The node is of the cohort and signed it, with its own key or as a contract (EIP-1271).
        3. It is the node's first in this round, or the same again.

        Raises:
            Refused: a check fails.
            MalformedMessage: a field is not as long as it should be.
        """
        where = f"round {number}: attestation"
        signed = SignedAttestation(as_address(raw.node, where), raw.signature)
        model = as_digest(raw_model, where)
        record = self._require(
            number,
            lambda record: record.phase in (Phase.AGGREGATED, Phase.PROPOSED),
            "a round whose sum is published",
        )  # 1
        statements = replace(self.describe(record), ask_contract=self._ledger.is_signed_by)
        try:
            statements.verify_attestation(signed, model)  # 2
        except BadLeaf as error:
            raise malformed(str(error)) from error
        first, _ = self._journal.record_attestation(number, model, signed)
        if first != model:  # 3
            raise out_of_turn(
                f"{where} of {checksum_address(signed.node)}: expected the one of {first.hex()} again, "
                f"got {model.hex()}"
            )

    def find_attestations(self, record: RoundRecord) -> dict[Address, tuple[Digest, SignedAttestation]]:
        """Return the signed attestations of nodes that sent no transaction, with their models."""
        found = self._journal.find_attestations(record.number)
        return {node: each for node, each in found.items() if node not in record.attestations}

    def find_contracts(
        self, record: RoundRecord, model: Digest, attestations: Mapping[Address, SignedAttestation]
    ) -> set[Address]:
        """Return the nodes whose signatures only a contract at their address can vouch for (EIP-1271)."""
        keys_alone = self.describe(record)
        found = set()
        for node, signed in attestations.items():
            try:
                keys_alone.verify_attestation(signed, model)
            except BadLeaf:
                found.add(node)
        return found

    def prepare_proposal(self, attestations: Mapping[Address, SignedAttestation]) -> tuple[Digest, int]:
        """Store attestations that keys signed, and return their root and count, to be proposed."""
        leaves = [attestations[node] for node in sorted(attestations)]
        root = compute_batch_root(leaves)
        self._store.put_statements(root, encode_leaves(leaves))
        return root, len(leaves)

    # What nodes ask for

    def get_batch(self, number: int) -> list[wire.SignedCommitment]:
        """Return the leaves under a round's anchored root, for whoever checks them.

        Raises:
            Refused: nothing is anchored.
        """
        record = self._require(number, lambda record: record.batch is not None, "an anchored batch")
        return [
            wire.SignedCommitment(
                node=each.node,
                update_root=each.update_root,
                examples=each.examples,
                nonce=each.nonce,
                signature=each.signature,
            )
            for each in self.find_batch(record)
        ]

    def get_proposal(self, number: int) -> list[wire.SignedAttestation]:
        """Return the leaves under a round's proposed root.

        Raises:
            Refused: nothing is proposed.
        """
        record = self._require(number, lambda record: record.proposal is not None, "a proposed result")
        if record.proposal is None:
            raise not_found(f"round {number}: nothing is proposed")
        leaves = decode_proposal(self._store.get_statements(record.proposal.root))
        return [wire.SignedAttestation(node=each.node, signature=each.signature) for each in leaves]

    def _require(self, number: int, is_ready: Callable[[RoundRecord], bool], expected: str) -> RoundRecord:
        """Return a round, read again if it does not look ready.

        Raises:
            Refused: it is not.
        """
        record = self._view.fetch_round(number, is_ready)
        if not is_ready(record):
            raise out_of_turn(f"round {number}: expected {expected}, it is in phase {record.phase.name}")
        return record
