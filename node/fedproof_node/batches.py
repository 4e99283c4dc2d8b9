"""What this node signs instead of sending a transaction, and what it checks of the batches made of that.

If the aggregator is malicious, then at most it leaves this node's commitment out, which the node then sends
by itself, or anchors and proposes what nobody signed, which every node of the cohort checks and may dispute.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedproof.digests import Address, Digest
from fedproof.errors import BadLeaf, NetworkError, PeerError
from fedproof.ledger.client import Ledger
from fedproof.ledger.receipts import BatchReceipt, save_receipt
from fedproof.ledger.rounds import RoundRecord
from fedproof.ledger.statements import (
    RoundStatements,
    SignedAttestation,
    SignedCommitment,
    compute_contributions,
)
from fedproof.manifest import Contribution
from fedproof.merkle import compute_path, leaf_digest
from fedproof.policy import Policy
from fedproof_node.relay import Relay

# The daemon and its watchtower may come by the same receipt at the same time.
_saving = threading.Lock()


class Batches:
    """This node's side of signed statements."""

    def __init__(
        self, *, node: Address, policy: Policy, ledger: Ledger, relay: Relay, receipts_dir: Path
    ) -> None:
        self._receipts_dir = receipts_dir
        self._node = node
        self._policy = policy
        self._ledger = ledger
        self._relay = relay
        self._verified: dict[Digest, tuple[SignedCommitment, ...]] = {}

    def send_commitment(self, record: RoundRecord, update_root: Digest, *, examples: int) -> None:
        """Sign a commitment and hand it to the aggregator.

        Raises:
            NetworkError: the aggregator does not answer.
            PeerError: it does not take it.
        """
        # In the order of rounds: a node signs one commitment a round, and the same again after a crash.
        nonce = record.number
        message = self._describe(record).describe_commitment(
            self._node, update_root=update_root, examples=examples, nonce=nonce
        )
        signature = self._ledger.sign(message)
        signed = SignedCommitment(self._node, update_root, examples, nonce, signature)
        self._relay.put_commitment(record.number, signed)

    def send_attestation(self, record: RoundRecord, model: Digest) -> None:
        """Sign an attestation and hand it to the aggregator; as `send_commitment`."""
        signature = self._ledger.sign(self._describe(record).describe_attestation(self._node, model))
        self._relay.put_attestation(record.number, model, SignedAttestation(self._node, signature))

    @property
    def is_used(self) -> bool:
        """Whether the policy has batching."""
        return self._policy.rounds.batching

    def is_late(self, record: RoundRecord) -> bool:
        """Return whether half of the time is over that nodes have to answer before the phase's deadline."""
        half_s = self._policy.rounds.attest_window_s / 2
        return self._ledger.latest_block().timestamp > record.deadline - half_s

    def takes_commitments(self, record: RoundRecord) -> bool:
        """Return whether a signed commitment can still be anchored."""
        if not self.is_used or record.batch is not None:
            return False
        return self._ledger.latest_block().timestamp <= record.deadline - self._policy.rounds.attest_window_s

    def is_left_out(self, record: RoundRecord) -> bool:
        """Return whether an open round cannot count this node unless it commits by a transaction.

        A batch that is withheld or wrong counts nobody: by its own transaction, a node is safe.

        Raises:
            NetworkError: the aggregator does not serve the batch, and there is time to ask again.
        """
        if self._node in record.commitments or self.takes_commitments(record):
            return False
        try:
            return all(signed.node != self._node for signed in self._fetch(record))
        except PeerError:
            return True
        except NetworkError:
            if not self.is_late(record):
                raise
            return True

    def find_contributions(self, record: RoundRecord) -> tuple[Contribution, ...]:
        """Return what a sealed round adds up, ascending by node; none before the seal.

        Raises:
            BadLeaf: the batch holds what nobody signed so, or the seal counts a node twice.
            PeerError: the seal excludes a node that committed in no way; or the round is over, and the
                aggregator does not serve the batch that it anchored.
            NetworkError: the round is under way, and the aggregator does not serve that batch yet.
        """
        if record.sealed_block is None:
            return ()
        return compute_contributions(record, self._fetch(record))

    def verify_proposal(self, record: RoundRecord) -> None:
        """Return if the proposed result rests on signatures of as many nodes as the aggregator says.

        Raises:
            BadLeaf: one of them is none.
            PeerError, NetworkError: the aggregator does not serve what it proposed; as `find_contributions`.
        """
        proposal = record.proposal
        if proposal is None:
            return
        with _awaiting_leaves(record):
            attestations = self._relay.fetch_proposal(record.number)
            self._describe(record).verify_proposal(
                attestations, proposal.model_digest, root=proposal.root, count=proposal.count
            )

    def _fetch(self, record: RoundRecord) -> tuple[SignedCommitment, ...]:
        if record.batch is None:
            return ()
        root = record.batch.root
        if root not in self._verified:
            with _awaiting_leaves(record):
                leaves = self._relay.fetch_batch(record.number)
                self._describe(record).verify_batch(
                    leaves, root=root, count=record.batch.count, max_examples=self._policy.rounds.max_examples
                )
            self._verified = {root: leaves}
            self._keep_receipt(record.number, root, leaves)
        return self._verified[root]

    def _keep_receipt(self, number: int, root: Digest, leaves: Sequence[SignedCommitment]) -> None:
        """Write down that this node's commitment stands in the batch, where it does."""
        for index, signed in enumerate(leaves):
            if signed.node == self._node:
                digests = [leaf_digest(each.leaf()) for each in leaves]
                receipt = BatchReceipt(
                    round=number,
                    root=root,
                    size=len(leaves),
                    index=index,
                    leaf="0x" + signed.leaf().hex(),
                    path=compute_path(digests, index),
                )
                with _saving:
                    save_receipt(self._receipts_dir / f"{number}.json", receipt)

    def _describe(self, record: RoundRecord) -> RoundStatements:
        """Return what a round's signatures are bound to."""
        return RoundStatements(
            chain_id=self._ledger.chain_id,
            contract=self._ledger.contract,
            round=record.number,
            base_model=record.base_model,
            cohort=record.cohort,
        )


@contextmanager
def _awaiting_leaves(record: RoundRecord) -> Iterator[None]:
    """Let whatever is served instead of a running round's leaves count as no answer: they may still come.

    A proxy, or an aggregator that has just been started again, says the same as one that withholds them.
    """
    try:
        yield
    except BadLeaf:
        raise
    except PeerError as error:
        if record.phase.is_over:
            raise
        raise NetworkError(f"round {record.number}: the leaves are not there yet: {error}") from error
