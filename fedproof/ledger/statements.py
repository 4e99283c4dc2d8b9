"""What nodes sign instead of sending transactions: commitments and attestations, as EIP-712 typed data.

Chain, contract and round are part of what is signed, so no signature counts anywhere else. Batches of them
are anchored or proposed by an RFC 6962 root over their leaves, ascending by node.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from fedproof.digests import (
    Address,
    Digest,
    as_address,
    checksum_address,
    encode_fields,
    split_fields,
)
from fedproof.errors import BadLeaf, DigestMismatch, MalformedMessage, PeerError
from fedproof.ledger.rounds import RoundRecord
from fedproof.manifest import Contribution
from fedproof.merkle import compute_root, leaf_digest

# Of a contract's own signatures (EIP-1271), which have no fixed length. A thousand of them fit one message.
MOST_SIGNATURE_BYTES = 2048
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0  # of secp256k1
_TAG = "fedproof.statements.v1"
_MOST_LEAVES = 65_535  # as the contract counts them
_COMMITMENT_LEAF = ["address", "bytes32", "uint32", "uint64", "bytes"]
_ATTESTATION_LEAF = ["address", "bytes"]
_DOMAIN_TYPE = [
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
]
_COMMITMENT_TYPE = [
    {"name": "round", "type": "uint24"},
    {"name": "node", "type": "address"},
    {"name": "baseModel", "type": "bytes32"},
    {"name": "updateRoot", "type": "bytes32"},
    {"name": "examples", "type": "uint32"},
    {"name": "nonce", "type": "uint64"},
]
_ATTESTATION_TYPE = [
    {"name": "round", "type": "uint24"},
    {"name": "node", "type": "address"},
    {"name": "modelDigest", "type": "bytes32"},
]

AskContract = Callable[[Address, Digest, bytes], bool]
"""Whether the contract at a node's address accepts a signature over a digest (EIP-1271)."""


@dataclass(frozen=True, slots=True)
class SignedCommitment:
    """What a node binds itself to in one round, with its signature.

    Attributes:
        nonce: how many commitments the node had signed before.
        signature: 65 bytes r, s, v; or what the node's contract takes (EIP-1271).
    """

    node: Address
    update_root: Digest
    examples: int
    nonce: int
    signature: bytes

    def leaf(self) -> bytes:
        """Return the leaf of the anchored tree: the fields, ABI-encoded in this order."""
        values = [self.node, self.update_root, self.examples, self.nonce, self.signature]
        return encode(_COMMITMENT_LEAF, values)


@dataclass(frozen=True, slots=True)
class SignedAttestation:
    """A node's signature under the model that it derived."""

    node: Address
    signature: bytes

    def leaf(self) -> bytes:
        """Return the leaf of the proposed tree: ``abi.encode(node, signature)``."""
        return encode(_ATTESTATION_LEAF, [self.node, self.signature])


