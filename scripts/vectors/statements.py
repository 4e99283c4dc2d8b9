"""Signed statements: typed data, leaves, their document, its root and the path to each leaf."""

from __future__ import annotations

from typing import Final

from eth_account import Account

from fedproof.digests import Address, Digest, as_address, encode_fields
from fedproof.ledger.statements import (
    RoundStatements,
    SignedAttestation,
    SignedCommitment,
    compute_batch_root,
    encode_leaves,
    hash_typed,
)
from fedproof.merkle import compute_path, leaf_digest
from vectors.form import Entry, Json, spell_hex

# Anvil's first accounts, whose keys everybody knows; signatures are deterministic (RFC 6979).
ACCOUNTS: Final = sorted(
    (Account.from_key(number.to_bytes(32)) for number in range(1, 4)),
    key=lambda account: account.address.lower(),
)
MODEL: Final = Digest(b"\x3d" * 32)
ROUND: Final = RoundStatements(
    chain_id=31337,
    contract=Address(b"\xc0" * 20),
    round=2**24 - 1,
    base_model=Digest(b"\xba" * 32),
    cohort=(),
)


def build_statements() -> Entry:
    """Return signed commitments and attestations with what is signed, stored and anchored of them."""
    commitments: list[SignedCommitment] = []
    attestations: list[SignedAttestation] = []
    described: list[Json] = []
    for index, account in enumerate(ACCOUNTS):
        node = as_address(account.address, "account")
        root, examples, nonce = Digest(bytes([index + 1]) * 32), 2**32 - 1 - index, 2**63 - 1 - index
        message = ROUND.describe_commitment(node, update_root=root, examples=examples, nonce=nonce)
        vouched = ROUND.describe_attestation(node, MODEL)
        signature = bytes(account.sign_typed_data(full_message=message).signature)
        commitments.append(SignedCommitment(node, root, examples, nonce, signature))
        attestations.append(
            SignedAttestation(node, bytes(account.sign_typed_data(full_message=vouched).signature))
        )
        described.append(
            {
                "node": node.hex(),
                "update_root": root.hex(),
                "examples": examples,
                "nonce": str(nonce),
                "commitment_digest": hash_typed(message).hex(),
                "commitment_signature": signature.hex(),
                "attestation_digest": hash_typed(vouched).hex(),
                "attestation_signature": attestations[-1].signature.hex(),
            }
        )
    batch, proposal = encode_leaves(commitments), encode_leaves(attestations)
    return {
        "about": "EIP-712 statements under domain fedproof, version 1; leaves, documents, roots and paths",
        "chain_id": ROUND.chain_id,
        "contract": ROUND.contract.hex(),
        "round": ROUND.round,
        "base_model": ROUND.base_model.hex(),
        "model": MODEL.hex(),
        "statements": described,
        "batch": _spell([each.leaf() for each in commitments], batch, compute_batch_root(commitments)),
        "proposal": _spell(
            [each.leaf() for each in attestations], proposal, compute_batch_root(attestations)
        ),
        "refused": [
            {"document": raw.hex(), "why": why}
            for raw, why in (
                (b"", "no tag"),
                (encode_fields("fedproof.statements.v2"), "another version"),
                (batch[:-1], "a document that is cut short"),
                (
                    encode_fields("fedproof.statements.v1", commitments[0].leaf()[:-1]),
                    "a leaf that is cut short",
                ),
                (
                    encode_fields("fedproof.statements.v1", commitments[0].leaf() + bytes(32)),
                    "a leaf with a tail",
                ),
                (
                    encode_fields("fedproof.statements.v1", b"\x01" + commitments[0].leaf()[1:]),
                    "a node of 32 bytes",
                ),
            )
        ],
    }


def _spell(leaves: list[bytes], document: bytes, root: Digest) -> Entry:
    digests = [leaf_digest(leaf) for leaf in leaves]
    return {
        "leaves": spell_hex(leaves),
        "document": document.hex(),
        "root": root.hex(),
        "paths": [spell_hex(compute_path(digests, index)) for index in range(len(leaves))],
    }
