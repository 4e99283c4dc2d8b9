"""Files that a crash leaves either whole or absent, and secrets that only their owner reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fedproof.errors import ConfigurationError

PRIVATE = 0o600
PUBLIC = 0o644


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that must not exist yet, and make its folder if there is none.

    Raises:
        ConfigurationError: there is something at the path, which stays as it is; or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path.parent}: expected a folder, got: {error.strerror}") from error
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise ConfigurationError(
            f"{path}: expected no file there, got an existing one; it is not overwritten (remove it yourself)"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{path}: expected a place for a new file, got: {error.strerror}") from error
    try:
        _write_all(descriptor, [data])
    except BaseException:
        # Nobody has seen the file yet, and half a key is worse than none.
        path.unlink()
        raise
    _sync_folder(path.parent)


def replace_file(path: Path, parts: Iterable[bytes | memoryview], *, mode: int = PUBLIC) -> None:
    """Write a file's parts, back to back, in place of what is there.

    A crash leaves the old file or the new one, never a mixture, and perhaps a ``.tmp`` to be overwritten.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    # Not truncated but made anew: what lies there after a crash may have another mode.
    temporary.unlink(missing_ok=True)
    _write_all(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), parts)
    temporary.replace(path)
    _sync_folder(path.parent)


def read_whole(path: Path, what: str) -> bytes:
    """Return a file's bytes.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: expected {what}, got: {error.strerror}") from error


def _write_all(descriptor: int, parts: Iterable[bytes | memoryview]) -> None:
    with open(descriptor, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # Without this the name itself may be lost in a power failure, although the bytes are on the disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
