"""A file for what SEAL saves and loads: its Python bindings take a path, never bytes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from fedproof.errors import ConfigurationError

Part = bytes | memoryview


class Scratch:
    """One file, used again and again.

    Attributes:
        path: where SEAL finds it.
    """

    __slots__ = ("_descriptor", "_size", "path")

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._size = 0
        self.path = path

    def write(self, *content: Part) -> None:
        """Make the file hold exactly these bytes.

        Raises:
            ConfigurationError: the disk is full.
        """
        size = sum(len(part) if isinstance(part, bytes) else part.nbytes for part in content)
        written = os.pwritev(self._descriptor, content, 0)
        if written != size:
            raise ConfigurationError(f"{self.path}: expected room for {size} bytes, could write {written}")
        # SEAL only reads what is written here, so the size is what it was left at.
        if size != self._size:
            os.ftruncate(self._descriptor, size)
            self._size = size

    def read(self) -> bytes:
        """Return all that the file holds."""
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)


@dataclass(frozen=True, slots=True)
class ScratchPipe:
    """A pipe that is written by path and read at once. Saves a file's pages, which come and go with each use.

    Attributes:
        path: where SEAL writes to it.
        reader: its other end.
        capacity: what it holds.
    """

    path: str
    reader: int
    capacity: int

    def read(self) -> bytes:
        """Return all that was written."""
        return os.read(self.reader, self.capacity)


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
def open_outbox(size: int) -> Iterator[Scratch | ScratchPipe]:
    """Yield what SEAL can write at most `size` bytes to at a time: a pipe, or where there is none, a file."""
    if not (hasattr(fcntl, "F_SETPIPE_SZ") and os.path.isdir("/proc/self/fd")):
        with open_scratch() as scratch:
            yield scratch
        return
    reader, writer = os.pipe()
    try:
        with suppress(OSError):  # a user may have so much memory in pipes, and no more
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
        capacity = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
        if capacity < size:
            with open_scratch() as scratch:
                yield scratch
        else:
            yield ScratchPipe(f"/proc/self/fd/{writer}", reader, capacity)
    finally:
        os.close(reader)
        os.close(writer)


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
