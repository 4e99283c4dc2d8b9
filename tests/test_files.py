"""Files are whole or absent, and secrets are private."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedproof.errors import ConfigurationError
from fedproof.files import PRIVATE, read_whole, replace_file, write_new


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_file_is_private_and_makes_its_folder(tmp_path: Path) -> None:
    """A secret is readable by its owner alone, from the first moment."""
    write_new(tmp_path / "a" / "b", b"secret", mode=PRIVATE)
    assert (tmp_path / "a" / "b").read_bytes() == b"secret"
    assert _mode(tmp_path / "a" / "b") == 0o600


def test_new_file_never_overwrites(tmp_path: Path) -> None:
    """An existing file stays as it is, and the error names it."""
    (tmp_path / "key").write_bytes(b"old")
    with pytest.raises(ConfigurationError, match="key: expected no file there, got an existing one"):
        write_new(tmp_path / "key", b"new", mode=PRIVATE)
    assert (tmp_path / "key").read_bytes() == b"old"


def test_new_file_below_a_file_is_refused(tmp_path: Path) -> None:
    """A folder that cannot be made is the user's error, not a traceback."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="file: expected a folder, got: File exists"):
        write_new(tmp_path / "file" / "key", b"new", mode=PRIVATE)


def test_replace_takes_the_place_of_the_old_file(tmp_path: Path) -> None:
    """The parts stand back to back, whatever a crash before left beside them."""
    path = tmp_path / "model"
    path.write_bytes(b"old")
    (tmp_path / "model.tmp").write_bytes(b"half of an earlier attempt")
    replace_file(path, [b"ne", memoryview(b"w")], mode=PRIVATE)
    assert path.read_bytes() == b"new"
    assert _mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_replace_that_fails_half_way_keeps_the_old_file(tmp_path: Path) -> None:
    """Writing that stops in the middle leaves the old bytes."""

    def parts() -> Iterator[bytes]:
        yield b"ne"
        raise InterruptedError

    path = tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(InterruptedError):
        replace_file(path, parts())
    assert path.read_bytes() == b"old"


def test_missing_file_is_named_with_what_it_should_be(tmp_path: Path) -> None:
    """The error names the path, and what was expected there."""
    with pytest.raises(ConfigurationError, match=r"gone\.toml: expected a TOML file, got: No such file"):
        read_whole(tmp_path / "gone.toml", "a TOML file")
