"""What an aggregator keeps on disk and an auditor reads: everything under the digest that vouches for it.

    objects/<2 hex digits>/<62>   chunks, named by their leaf digest
    headers/<root>                wire Header of an update or aggregate, named by its Merkle root
    keys/<digest>                 public wrapping keys, named by their registered digest
    epochs/<number>               wire PutWrappedKeysRequest, whose root is EpochPublished.wrappedKeysRoot
    policies/<digest>             canonical bytes of each policy that was served
    statements/<root>             signed commitments or attestations, under their anchored or proposed root
    partial/                      writes that a crash cut short; never read

If the disk or its owner is malicious, bytes are lost, which `MissingObject` notices, or altered, which
`DigestMismatch` notices; none is believed.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from fedproof.digests import Address, Digest, as_address, as_digest
from fedproof.errors import DigestMismatch, MalformedMessage, MissingObject
from fedproof.merkle import compute_root, leaf_digest
from fedproof.wire.aggregation_pb2 import Header, PutWrappedKeysRequest, WrappedKey

_ROOT_NAME = re.compile("[0-9a-f]{64}")


class ObjectStore:
    """A folder of objects that are written once and verified at each read. Only chunks are ever deleted.

    A write is on the disk, under its final name, when its call returns, except that `stage` leaves that to
    `sync`. Writing the same again changes nothing, and replaces a copy that has rotted.
    """

    def __init__(self, root: Path) -> None:
        """Name the folder; nothing is created before the first write."""
        self.root = root
        self._staging = threading.Lock()

    # Chunks

    def put(self, data: bytes, *, digest: Digest | None = None) -> Digest:
        """Store one chunk and return its leaf digest, which is computed unless the caller knows it."""
        digest = leaf_digest(data) if digest is None else digest
        self.stage(data, digest=digest)
        self.sync([digest])
        return digest

    def stage(self, data: bytes, *, digest: Digest) -> None:
        """Store one chunk, so that it outlives this process; up to `sync`, a power failure may spoil it.

        Args:
            data: the chunk.
            digest: its leaf digest.
        """
        path = self.object_path(digest)
        # One at a time: nobody puts a new file where somebody else's of the same chunk has just been synced.
        with self._staging:
            if not _holds(path, data):
                self._write_partial(path.parent, data).replace(path)

    def sync(self, digests: Iterable[Digest]) -> None:
        """Return once the chunks of these digests, which were staged, are on the disk."""
        paths = [self.object_path(digest) for digest in digests]
        try:
            for path in (*paths, *{path.parent for path in paths}):
                _sync(path)
        except OSError:
            # What the disk failed to write, the system may call written when it is asked again.
            for path in paths:
                path.unlink(missing_ok=True)
            raise

    def get(self, digest: Digest) -> bytes:
        """Return the chunk of that leaf digest.

        Raises:
            MissingObject: the store does not hold it.
            DigestMismatch: the file's bytes have another digest.
        """
        path = self.object_path(digest)
        data = _read(path)
        actual = leaf_digest(data)
        if actual != digest:
            raise DigestMismatch(f"{path}: expected leaf digest {digest.hex()}, got {actual.hex()}")
        return data

    def has(self, digest: Digest) -> bool:
        """Return whether a chunk of that leaf digest is there, without reading it."""
        return self.object_path(digest).is_file()

    def delete(self, digest: Digest) -> int:
        """Delete the chunk of that leaf digest, and return how many bytes it had; 0 where there was none."""
        path = self.object_path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def object_path(self, digest: Digest) -> Path:
        """Return where the chunk of that leaf digest stands, or would."""
        name = digest.hex()
        return self.root / "objects" / name[:2] / name[2:]

    # Headers

    def put_header(self, manifest: bytes, chunk_digests: Sequence[Digest]) -> Digest:
        """Store the leaves of an update's or aggregate's tree and return its root."""
        root = compute_root([leaf_digest(manifest), *chunk_digests])
        header = Header(manifest=manifest, chunk_digests=chunk_digests)
        self._write(self.header_path(root), header.SerializeToString(deterministic=True))
        return root

    def get_header(self, root: Digest) -> Header:
        """Return the header whose leaves have that root; each chunk digest in it is 32 bytes.

        Raises:
            MissingObject: the store does not hold it.
            MalformedMessage: the file is not a header.
            DigestMismatch: the file's leaves have another root.
        """
        path = self.header_path(root)
        try:
            header = Header.FromString(_read(path))
        except DecodeError as error:
            raise MalformedMessage(f"{path}: expected a serialised Header, got other bytes") from error
        digests = [as_digest(raw, f"{path}: chunk {i}") for i, raw in enumerate(header.chunk_digests)]
        actual = compute_root([leaf_digest(header.manifest), *digests])
        if actual != root:
            raise DigestMismatch(f"{path}: expected root {root.hex()}, got {actual.hex()}")
        return header

    def list_roots(self) -> list[Digest]:
        """Return the roots of all headers that are stored."""
        folder = self.root / "headers"
        names = os.listdir(folder) if folder.is_dir() else ()
        return [Digest(bytes.fromhex(name)) for name in names if _ROOT_NAME.fullmatch(name)]

    def header_path(self, root: Digest) -> Path:
        """Return where the header of that root stands, or would."""
        return self.root / "headers" / root.hex()

    # Keys: the aggregator can open none of them

    def put_public_key(self, digest: Digest, key: bytes) -> None:
        """Store a node's public wrapping key under the digest that the node registered.

        Raises:
            DigestMismatch: the key has another digest.
        """
        _require_sha256(key, digest, f"public key {digest.hex()}")
        self._write(self.root / "keys" / digest.hex(), key)

    def get_public_key(self, digest: Digest) -> bytes:
        """Return the public wrapping key of that digest.

        Raises:
            MissingObject: the store does not hold it.
            DigestMismatch: the file's bytes have another digest.
        """
        path = self.root / "keys" / digest.hex()
        key = _read(path)
        _require_sha256(key, digest, str(path))
        return key

    def put_wrapped_keys(self, epoch: int, keys: Iterable[tuple[Address, bytes]]) -> None:
        """Store an epoch's wrapped keys; the caller has compared their root with the ledger's."""
        wrapped = [WrappedKey(node=node, ciphertext=ciphertext) for node, ciphertext in keys]
        message = PutWrappedKeysRequest(epoch=epoch, keys=wrapped)
        self._write(self.root / "epochs" / str(epoch), message.SerializeToString(deterministic=True))

    def get_wrapped_keys(self, epoch: int) -> tuple[tuple[Address, bytes], ...]:
        """Return an epoch's wrapped keys by node.

        Only their root vouches for them, and the caller compares it with the ledger's.

        Raises:
            MissingObject: the store does not hold them.
            MalformedMessage: the file is not a list of wrapped keys, or another epoch's.
        """
        path = self.root / "epochs" / str(epoch)
        try:
            message = PutWrappedKeysRequest.FromString(_read(path))
        except DecodeError as error:
            raise MalformedMessage(f"{path}: expected serialised wrapped keys, got other bytes") from error
        if message.epoch != epoch:
            raise MalformedMessage(f"{path}: expected the keys of epoch {epoch}, got epoch {message.epoch}")
        return tuple(
            (as_address(key.node, f"{path}: key {i}"), key.ciphertext) for i, key in enumerate(message.keys)
        )

    # Policies

    def put_policy(self, digest: Digest, canonical: bytes) -> None:
        """Store a policy's canonical bytes under the digest that stands on the ledger.

        Raises:
            DigestMismatch: the bytes have another digest.
        """
        _require_sha256(canonical, digest, f"policy {digest.hex()}")
        self._write(self.root / "policies" / digest.hex(), canonical)

    def get_policy(self, digest: Digest) -> bytes:
        """Return the canonical bytes of the policy of that digest.

        Raises:
            MissingObject: the store does not hold it.
            DigestMismatch: the file's bytes have another digest.
        """
        path = self.root / "policies" / digest.hex()
        canonical = _read(path)
        _require_sha256(canonical, digest, str(path))
        return canonical

    # Signed statements

    def put_statements(self, root: Digest, raw: bytes) -> None:
        """Store signed statements; the caller has computed their root from them."""
        self._write(self.root / "statements" / root.hex(), raw)

    def get_statements(self, root: Digest) -> bytes:
        """Return the signed statements of a root, which the caller computes from them anew.

        Raises:
            MissingObject: the store does not hold them.
        """
        return _read(self.root / "statements" / root.hex())

    # Writing

    def discard_partial(self) -> None:
        """Delete writes that a crash cut short. Only the one writer may call it, before it writes."""
        for path in (self.root / "partial").glob("*"):
            path.unlink()

    def _write(self, path: Path, data: bytes) -> None:
        """Put the bytes at the path so that a crash leaves either all of them there or nothing."""
        if not _holds(path, data):
            partial = self._write_partial(path.parent, data)
            _sync(partial)
            # A crash before this line leaves a file in partial/, which no reader looks at.
            partial.replace(path)
        # Also for a file that is there: the process that wrote it may have died before this line.
        _sync(path.parent)

    def _write_partial(self, folder: Path, data: bytes) -> Path:
        """Return a new file of the bytes, to be moved into the folder, which is there now."""
        partial = self.root / "partial"
        _make_folder(partial)
        _make_folder(folder)
        descriptor, name = tempfile.mkstemp(dir=partial)
        with os.fdopen(descriptor, "wb") as file:
            # An auditor may run as another user; nothing here is secret.
            os.fchmod(descriptor, 0o644)
            file.write(data)
        return Path(name)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingObject(f"{path}: expected a stored object, found no file") from error


def _make_folder(path: Path) -> None:
    """Make a folder, and those above it, that a power failure does not take back."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Return once a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_sha256(data: bytes, digest: Digest, what: str) -> None:
    actual = hashlib.sha256(data).digest()
    if actual != digest:
        raise DigestMismatch(f"{what}: expected SHA-256 {digest.hex()}, got {actual.hex()}")
