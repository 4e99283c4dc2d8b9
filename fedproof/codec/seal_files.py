"""The files that SEAL saves and loads, taken apart and put together.

SEAL's Python bindings turn an object into a file and back, and know no other way to its numbers. A file is a
header of 16 bytes and a body: constant bytes, 64-bit little-endian words, and for a fresh ciphertext more
constant bytes and a seed. The constants are copied from objects that the local SEAL made itself; only words
and seeds are ever put between them, so no byte from a peer is read as a size.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import zstandard

from fedproof.codec.bits import Words
from fedproof.codec.parameters import RING_DEGREE, SEED_BYTES
from fedproof.codec.scratch import Scratch
from fedproof.errors import ConfigurationError

# Magic number, this header's size, version (two bytes), compression, reserved, size of header and body.
_HEADER: Final = struct.Struct("<HBBBBHQ")
_MAGIC: Final = 0xA15E
_NONE, _ZSTD = 0, 2
_WORD: Final = np.dtype("<u8")
# All that the largest object, a whole ciphertext, can take.
_MAX_BODY_BYTES: Final = 3 * RING_DEGREE * _WORD.itemsize


@dataclass(frozen=True, slots=True)
class FileForm:
    """The constant bytes of one kind of object, and how many words stand between them.

    Attributes:
        header: uncompressed, with the size of a whole object.
        prefix: from the body's begin to the first word.
        words: at most so many; a plaintext may hold fewer.
        middle: between the last word and the seed; empty when there is no seed.
    """

    header: bytes
    prefix: bytes
    words: int
    middle: bytes

    @classmethod
    def learn(cls, saved: bytes, *, prefix_bytes: int, words: int, middle_bytes: int = 0) -> Self:
        """Return the form of an object that the local SEAL saved.

        Raises:
            ConfigurationError: its size is not the expected one, so this SEAL saves in another form.
        """
        body = read_body(saved)
        words_end = prefix_bytes + words * _WORD.itemsize
        expected = words_end + (middle_bytes + SEED_BYTES if middle_bytes else 0)
        if len(body) != expected:
            raise ConfigurationError(
                f"this version of TenSEAL cannot be used: expected saved objects of {expected} bytes, "
                f"got {len(body)}"
            )
        magic, size, major, minor, _, reserved, _ = _HEADER.unpack_from(saved)
        header = _HEADER.pack(magic, size, major, minor, _NONE, reserved, _HEADER.size + expected)
        return cls(header, body[:prefix_bytes], words, body[words_end : words_end + middle_bytes])

    def join(self, words: Words, seed: bytes = b"") -> bytes:
        """Return the file of the object with these words and this seed."""
        return b"".join(
            (self.header, self.prefix, words.astype(_WORD, copy=False).tobytes(), self.middle, seed)
        )

    def split(self, saved: bytes) -> tuple[Words, bytes]:
        """Return the words and the seed of an object that the local SEAL saved."""
        body = read_body(saved)
        words_end = min(len(self.prefix) + self.words * _WORD.itemsize, len(body))
        words = np.frombuffer(body[len(self.prefix) : words_end], dtype=_WORD)
        return words, body[words_end + len(self.middle) :]


def save(entity: Any, scratch: Scratch) -> bytes:
    """Return the file that SEAL saves a ciphertext, plaintext or key as."""
    entity.save(scratch.path)
    return scratch.read()


def read_body(saved: bytes) -> bytes:
    """Return the uncompressed body of a file that the local SEAL saved.

    Raises:
        ConfigurationError: it is not compressed by zstd, so this SEAL was built otherwise.
    """
    magic, header_bytes, _, _, compression, _, _ = _HEADER.unpack_from(saved)
    if magic != _MAGIC or header_bytes != _HEADER.size or compression not in {_NONE, _ZSTD}:
        raise ConfigurationError(
            f"this version of TenSEAL cannot be used: expected a SEAL header with zstd, "
            f"got {saved[: _HEADER.size].hex()}"
        )
    body = memoryview(saved)[_HEADER.size :]
    if compression == _NONE:
        return bytes(body)
    return zstandard.ZstdDecompressor().decompress(body, max_output_size=_MAX_BODY_BYTES)
