"""Tests of the file that SEAL's objects pass through."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from fedproof.codec import Codec
from fedproof.codec.cipher import SumDecryptor, UpdateEncryptor
from fedproof.codec.scratch import Scratch, ScratchPipe, open_outbox, open_scratch


@pytest.fixture(params=["memory", "folder"])
def in_folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both kinds: a file in memory, and where a system has none, one in a folder."""
    if request.param == "folder":
        monkeypatch.delattr(os, "memfd_create", raising=False)
        monkeypatch.delattr(fcntl, "F_SETPIPE_SZ", raising=False)
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


def test_a_pipe_holds_what_is_written_at_a_time() -> None:
    """As much as was asked for is written by path without waiting, and read whole, again and again."""
    if not hasattr(fcntl, "F_SETPIPE_SZ"):
        pytest.skip("this system's pipes have one size")
    with open_outbox(98_304) as outbox:
        assert isinstance(outbox, ScratchPipe)
        for content in (b"1" * 98_304, b"short", b"2" * 66_000):
            Path(outbox.path).write_bytes(content)
            assert outbox.read() == content


def test_a_file_serves_where_no_pipe_is_large_enough() -> None:
    """A user whose pipes may take no more memory gets a file, rather than a process that waits for itself."""
    with open_outbox(1 << 40) as outbox:
        assert isinstance(outbox, Scratch)
        Path(outbox.path).write_bytes(b"content")
        assert outbox.read() == b"content"


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
