"""Chunk work on every core: threads read and hash, and the codec's workers add."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby

from fedproof.codec.workers import CodecWorkers
from fedproof_auditor.chunks import ChunkResult, ChunkTask, examine_chunk
from fedproof_auditor.rounds import ChunkStore, Examine


def examine_in_parallel(store: ChunkStore, *, jobs: int) -> Examine:
    """Return what does chunk tasks. Its threads and processes end with the generator that it returns.

    It takes a task when there is room for it: at most four times as many as processes are under way.

    Args:
        store: what is read.
        jobs: how many processes add up ciphertexts; 0 for one a core.
    """

    def examine(tasks: Iterable[ChunkTask]) -> Generator[ChunkResult, None, None]:
        for parameters, alike in groupby(tasks, key=lambda task: task.parameters):
            with CodecWorkers(parameters, processes=jobs) as workers:
                yield from examine_alike(workers, alike)

    def examine_alike(
        workers: CodecWorkers, tasks: Iterable[ChunkTask]
    ) -> Generator[ChunkResult, None, None]:
        # Twice as many threads as processes, so that none waits while chunks are read.
        most = 2 * workers.processes
        under_way: deque[Future[ChunkResult]] = deque()
        with ThreadPoolExecutor(most) as threads:
            try:
                for task in tasks:
                    under_way.append(threads.submit(examine_chunk, task, workers, store.read_object))
                    if len(under_way) == 2 * most:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                for future in under_way:
                    future.cancel()

    return examine
