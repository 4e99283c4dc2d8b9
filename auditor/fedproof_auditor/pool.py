"""Chunk work on more than one core. TenSEAL keeps Python's lock, so threads would not help; processes do."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from fedproof.errors import WorkerDied
from fedproof_auditor.chunks import ChunkResult, ChunkTask
from fedproof_auditor.evidence import StoredEvidence
from fedproof_auditor.rounds import Examine
from fedproof_auditor.verify import examine_serially

# Below this many ciphertexts, starting a second process takes longer than it saves.
PAYS_FROM_LEAVES = 200


@contextmanager
def examine_in_processes(store: Path, *, jobs: int | None) -> Iterator[Examine]:
    """Yield what does chunk tasks: here when they are few, else in processes that end with the context.

    Args:
        store: the folder that each process reads.
        jobs: how many processes; by default as many as there are cores, when that pays.
    """
    serial = examine_serially(StoredEvidence(store))
    pools: list[ProcessPoolExecutor] = []

    def examine(tasks: Iterable[ChunkTask]) -> Iterator[ChunkResult]:
        listed = list(tasks)
        pays = sum(len(task.leaves) for task in listed) >= PAYS_FROM_LEAVES
        wanted = jobs or (_count_cores() if pays else 1)
        if min(wanted, len(listed)) < 2:
            yield from serial(listed)
            return
        # Not forked: the chain's client has threads.
        pool = ProcessPoolExecutor(
            min(wanted, len(listed)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=(store,),
        )
        pools.append(pool)
        try:
            yield from pool.map(_do, listed)
        except BrokenProcessPool as error:
            raise WorkerDied(f"a process that adds up ciphertexts died (out of memory?): {error}") from error

    try:
        yield examine
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


_examine_here: Examine


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(store: Path) -> None:
    global _examine_here  # noqa: PLW0603 - a pool's process has no other place for what it keeps
    _examine_here = examine_serially(StoredEvidence(store))


def _do(task: ChunkTask) -> ChunkResult:
    (result,) = _examine_here([task])
    return result
