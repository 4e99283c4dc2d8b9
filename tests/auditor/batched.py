"""A federation whose nodes sign instead of sending transactions; one of them has no name.

Round 1: two nodes commit by signature alone, one by transaction alone, one in both ways; the result is
proposed, and stands. Round 2: a node of the batch is excluded, and the rest attest by transaction. Round 3
fails on its proposal, round 4 with its batch before the seal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount

from fedproof.digests import checksum_address
from fedproof.keys.wrapping import WrappingKey
from fedproof.ledger.events import (
    LEAF_TOO,
    CommitmentsAnchored,
    Event,
    ExclusionReason,
    FailureReason,
    ResultProposed,
    RoundOpened,
)
from fedproof.ledger.signer import KeystoreSigner
from fedproof.ledger.statements import (
    RoundStatements,
    SignedAttestation,
    SignedCommitment,
    compute_batch_root,
    decode_batch,
    decode_proposal,
    encode_leaves,
)
from fedproof.manifest import Contribution
from fedproof.policy import Policy
from fedproof.store import ObjectStore
from tests.auditor.world import NAMES, WINDOW_S, Builder, Update, World, make_account, make_base, make_digest

GUEST = 3
"""The index of the node that is in no address book."""

ATTEST_WINDOW_S = 100
_GUEST = "guest 2"  # whose address is above those of the other nodes


def read_batch(world: World, number: int) -> list[SignedCommitment]:
    """Return the leaves of a round's batch."""
    root = world.find(CommitmentsAnchored, round=number).root
    return list(decode_batch(ObjectStore(world.store).get_statements(root)))


def read_proposal(world: World, number: int) -> list[SignedAttestation]:
    """Return the leaves of a round's proposal."""
    root = world.find(ResultProposed, round=number).root
    return list(decode_proposal(ObjectStore(world.store).get_statements(root)))


def anchor_instead(
    world: World, store: Path, number: int, leaves: Sequence[SignedCommitment]
) -> tuple[Event, ...]:
    """Store another batch, and return all events as if that had been anchored."""
    root = compute_batch_root(leaves)
    ObjectStore(store).put_statements(root, encode_leaves(leaves))
    return world.change(world.find(CommitmentsAnchored, round=number), root=root, count=len(leaves))


def propose_instead(
    world: World, store: Path, number: int, leaves: Sequence[SignedAttestation]
) -> tuple[Event, ...]:
    """Store other attestations, and return all events as if those had been proposed."""
    root = compute_batch_root(leaves)
    ObjectStore(store).put_statements(root, encode_leaves(leaves))
    return world.change(world.find(ResultProposed, round=number), root=root, count=len(leaves))


def describe_round(world: World, number: int) -> RoundStatements:
    """Return what the signatures of a round are bound to."""
    return RoundStatements(
        chain_id=world.evidence.chain_id,
        contract=world.evidence.contract,
        round=number,
        base_model=world.find(RoundOpened, round=number).base_model,
        cohort=world.nodes,
    )


def find_account(world: World, node: int) -> LocalAccount:
    """Return the account of a node by its index."""
    address = checksum_address(world.nodes[node])
    return next(account for account in map(make_account, (*NAMES, _GUEST)) if account.address == address)


def sign_again(
    world: World, number: int, leaf: SignedCommitment, node: int, **changes: object
) -> SignedCommitment:
    """Return a leaf with some of its values changed, signed by a node."""
    changed: SignedCommitment = replace(leaf, **changes)  # type: ignore[arg-type]
    message = describe_round(world, number).describe_commitment(
        changed.node, update_root=changed.update_root, examples=changed.examples, nonce=changed.nonce
    )
    signer = KeystoreSigner(find_account(world, node))
    return replace(changed, signature=signer.sign_typed_data(message))