@dataclass(frozen=True, slots=True)
class RoundStatements:
    """What the signatures of one round are bound to.

    Attributes:
        cohort: whose signatures count.
        ask_contract: asks a node's contract about a signature that is by another key than its own (EIP-1271).
            None where only keys sign: in batches and proposals, since a contract could say one thing to who
            takes its signature and another to who looks at it later.
    """

    chain_id: int
    contract: Address
    round: int
    base_model: Digest
    cohort: Collection[Address]
    ask_contract: AskContract | None = None

    def describe_commitment(
        self, node: Address, *, update_root: Digest, examples: int, nonce: int
    ) -> dict[str, Any]:
        """Return a commitment as EIP-712's JSON has it."""
        message = {
            "round": self.round,
            "node": checksum_address(node),
            "baseModel": self.base_model,
            "updateRoot": update_root,
            "examples": examples,
            "nonce": nonce,
        }
        return self._describe("Commitment", _COMMITMENT_TYPE, message)

    def describe_attestation(self, node: Address, model_digest: Digest) -> dict[str, Any]:
        """Return an attestation as EIP-712's JSON has it."""
        message = {"round": self.round, "node": checksum_address(node), "modelDigest": model_digest}
        return self._describe("Attestation", _ATTESTATION_TYPE, message)

    def verify_commitment(self, signed: SignedCommitment, *, max_examples: int) -> None:
        """Return if a node of the cohort signed a commitment that the round takes.

        Raises:
            BadLeaf: it did not; says why.
        """
        where = f"round {self.round}: commitment of {checksum_address(signed.node)}"
        if not 1 <= signed.examples <= max_examples:
            raise BadLeaf(f"{where}: expected 1 to {max_examples} examples, got {signed.examples}")
        message = self.describe_commitment(
            signed.node, update_root=signed.update_root, examples=signed.examples, nonce=signed.nonce
        )
        self._verify(signed.node, message, signed.signature, where)

    def verify_attestation(self, signed: SignedAttestation, model_digest: Digest) -> None:
        """Return if a node of the cohort signed a model.

        Raises:
            BadLeaf: it did not; says why.
        """
        where = f"round {self.round}: attestation of {checksum_address(signed.node)}"
        self._verify(
            signed.node, self.describe_attestation(signed.node, model_digest), signed.signature, where
        )

    def verify_batch(
        self, batch: Sequence[SignedCommitment], *, root: Digest, count: int, max_examples: int
    ) -> None:
        """Return if signed commitments are what was anchored, and each is sound.

        1. There are as many as the ledger says, and their root is the anchored one.
        2. They ascend by node, so that none counts twice.
        3. Each is of the cohort, in range and signed.

        Raises:
            DigestMismatch: 1 does not hold: they are others than those that were anchored.
            BadLeaf: 2 or 3 does not hold; names the leaf.
        """
        _verify_root(batch, root=root, count=count, where=f"round {self.round}: the batch")  # 1
        for index, signed in enumerate(batch):
            try:
                _verify_ascending(batch, index)  # 2
                self.verify_commitment(signed, max_examples=max_examples)  # 3
            except BadLeaf as error:
                raise BadLeaf(str(error), index=index) from error

    def verify_proposal(
        self, attestations: Sequence[SignedAttestation], model_digest: Digest, *, root: Digest, count: int
    ) -> None:
        """Return if signed attestations are what was proposed, and each is sound; as `verify_batch`.

        Raises:
            DigestMismatch: they are others than those that were proposed.
            BadLeaf: one is out of order, or not signed by a node of the cohort; names the leaf.
        """
        _verify_root(attestations, root=root, count=count, where=f"round {self.round}: the proposal")
        for index, signed in enumerate(attestations):
            try:
                _verify_ascending(attestations, index)
                self.verify_attestation(signed, model_digest)
            except BadLeaf as error:
                raise BadLeaf(str(error), index=index) from error

    def _describe(
        self, kind: str, fields: list[dict[str, str]], message: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            "types": {"EIP712Domain": _DOMAIN_TYPE, kind: fields},
            "primaryType": kind,
            "domain": {
                "name": "fedproof",
                "version": "1",
                "chainId": self.chain_id,
                "verifyingContract": checksum_address(self.contract),
            },
            "message": dict(message),
        }

    def _verify(self, node: Address, message: Mapping[str, Any], signature: bytes, where: str) -> None:
        if node not in self.cohort:
            raise BadLeaf(f"{where}: expected a node of the cohort, it is none")
        if len(signature) > MOST_SIGNATURE_BYTES:
            raise BadLeaf(f"{where}: expected at most {MOST_SIGNATURE_BYTES} bytes, got {len(signature)}")
        if _is_own_signature(node, message, signature):
            return
        if self.ask_contract is None or not self.ask_contract(node, hash_typed(message), signature):
            raise BadLeaf(f"{where}: expected its signature, got another")


def compute_contributions(record: RoundRecord, batch: Sequence[SignedCommitment]) -> tuple[Contribution, ...]:
    """Return what a sealed round adds up, ascending by node: by transaction and from the anchored batch.

    Args:
        record: the round.
        batch: the leaves under the anchored root, verified; none where no batch was anchored.

    Raises:
        BadLeaf: a node committed in both ways, and the seal counts both.
        PeerError: the seal excludes a node that committed in neither way.
    """
    by_batch = {signed.node: signed for signed in batch}
    for index, signed in enumerate(batch):
        if (signed.node in record.commitments) != (signed.node in record.doubled):
            raise BadLeaf(
                f"round {record.number}: expected the seal to count {checksum_address(signed.node)} once, "
                "it committed by transaction and in the batch",
                index=index,
            )
    strangers = {*record.excluded, *record.doubled} - set(record.commitments) - set(by_batch)
    if strangers:
        names = ", ".join(map(checksum_address, sorted(strangers)))
        raise PeerError(f"round {record.number}: expected the seal to exclude committed nodes, got {names}")
    found = [
        Contribution(node, record.commitments[node].update_root, record.commitments[node].examples)
        for node in record.contributors
    ]
    found += [
        Contribution(node, signed.update_root, signed.examples)
        for node, signed in by_batch.items()
        if node not in record.commitments and node not in record.excluded
    ]
    return tuple(sorted(found, key=lambda contribution: contribution.node))


