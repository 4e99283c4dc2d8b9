"""Deleting updates that have been kept for as long as the policies of their rounds say.

Whose a chunk is stands in the headers of the store: of each one, the manifest names its round. So excluded
updates, those that nobody sealed, and those whose commitment the chain has dropped go with the others.

If a node is malicious, then at most what it names in a header of its own is kept for longer.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Final

from structlog.typing import FilteringBoundLogger

from fedproof.digests import Digest
from fedproof.errors import FedproofError, MalformedMessage, PeerError
from fedproof.ledger.client import Ledger
from fedproof.ledger.finality import Finality
from fedproof.manifest import UpdateManifest
from fedproof.policy import EvidencePolicy
from fedproof.store import ObjectStore
from fedproof_aggregator.terms import TermsShelf
from fedproof_aggregator.view import LedgerView

# Policies count in days.
_LOOK_S: Final = 3600.0


class Retention:
    """Deletes the chunks of updates; headers, sums, keys and statements stay.

    It reads each header that was ever stored, so it has a thread of its own: no round waits for it. Of the
    ledger it only asks for blocks, as the server's threads do.

    Nothing is remembered on the disk: after a crash in the middle, or where somebody has put deleted chunks
    back from a copy, the next process finds what is left.

    Attributes:
        expired: the rounds whose updates are kept no longer, and for how many days they had to be; for all
            threads.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        view: LedgerView,
        store: ObjectStore,
        shelf: TermsShelf,
        finality: Finality,
        logger: FilteringBoundLogger,
        pause_s: float = _LOOK_S,
    ) -> None:
        """Begin with nothing that is known to be deleted.

        Args:
            ledger: tells the time of blocks.
            view: knows the rounds.
            store: what is deleted from.
            shelf: has the rounds' policies.
            finality: which blocks count.
            logger: hears what was deleted.
            pause_s: between two looks.
        """
        self.expired: Mapping[int, int] = {}
        self._ledger = ledger
        self._view = view
        self._store = store
        self._shelf = shelf
        self._finality = finality
        self._logger = logger
        self._pause_s = pause_s
        self._done: frozenset[int] = frozenset()
        self._stopping = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Delete what has expired, now and once an hour; on leaving, stop after the file or call at hand."""
        thread = threading.Thread(target=self._run, name="retention")
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join()

    def _run(self) -> None:
        while True:
            try:
                self.delete_expired()
            except (FedproofError, OSError) as error:
                self._log_error(f"retention: {error}")
            if self._stopping.wait(self._pause_s):
                return

    def delete_expired(self) -> None:
        """Delete the updates of each round that ended long enough ago, by the time of the newest block.

        1. Of what the headers of these updates name, what is in the store.
        2. But nothing that another header names: a sum's, or that of a younger round's update. These are
           listed after 1.

        None is overlooked that uploads and sums bring meanwhile. A header is stored before its update's
        chunks, so what 1 finds came under a header that 2 lists; and what came in one round is taken in no
        other, as its seeds have their owner. A sum's header is stored after its chunks, but these are made of
        what nodes draw at random after the older rounds, whose headers cannot name them.

        Raises:
            LedgerError: the endpoint does not answer.
            OSError: a header cannot be read, or a chunk cannot be deleted.
        """
        now = self._ledger.final_block(self._finality).timestamp
        self.expired = self._find_expired(now)
        fresh = self.expired.keys() - self._done
        if not fresh:
            return
        doomed: dict[Digest, int] = {}
        for number, digests in self._read_headers():  # 1
            if number in fresh:
                doomed |= dict.fromkeys(filter(self._store.has, digests), number)
        for number, digests in self._read_headers():  # 2
            if number not in self.expired:
                for digest in digests:
                    doomed.pop(digest, None)
        freed = 0
        for digest in doomed:
            # Where it stops, 2 may be half done. A crash in here leaves chunks that the next process deletes.
            if self._stopping.is_set():
                return
            freed += self._store.delete(digest)
        self._done = frozenset(self.expired)
        if doomed:
            rounds = len(set(doomed.values()))
            self._logger.info("updates_deleted", rounds=rounds, chunks=len(doomed), bytes=freed)

    def _log_error(self, message: str) -> None:
        self._logger.error("error", message=message)

    def _find_expired(self, now: int) -> dict[int, int]:
        """Return the expired rounds, and for how many days each one's own policy has kept its updates."""
        found: dict[int, int] = {}
        for _, group in groupby(self._view.ended_rounds(), lambda record: record.policy_version):
            first = next(group)
            try:
                evidence = self._shelf.find(self._view.round_policy(first).digest).policy.evidence
            except PeerError:
                continue  # without its document, nobody knows for how long
            if evidence.retention_days:
                numbers = [first.number, *(record.number for record in group)]
                count = self._count_expired(numbers, evidence, now)
                found |= dict.fromkeys(numbers[:count], evidence.retention_days)
        return found

    def _count_expired(self, numbers: Sequence[int], evidence: EvidencePolicy, now: int) -> int:
        """Return how many rounds of one policy have expired: the first ones, as they ended in turn."""

        def is_kept(number: int) -> bool:
            record = self._view.find_round(number)
            if record is None or record.ended_block is None:
                return True
            ended_at = self._ledger.block(record.ended_block).timestamp
            return not evidence.has_expired(ended_at=ended_at, now=now)

        return bisect_left(numbers, True, key=is_kept)  # so that few blocks are asked for

    def _read_headers(self) -> Iterator[tuple[int, list[Digest]]]:
        """Yield, for each stored header, the round of its update, 0 for a sum's, and its chunks' digests.

        Where it stops, some are missing.
        """
        for root in self._store.list_roots():
            if self._stopping.is_set():
                return
            try:
                header = self._store.get_header(root)
            except PeerError:
                continue  # of what a rotten one names, nothing can be found any more
            digests = [Digest(raw) for raw in header.chunk_digests]
            yield self._find_round(header.manifest), digests

    def _find_round(self, raw_manifest: bytes) -> int:
        try:
            manifest = UpdateManifest.parse(raw_manifest)
        except MalformedMessage:
            return 0
        # A predecessor's updates may lie in the same store; its rounds are not ours.
        ours = (self._view.chain_id, self._view.contract)
        return manifest.round if (manifest.chain_id, manifest.contract) == ours else 0
