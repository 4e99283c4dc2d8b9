"""Wrapping keys: how the epoch's secret key reaches each admitted node past a relay that can open nothing.

HPKE (RFC 9180) with the hybrid of ML-KEM-768 and X25519, so that a recording of the relay stays closed even
to someone who breaks one of the two. A public key is ML-KEM's 1,184 bytes, then X25519's 32.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fedproof.digests import Address, Digest, checksum_address, decode_int, encode_fields, split_fields
from fedproof.errors import ConfigurationError, MalformedMessage
from fedproof.files import PRIVATE, read_whole, write_new
from fedproof.merkle import compute_root, leaf_digest

PUBLIC_KEY_BYTES = 1184 + 32

_FILE_TAG = "fedproof.wrapping-key.v1"
_INFO_TAG = "fedproof.wrapped-key.v1"
_MLKEM_PUBLIC_BYTES = 1184
_MLKEM_SEED_BYTES = 64
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
# 128 MiB and about half a second a guess, as OWASP's password storage cheat sheet asks of scrypt.
_SCRYPT_COST = 1 << 17
# A file that asks for more than 1 GiB to be opened is damaged.
_SCRYPT_MOST_COST = 1 << 20


class WrappingKey:
    """A node's private wrapping key; its repr shows only the public digest."""

    def __init__(self, mlkem_key: mlkem.MLKEM768PrivateKey, x25519_key: x25519.X25519PrivateKey) -> None:
        self._mlkem = mlkem_key
        self._x25519 = x25519_key

    def __repr__(self) -> str:
        return f"WrappingKey(public digest {self.digest.hex()})"

    @classmethod
    def generate(cls) -> WrappingKey:
        """Return a new key from the operating system's randomness."""
        return cls(mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate())

    @property
    def public_bytes(self) -> bytes:
        """The public key's 1,216 bytes."""
        return self._mlkem.public_key().public_bytes_raw() + self._x25519.public_key().public_bytes_raw()

    @property
    def digest(self) -> Digest:
        """SHA-256 of the public key's bytes: what the node registers on the ledger."""
        return public_key_digest(self.public_bytes)

    def unwrap(self, ciphertext: bytes, *, info: bytes) -> bytes:
        """Return the secret that `wrap` was given.

        Raises:
            MalformedMessage: it was made for another key, or for another chain, contract, epoch, node or
                context, or it was altered; HPKE does not tell which.
        """
        private = hpke.MLKEM768X25519PrivateKey(self._mlkem, self._x25519)
        try:
            return _SUITE.decrypt(ciphertext, private, info=info)
        except (InvalidTag, ValueError) as error:
            raise MalformedMessage(
                f"wrapped key: expected one made for the public key {self.digest.hex()} "
                "under this chain, contract, epoch, node and context, got one that does not open"
            ) from error

    def save(self, path: Path, password: str, *, iterations: int = _SCRYPT_COST) -> None:
        """Write the key to a new file, encrypted with the password (scrypt, AES-256-GCM).

        Args:
            path: a file that does not exist yet.
            password: not empty.
            iterations: scrypt's cost n, a power of two.

        Raises:
            ConfigurationError: the file exists.
        """
        salt, nonce = os.urandom(16), os.urandom(12)
        secret = self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw()
        head = encode_fields(_FILE_TAG, self.public_bytes, iterations, salt, nonce)
        sealed = AESGCM(_derive(password, salt, iterations)).encrypt(nonce, secret, head)
        write_new(path, head + encode_fields(sealed), mode=PRIVATE)

    @classmethod
    def load(cls, path: Path, password: str) -> WrappingKey:
        """Return the key in a file that `save` wrote.

        Raises:
            ConfigurationError: no such file, not a wrapping key, or a wrong password.
        """
        raw = read_whole(path, "a wrapping key (`fedproof node init` makes one)")
        try:
            tag, public, cost, salt, nonce, sealed = _split_file(raw)
            iterations = decode_int(cost, "scrypt cost")
            is_power = iterations & (iterations - 1) == 0
            if tag != _FILE_TAG.encode() or not (is_power and 2 <= iterations <= _SCRYPT_MOST_COST):
                raise MalformedMessage(f"it begins {tag[:40]!r}, with the scrypt cost {iterations}")
            head = encode_fields(tag, public, iterations, salt, nonce)
            secret = AESGCM(_derive(password, salt, iterations)).decrypt(nonce, sealed, head)
        except (MalformedMessage, ValueError) as error:
            raise ConfigurationError(f"{path}: expected a wrapping key, got another file: {error}") from error
        except InvalidTag as error:
            raise ConfigurationError(
                f"{path}: expected the password that the wrapping key was saved with, got another one"
            ) from error
        return cls(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:_MLKEM_SEED_BYTES]),
            x25519.X25519PrivateKey.from_private_bytes(secret[_MLKEM_SEED_BYTES:]),
        )


def public_key_digest(public_key: bytes) -> Digest:
    """Return SHA-256 of a public key's bytes: what its node registers on the ledger."""
    return Digest(hashlib.sha256(public_key).digest())


def wrapping_info(
    *, chain_id: int, contract: Address, epoch: int, node: Address, context_digest: Digest
) -> bytes:
    """Return HPKE's info: what a wrapped key is for. Under any other it does not open."""
    return encode_fields(_INFO_TAG, chain_id, contract, epoch, node, context_digest)


def wrap(secret: bytes, public_key: bytes, *, info: bytes) -> bytes:
    """Return the secret encrypted to a public key: HPKE's encapsulation, then its ciphertext.

    Raises:
        MalformedMessage: the bytes are no public key.
    """
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise MalformedMessage(
            f"public key: expected {PUBLIC_KEY_BYTES} bytes (ML-KEM-768, then X25519), got {len(public_key)}"
        )
    try:
        public = hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(public_key[:_MLKEM_PUBLIC_BYTES]),
            x25519.X25519PublicKey.from_public_bytes(public_key[_MLKEM_PUBLIC_BYTES:]),
        )
        return _SUITE.encrypt(secret, public, info=info)
    except ValueError as error:
        raise MalformedMessage(
            f"public key {public_key_digest(public_key).hex()}: expected reduced ML-KEM-768 coefficients "
            "and an X25519 point of full order, got others"
        ) from error


def wrapped_keys_root(wrapped: Sequence[tuple[Address, bytes]]) -> Digest:
    """Return the RFC 6962 root over an epoch's wrapped keys: what its key maker publishes on the ledger.

    Args:
        wrapped: node and ciphertext, ascending by node.

    Raises:
        MalformedMessage: a node is out of order or twice.
    """
    for (before, _), (after, _) in itertools.pairwise(wrapped):
        if before >= after:
            raise MalformedMessage(
                "wrapped keys: expected them ascending by node, each once, "
                f"got {checksum_address(after)} after {checksum_address(before)}"
            )
    return compute_root([leaf_digest(encode_fields(node, ciphertext)) for node, ciphertext in wrapped])


def _split_file(raw: bytes) -> tuple[bytes, ...]:
    fields = split_fields(raw, "wrapping key")
    if len(fields) != 6:
        raise MalformedMessage(f"expected 6 fields, got {len(fields)}")
    return fields


def _derive(password: str, salt: bytes, iterations: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=iterations, r=8, p=1).derive(password.encode())
