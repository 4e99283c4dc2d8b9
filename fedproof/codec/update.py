"""The codec of one federation: chunks of integers to encrypted chunks, their sums, and back to integers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fedproof.codec import frames, packing
from fedproof.codec.cipher import Cipher, CiphertextSum, SumDecryptor, UpdateEncryptor
from fedproof.codec.parameters import CodecParameters
from fedproof.codec.quantise import Int64Vector
from fedproof.codec.secret_key import SecretKey
from fedproof.errors import MalformedMessage, UpdateRefused


class Codec:
    """Encodes, adds and decodes chunks under one set of parameters, in this process.

    Holds no key and no state between calls. Chunk i of a sum is the sum of the chunks i of its updates, and a
    chunk is at most 1 MiB. Daemons leave this to `CodecWorkers`.

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

    def make_encryptor(self, secret_key: SecretKey) -> UpdateEncryptor:
        """Return what `encrypt_chunk` encrypts with."""
        return UpdateEncryptor(self._cipher, secret_key)

    def make_decryptor(self, secret_key: SecretKey) -> SumDecryptor:
        """Return what `decrypt_chunk` decrypts with."""
        return SumDecryptor(self._cipher, secret_key)

    def encrypt_chunk(self, values: Int64Vector, encryptor: UpdateEncryptor) -> bytes:
        """Return the encrypted chunk of an update's next values.

        Encrypting twice gives different chunks: each frame draws its noise and its seed from the system's
        randomness.

        Args:
            values: quantised values, of shape (n,), as many as a chunk holds but for the last one.
            encryptor: of the epoch's key.

        Raises:
            UpdateRefused: another shape or type, no values or too many, or a value beyond the limit.
        """
        most = self.parameters.values_per_chunk
        if values.ndim != 1 or values.dtype != np.int64 or not 1 <= values.size <= most:
            raise UpdateRefused(
                f"update: expected a flat int64 vector of 1 to {most} values, "
                f"got {values.dtype} of shape {values.shape}"
            )
        slots = packing.pack_values(values, self.parameters)
        polynomials, seeds = encryptor.encrypt(slots)
        return frames.encode_update_frames(polynomials, seeds, self.parameters)

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

    def start_sum(self) -> ChunkSum:
        """Return an empty sum of chunks of one index."""
        return ChunkSum(self._cipher)

    def sum_chunks(self, chunks: Iterable[bytes]) -> bytes:
        """Return the encrypted sum of several updates' chunks of one index.

        Takes one chunk at a time. The order does not change a byte of the sum.

        Raises:
            MalformedMessage: a chunk is malformed or not as long as the first one, or there are none, or more
                than max_contributors.
        """
        total = self.start_sum()
        for number, chunk in enumerate(chunks):
            total.add(chunk, f"summand {number}")
        return total.result()

    def decrypt_chunk(
        self, chunk: bytes, decryptor: SumDecryptor, *, contributors: int, index: int, length: int
    ) -> Int64Vector:
        """Return the sums that chunk `index` of a verified aggregate holds.

        BFV is not secure against chosen ciphertexts: what a node does with a decrypted forgery tells the
        forger about the secret key. So never call this with a chunk that was not checked against the sealed
        contributors' committed updates; nothing in here can check it.

        Args:
            chunk: the aggregate's chunk.
            decryptor: of the epoch's key.
            contributors: how many updates are in the sum.
            index: the chunk's.
            length: how many values the whole update has.

        Raises:
            MalformedMessage: the chunk is malformed, or what it decrypts to is no sum of that many updates.
        """
        where = f"aggregate chunk {index}"
        _check_contributors(contributors, self.parameters)
        values = self.parameters.values_in_chunk(index, length)
        expected = self.parameters.frames_in_chunk(index, length) * self.parameters.aggregate_frame_bytes
        frames.check_length(chunk, expected, where=where)
        ciphertexts = frames.decode_aggregate_frames(chunk, self.parameters, where=where)
        slots = decryptor.decrypt(ciphertexts)
        return packing.unpack_sums(
            slots, self.parameters, contributors=contributors, length=values, where=where
        )


class ChunkSum:
    """A running sum of several updates' chunks of one index. Made by `Codec.start_sum`.

    Attributes:
        count: how many are in it.
    """

    __slots__ = ("_chunk_bytes", "_cipher", "_parameters", "_total", "count")

    def __init__(self, cipher: Cipher) -> None:
        self._parameters = cipher.parameters
        self._cipher = cipher
        self._chunk_bytes = 0
        self._total = CiphertextSum(cipher)
        self.count = 0

    def add(self, chunk: bytes, where: str) -> None:
        """Add an update's chunk.

        Args:
            chunk: its bytes, from a peer.
            where: whose it is, for the message.

        Raises:
            MalformedMessage: it is malformed or not as long as the first one, or one more than
                max_contributors. The sum is then what it was.
        """
        frames.check_length(chunk, self._chunk_bytes or len(chunk), where=where)
        polynomials, seeds = frames.decode_update_frames(chunk, self._parameters, where=where)
        _check_contributors(self.count + 1, self._parameters)
        self._total.add(polynomials, seeds)
        self._chunk_bytes = len(chunk)
        self.count += 1

    def subtract(self, chunk: bytes, where: str) -> None:
        """Take a chunk out that was added. The sum has then the bytes that it would have without it.

        Args:
            chunk: its bytes.
            where: whose it is, for the message.

        Raises:
            MalformedMessage: it is malformed or not as long as the others, or nothing was added.
        """
        frames.check_length(chunk, self._chunk_bytes, where=where)
        polynomials, seeds = frames.decode_update_frames(chunk, self._parameters, where=where)
        if self.count == 1:
            self._total, self._chunk_bytes = CiphertextSum(self._cipher), 0
        else:
            self._total.subtract(polynomials, seeds)
        self.count -= 1

    def resume(self, total: bytes, count: int) -> None:
        """Become the sum of `count` chunks that `result` returned as `total`."""
        ciphertexts = frames.decode_aggregate_frames(total, self._parameters, where="sum")
        _check_contributors(count, self._parameters)
        self._total.resume(ciphertexts)
        self._chunk_bytes = len(ciphertexts) * self._parameters.update_frame_bytes
        self.count = count

    def result(self) -> bytes:
        """Return the aggregate's chunk.

        Raises:
            MalformedMessage: nothing was added.
        """
        _check_contributors(self.count, self._parameters)
        return frames.encode_aggregate_frames(self._total.result(), self._parameters)


def _check_contributors(count: int, parameters: CodecParameters) -> None:
    maximum = parameters.max_contributors
    if not 1 <= count <= maximum:
        raise MalformedMessage(f"aggregate: expected 1 to {maximum} contributors, got {count}")
