"""Chunk work on more than one core. TenSEAL keeps Python's lock, so threads would not help; processes do."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from fedproof.codec import Codec
from fedproof.codec.parameters import CodecParameters
from fedproof.errors import WorkerDied
from fedproof_auditor.chunks import ChunkResult, ChunkTask, examine_chunk
from fedproof_auditor.rounds import ChunkStore, Examine
from fedproof_auditor.stored import StoredEvidence

# A chunk of 16 frames takes 4 ms, and a process up to 2 s until it begins: below this, one alone is as good.
PAYS_FROM_LEAVES = 4000


def examine_serially(store: ChunkStore) -> Examine:
    """Return what does chunk tasks one after the other, in this process."""

    def examine(tasks: Iterable[ChunkTask]) -> Iterator[ChunkResult]:
        for task in tasks:
            yield examine_chunk(task, make_codec(task.parameters), store.read_object)

    return examine


@lru_cache(maxsize=8)
def make_codec(parameters: CodecParameters) -> Codec:
    """Return the codec of some parameters; a federation has as many as it had policies."""
    return Codec(parameters)


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
