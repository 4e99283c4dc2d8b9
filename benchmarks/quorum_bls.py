"""Keys and signatures over BLS12-381, and their encodings: what `quorum.py` needs of py_ecc."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from py_ecc.bls.ciphersuites import G2ProofOfPossession
from py_ecc.bls.g2_primitives import G2_to_signature
from py_ecc.bls.hash_to_curve import hash_to_G1, hash_to_G2
from py_ecc.optimized_bls12_381.optimized_curve import G1, G2, add, curve_order, multiply, normalize

# Of the first node; each next node has the next number, so that its key and signature are an addition away.
SECRET = int.from_bytes(hashlib.sha512(b"the first node's key").digest()) % curve_order

Point = Any


@dataclass(frozen=True, slots=True)
class Suite:
    """Which of the curve's two groups has the keys, and which the signatures.

    Attributes:
        contract: checks these signatures.
        generator: of the keys' group.
        hash_to_group: of the signatures.
        tag: RFC 9380's domain separation tag.
    """

    contract: str
    generator: Point
    hash_to_group: Callable[..., Point]
    tag: bytes

    def make_keys(self, count: int) -> list[Point]:
        """Return the public keys of that many nodes."""
        return _multiply_all(self.generator, count)

    def sign_all(self, count: int, message: bytes) -> list[Point]:
        """Return that many nodes' signatures of one message."""
        return _multiply_all(self._hash(message), count)

    def sign_each(self, messages: Sequence[bytes]) -> list[Point]:
        """Return each node's signature of a message of its own."""
        return [multiply(self._hash(message), SECRET + i) for i, message in enumerate(messages)]

    def _hash(self, message: bytes) -> Point:
        return self.hash_to_group(message, self.tag, hashlib.sha256)


# Ethereum's beacon chain has the first; the second has smaller signatures.
MIN_PK = Suite("BlsMinPk", G1, hash_to_G2, G2ProofOfPossession.DST)
MIN_SIG = Suite("BlsMinSig", G2, hash_to_G1, G2ProofOfPossession.DST.replace(b"G2", b"G1"))


def is_standard(signature: Point, message: bytes) -> bool:
    """Return whether py_ecc's own scheme gives the first node this signature, with its key in G1."""
    return bool(G2_to_signature(signature) == G2ProofOfPossession.Sign(SECRET, message))


def aggregate(points: Sequence[Point]) -> Point:
    """Return the sum of keys, or of signatures."""
    return reduce(add, points)


def encode_point(point: Point) -> list[int]:
    """Return a point in words as EIP-2537 has it: each coordinate fills two."""
    return [word for value in _coordinates(point) for word in divmod(value, 1 << 256)]


def pack_key(key: Point) -> list[bytes]:
    """Return a key in six words without padding; one in G1 leaves the last three unused."""
    packed = b"".join(value.to_bytes(48) for value in _coordinates(key)).ljust(192, b"\0")
    return [packed[i : i + 32] for i in range(0, 192, 32)]


def _multiply_all(point: Point, count: int) -> list[Point]:
    return list(itertools.accumulate([multiply(point, SECRET), *[point] * (count - 1)], add))


def _coordinates(point: Point) -> list[int]:
    return [int(value) for element in normalize(point) for value in getattr(element, "coeffs", (element,))]
