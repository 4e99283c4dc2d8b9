"""Chunk work on every core: threads read and hash, and the codec's workers add."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from fedproof.codec.workers import CodecWorkers
from fedproof_auditor.chunks import ChunkResult, ChunkTask, examine_chunk
from fedproof_auditor.rounds import ChunkStore, Examine


def examine_in_processes(store: ChunkStore, *, jobs: int) -> Examine:
    """Return what does chunk tasks. Its threads and processes end with the generator that it returns.

    Args:
        store: what is read.
        jobs: how many processes add up ciphertexts; 0 for one a core.
    """

    def examine(tasks: Iterable[ChunkTask]) -> Generator[ChunkResult, None, None]:
        for parameters, alike in groupby(tasks, key=lambda task: task.parameters):
            with (
                CodecWorkers(parameters, processes=jobs) as workers,
                # Twice as many, so that no worker waits while chunks are read.
                ThreadPoolExecutor(2 * workers.processes) as threads,
            ):
                yield from threads.map(lambda task: examine_chunk(task, workers, store.read_object), alike)

    return examine
