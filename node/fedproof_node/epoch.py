"""The secret keys of epochs: made by one node, wrapped for each, opened only in memory.

On the disk and at the aggregator there are wrapped keys only. If the aggregator is malicious, then at most it
withholds them: a package must have the root that its key maker published, and opens only for its node.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from structlog.typing import FilteringBoundLogger

from fedproof.codec import SecretKey
from fedproof.digests import Address, Digest, as_address, checksum_address
from fedproof.errors import DigestMismatch, MissingObject, NetworkError, PeerError
from fedproof.keys.wrapping import WrappingKey, public_key_digest, wrap, wrapped_keys_root, wrapping_info
from fedproof.ledger.client import Ledger
from fedproof.ledger.history import EpochRecord, History
from fedproof.wire.aggregation_pb2 import PutWrappedKeysRequest, WrappedKey
from fedproof_node.journal import Journal
from fedproof_node.membership import Membership
from fedproof_node.relay import Relay


class NoKeyForUs(PeerError):
    """An epoch's package holds no key for this node: it was admitted later, or its public key was missing."""


class KeyRing:
    """The epochs' secret keys, and the duty to make one when the ledger names this node."""

    def __init__(
        self,
        membership: Membership,
        *,
        wrapping_key: WrappingKey,
        ledger: Ledger,
        relay: Relay,
        journal: Journal,
        log: FilteringBoundLogger,
        public_key_wait_s: float,
    ) -> None:
        self._membership = membership
        self._wrapping_key = wrapping_key
        self._ledger = ledger
        self._relay = relay
        self._journal = journal
        self._log = log
        self._public_key_wait_s = public_key_wait_s
        self._opened: dict[int, SecretKey] = {}
        self._relayed: set[int] = set()
        self._settled: set[int] = set()
        self._public_keys: dict[Digest, bytes] = {}
        self._waiting_since: dict[int, float] = {}
        self._last_waiting = ""

    def serve(self, history: History) -> bool:
        """Do one thing that the current epoch asks for; return whether there was one.

        Raises:
            NetworkError, LedgerError: it has to be tried again.
        """
        epoch = history.current_epoch
        if epoch is not None and epoch.number not in self._settled:
            if epoch.key_maker == self._membership.node and epoch.number not in self._relayed:
                self._hand_over(epoch)
                return True
            if self._join(epoch, history):
                return True
        return history.key_maker == self._membership.node and self._publish(history)

    def open(self, number: int, history: History) -> SecretKey:
        """Return an epoch's secret key.

        Raises:
            NoKeyForUs: it was not wrapped for this node.
            NetworkError: its key maker has not left it at the aggregator yet, or the aggregator is away.
            PeerError: the package is not what the ledger says, or this node's key does not open.
        """
        if number in self._opened:
            return self._opened[number]
        record = history.epochs[number]
        parameters = self._membership.codec_parameters
        if record.context_digest != parameters.digest:
            raise DigestMismatch(
                f"epoch {number}: expected the encryption context {parameters.digest.hex()} of the policy, "
                f"its key maker published {record.context_digest.hex()}"
            )
        ciphertext = self._journal.wrapped_key(number)
        is_new = ciphertext is None
        if ciphertext is None:
            ciphertext = self._find_own(record, self._find_package(record))
        secret = self._wrapping_key.unwrap(ciphertext, info=self._info(number, self._membership.node))
        key = SecretKey(secret)
        if is_new:
            # Kept wrapped, so that the next start needs neither the aggregator nor a key in the clear.
            self._journal.note_wrapped_key(number, ciphertext)
            self._log.info("epoch_joined", epoch=number)
        self._opened[number] = key
        return key

    def _join(self, epoch: EpochRecord, history: History) -> bool:
        """Open the current epoch as soon as it can be, so that its first round does not wait for it."""
        try:
            self.open(epoch.number, history)
        except NetworkError as error:
            self._log_waiting(str(error))
            return False
        except NoKeyForUs as error:
            self._log_waiting(str(error))
        except PeerError as error:
            self._log.error("error", message=str(error))
        self._settled.add(epoch.number)
        return True

    def _log_waiting(self, reason: str) -> None:
        if reason != self._last_waiting:
            self._last_waiting = reason
            self._log.info("waiting", reason=reason)

    def _find_package(self, record: EpochRecord) -> Sequence[WrappedKey]:
        own = self._journal.packages(record.number).get(record.wrapped_keys_root)
        if own is not None:
            return PutWrappedKeysRequest.FromString(own).keys
        try:
            package = self._relay.fetch_wrapped_keys(record.number)
        except MissingObject as error:
            raise NetworkError(
                f"epoch {record.number}: its key maker {checksum_address(record.key_maker)} has not left the "
                f"wrapped keys at the aggregator yet: {error}"
            ) from error
        root = _compute_root(package)
        if root != record.wrapped_keys_root:
            raise DigestMismatch(
                f"epoch {record.number}: expected wrapped keys of root {record.wrapped_keys_root.hex()}, the "
                f"aggregator sent some of {root.hex()}"
            )
        return package

    def _find_own(self, record: EpochRecord, package: Sequence[WrappedKey]) -> bytes:
        for wrapped in package:
            if wrapped.node == self._membership.node:
                return wrapped.ciphertext
        names = ", ".join(checksum_address(as_address(wrapped.node, "wrapped key")) for wrapped in package)
        raise NoKeyForUs(
            f"epoch {record.number}: expected a key wrapped for {checksum_address(self._membership.node)}, "
            f"got keys for {names} only; this node joins at the next epoch"
        )

    # The key maker's duty

    def _publish(self, history: History) -> bool:
        epoch = len(history.epochs) + 1
        public_keys = self._collect_public_keys(epoch, history)
        if public_keys is None:
            return False
        root = self._find_or_make_package(epoch, public_keys)
        # A crash before this line: the same package is found in the journal and published. After it: the
        # epoch is on the ledger, and `_hand_over` finds the package by its root.
        context = self._membership.codec_parameters.digest
        self._ledger.publish_epoch(epoch, context, root, membership=history.membership)
        return True

    def _hand_over(self, record: EpochRecord) -> None:
        package = self._journal.packages(record.number).get(record.wrapped_keys_root)
        if package is None:
            self._log.error(
                "error",
                message=f"epoch {record.number}: this node published root {record.wrapped_keys_root.hex()}, "
                "but its journal holds no such package; the admin has to request another epoch",
            )
        else:
            self._relay.put_wrapped_keys(PutWrappedKeysRequest.FromString(package))
            self._log.info("epoch_published", epoch=record.number)
        # Only in memory: after a restart the package is handed over again, which changes nothing there.
        self._relayed.add(record.number)

    def _collect_public_keys(self, epoch: int, history: History) -> Mapping[Address, bytes] | None:
        """Return the admitted nodes' public keys, or None while it is right to wait for more."""
        found: dict[Address, bytes] = {}
        missing: list[str] = []
        for node in history.admitted:
            digest = history.members[node].wrapping_key_digest
            try:
                found[node] = self._fetch_public_key(node, digest)
            except PeerError as error:
                missing.append(f"{checksum_address(node)} ({error})")
        since = self._waiting_since.setdefault(epoch, time.monotonic())
        is_patient = time.monotonic() - since < self._public_key_wait_s
        enough = self._membership.policy.rounds.min_contributors
        if missing and (is_patient or len(found) < enough):
            self._log_waiting(f"epoch {epoch}: no public key yet of {'; '.join(missing)}")
            return None
        if missing:
            # One silent node must not keep the others from starting; it joins at the next epoch.
            self._log.error(
                "error", message=f"epoch {epoch} begins without {'; '.join(missing)}: no public key came"
            )
        return found

    def _fetch_public_key(self, node: Address, digest: Digest) -> bytes:
        if node == self._membership.node:
            return self._wrapping_key.public_bytes
        if digest not in self._public_keys:
            key = self._relay.fetch_public_key(digest)
            if public_key_digest(key) != digest:
                raise DigestMismatch(
                    f"public key: expected digest {digest.hex()}, got {public_key_digest(key).hex()}"
                )
            self._public_keys[digest] = key
        return self._public_keys[digest]

    def _find_or_make_package(self, epoch: int, public_keys: Mapping[Address, bytes]) -> Digest:
        """Return the root of a journalled package for exactly these nodes."""
        for root, raw in reversed(self._journal.packages(epoch).items()):
            package = PutWrappedKeysRequest.FromString(raw).keys
            if [wrapped.node for wrapped in package] == sorted(public_keys):
                return root
        secret = SecretKey.generate().reveal()
        request = PutWrappedKeysRequest(
            epoch=epoch,
            keys=[
                WrappedKey(node=node, ciphertext=wrap(secret, key, info=self._info(epoch, node)))
                for node, key in sorted(public_keys.items())
            ],
        )
        root = _compute_root(request.keys)
        # Journal first: once the root is on the ledger, this package is the only way to the key.
        self._journal.note_package(epoch, root, package=request.SerializeToString())
        return root

    def _info(self, epoch: int, node: Address) -> bytes:
        return wrapping_info(
            chain_id=self._membership.chain_id,
            contract=self._membership.contract,
            epoch=epoch,
            node=node,
            context_digest=self._membership.codec_parameters.digest,
        )


def _compute_root(package: Sequence[WrappedKey]) -> Digest:
    return wrapped_keys_root(
        [(as_address(wrapped.node, "wrapped key"), wrapped.ciphertext) for wrapped in package]
    )
