"""Tests of the file that SEAL's objects pass through."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from fedproof.codec import Codec
from fedproof.codec.cipher import SumDecryptor, UpdateEncryptor
from fedproof.codec.scratch import open_scratch


@pytest.fixture(params=["memory", "folder"])
def in_folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both kinds: a file in memory, and where a system has none, one in a folder."""
    if request.param == "folder":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("this system has no files in memory")
    return bool(request.param == "folder")


@pytest.mark.usefixtures("in_folder")
def test_holds_exactly_what_was_written_last() -> None:
    """A shorter content leaves nothing of a longer one, by descriptor and by path."""
    with open_scratch() as scratch:
        for content in (b"a longer content", b"short", b""):
            scratch.write(content)
            assert scratch.read() == content
            assert Path(scratch.path).read_bytes() == content
        Path(scratch.path).write_bytes(b"from outside")
        assert scratch.read() == b"from outside"


def test_nothing_is_left_behind(in_folder: bool) -> None:
    """The file is gone afterwards, also after an error; in a folder nobody else could open it."""
    paths = []

    def use_and_fail() -> None:
        with open_scratch() as scratch:
            paths.append(Path(scratch.path))
            scratch.write(b"secret")
            if in_folder:
                assert stat.S_IMODE(paths[0].stat().st_mode) == 0o600
                assert stat.S_IMODE(paths[0].parent.stat().st_mode) == 0o700
            raise KeyError

    with pytest.raises(KeyError):
        use_and_fail()
    assert not paths[0].exists()
    assert not in_folder or not paths[0].parent.exists()


@pytest.mark.usefixtures("in_folder")
def test_the_codec_works_with_either(
    codec: Codec, encryptor: UpdateEncryptor, decryptor: SumDecryptor
) -> None:
    """Updates are encrypted, added and decrypted on systems with and without files in memory."""
    values = np.arange(-500, 500)
    chunks = [codec.encrypt_chunk(values, encryptor) for _ in range(2)]
    total = codec.sum_chunks(chunks)
    sums = codec.decrypt_chunk(total, decryptor, contributors=2, index=0, length=1000)
    assert np.array_equal(sums, 2 * values)
