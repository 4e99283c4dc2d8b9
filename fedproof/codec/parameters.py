"""What a federation's policy fixes about packing and encryption, and what follows from it.

A value of `bits` bits is summed over at most `max_contributors` updates, so a field holds bits + h bits with
2^h >= max_contributors. A slot (one coefficient of the plaintext polynomial) holds `values_per_slot` fields;
the plaintext modulus t = 2^(values_per_slot * field_bits) is exactly their size. No plaintext is ever
multiplied, so t need not be a batching prime, and a power of two wastes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

import tenseal.sealapi as seal

from fedproof.digests import Digest, tagged_digest
from fedproof.errors import ConfigurationError, MalformedMessage

RING_DEGREE: Final = 4096
FRAMES_PER_CHUNK: Final = 16
SEED_BYTES: Final = 64

_LARGEST_MODULUS_BITS: Final = 60  # SEAL's own limit for one prime
# A fresh ciphertext is off by at most 21 (SEAL's centred binomial noise) plus 1/2 (rounding); a sum of K is
# exact while K * 21.5 < q / (2t). With the factor of 2 that we keep in hand: 86 * K * t <= q.
_MODULUS_PER_CONTRIBUTOR: Final = 86


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecParameters:
    """How values are packed and encrypted. Nodes that `plan` alike agree on every bit.

    Attributes:
        bits: size of one quantised value, its sign included.
        max_contributors: the largest number of updates in one sum.
        coeff_modulus: the prime q that ciphertext coefficients live under.
        values_per_slot: values packed into one plaintext coefficient.

    Raises:
        ConfigurationError: a value is out of range, or a sum of max_contributors would not be exact.
    """

    bits: int
    max_contributors: int
    coeff_modulus: int
    values_per_slot: int

    def __post_init__(self) -> None:
        _check_range("bits", self.bits, 8, 24)
        _check_range("max_contributors", self.max_contributors, 2, 1000)
        if not 1 <= self.values_per_slot * self.field_bits < _LARGEST_MODULUS_BITS:
            raise ConfigurationError(
                f"codec: expected {self.values_per_slot} values of {self.field_bits} bits to fit "
                f"{_LARGEST_MODULUS_BITS - 1} bits"
            )
        if self.exact_contributors < self.max_contributors:
            required = _MODULUS_PER_CONTRIBUTOR * self.max_contributors * self.plain_modulus
            raise ConfigurationError(
                f"codec: an exact sum of {self.max_contributors} updates needs a coefficient modulus of "
                f"at least {required}, got {self.coeff_modulus}"
            )

    @classmethod
    def plan(cls, *, bits: int, max_contributors: int) -> Self:
        """Return the parameters with the fewest bytes per value on the wire.

        Every number of values per slot is tried with the smallest prime that keeps sums exact. The choice
        depends on the arguments alone.

        Raises:
            ConfigurationError: an argument is out of range.
        """
        _check_range("bits", bits, 8, 24)
        _check_range("max_contributors", max_contributors, 2, 1000)
        field_bits = bits + (max_contributors - 1).bit_length()
        candidates = []
        for values_per_slot in range(1, _LARGEST_MODULUS_BITS // field_bits + 1):
            required = _MODULUS_PER_CONTRIBUTOR * max_contributors << (values_per_slot * field_bits)
            modulus = _smallest_modulus(required)
            if modulus:
                frame_bytes = _update_frame_bytes(modulus)
                candidates.append((frame_bytes / values_per_slot, values_per_slot, modulus))
        _, values_per_slot, modulus = min(candidates)
        return cls(
            bits=bits,
            max_contributors=max_contributors,
            coeff_modulus=modulus,
            values_per_slot=values_per_slot,
        )

    @property
    def limit(self) -> int:
        """The largest absolute value of a quantised value."""
        return (1 << (self.bits - 1)) - 1

    @property
    def offset(self) -> int:
        """What is added to a quantised value before packing, so that no field is negative."""
        return 1 << (self.bits - 1)

    @property
    def field_bits(self) -> int:
        """Bits that hold a sum of max_contributors offset values."""
        return self.bits + (self.max_contributors - 1).bit_length()

    @property
    def plain_modulus(self) -> int:
        """t, a power of two."""
        return 1 << (self.values_per_slot * self.field_bits)

    @property
    def exact_contributors(self) -> int:
        """The number of updates whose sum the noise leaves exact, with a factor of 2 in hand."""
        return self.coeff_modulus // (_MODULUS_PER_CONTRIBUTOR * self.plain_modulus)

    @property
    def coefficient_bits(self) -> int:
        """Bits of one ciphertext coefficient on the wire."""
        return self.coeff_modulus.bit_length()

    @property
    def update_frame_bytes(self) -> int:
        """Size of one encrypted frame of an update: a packed polynomial and a seed."""
        return _update_frame_bytes(self.coeff_modulus)

    @property
    def aggregate_frame_bytes(self) -> int:
        """Size of one frame of a sum: two packed polynomials."""
        return 2 * RING_DEGREE * self.coefficient_bits // 8

    @property
    def values_per_frame(self) -> int:
        """Values in one ciphertext."""
        return self.values_per_slot * RING_DEGREE

    @property
    def values_per_chunk(self) -> int:
        """Values in a full chunk."""
        return self.values_per_frame * FRAMES_PER_CHUNK

    @property
    def digest(self) -> Digest:
        """Digest of the encryption context: what a secret key and a ciphertext are bound to.

        Bits, clips and weights are not in it: they do not touch the ciphertexts' form.
        """
        return tagged_digest(
            "fedproof.codec.v1",
            RING_DEGREE,
            self.coeff_modulus,
            self.plain_modulus,
            self.field_bits,
            self.values_per_slot,
            FRAMES_PER_CHUNK,
        )

    def chunk_count(self, length: int) -> int:
        """Return how many chunks an update of `length` values takes.

        Raises:
            ConfigurationError: length is not positive.
        """
        if length < 1:
            raise ConfigurationError(f"codec: expected an update of at least one value, got {length}")
        return math.ceil(length / self.values_per_chunk)

    def values_in_chunk(self, index: int, length: int) -> int:
        """Return how many of an update's `length` values chunk `index` holds.

        Raises:
            MalformedMessage: there is no such chunk.
        """
        count = self.chunk_count(length)
        if not 0 <= index < count:
            raise MalformedMessage(f"chunk {index}: expected an index from 0 to {count - 1}")
        return min(self.values_per_chunk, length - index * self.values_per_chunk)

    def frames_in_chunk(self, index: int, length: int) -> int:
        """Return how many frames chunk `index` of an update of `length` values holds.

        16, but for the last chunk.

        Raises:
            MalformedMessage: there is no such chunk.
        """
        return math.ceil(self.values_in_chunk(index, length) / self.values_per_frame)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigurationError(f"codec: expected {name} from {low} to {high}, got {value}")


def _update_frame_bytes(modulus: int) -> int:
    return RING_DEGREE * modulus.bit_length() // 8 + SEED_BYTES


def _smallest_modulus(required: int) -> int:
    """Return the shortest of SEAL's primes that is at least `required`, or 0 when all are too small."""
    for bits in range(required.bit_length(), _LARGEST_MODULUS_BITS + 1):
        prime = _prime(bits)
        if prime >= required:
            return prime
    return 0


@lru_cache
def _prime(bits: int) -> int:
    """Return the largest prime of that many bits which is 1 modulo 2n, as SEAL chooses it."""
    (prime,) = seal.CoeffModulus.Create(RING_DEGREE, [bits])
    return int(prime.value())