class BatchedBuilder(Builder):
    """Plays every role in such a federation."""

    def make_policy(self) -> Policy:
        policy = super().make_policy()
        rounds = replace(policy.rounds, attestation_quorum=3, attest_window_s=ATTEST_WINDOW_S, batching=True)
        return replace(policy, rounds=rounds)

    def admit(self) -> None:
        """Admit the guest, too."""
        super().admit()
        key = WrappingKey.generate()
        guest = make_account(_GUEST)
        self.request("anvil_setBalance", guest.address, hex(10**20))
        self.guest = self.connect(guest)
        labels = ("guest's certificate", "guest's metadata")
        self.guest.register(key.digest, *map(make_digest, labels))
        self.store.put_public_key(key.digest, key.public_bytes)
        self.admin.admit(self.guest.address)
        self.nodes = (*self.nodes, self.guest.address)
        self.wrapping_keys.append(key)
        assert list(self.nodes) == sorted(self.nodes)

    def play(self) -> None:
        # 1
        updates = self.anchor(1, batched=(0, 2, GUEST), by_transaction=(1, 2))
        self.aggregator.seal(1, {self.nodes[1]: 0, self.nodes[2]: LEAF_TOO})
        self.publish(1, updates)
        self.propose(1)
        self.request("evm_increaseTime", ATTEST_WINDOW_S + 60)
        self.aggregator.finalise(1, make_base(1).digest)
        self.last_finished = 1
        # 2
        *updates, _ = self.anchor(2, batched=(0, 1, 2, GUEST), lost=GUEST)
        self.request("evm_increaseTime", WINDOW_S + 60)
        self.aggregator.seal(2, {self.guest.address: ExclusionReason.NOT_UPLOADED})
        self.publish(2, updates)
        for ledger in self.ledgers:
            ledger.attest(2, make_base(2).digest)
        self.last_finished = 2
        # 3
        updates = self.anchor(3, batched=(0, 1, 2, GUEST))
        self.aggregator.seal(3, {})
        self.publish(3, updates)
        self.propose(3)
        self.aggregator.fail(3, FailureReason.ABANDONED)
        # 4
        self.anchor(4, batched=(0, 1))
        self.aggregator.fail(4, FailureReason.TOO_FEW_CONTRIBUTORS)

    def anchor(
        self,
        number: int,
        *,
        batched: Sequence[int],
        by_transaction: Sequence[int] = (),
        lost: int | None = None,
    ) -> list[Update]:
        """Open a round, and let nodes upload and commit; return the updates, ascending by node."""
        self.aggregator.open_round(number)
        updates = {
            node: self.upload(number, node, is_uploaded=node != lost)
            for node in sorted({*batched, *by_transaction})
        }
        for node in by_transaction:
            contribution, _ = updates[node]
            self.ledgers[node].commit(number, contribution.update_root, contribution.examples)
        leaves = [self.sign_commitment(number, node, updates[node][0]) for node in batched]
        root = compute_batch_root(leaves)
        self.store.put_statements(root, encode_leaves(leaves))
        self.aggregator.anchor_commitments(number, root, len(leaves))
        return list(updates.values())

    def propose(self, number: int) -> None:
        """Propose a result that three nodes have signed, the guest among them."""
        statements, model = self.describe(number), make_base(number).digest
        leaves = []
        for node in (0, 1, GUEST):
            message = statements.describe_attestation(self.nodes[node], model)
            leaves.append(SignedAttestation(self.nodes[node], self.sign(node, message)))
        root = compute_batch_root(leaves)
        self.store.put_statements(root, encode_leaves(leaves))
        self.aggregator.propose_result(number, model, root, len(leaves))

    def sign_commitment(self, number: int, node: int, contribution: Contribution) -> SignedCommitment:
        """Return a node's signed commitment to an update."""
        root, examples, nonce = contribution.update_root, contribution.examples, number - 1
        message = self.describe(number).describe_commitment(
            self.nodes[node], update_root=root, examples=examples, nonce=nonce
        )
        return SignedCommitment(self.nodes[node], root, examples, nonce, self.sign(node, message))

    def sign(self, node: int, message: Mapping[str, Any]) -> bytes:
        """Return a node's signature."""
        return (self.guest if node == GUEST else self.ledgers[node]).sign(message)

    def describe(self, number: int) -> RoundStatements:
        """Return what signatures of a round are bound to."""
        return RoundStatements(
            chain_id=self.admin.chain_id,
            contract=self.contract,
            round=number,
            base_model=make_base(self.last_finished).digest,
            cohort=self.nodes,
        )