def encode_leaves(leaves: Sequence[SignedCommitment] | Sequence[SignedAttestation]) -> bytes:
    """Return leaves as the one document that their root vouches for: docs/format.md, "Signed statements"."""
    return encode_fields(_TAG, *(each.leaf() for each in leaves))


def decode_batch(raw: bytes) -> tuple[SignedCommitment, ...]:
    """Return the signed commitments in a document.

    Raises:
        MalformedMessage: it is not what `encode_leaves` returns for any.
    """
    return tuple(
        SignedCommitment(as_address(node, "leaf"), Digest(root), examples, nonce, signature)
        for node, root, examples, nonce, signature in _decode_leaves(raw, _COMMITMENT_LEAF)
    )


def decode_proposal(raw: bytes) -> tuple[SignedAttestation, ...]:
    """Return the signed attestations in a document; as `decode_batch`."""
    return tuple(
        SignedAttestation(as_address(node, "leaf"), signature)
        for node, signature in _decode_leaves(raw, _ATTESTATION_LEAF)
    )


def _decode_leaves(raw: bytes, types: list[str]) -> list[tuple[Any, ...]]:
    fields = split_fields(raw, "signed statements", most=1 + _MOST_LEAVES)
    tag, leaves = fields[0] if fields else b"", fields[1:]
    if tag != _TAG.encode():
        raise MalformedMessage(f"signed statements: expected the tag {_TAG!r}, got {tag[:40]!r}")
    decoded = []
    for index, leaf in enumerate(leaves):
        try:
            values = decode(types, leaf)
        except (DecodingError, OverflowError, ValueError) as error:
            raise MalformedMessage(f"signed statements: leaf {index}: {error}") from error
        if encode(types, values) != leaf:
            raise MalformedMessage(f"signed statements: leaf {index}: expected the one encoding, got another")
        decoded.append(values)
    return decoded


def hash_typed(message: Mapping[str, Any]) -> Digest:
    """Return the digest that a signature over typed data is over (EIP-712)."""
    signable = encode_typed_data(full_message=dict(message))
    return Digest(keccak(b"\x19" + signable.version + signable.header + signable.body))


def compute_batch_root(leaves: Sequence[SignedCommitment] | Sequence[SignedAttestation]) -> Digest:
    """Return the RFC 6962 root over signed statements in their order."""
    return compute_root([leaf_digest(each.leaf()) for each in leaves])


def _is_own_signature(node: Address, message: Mapping[str, Any], signature: bytes) -> bool:
    # The one form that the contract takes: s in the lower half, v = 27 or 28.
    if len(signature) != 65 or signature[64] not in (27, 28):
        return False
    if int.from_bytes(signature[32:64]) > _HALF_ORDER:
        return False
    try:
        signable = encode_typed_data(full_message=dict(message))
        return as_address(Account.recover_message(signable, signature=signature), "signature") == node
    except (BadSignature, ValidationError):
        return False  # no point on the curve has those coordinates


def _verify_root(
    leaves: Sequence[SignedCommitment] | Sequence[SignedAttestation], *, root: Digest, count: int, where: str
) -> None:
    came = compute_batch_root(leaves)
    if len(leaves) != count or came != root:
        raise DigestMismatch(
            f"{where}: expected {count} leaves of root {root.hex()}, got {len(leaves)} of {came.hex()}"
        )


def _verify_ascending(leaves: Sequence[SignedCommitment] | Sequence[SignedAttestation], index: int) -> None:
    if index and leaves[index - 1].node >= leaves[index].node:
        raise BadLeaf(
            f"leaf {index}: expected a node above {checksum_address(leaves[index - 1].node)}, "
            f"got {checksum_address(leaves[index].node)}"
        )
