"""The secret key of an epoch: 32 random bytes that the participants share."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import NoReturn, final

import numpy as np

from fedproof.codec.bits import Words
from fedproof.codec.parameters import RING_DEGREE, CodecParameters
from fedproof.digests import encode_fields
from fedproof.errors import MalformedMessage

_SEED_BYTES = 32
# A byte below 255 gives a uniform residue modulo 3. 8,192 bytes fall short of 4,096 such bytes never: one in
# 256 is refused, and half would have to be.
_EXPANDED_BYTES = 2 * RING_DEGREE


@final
class SecretKey:
    """A secret key that neither prints nor pickles itself.

    The polynomial that SEAL works with is expanded from the bytes (docs/format.md, "Secret key"), for each
    context another, so a wrapped key takes 32 bytes and no key is ever used under two moduli.
    """

    __slots__ = ("__seed",)

    def __init__(self, seed: bytes) -> None:
        """Wrap 32 bytes.

        Raises:
            MalformedMessage: they are not 32 bytes.
        """
        if len(seed) != _SEED_BYTES:
            raise MalformedMessage(f"secret key: expected {_SEED_BYTES} bytes, got {len(seed)}")
        self.__seed = bytes(seed)

    @classmethod
    def generate(cls) -> SecretKey:
        """Return a new key from the system's randomness."""
        return cls(secrets.token_bytes(_SEED_BYTES))

    def reveal(self) -> bytes:
        """Return the 32 bytes, to wrap them for another participant or to keep them encrypted."""
        return self.__seed

    def expand(self, parameters: CodecParameters) -> Words:
        """Return the secret polynomial's coefficients modulo 3: 0, 1, and 2 for -1."""
        stream = hashlib.shake_256(
            encode_fields("fedproof.secret-key.v1", parameters.digest, self.__seed)
        ).digest(_EXPANDED_BYTES)
        octets = np.frombuffer(stream, dtype=np.uint8)
        return (octets[octets < 255][:RING_DEGREE] % 3).astype(np.uint64)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        return isinstance(other, SecretKey) and hmac.compare_digest(self.__seed, other.__seed)

    __hash__ = None  # type: ignore[assignment]  # a key is no dictionary key

    def __repr__(self) -> str:
        return "SecretKey(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key is not pickled; wrap what reveal() returns")
