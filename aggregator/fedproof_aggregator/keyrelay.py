"""Passing keys on: public keys and wrapped secret keys, none of which can be opened here.

If a peer is malicious, then at most it sends nothing: a key that the ledger does not vouch for is not taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedproof.digests import Address, as_address, as_digest
from fedproof.errors import MissingObject
from fedproof.keys.wrapping import PUBLIC_KEY_BYTES, public_key_digest, wrapped_keys_root
from fedproof.ledger.history import EpochRecord
from fedproof.store import ObjectStore
from fedproof.wire.aggregation_pb2 import WrappedKey
from fedproof_aggregator.refusal import malformed, not_found, out_of_turn
from fedproof_aggregator.view import LedgerView


class KeyRelay:
    """Keeps what nodes leave for one another, in the store, where auditors find it too."""

    def __init__(self, *, view: LedgerView, store: ObjectStore) -> None:
        self._view = view
        self._store = store

    def put_public_key(self, key: bytes) -> None:
        """Keep a public wrapping key that a member has registered.

        Raises:
            Refused: another length, or no member has registered its digest.
        """
        if len(key) != PUBLIC_KEY_BYTES:
            raise malformed(f"public key: expected {PUBLIC_KEY_BYTES} bytes, got {len(key)}")
        digest = public_key_digest(key)
        if not self._view.is_wrapping_key(digest):
            self._view.refresh_for_peer()
        if not self._view.is_wrapping_key(digest):
            raise out_of_turn(
                f"public key {digest.hex()}: expected a digest that a node has registered on the ledger, "
                "no node has"
            )
        self._store.put_public_key(digest, key)

    def find_public_key(self, raw_digest: bytes) -> bytes:
        """Return the public key of that digest.

        Raises:
            Refused: nobody has left it.
            MalformedMessage: not a digest.
        """
        digest = as_digest(raw_digest, "public key")
        try:
            return self._store.get_public_key(digest)
        except MissingObject as error:
            raise not_found(f"public key {digest.hex()}: its node has not left it here yet") from error

    def put_wrapped_keys(self, epoch: int, keys: Sequence[WrappedKey]) -> None:
        """Keep an epoch's wrapped keys, once the epoch is published.

        Raises:
            Refused: the epoch is not on the ledger, or its root is another one.
            MalformedMessage: a node is no address, out of order or twice.
        """
        wrapped: list[tuple[Address, bytes]] = [
            (as_address(key.node, f"epoch {epoch}: key {i}"), key.ciphertext) for i, key in enumerate(keys)
        ]
        root = wrapped_keys_root(wrapped)
        if self._view.find_epoch(epoch) is None:
            self._view.refresh_for_peer()
        record = self._view.find_epoch(epoch)
        if record is None:
            raise out_of_turn(f"epoch {epoch}: expected an epoch that is published on the ledger, it is not")
        if root != record.wrapped_keys_root:
            raise out_of_turn(
                f"epoch {epoch}: expected wrapped keys whose root is the ledger's, "
                f"{record.wrapped_keys_root.hex()}, got {len(wrapped)} keys of root {root.hex()}"
            )
        self._store.put_wrapped_keys(epoch, wrapped)

    def find_wrapped_keys(self, epoch: int) -> list[WrappedKey]:
        """Return an epoch's wrapped keys.

        Raises:
            Refused: the key maker has not left them.
        """
        try:
            wrapped = self._store.get_wrapped_keys(epoch)
        except MissingObject as error:
            raise not_found(f"epoch {epoch}: its key maker has not left the wrapped keys here yet") from error
        return [WrappedKey(node=node, ciphertext=ciphertext) for node, ciphertext in wrapped]

    def find_recipients(self, epoch: EpochRecord) -> frozenset[Address] | None:
        """Return who can unwrap an epoch's key, or nothing while the wrapped keys are not here."""
        try:
            wrapped = self._store.get_wrapped_keys(epoch.number)
        except MissingObject:
            return None
        if wrapped_keys_root(wrapped) != epoch.wrapped_keys_root:
            return None
        return frozenset(node for node, _ in wrapped)
