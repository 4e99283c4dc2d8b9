"""The encrypted sum of a round, which grows while its updates come in.

Each chunk is added in a codec worker as soon as it has come. When the round is sealed, what is left is to
take excluded updates out, to add from the store what a restart or a dead worker has lost, and to write the
sum down. The bytes are those of a plain sum over the contributors, in whatever order chunks came.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from fedproof.codec.running_sum import RunningSum
from fedproof.codec.workers import CodecWorkers
from fedproof.digests import Digest, checksum_address
from fedproof.errors import DeadlyRequest, MalformedMessage, PeerError, SumLost
from fedproof.ledger.rounds import RoundRecord
from fedproof.manifest import Contribution
from fedproof.store import ObjectStore
from fedproof_aggregator.refusal import out_of_turn
from fedproof_aggregator.terms import Terms, describe_aggregate
from fedproof_aggregator.view import LedgerView

# Workers die of a lack of memory, or are killed; a sum that is lost more often waits for better times.
_ATTEMPTS = 3


@dataclass(slots=True)
class _Growing:
    """The sum of one round.

    Attributes:
        round: whose.
        workers: hold it. They are the round's own: SEAL gives no memory back before its process ends.
        running: what is in it.
        adding: how many threads are adding to it now.
    """

    round: int
    workers: CodecWorkers
    running: RunningSum
    adding: int = 0


class Summation:
    """Adds the chunks of the newest round, and of no round before it. Any thread may call."""

    def __init__(self, *, view: LedgerView, store: ObjectStore, processes: int) -> None:
        """Begin without a sum; no process is started before the first chunk.

        Args:
            view: the ledger.
            store: where chunks are that have to be added again, and where the sum goes.
            processes: how many codec workers; 0 for one for each core.
        """
        self._view = view
        self._store = store
        self._processes = processes
        self._changed = threading.Condition()
        self._growing: _Growing | None = None
        self._newest_over = 0

    def add(
        self, round_number: int, terms: Terms, *, index: int, digest: Digest, chunk: bytes, whose: str
    ) -> None:
        """Add a chunk to the round's sum, if it is not in it.

        Args:
            round_number: of an open round.
            terms: the round's.
            index: the chunk's.
            digest: its leaf digest.
            chunk: its bytes.
            whose: what an error's message names.

        Raises:
            Refused: the round is over.
            MalformedMessage: the chunk is malformed, or kills whatever worker reads it.
            WorkerDied: workers die without it as well, or do not start.
        """
        with self._entered(round_number, terms) as growing:
            try:
                growing.running.add(index, digest, chunk, whose=whose)
            except DeadlyRequest as error:
                # The sum has died with the workers. If another one starts and says so, it was the chunk.
                growing.running.drop(index)
                raise MalformedMessage(
                    f"{whose}, chunk {index}: expected a chunk that a codec worker can read, two died of it"
                ) from error

    def finish(self, record: RoundRecord, contributions: tuple[Contribution, ...], terms: Terms) -> Digest:
        """Store the sum of the contributors' updates and return its root.

        Done twice, it stores the same bytes, so a crash anywhere in here costs only the time.

        Args:
            record: the round, sealed. From now on nothing is added to its sum.
            contributions: what it adds up, ascending by node.
            terms: the round's.

        Raises:
            PeerError: the store has lost or altered an update.
            WorkerDied: workers die again and again.
        """
        manifest = describe_aggregate(self._view, record, contributions, terms)
        leaves = {
            f"round {record.number}, node {checksum_address(each.node)}": self._store.get_header(
                each.update_root
            ).chunk_digests
            for each in manifest.contributors
        }
        growing = self._stop_adding(record.number, terms)

        def write_down(index: int) -> Digest:
            summands = {Digest(digests[index]): whose for whose, digests in leaves.items()}
            return self._store.put(self._take(growing.running, index, summands))

        # Two for each process: one waits for it, one for the disk.
        pool = ThreadPoolExecutor(2 * growing.workers.processes, thread_name_prefix="sum")
        try:
            digests = list(pool.map(write_down, range(terms.chunks)))
        finally:
            pool.shutdown(cancel_futures=True)
        root = self._store.put_header(manifest.encode(), digests)
        self.close(record.number)
        return root

    def close(self, round_number: int) -> None:
        """Give up the sums of this round and of those before it, and end their workers."""
        with self._changed:
            self._newest_over = max(self._newest_over, round_number)
            if self._growing is not None and self._growing.round <= round_number:
                self._end()

    def stop(self) -> None:
        """End the workers."""
        with self._changed:
            self._end()

    def _take(self, running: RunningSum, index: int, summands: Mapping[Digest, str]) -> bytes:
        """Return the sum of exactly these chunks.

        Args:
            running: what to take it from.
            index: the chunks'.
            summands: leaf digests, and whose each is.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._reconcile(running, index, summands)
                return running.take(index)
            except SumLost:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError

    def _reconcile(self, running: RunningSum, index: int, summands: Mapping[Digest, str]) -> None:
        # A worker that dies meanwhile leaves fewer summands than were put in.
        while (held := running.summands(index)) != summands.keys():
            for digest in held - summands.keys():
                try:
                    running.remove(index, digest, self._store.get(Digest(digest)), whose="an excluded update")
                except PeerError:
                    # Never stored, as the disk was full, or lost since: the sum is begun again.
                    running.drop(index)
                    break
            for digest in summands.keys() - running.summands(index):
                running.add(index, digest, self._store.get(digest), whose=summands[digest])

    @contextmanager
    def _entered(self, round_number: int, terms: Terms) -> Iterator[_Growing]:
        """Keep the round's sum from being closed while something is added to it."""
        with self._changed:
            self._newest_over = max(self._newest_over, round_number - 1)
            while self._growing is not None and self._growing.round < round_number:
                self._end()
            # Not before that, which waits: meanwhile this round may end, and a later one's sum begin.
            if round_number <= self._newest_over:
                raise out_of_turn(f"round {round_number}: expected an open round, its sum is closed")
            growing = self._begin(round_number, terms)
            growing.adding += 1
        try:
            yield growing
        finally:
            with self._changed:
                growing.adding -= 1
                self._changed.notify_all()

    def _stop_adding(self, round_number: int, terms: Terms) -> _Growing:
        with self._changed:
            self._newest_over = max(self._newest_over, round_number)
            # A later one's too, if the chain has dropped that round; it is made again from the store.
            while self._growing is not None and self._growing.round != round_number:
                self._end()
            growing = self._begin(round_number, terms)
            self._changed.wait_for(lambda: not growing.adding)
            return growing

    def _begin(self, round_number: int, terms: Terms) -> _Growing:
        """Return the sum of the round, after those of other rounds were ended."""
        if self._growing is None:
            workers = CodecWorkers(terms.parameters, processes=self._processes)
            self._growing = _Growing(round_number, workers, RunningSum(workers))
        return self._growing

    def _end(self) -> None:
        """End the sum. While it is waited for, another thread may begin one."""
        if self._growing is not None:
            ending, self._growing = self._growing, None
            self._changed.wait_for(lambda: not ending.adding)
            ending.workers.close()
