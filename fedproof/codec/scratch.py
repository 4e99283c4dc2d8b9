"""A file for what SEAL saves and loads: its Python bindings take a path, never bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from fedproof.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Scratch:
    """One file, used again and again.

    Attributes:
        descriptor: open for reading and writing.
        path: another way to the same file, for SEAL.
    """

    descriptor: int
    path: str

    def write(self, content: bytes) -> None:
        """Make the file hold exactly these bytes.

        Raises:
            ConfigurationError: the disk is full.
        """
        written = os.pwrite(self.descriptor, content, 0)
        if written != len(content):
            raise ConfigurationError(
                f"{self.path}: expected room for {len(content)} bytes, could write {written}"
            )
        os.ftruncate(self.descriptor, len(content))

    def read(self) -> bytes:
        """Return all that the file holds."""
        return os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)


@contextmanager
def open_scratch() -> Iterator[Scratch]:
    """Yield a file in memory, or where the system has none, one in a private folder that goes away with it.

    Keys and plaintexts pass through it: the file in memory is preferred, and nobody else can open the other.
    """
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        with _memory_scratch() as scratch:
            yield scratch
    else:
        with _folder_scratch() as scratch:
            yield scratch


@contextmanager
def _memory_scratch() -> Iterator[Scratch]:
    descriptor = os.memfd_create("fedproof", os.MFD_CLOEXEC)
    try:
        yield Scratch(descriptor, f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@contextmanager
def _folder_scratch() -> Iterator[Scratch]:
    with TemporaryDirectory(prefix="fedproof-") as folder:  # mode 0700
        path = Path(folder) / "scratch"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            yield Scratch(descriptor, str(path))
        finally:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
