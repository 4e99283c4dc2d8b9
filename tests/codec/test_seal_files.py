"""Tests of taking SEAL's files apart: another SEAL is refused, not misread."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard

from fedproof.codec.seal_files import FileForm, uncompress
from fedproof.errors import ConfigurationError

# Magic number, header's size, version 4.1, compression, reserved, size.
HEADER = "5ea1 10 0401 {compression} 0000 0000000000000000"


def make_file(body: bytes, *, compression: str = "00", size: int = 0) -> bytes:
    header = bytearray.fromhex(HEADER.format(compression=compression))
    header[8:] = size.to_bytes(8, "little")
    return bytes(header) + body


def test_splitting_returns_what_was_joined() -> None:
    """Words and seed come back from a file put together with a learned form."""
    prefix, middle, words = b"ppp", b"mm", np.arange(5, dtype=np.uint64)
    saved = make_file(prefix + bytes(5 * 8) + middle + bytes(64))
    form = FileForm.learn(saved, prefix_bytes=3, words=5, middle_bytes=2)
    file = b"".join(form.join(words, bytes(range(64))))
    assert file == saved[:16] + prefix + words.tobytes() + middle + bytes(range(64))
    split_words, seed = form.split(file[16:])
    assert split_words.tolist() == words.tolist()
    assert seed == bytes(range(64))


@pytest.mark.parametrize("change", [-1, 1])
def test_another_size_is_refused(change: int) -> None:
    """An object of another size than the known form's names the installed TenSEAL as the cause."""
    saved = make_file(bytes(3 + 40 + change))
    with pytest.raises(ConfigurationError, match=f"saved objects of 59 bytes, got {59 + change}"):
        FileForm.learn(saved, prefix_bytes=3, words=5)


@pytest.mark.parametrize("position", [0, 2, 5])
def test_another_header_is_refused(position: int) -> None:
    """Another magic number, header size or compression is refused."""
    saved = bytearray(make_file(b"body", size=20))
    assert b"".join(uncompress(bytes(saved), zstandard.ZstdDecompressor())) == bytes(saved)
    saved[position] = 1
    with pytest.raises(ConfigurationError, match="expected a SEAL header with zstd"):
        uncompress(bytes(saved), zstandard.ZstdDecompressor())


def test_uncompressing_corrects_the_header() -> None:
    """The uncompressed file says that it is uncompressed, and its own size."""
    body = b"body" * 10
    saved = make_file(zstandard.compress(body), compression="02", size=99)
    assert b"".join(uncompress(saved, zstandard.ZstdDecompressor())) == make_file(body, size=16 + len(body))
