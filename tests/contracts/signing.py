"""Who acts on the ledger in random histories, and what they sign: written without the code under test."""

from __future__ import annotations

from eth_abi.abi import encode
from eth_keys.datatypes import PrivateKey, Signature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from fedproof.digests import Address, Digest

CHAIN_ID = 1337
DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
ATTESTATION_TYPE = "Attestation(uint24 round,address node,bytes32 modelDigest)"
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

ADMIN, AGGREGATOR, OUTSIDER = (
    Address(keccak(text=name)[:20]) for name in ("admin", "aggregator", "outsider")
)
KEYS = {
    Address(key.public_key.to_canonical_address()): key
    for key in (PrivateKey(keccak(text=f"node {number}")) for number in range(6))
}
WALLET = Address(bytes.fromhex("777777777777777777777777777777777777777a"))
"""A node that is a contract."""

WALLET_CODE = bytes.fromhex("631626ba7e60e01b600435606435140260005260206000f3")
"""Its code, after EIP-1271: a signature of a digest begins with the digest.

    PUSH4 1626ba7e  PUSH1 e0  SHL                           what means yes,
    PUSH1 04 CALLDATALOAD  PUSH1 64 CALLDATALOAD  EQ  MUL   if that is the digest that was asked about
    PUSH1 00 MSTORE  PUSH1 20  PUSH1 00  RETURN
"""

NODES = (*sorted((*KEYS, WALLET)),)


def sign(node: Address, digest: Digest) -> bytes:
    """Return a signature of a digest, as the contract takes it; one that does not count, without a key."""
    if node == WALLET:
        return digest
    if node not in KEYS:
        return bytes(65)
    signature = KEYS[node].sign_msg_hash(digest).to_bytes()
    return signature[:64] + bytes([signature[64] + 27])


def is_signed_by(node: Address, digest: Digest, signature: bytes) -> bool:
    """Return whether a node signed a digest."""
    if node == WALLET:
        return signature[:32].ljust(32, b"\0") == digest
    # A key can make two signatures of one, of which the one with the lower s counts (EIP-2).
    s, v = int.from_bytes(signature[32:64]), signature[64:]
    if s > ORDER // 2 or v not in (b"\x1b", b"\x1c"):
        return False
    try:
        signed = Signature(signature[:64] + bytes([v[0] - 27]))
        return signed.recover_public_key_from_msg_hash(digest).to_canonical_address() == node
    except (BadSignature, ValidationError):
        return False


def hash_attestation(contract: Address, number: int, node: Address, model: Digest) -> Digest:
    """Return the EIP-712 digest that a node signs."""
    head = [keccak(text=text) for text in (DOMAIN_TYPE, "fedproof", "1")]
    domain = encode([*["bytes32"] * 3, "uint256", "address"], [*head, CHAIN_ID, contract])
    statement = [keccak(text=ATTESTATION_TYPE), number, node, model]
    message = encode(["bytes32", "uint24", "address", "bytes32"], statement)
    return Digest(keccak(b"\x19\x01" + keccak(domain) + keccak(message)))
