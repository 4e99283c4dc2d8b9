"""The codec of one federation: from updates to encrypted chunks, and from their sums to the next model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from fedproof.codec import frames, packing
from fedproof.codec import quantise as quantisation
from fedproof.codec.cipher import Cipher
from fedproof.codec.parameters import CodecParameters
from fedproof.codec.quantise import Float32Vector, Int64Vector
from fedproof.codec.secret_key import SecretKey
from fedproof.errors import MalformedMessage, UpdateRefused


class Codec:
    """Encodes, adds and decodes updates under one set of parameters.

    Holds no key and no state between calls. Chunk i of a sum is the sum of the chunks i of its updates. A
    chunk is at most 1 MiB, and memory stays at a few chunks whatever the length of the update.

    Raises:
        ConfigurationError: the installed TenSEAL cannot be used with the parameters.
    """

    __slots__ = ("_cipher", "parameters")

    def __init__(self, parameters: CodecParameters) -> None:
        self.parameters = parameters
        self._cipher = Cipher(parameters)

    def generate_secret_key(self) -> SecretKey:
        """Return a new secret key from the system's randomness."""
        return SecretKey.generate()

    def quantise(self, delta: Float32Vector, *, examples: int, rng: np.random.Generator) -> Int64Vector:
        """Return the weighted update as integers; see `fedproof.codec.quantise.quantise`.

        Raises:
            UpdateRefused: another shape or type, NaN or infinity (named by index), or no examples.
        """
        return quantisation.quantise(delta, self.parameters, examples=examples, rng=rng)

    def encrypt_chunks(self, values: Int64Vector, secret_key: SecretKey) -> Iterator[bytes]:
        """Yield the update's encrypted chunks in index order.

        Encrypting twice gives different chunks: each frame draws its noise and its seed from the system's
        randomness.

        Args:
            values: the quantised update, of shape (d,).
            secret_key: the epoch's.

        Raises:
            UpdateRefused: another shape or type, no values, or a value beyond the limit.
        """
        if values.ndim != 1 or values.dtype != np.int64 or not values.size:
            raise UpdateRefused(
                f"update: expected a flat int64 vector of at least one value, "
                f"got {values.dtype} of shape {values.shape}"
            )
        encryptor = self._cipher.make_encryptor(secret_key)
        size = self.parameters.values_per_chunk
        for start in range(0, values.size, size):
            slots = packing.pack_values(values[start : start + size], self.parameters)
            polynomials, seeds = encryptor.encrypt(slots)
            yield frames.encode_update_frames(polynomials, seeds, self.parameters)

    def check_update_chunk(self, chunk: bytes, index: int, length: int) -> None:
        """Check that the bytes can be chunk `index` of an update of `length` values.

        Raises:
            MalformedMessage: there is no such chunk, its length is another, or a coefficient is not below q.
        """
        where = f"update chunk {index}"
        expected = self.parameters.frames_in_chunk(index, length) * self.parameters.update_frame_bytes
        frames.check_length(chunk, expected, where=where)
        frames.decode_update_frames(chunk, self.parameters, where=where)

    def check_aggregate_chunk(self, chunk: bytes, index: int, length: int) -> None:
        """Check that the bytes can be chunk `index` of a sum of updates of `length` values.

        Raises:
            MalformedMessage: there is no such chunk, its length is another, a coefficient is not below q, or
                a frame is not encrypted.
        """
        where = f"aggregate chunk {index}"
        expected = self.parameters.frames_in_chunk(index, length) * self.parameters.aggregate_frame_bytes
        frames.check_length(chunk, expected, where=where)
        frames.decode_aggregate_frames(chunk, self.parameters, where=where)

    def sum_chunks(self, chunks: Iterable[bytes]) -> bytes:
        """Return the encrypted sum of several updates' chunks of one index.

        Takes one chunk at a time. The order does not change a byte of the sum.

        Raises:
            MalformedMessage: a chunk is malformed or not as long as the first one, or there are none, or more
                than max_contributors.
        """
        total = self._cipher.start_sum()
        count, length = 0, 0
        for chunk in chunks:
            where = f"summand {count}"
            length = length or len(chunk)
            frames.check_length(chunk, length, where=where)
            polynomials, seeds = frames.decode_update_frames(chunk, self.parameters, where=where)
            count += 1
            self._check_contributors(count)
            total.add(polynomials, seeds)
        self._check_contributors(count)
        return frames.encode_aggregate_frames(total.result(), self.parameters)

    def decrypt_chunk(
        self, chunk: bytes, secret_key: SecretKey, *, contributors: int, index: int, length: int
    ) -> Int64Vector:
        """Return the sums that chunk `index` of a verified aggregate holds.

        BFV is not secure against chosen ciphertexts: what a node does with a decrypted forgery tells the
        forger about the secret key. So never call this with a chunk that was not checked against the sealed
        contributors' committed updates; nothing in here can check it.

        Args:
            chunk: the aggregate's chunk.
            secret_key: the epoch's.
            contributors: how many updates are in the sum.
            index: the chunk's.
            length: how many values the whole update has.

        Raises:
            MalformedMessage: the chunk is malformed, or what it decrypts to is no sum of that many updates.
        """
        where = f"aggregate chunk {index}"
        self._check_contributors(contributors)
        values = self.parameters.values_in_chunk(index, length)
        expected = self.parameters.frames_in_chunk(index, length) * self.parameters.aggregate_frame_bytes
        frames.check_length(chunk, expected, where=where)
        ciphertexts = frames.decode_aggregate_frames(chunk, self.parameters, where=where)
        slots = self._cipher.decrypt(ciphertexts, secret_key)
        return packing.unpack_sums(
            slots, self.parameters, contributors=contributors, length=values, where=where
        )

    def apply_mean(self, base: Float32Vector, sums: Int64Vector, *, total_examples: int) -> Float32Vector:
        """Return the next model; see `fedproof.codec.quantise.apply_mean`.

        Raises:
            MalformedMessage: shapes differ, or no examples.
            UpdateRefused: a value of the new model is not finite.
        """
        return quantisation.apply_mean(base, sums, self.parameters, total_examples=total_examples)

    def _check_contributors(self, count: int) -> None:
        maximum = self.parameters.max_contributors
        if not 1 <= count <= maximum:
            raise MalformedMessage(f"aggregate: expected 1 to {maximum} contributors, got {count}")
