"""The encrypted sum of a round while its updates come in: chunk by chunk, whoever's comes first."""

from __future__ import annotations

import threading
from collections import defaultdict

from fedproof.codec.workers import CodecWorkers
from fedproof.errors import SumLost


class RunningSum:
    """The sums of one round's chunks, each in one of the workers, and which chunks are in them.

    A sum dies with its worker, and its summands are then forgotten, here as there: whoever takes a sum first
    makes sure of its summands. Any thread may call.
    """

    def __init__(self, workers: CodecWorkers) -> None:
        self._workers = workers
        self._summands: defaultdict[int, set[bytes]] = defaultdict(set)
        # One for each worker, since that does one thing at a time anyway.
        self._locks = [threading.Lock() for _ in range(workers.processes)]

    def add(self, index: int, summand: bytes, chunk: bytes, *, whose: str) -> None:
        """Add a chunk, if it is not in the sum. A sum of max_contributors is forgotten first.

        Args:
            index: the chunk's.
            summand: what tells it from the others of its index.
            chunk: its bytes, from a peer.
            whose: who sent it, for the message of an error.

        Raises:
            MalformedMessage: it is malformed. The sum is what it was.
            DeadlyRequest: two workers died over the chunk.
            WorkerDied: no worker starts.
        """
        with self._lock(index):
            if summand in self._summands[index]:
                return
            if len(self._summands[index]) == self._workers.parameters.max_contributors:
                # No round has more, so some of them count no longer. The sum is made again without those.
                self._forget(index)
            try:
                self._workers.add(index, chunk, whose=whose)
            except SumLost:
                self._summands[index].clear()
                self._workers.add(index, chunk, whose=whose)
            self._summands[index].add(summand)

    def remove(self, index: int, summand: bytes, chunk: bytes, *, whose: str) -> None:
        """Take a chunk out of the sum, if it is in it.

        Args:
            index: as in `add`.
            summand: as in `add`.
            chunk: as in `add`.
            whose: as in `add`.

        Raises:
            MalformedMessage: it is malformed.
            WorkerDied: a worker died twice over the chunk.
        """
        with self._lock(index):
            if summand not in self._summands[index]:
                return
            try:
                self._workers.subtract(index, chunk, whose=whose)
                self._summands[index].remove(summand)
            except SumLost:
                self._summands[index].clear()

    def summands(self, index: int) -> frozenset[bytes]:
        """Return which chunks are in the sum, as far as is known: its worker may have died since."""
        with self._lock(index):
            return frozenset(self._summands[index])

    def drop(self, index: int) -> None:
        """Forget the sum, if there is one.

        Raises:
            WorkerDied: no worker starts. The sum is forgotten all the same.
        """
        with self._lock(index):
            self._forget(index)

    def take(self, index: int) -> bytes:
        """Return the sum, an aggregate's chunk, and forget it.

        Raises:
            MalformedMessage: nothing is in it.
            SumLost: its worker has died; nothing is in it now.
        """
        with self._lock(index):
            self._summands.pop(index, None)
            return self._workers.take(index)

    def _forget(self, index: int) -> None:
        self._summands.pop(index, None)
        self._workers.drop(index)

    def _lock(self, index: int) -> threading.Lock:
        return self._locks[index % self._workers.processes]
