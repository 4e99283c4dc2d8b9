"""The files that SEAL saves and loads, taken apart and put together.

SEAL's Python bindings turn an object into a file and back, and know no other way to its numbers. A file is a
header of 16 bytes and a body: constant bytes, 64-bit little-endian words, and for a fresh ciphertext more
constant bytes and a seed. The constants are copied from objects that the local SEAL made itself; only words
and seeds are ever put between them, so no byte from a peer is read as a size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import zstandard

from fedproof.codec.bits import Words
from fedproof.codec.parameters import RING_DEGREE, SEED_BYTES
from fedproof.codec.scratch import Part, Scratch, ScratchPipe, open_outbox, open_scratch
from fedproof.errors import ConfigurationError

# Magic number, this header's size, version (two bytes), compression, reserved, size of header and body.
_HEADER: Final = struct.Struct("<HBBBBHQ")
_MAGIC: Final = 0xA15E
_NONE: Final = 0
_ZSTD: Final = 2
_WORD: Final = np.dtype("<u8")
# More than the largest object, a ciphertext of 16 polynomials, takes.
_LARGEST_FILE: Final = 17 * RING_DEGREE * _WORD.itemsize


@dataclass(frozen=True, slots=True)
class FileForm:
    """The constant bytes of one kind of object, and how many words stand between them.

    Attributes:
        prefix: header (uncompressed, with the size of a whole object) and body up to the first word.
        words: as many as the object has; SEAL saves a plaintext without the zeros at its end.
        middle: between the last word and the seed; empty when there is no seed.
    """

    prefix: bytes
    words: int
    middle: bytes

    @classmethod
    def learn(cls, saved: bytes, *, prefix_bytes: int, words: int, middle_bytes: int = 0) -> Self:
        """Return the form of an object that the local SEAL saved.

        Args:
            saved: its uncompressed file.
            prefix_bytes: size of the body's part before the first word.
            words: how many follow.
            middle_bytes: size of the part between the last word and the seed; 0 when there is no seed.

        Raises:
            ConfigurationError: its size is not the expected one, so this SEAL saves in another form.
        """
        words_start = _HEADER.size + prefix_bytes
        words_end = words_start + words * _WORD.itemsize
        expected = words_end + (middle_bytes + SEED_BYTES if middle_bytes else 0)
        if len(saved) != expected:
            raise ConfigurationError(
                f"this version of TenSEAL cannot be used: expected saved objects of {expected} bytes, "
                f"got {len(saved)}"
            )
        return cls(saved[:words_start], words, saved[words_end : words_end + middle_bytes])

    def join(self, words: Words, seed: bytes = b"") -> tuple[Part, ...]:
        """Return the file of the object with these words and this seed, in parts."""
        return self.prefix, np.ascontiguousarray(words, dtype=_WORD).data, self.middle, seed

    def split(self, body: bytes) -> tuple[Words, bytes]:
        """Return the words and the seed in the body of an object that the local SEAL saved."""
        start = len(self.prefix) - _HEADER.size
        count = min(self.words, (len(body) - start) // _WORD.itemsize)
        words = np.frombuffer(body, dtype=_WORD, count=count, offset=start)
        return words, body[start + words.nbytes + len(self.middle) :]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A way to hand objects to SEAL and back.

    Attributes:
        inbox: the file that SEAL loads from.
        outbox: where SEAL saves to: what SEAL loads from has to be a file, and a pipe is faster.
        decompressor: for what SEAL saves.
    """

    inbox: Scratch
    outbox: Scratch | ScratchPipe
    decompressor: zstandard.ZstdDecompressor

    def load(self, entity: Any, context: Any, *file: Part) -> None:
        """Make SEAL's object hold what the file, given in parts, says."""
        self.inbox.write(*file)
        entity.load(context, self.inbox.path)

    def save(self, entity: Any) -> bytes:
        """Return the body of the file that SEAL saves an object as, uncompressed.

        Raises:
            ConfigurationError: its header is another, so this SEAL was built otherwise.
        """
        entity.save(self.outbox.path)
        _, body = uncompress(self.outbox.read(), self.decompressor)
        return body

    def save_file(self, entity: Any) -> bytes:
        """Return the file that SEAL saves an object as, uncompressed.

        Raises:
            ConfigurationError: its header is another, so this SEAL was built otherwise.
        """
        entity.save(self.outbox.path)
        return b"".join(uncompress(self.outbox.read(), self.decompressor))


@contextmanager
def open_exchange() -> Iterator[Exchange]:
    """Yield an exchange with files of its own, which go away with it."""
    with open_scratch() as inbox, open_outbox(_LARGEST_FILE) as outbox:
        yield Exchange(inbox, outbox, zstandard.ZstdDecompressor())


def uncompress(saved: bytes, decompressor: zstandard.ZstdDecompressor) -> tuple[bytes, bytes]:
    """Return the header and the body of the uncompressed equivalent of a file that the local SEAL saved.

    Raises:
        ConfigurationError: SEAL's header is another, or the compression is not zstd.
    """
    magic, header_bytes, major, minor, compression, reserved, _ = _HEADER.unpack_from(saved)
    if magic != _MAGIC or header_bytes != _HEADER.size or compression not in {_NONE, _ZSTD}:
        raise ConfigurationError(
            f"this version of TenSEAL cannot be used: expected a SEAL header with zstd, "
            f"got {saved[: _HEADER.size].hex()}"
        )
    if compression == _ZSTD:
        body = decompressor.decompress(memoryview(saved)[_HEADER.size :], max_output_size=_LARGEST_FILE)
    else:
        body = saved[_HEADER.size :]
    size = _HEADER.size + len(body)
    return _HEADER.pack(magic, header_bytes, major, minor, _NONE, reserved, size), body
