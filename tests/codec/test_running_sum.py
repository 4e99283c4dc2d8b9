"""Tests of a round's sum while its chunks come in."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fedproof.codec import Codec
from fedproof.codec.cipher import UpdateEncryptor
from fedproof.codec.running_sum import RunningSum
from fedproof.codec.workers import CodecWorkers
from fedproof.errors import MalformedMessage, SumLost

NODES = [bytes([number]) * 20 for number in range(4)]


@pytest.fixture(scope="module")
def chunks(codec: Codec, encryptor: UpdateEncryptor) -> list[bytes]:
    return [codec.encrypt_chunk(np.full(10, number), encryptor) for number in range(4)]


@pytest.fixture
def running(workers: CodecWorkers) -> RunningSum:
    for index in range(10):
        workers.drop(index)
    return RunningSum(workers)


def add(running: RunningSum, index: int, chunks: list[bytes], *numbers: int) -> None:
    for number in numbers:
        running.add(index, NODES[number], chunks[number], whose=f"node {number}")


def kill_worker(workers: CodecWorkers, index: int) -> None:
    pid = workers._workers[index % workers.processes].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_a_chunk_counts_once(running: RunningSum, codec: Codec, chunks: list[bytes]) -> None:
    """A chunk that is in the sum is not added again, and one that is not in it is not taken out."""
    add(running, 3, chunks, 0, 1, 0, 1)
    running.remove(3, NODES[2], chunks[2], whose="node 2")
    assert running.summands(3) == {NODES[0], NODES[1]}
    assert running.take(3) == codec.sum_chunks(chunks[:2])
    assert running.summands(3) == frozenset()


def test_a_chunk_is_taken_out(running: RunningSum, codec: Codec, chunks: list[bytes]) -> None:
    """What is excluded leaves no trace; a sum from which all was taken is empty."""
    add(running, 0, chunks, 0, 1, 2)
    running.remove(0, NODES[1], chunks[1], whose="node 1")
    assert running.summands(0) == {NODES[0], NODES[2]}
    assert running.take(0) == codec.sum_chunks([chunks[2], chunks[0]])
    add(running, 0, chunks, 1)
    running.remove(0, NODES[1], chunks[1], whose="node 1")
    with pytest.raises(MalformedMessage, match="got 0"):
        running.take(0)


def test_a_malformed_chunk_is_not_in_the_sum(running: RunningSum, codec: Codec, chunks: list[bytes]) -> None:
    """It is refused by its sender's name, and its sender may send another."""
    add(running, 0, chunks, 0)
    with pytest.raises(MalformedMessage, match=r"^node 1, chunk 0: expected"):
        running.add(0, NODES[1], b"\xff" * len(chunks[1]), whose="node 1")
    assert running.summands(0) == {NODES[0]}
    add(running, 0, chunks, 1)
    assert running.take(0) == codec.sum_chunks(chunks[:2])


def test_a_sum_dies_with_its_worker_and_no_other(
    running: RunningSum, workers: CodecWorkers, codec: Codec, chunks: list[bytes]
) -> None:
    """The next use of a sum, whatever it is, shows that it is gone; the sums of other workers live on."""
    for index in range(8):
        add(running, index, chunks, 0, 1)
    kill_worker(workers, 0)
    add(running, 0, chunks, 2)
    assert running.summands(0) == {NODES[2]}
    running.remove(2, NODES[0], chunks[0], whose="node 0")
    assert running.summands(2) == frozenset()
    with pytest.raises(SumLost, match="expected a sum of 2, found one of 0"):
        running.take(4)
    assert running.summands(4) == frozenset()
    add(running, 6, chunks, 2)
    for index in (0, 2, 4, 6):
        add(running, index, chunks, 0, 1, 2)
    for index in range(8):
        assert running.take(index) == codec.sum_chunks(chunks[: 3 if index % 2 == 0 else 2]), index


def test_a_sum_is_forgotten(running: RunningSum, codec: Codec, chunks: list[bytes]) -> None:
    """A sum may be dropped that is not there, and is begun again after it."""
    for _ in range(2):
        running.drop(2)
        add(running, 2, chunks, 0, 1)
        for _ in range(2):
            running.drop(2)
            assert running.summands(2) == frozenset()
    add(running, 2, chunks, 3)
    assert running.take(2) == codec.sum_chunks(chunks[3:])


def test_a_sum_of_a_dead_worker_is_forgotten(
    running: RunningSum, workers: CodecWorkers, codec: Codec, chunks: list[bytes]
) -> None:
    """There is nothing to take, and that is no error."""
    add(running, 2, chunks, 0, 1)
    kill_worker(workers, 2)
    running.drop(2)
    add(running, 2, chunks, 0)
    assert running.take(2) == codec.sum_chunks(chunks[:1])


def test_threads_that_bring_more_than_a_sum_holds(
    running: RunningSum, codec: Codec, chunks: list[bytes]
) -> None:
    """One of them begins the sum again, and none is refused."""
    full = codec.parameters.max_contributors
    names = [number.to_bytes(20, "big") for number in range(full + 6)]
    for name in names[:full]:
        running.add(1, name, chunks[0], whose="a dropped node")
    assert len(running.summands(1)) == full
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: running.add(1, name, chunks[1], whose="a node"), names[full:]))
    assert running.summands(1) == set(names[full:])
    assert running.take(1) == codec.sum_chunks(chunks[1:2] * 6)


def test_threads_that_bring_the_same_chunk(running: RunningSum, codec: Codec, chunks: list[bytes]) -> None:
    """However many streams bring the same chunks at once, each is in the sum once."""
    threads = [threading.Thread(target=add, args=(running, 1, chunks, *range(4))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert running.take(1) == codec.sum_chunks(chunks)
