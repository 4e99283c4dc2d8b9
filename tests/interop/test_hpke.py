"""A wrapped key opens by RFC 9180 and X-Wing as docs/format.md names them, without the library's HPKE.

The verifier in Node.js cannot do this: Node 18 has no ML-KEM.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fedproof.digests import encode_fields, split_fields

VECTORS = Path(__file__).parents[1] / "vectors"
# KEM X-Wing, KDF HKDF-SHA256, AEAD AES-256-GCM.
SUITE = b"HPKE" + bytes.fromhex("647a 0001 0002")
ENCAPSULATED = 1088


def open_file(raw: bytes, password: str) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """Return the private keys in a wrapping key's file."""
    *head, sealed = split_fields(raw, "wrapping key")
    _, _, cost, salt, nonce = head
    key = Scrypt(salt=salt, length=32, n=int.from_bytes(cost), r=8, p=1).derive(password.encode())
    secret = AESGCM(key).decrypt(nonce, sealed, encode_fields(*head))
    return MLKEM768PrivateKey.from_seed_bytes(secret[:64]), X25519PrivateKey.from_private_bytes(secret[64:])


def decapsulate(encapsulation: bytes, first: MLKEM768PrivateKey, second: X25519PrivateKey) -> bytes:
    """Return X-Wing's shared secret (draft-connolly-cfrg-xwing-kem, section 5.3)."""
    ciphertext, ephemeral = encapsulation[:ENCAPSULATED], encapsulation[ENCAPSULATED:]
    parts = (
        first.decapsulate(ciphertext),
        second.exchange(X25519PublicKey.from_public_bytes(ephemeral)),
        ephemeral,
        second.public_key().public_bytes_raw(),
        bytes.fromhex("5c2e2f2f5e5c"),
    )
    return hashlib.sha3_256(b"".join(parts)).digest()


def extract(salt: bytes, label: bytes, secret: bytes) -> bytes:
    """Return LabeledExtract (RFC 9180, section 4)."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + SUITE + label + secret, "sha256")


def expand(key: bytes, label: bytes, info: bytes, size: int) -> bytes:
    """Return LabeledExpand (RFC 9180, section 4), of at most 32 bytes."""
    labelled = size.to_bytes(2) + b"HPKE-v1" + SUITE + label + info
    return hmac.digest(key, labelled + b"\x01", "sha256")[:size]


def test_a_wrapped_key_opens_by_the_standards() -> None:
    """The stored wrapped key is what HPKE's base mode makes of the secret, in a single shot."""
    vectors = json.loads((VECTORS / "wrapped_keys.json").read_text())
    first, second = open_file((VECTORS / vectors["file"]).read_bytes(), vectors["password"])
    wrapped = (VECTORS / vectors["wrapped"]).read_bytes()
    encapsulation, sealed = wrapped[: ENCAPSULATED + 32], wrapped[ENCAPSULATED + 32 :]
    shared = decapsulate(encapsulation, first, second)
    context = (
        b"\x00"
        + extract(b"", b"psk_id_hash", b"")
        + extract(b"", b"info_hash", bytes.fromhex(vectors["info"]))
    )
    secret = extract(shared, b"secret", b"")
    key, nonce = expand(secret, b"key", context, 32), expand(secret, b"base_nonce", context, 12)
    assert AESGCM(key).decrypt(nonce, sealed, None).hex() == vectors["secret"]
