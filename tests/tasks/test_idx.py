"""IDX files, honest and hostile."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedproof.errors import ConfigurationError
from fedproof.tasks.idx import find_idx, load_idx


def idx(*shape: int, kind: int = 8, values: bytes | None = None) -> bytes:
    """Return an IDX file's bytes."""
    data = bytes(i % 251 for i in range(math.prod(shape))) if values is None else values
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


def gz(raw: bytes) -> bytes:
    """Compress, to the same bytes each time: they are in the tests' names."""
    return gzip.compress(raw, mtime=0)


def load(path: Path, raw: bytes, *, max_items: int = 100) -> np.ndarray:
    path.write_bytes(raw)
    return load_idx(path, item_shape=(2, 3), max_items=max_items)


@pytest.mark.parametrize("compress", [bytes, gz])
def test_load_returns_what_was_written(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """Compressed or not, the values come back in their shape."""
    images = load(tmp_path / "x", compress(idx(4, 2, 3)))
    assert images.dtype == np.uint8
    assert images.shape == (4, 2, 3)
    assert images.reshape(-1).tolist() == list(range(24))


@pytest.mark.parametrize(("wanted", "came"), [(1, 1), (3, 3), (4, 4), (5, 4)])
def test_load_is_bounded(tmp_path: Path, wanted: int, came: int) -> None:
    """The first items are read, and no more than there are."""
    assert load(tmp_path / "x", idx(4, 2, 3), max_items=wanted).reshape(-1).tolist() == list(range(6 * came))


@pytest.mark.parametrize("length", range(len(idx(4, 2, 3))))
def test_every_truncation_is_refused(tmp_path: Path, length: int) -> None:
    """Whatever is missing from the end, the file is not used, and the message names it."""
    for name, compress in (("plain", bytes), ("compressed", gz)):
        with pytest.raises(ConfigurationError, match=name):
            load(tmp_path / name, compress(idx(4, 2, 3)[:length]))


@pytest.mark.parametrize("length", range(2, len(gz(idx(4, 2, 3)))))
def test_every_truncation_of_the_compressed_file_is_refused(tmp_path: Path, length: int) -> None:
    """A cut gzip stream is an error in a configured file, not an EOFError."""
    with pytest.raises(ConfigurationError, match="expected"):
        load(tmp_path / "x", gz(idx(4, 2, 3))[:length])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "got an empty file"),
        (b"<html>404 Not Found</html>", "beginning 00000803), got 3c68746d"),
        (idx(4, 2, 3, kind=13), "got 00000d03"),
        (idx(4, 6), "got 00000802"),
        (idx(4, 3, 2), r"expected items of shape (2, 3), got (3, 2)"),
        (idx(0, 2, 3), "expected at least one item, got none"),
        (idx(4, 2, 3) + b"\0", "expected nothing after the 4 items, got more bytes"),
        (idx(2**32 - 1, 2, 3, values=b"\0" * 60), "expected 600 bytes of values for 100 of 4294967295 items"),
        (gz(idx(4, 2, 3))[:-6] + b"\0" * 6, "expected a readable IDX file"),
        (gz(idx(4, 2, 3))[:10] + b"\xff" * 20, "expected a readable IDX file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    """The message names the file, what was expected and what came; no size that it claims is allocated."""
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / "x", raw)
    assert str(caught.value).startswith(str(tmp_path / "x"))
    assert message in str(caught.value)


def test_find_prefers_the_plain_file(tmp_path: Path) -> None:
    """Either name is found, and the message names both when there is neither."""
    with pytest.raises(ConfigurationError, match=r"expected train or train\.gz, found neither"):
        find_idx(tmp_path, "train")
    (tmp_path / "train.gz").touch()
    assert find_idx(tmp_path, "train").name == "train.gz"
    (tmp_path / "train").touch()
    assert find_idx(tmp_path, "train").name == "train"
