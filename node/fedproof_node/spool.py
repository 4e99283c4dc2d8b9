"""Ciphertexts on their way out or in: a folder with a header and one file for each chunk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from google.protobuf.message import DecodeError

from fedproof.digests import Digest, as_digest
from fedproof.errors import DigestMismatch, MissingObject
from fedproof.manifest import UpdateManifest, compute_header_root
from fedproof.merkle import leaf_digest
from fedproof.wire.aggregation_pb2 import Header
from fedproof_node.verification import verify_chunk

_HEADER: Final = "header"


class Spool:
    """A folder of a round's ciphertext chunks. Each read is verified, so what a power failure cut is not
    mistaken.

    Attributes:
        folder: where they lie; it is made at the first write.
    """

    def __init__(self, rounds_dir: Path, number: int, kind: Literal["update", "aggregate"]) -> None:
        """Name the folder of a round's chunks of a kind."""
        self.folder = rounds_dir / str(number) / kind

    def write_chunk(self, index: int, data: bytes) -> None:
        """Store a chunk; `sync` makes it last."""
        self._write(self._path(index), data)

    def read_chunk(self, index: int, digest: Digest) -> bytes:
        """Return a chunk.

        Raises:
            MissingObject: it is not here.
            DigestMismatch: the file's bytes have another leaf digest.
        """
        path = self._path(index)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise MissingObject(f"{path}: expected chunk {index}, got no such file") from error
        return verify_chunk(data, digest, where=str(path))

    def holds(self, index: int, digest: Digest) -> bool:
        """Return whether a chunk is here and whole."""
        try:
            self.read_chunk(index, digest)
        except (MissingObject, DigestMismatch):
            return False
        return True

    def write_header(self, header: Header) -> None:
        """Store the header; `sync` makes it last."""
        self._write(self.folder / _HEADER, header.SerializeToString())

    def read_header(self) -> Header:
        """Return the header; whoever reads it checks it against a root.

        Raises:
            MissingObject: it is not here.
            DigestMismatch: the file is no header.
        """
        path = self.folder / _HEADER
        try:
            return Header.FromString(path.read_bytes())
        except FileNotFoundError as error:
            raise MissingObject(f"{path}: expected a header, got no such file") from error
        except DecodeError as error:
            raise DigestMismatch(f"{path}: expected a header, got other bytes") from error

    def sync(self) -> None:
        """Bring what was written to the disk. At once: after each chunk it takes up to six times as long."""
        for path in (*self.folder.iterdir(), self.folder, self.folder.parent):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def chunk_bytes(self, index: int) -> int:
        """Return the size of a chunk.

        Raises:
            MissingObject: it is not here.
        """
        path = self._path(index)
        try:
            return path.stat().st_size
        except FileNotFoundError as error:
            raise MissingObject(f"{path}: expected chunk {index}, got no such file") from error

    def clear(self) -> None:
        """Remove everything, and the round's folder if nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # it is not there, or something is in it
            self.folder.parent.rmdir()

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06}.chunk"

    def _write(self, path: Path, data: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@dataclass(frozen=True, slots=True)
class EncryptedUpdate:
    """This node's update of one round, encrypted and in its spool.

    The relay's client sends nothing else: there is no path from a model's values to the wire that does not
    lead through `spool_update`, which takes the codec's chunks.

    Attributes:
        root: what the node commits to.
        leaves: leaf digest of each chunk.
        sizes: bytes of each chunk.
    """

    spool: Spool
    header: Header
    root: Digest
    leaves: tuple[Digest, ...]
    sizes: tuple[int, ...]

    def chunks(self, first: int) -> Iterator[tuple[int, bytes]]:
        """Yield each chunk with its index, from the first asked for.

        Raises:
            MissingObject, DigestMismatch: the spool lost or altered it.
        """
        for index in range(first, len(self.leaves)):
            yield index, self.spool.read_chunk(index, self.leaves[index])


def spool_update(spool: Spool, manifest: UpdateManifest, chunks: Iterable[bytes]) -> EncryptedUpdate:
    """Write the codec's chunks to the spool as they come and return them, on the disk, as an update.

    A crash before this returns leaves a spool that nothing refers to; the next attempt overwrites it.
    """
    spool.clear()
    leaves: list[Digest] = []
    for index, chunk in enumerate(chunks):
        leaves.append(leaf_digest(chunk))
        spool.write_chunk(index, chunk)
    header = Header(manifest=manifest.encode(), chunk_digests=leaves)
    spool.write_header(header)
    spool.sync()
    return _as_update(spool, header)


def load_update(spool: Spool, root: Digest) -> EncryptedUpdate:
    """Return the update that was spooled under a root; its chunks are verified as they are read.

    Raises:
        MissingObject, DigestMismatch: the spool lost a chunk, or lost or altered the header.
    """
    update = _as_update(spool, spool.read_header())
    if update.root != root:
        raise DigestMismatch(f"{spool.folder}: expected root {root.hex()}, got {update.root.hex()}")
    return update


def _as_update(spool: Spool, header: Header) -> EncryptedUpdate:
    leaves = tuple(as_digest(raw, str(spool.folder)) for raw in header.chunk_digests)
    root = compute_header_root(header.manifest, leaves)
    sizes = tuple(spool.chunk_bytes(index) for index in range(len(leaves)))
    return EncryptedUpdate(spool, header, root, leaves, sizes)
