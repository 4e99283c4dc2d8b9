"""Reading what an aggregator has stored. Nothing is ever written, and what cannot be read is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedproof.digests import Address, Digest
from fedproof.errors import MissingObject
from fedproof.store import ObjectStore
from fedproof.wire.aggregation_pb2 import Header


class StoredEvidence:
    """A store that is only read. What cannot be read is missing, whatever the reason."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._store = ObjectStore(root)

    def read_object(self, digest: Digest) -> bytes:
        """Return what is stored under a leaf digest; whether it has that digest is for the caller to check.

        Raises:
            MissingObject: there is nothing.
        """
        with _readable(self.root):
            return self._store.object_path(digest).read_bytes()

    def get_header(self, root: Digest) -> Header:
        """Return the header of that root.

        Raises:
            PeerError: it is missing, is no header, or has another root.
        """
        with _readable(self.root):
            return self._store.get_header(root)

    def get_wrapped_keys(self, epoch: int) -> tuple[tuple[Address, bytes], ...]:
        """Return an epoch's wrapped keys by node; their root is not checked yet.

        Raises:
            PeerError: they are missing, or are no list of keys.
        """
        with _readable(self.root):
            return self._store.get_wrapped_keys(epoch)

    def get_public_key(self, digest: Digest) -> bytes:
        """Return the public key of that digest.

        Raises:
            PeerError: it is missing or another one.
        """
        with _readable(self.root):
            return self._store.get_public_key(digest)

    def get_statements(self, root: Digest) -> bytes:
        """Return the signed statements of that root, which the caller computes from them.

        Raises:
            PeerError: they are missing.
        """
        with _readable(self.root):
            return self._store.get_statements(root)

    def get_policy(self, digest: Digest) -> bytes:
        """Return the canonical bytes of the policy of that digest.

        Raises:
            PeerError: it is missing or another one.
        """
        with _readable(self.root):
            return self._store.get_policy(digest)


@contextmanager
def _readable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MissingObject(f"{error.filename or root}: cannot be read: {error.strerror}") from error
