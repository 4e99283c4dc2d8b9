"""This node's own update of a round: trained, encrypted, committed, uploaded. Each step survives a crash.

Nothing here sends values: what is trained goes into the codec, and what leaves is an `EncryptedUpdate`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from structlog.typing import FilteringBoundLogger

from fedproof.codec import SecretKey, nursery
from fedproof.codec.workers import CodecWorkers
from fedproof.digests import Digest
from fedproof.errors import (
    ConfigurationError,
    DigestMismatch,
    MissingObject,
    PeerError,
    UpdateRefused,
    WorkerDied,
)
from fedproof.ledger.events import ExclusionReason
from fedproof.ledger.history import History
from fedproof.ledger.rounds import RoundRecord
from fedproof.model import Model
from fedproof_node.batches import Batches
from fedproof_node.commitment import Committer
from fedproof_node.epoch import KeyRing
from fedproof_node.journal import Journal, Stage
from fedproof_node.membership import Membership
from fedproof_node.models import ModelShelf
from fedproof_node.relay import Relay
from fedproof_node.residuals import Residuals
from fedproof_node.spool import EncryptedUpdate, Spool, load_update, spool_update
from fedproof_node.trainer import Trainer
from fedproof_node.vectors import subtract_finite
from fedproof_node.verification import RoundFacts

_PROGRESS_S = 0.5


class Contributor:
    """Makes and sends this node's updates.

    Every method raises UpdateRefused for what ends this node's part in the round, and NetworkError or
    LedgerError for what has to be tried again.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        committer: Committer,
        relay: Relay,
        journal: Journal,
        models: ModelShelf,
        keys: KeyRing,
        batches: Batches,
        trainer: Trainer,
        rounds_dir: Path,
        codec_processes: int,
        log: FilteringBoundLogger,
    ) -> None:
        self._membership = membership
        self._committer = committer
        self._relay = relay
        self._journal = journal
        self._models = models
        self._keys = keys
        self._batches = batches
        self._trainer = trainer
        self._rounds_dir = rounds_dir
        self._residuals = Residuals(rounds_dir, journal=journal, node=membership.node)
        self._codec_processes = codec_processes
        self._log = log

    def prepare(self, record: RoundRecord, history: History) -> None:
        """Train on the round's base model and put the encrypted update into the spool.

        A crash before the journal's entry costs the work and nothing else: nothing has left the node.
        """
        try:
            secret_key = self._keys.open(record.epoch, history)
            facts, change, examples = self._train(record, history)
            update, residual = self._encrypt(facts, change, examples=examples, secret_key=secret_key)
        except (ConfigurationError, WorkerDied, PeerError) as error:
            raise UpdateRefused(str(error)) from error
        # From here on the round has one root for this node: a restart commits to it, and to no other.
        self._journal.note_encrypted(record.number, update.root, examples=examples, residual=residual)

    def commit(self, record: RoundRecord) -> None:
        """Commit to the journalled root, once: by a signature where batching allows it, or on the ledger."""
        entry = self._journal.entry(record.number)
        try:
            root = load_update(self._spool(record.number), _require(entry.update_root)).root
        except PeerError as error:
            raise UpdateRefused(f"the encrypted update is damaged on this node's disk: {error}") from error
        self._committer.commit(record, root, examples=entry.examples)
        # A crash before this line: the restart finds the commitment on the ledger, of the journal's root, or
        # signs the same again.
        self._journal.advance(record.number, Stage.COMMITTED)

    def upload(self, record: RoundRecord) -> None:
        """Send the committed update, from where the aggregator has it."""
        number = record.number
        entry = self._journal.entry(number)
        root = _require(entry.update_root)
        if self._committer.is_left_out(record):
            # Or the chain was reorganised, or the endpoint lags: the same root again is not a second update.
            self._committer.send(record, root, examples=entry.examples)
        self._log.info("phase", round=number, phase="uploading")
        try:
            sent = self._relay.upload(
                load_update(self._spool(number), root),
                round_number=number,
                node=self._membership.node,
                on_progress=self._make_progress(number),
            )
        except PeerError as error:
            # Its own transaction is what shows on the ledger that it was there.
            with suppress(UpdateRefused):
                self._committer.show(record, root, examples=entry.examples)
            raise UpdateRefused(f"the update could not be uploaded: {error}") from error
        # A crash before this line: the restart asks, and learns that nothing is missing.
        self._journal.advance(number, Stage.UPLOADED)
        self._log.info("uploaded", round=number, bytes_sent=sent)

    def settle_sealed(self, record: RoundRecord) -> None:
        """Take note of a round that was sealed before the journal knew of a complete upload.

        Raises:
            UpdateRefused: it was sealed without this node's update.
        """
        number = record.number
        entry = self._journal.entry(number)
        node = self._membership.node
        roots = {each.node: each.update_root for each in self._batches.find_contributions(record)}
        if node in roots and entry.update_root == roots[node]:
            # The last chunk arrived, and a crash came before the journal's entry.
            if entry.stage is Stage.ENCRYPTED:
                self._journal.advance(number, Stage.COMMITTED)
            self._journal.advance(number, Stage.UPLOADED)
            return
        if node in roots:
            raise UpdateRefused("the sealed update of this node is one that its journal does not know")
        if node in record.excluded:
            raise UpdateRefused(f"this node's update was excluded: {_name_reason(record.excluded[node])}")
        raise UpdateRefused(f"the round was sealed before this node's update was there ({entry.stage})")

    def clean(self, record: RoundRecord, history: History) -> None:
        """Remove the round's spooled update, and what no later update starts from."""
        self._spool(record.number).clear()
        self._residuals.prune(history, until=record.number)

    def _train(self, record: RoundRecord, history: History) -> tuple[RoundFacts, NDArray[np.float32], int]:
        """Return what the update is to change in the model, of shape (d,), and how many examples say so."""
        number = record.number
        node = self._membership.node
        if node in record.commitments:
            raise UpdateRefused(
                f"the ledger holds a commitment of this node, {record.commitments[node].update_root.hex()}, "
                "that its journal does not know: another daemon or an earlier state folder made it"
            )
        self._committer.check_deadline(record)
        base = self._load_base(record)
        facts = self._membership.facts(record, history, layout=self._models.layout, base=base)
        self._log.info("phase", round=number, phase="training")
        nursery.prepare()  # what it imports, it imports while the model trains
        outcome = self._trainer.train(self._find_start(base, number, history), round_number=number)
        self._log.info(
            "trained", round=number, examples=outcome.examples, loss=outcome.loss, seconds=outcome.seconds
        )
        if outcome.flat.shape != base.flat.shape:
            raise UpdateRefused(
                f"update: expected shape {base.flat.shape}, training returned {outcome.flat.shape}"
            )
        # In the memory of the trained model, which nobody needs any more.
        change = outcome.flat
        subtract_finite(change, base.flat, what="update")
        return facts, change, min(outcome.examples, self._membership.policy.rounds.max_examples)

    def _encrypt(
        self, facts: RoundFacts, change: NDArray[np.float32], *, examples: int, secret_key: SecretKey
    ) -> tuple[EncryptedUpdate, Digest | None]:
        """Return the update in its spool, and the digest of what it leaves unsent, in its file.

        The workers encrypt while this process hashes and writes what they have done.
        """
        number, encoding = facts.round, facts.encoding
        has_feedback = self._membership.policy.codec.error_feedback
        self._log.info("phase", round=number, phase="encrypting")
        started = time.perf_counter()
        manifest = facts.update_manifest(self._membership.node, examples=examples)
        weight = encoding.scaling.compute_weight(examples)
        processes = self._codec_processes
        with CodecWorkers(encoding.parameters, processes=processes, secret_key=secret_key) as workers:

            def encrypt() -> Iterator[bytes]:
                pieces = workers.encode(encoding.pieces(change), weight=weight, wants_residual=has_feedback)
                for index, piece in enumerate(pieces):
                    if has_feedback:
                        encoding.store_residual(change, index, piece)
                    yield piece.chunk

            update = spool_update(self._spool(number), manifest, encrypt())
        residual = self._residuals.save(number, change) if has_feedback else None
        self._log.info(
            "encrypted",
            round=number,
            chunks=len(update.leaves),
            bytes=sum(update.sizes),
            seconds=time.perf_counter() - started,
        )
        return update, residual

    def _find_start(self, base: Model, number: int, history: History) -> NDArray[np.float32]:
        """Return the model that training starts from."""
        if not self._membership.policy.codec.error_feedback:
            return base.flat
        try:
            return self._residuals.apply(base.flat, history, before=number)
        except (MissingObject, DigestMismatch, UpdateRefused) as error:
            # It is worth some accuracy, and no round.
            message = f"round {number}: training goes without what earlier updates left unsent: {error}"
            self._log.error("error", message=message)
            return base.flat

    def _load_base(self, record: RoundRecord) -> Model:
        try:
            return self._models.load(record.base_model)
        except MissingObject as error:
            raise UpdateRefused(
                f"this node does not have the base model {record.base_model.hex()}: it could not follow an "
                f"earlier round. Another participant's copy, put at {self._models.path(record.base_model)}, "
                "is checked against that digest and used"
            ) from error

    def _make_progress(self, number: int) -> Callable[[int, int], None]:
        last = 0.0

        def log_progress(bytes_sent: int, bytes_total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= _PROGRESS_S:
                last = time.monotonic()
                self._log.info(
                    "upload_progress", round=number, bytes_sent=bytes_sent, bytes_total=bytes_total
                )

        return log_progress

    def _spool(self, number: int) -> Spool:
        return Spool(self._rounds_dir, number, "update")


def _name_reason(code: int) -> str:
    # The ledger takes any code.
    return ExclusionReason(code).name if code in set(ExclusionReason) else f"reason {code}"


def _require(root: Digest | None) -> Digest:
    if root is None:
        raise ConfigurationError("the journal names no root for a round whose update is encrypted")
    return root
