"""A federation of which every round fails, as a node objects to it: with cause and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fedproof.ledger.events import Subject
from fedproof.ledger.statements import (
    SignedAttestation,
    SignedCommitment,
    compute_batch_root,
    encode_leaves,
)
from fedproof.manifest import Contribution
from fedproof.policy import Policy, PrivacyPolicy
from tests.auditor.batched import GUEST, BatchedBuilder
from tests.auditor.world import ROUND_COST, WINDOW_S, Update, make_base

FORGED_LEAF = (4, 1)
"""The round and the node whose signed commitment is altered."""

OBJECTOR = 2
"""The index of the node that disputes."""


class DisputedBuilder(BatchedBuilder):
    """Plays every role in such a federation."""

    def make_policy(self) -> Policy:
        return replace(super().make_policy(), privacy=PrivacyPolicy(round_cost=ROUND_COST, budget=100))

    def play(self) -> None:
        # 1, 2: a right sum, and one whose second chunk is wrong
        self.publish(1, self.seal(1))
        self.dispute(1, Subject.CHUNK, 1)
        updates = self.seal(2)
        (_, (_, other)), (last, (first, _)) = updates[0], updates[-1]
        self.publish(2, [*updates[:-1], (last, [first, other])])
        self.dispute(2, Subject.CHUNK, 1)
        # 3: no batch, and no sum yet
        self.aggregator.open_round(3)
        for node in range(3):
            self.commit(3, node)
        self.request("evm_increaseTime", WINDOW_S + 60)
        self.aggregator.seal(3, dict.fromkeys(self.nodes[:3], 0))
        self.dispute(3, Subject.CHUNK, 0)
        # 4, 5, 6: a forged leaf of a batch, a right one, and the first one, which stands for all
        for number, index in ((FORGED_LEAF[0], FORGED_LEAF[1]), (5, 1), (6, 0)):
            self.seal(number)
            self.dispute(number, Subject.COMMITMENT, index)
        # 7: the seal counts a node by its transaction and by its leaf
        self.anchor(7, batched=(0, 1), by_transaction=(1, 2))
        self.aggregator.seal(7, dict.fromkeys(self.nodes[1:3], 0))
        self.dispute(7, Subject.COMMITMENT, 1)
        # 8, 9, 10: the same of a proposal
        for number, index, forged in ((8, 1, 1), (9, 1, None), (10, 0, None)):
            self.publish(number, self.seal(number))
            self.propose_signed(number, forged=forged)
            self.dispute(number, Subject.ATTESTATION, index)
        # 11, 12: two models
        self.publish(11, self.seal(11))
        for node in range(2):
            self.ledgers[node].attest(11, make_base(node).digest)
        self.publish(12, self.seal(12))
        self.propose_signed(12)
        self.ledgers[OBJECTOR].attest(12, make_base(1).digest)

    def seal(self, number: int) -> list[Update]:
        """Take a round to its seal, of a batch of all nodes."""
        updates = self.anchor(number, batched=(0, 1, 2, GUEST))
        self.aggregator.seal(number, {})
        return updates

    def dispute(self, number: int, subject: Subject, index: int) -> None:
        """Let a node fail a round."""
        self.ledgers[OBJECTOR].dispute(number, subject, index)

    def sign_commitment(self, number: int, node: int, contribution: Contribution) -> SignedCommitment:
        signed = super().sign_commitment(number, node, contribution)
        return replace(signed, nonce=99) if (number, node) == FORGED_LEAF else signed

    def propose_signed(self, number: int, *, forged: int | None = None) -> None:
        """Propose a result that the three nodes with keys have signed, one of them in another round."""
        model = make_base(number).digest
        leaves: Sequence[SignedAttestation] = [
            SignedAttestation(
                self.nodes[node],
                ledger.sign(
                    self.describe(number - (node == forged)).describe_attestation(self.nodes[node], model)
                ),
            )
            for node, ledger in enumerate(self.ledgers)
        ]
        root = compute_batch_root(leaves)
        self.store.put_statements(root, encode_leaves(leaves))
        self.aggregator.propose_result(number, model, root, len(leaves))
