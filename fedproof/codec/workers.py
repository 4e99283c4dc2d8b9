"""A daemon's work with SEAL, in processes of its own.

They are for every core, since TenSEAL keeps Python's lock, and for safety: no other process hands a peer's
bytes to SEAL, and one that crashes over them names the peer and is replaced.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TypeVar

import numpy as np

from fedproof.codec.messages import DECODE, ENCODE, RUN, Kind
from fedproof.codec.parameters import CodecParameters
from fedproof.codec.quantise import Float32Vector, Int64Vector
from fedproof.codec.scaling import Runs
from fedproof.codec.secret_key import SecretKey
from fedproof.codec.worker_process import (
    Request,
    WorkerProcess,
    check_size,
    make_sum_request,
)
from fedproof.errors import SumLost, WorkerDied

# The chunks of a sum that are kept until their part of the sum is back, in case its process dies.
_BATCH_BYTES: Final = 16 << 20
_PRIVATE_SUM: Final = -1

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk's worth of an update, to be quantised and encrypted.

    Attributes:
        delta: its values, of shape (n,), as many as a chunk holds but for the last one.
        runs: their clips.
        seed: 32 bytes from the system's randomness, for the rounding.
    """

    delta: Float32Vector
    runs: Runs
    seed: bytes


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encrypted piece.

    Attributes:
        chunk: what travels.
        residual: what stays unsent of the piece, of shape (n,), if it was wanted.
    """

    chunk: bytes
    residual: Float32Vector | None


class CodecWorkers:
    """Encodes, adds and decodes in several processes. Use as a context manager; any thread may call.

    A process is started when it is first needed. If one dies over a request, the request is made once more in
    a new process.

    Args:
        parameters: the federation's.
        processes: how many; 0 for one for each core.
        secret_key: the epoch's; None where nothing is encoded or decoded.
    """

    def __init__(
        self, parameters: CodecParameters, *, processes: int = 0, secret_key: SecretKey | None = None
    ) -> None:
        self.parameters = parameters
        self.processes = processes or count_cores()
        self._workers = [WorkerProcess(parameters, secret_key) for _ in range(self.processes)]
        # How many updates are in the running sum of an index, and how long the sum is.
        self._held: defaultdict[int, int] = defaultdict(int)
        self._total_bytes: dict[int, int] = {}
        self._locks = [threading.Lock() for _ in range(self.processes)]
        # One thread for each process, so whichever is free takes the next piece of work.
        self._threads = ThreadPoolExecutor(self.processes, thread_name_prefix="codec")
        self._own = threading.local()
        self._numbers = itertools.count()

    def __enter__(self) -> CodecWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes. What other threads still wait for raises `WorkerDied`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        self._threads.shutdown()

    def encode(
        self, pieces: Iterable[Piece], *, weight: float, wants_residual: bool = False
    ) -> Iterator[Encoded]:
        """Yield the encrypted pieces, in order; at most twice as many as processes are under way.

        Args:
            pieces: of one update; each is taken when there is room for it.
            weight: the update's, from `Scaling.compute_weight`.
            wants_residual: whether to compute what stays unsent.

        Raises:
            UpdateRefused: a value is NaN or infinite.
            ConfigurationError: there is no secret key.
            WorkerDied: a process died twice over a piece.
        """

        def encode_one(numbered: tuple[int, Piece]) -> Encoded:
            index, piece = numbered
            head = ENCODE.pack(weight, wants_residual, piece.delta.size, len(piece.runs), piece.seed)
            runs = b"".join(RUN.pack(*run) for run in piece.runs)
            delta = np.ascontiguousarray(piece.delta, dtype=np.float32)
            chunk_bytes = self.parameters.frames_in_chunk(0, delta.size) * self.parameters.update_frame_bytes
            request = Request(
                Kind.ENCODE,
                (head, runs, delta.data),
                f"encrypting chunk {index}",
                chunk_bytes + (delta.nbytes if wants_residual else 0),
            )
            reply = self._ask_own([request])
            residual = np.frombuffer(reply, dtype=np.float32, offset=chunk_bytes) if wants_residual else None
            return Encoded(bytes(reply[:chunk_bytes]), residual)

        return self._run(encode_one, enumerate(pieces))

    def decode(
        self, chunks: Iterable[bytes], *, contributors: int, length: int, first: int = 0
    ) -> Iterator[Int64Vector]:
        """Yield the sums that an aggregate's chunks hold, in order.

        Only for chunks that were checked against the sealed contributors' committed updates; see
        `Codec.decrypt_chunk`.

        Args:
            chunks: consecutive chunks.
            contributors: how many updates are in the sum.
            length: how many values an update has.
            first: the index of the first of the chunks.

        Raises:
            MalformedMessage: a chunk is malformed, or holds no sum of that many updates.
            ConfigurationError: there is no secret key.
            WorkerDied: a process died twice over a chunk.
        """

        def decode_one(numbered: tuple[int, bytes]) -> Int64Vector:
            index, chunk = numbered
            check_size(chunk, f"aggregate chunk {index}")
            head = DECODE.pack(contributors, index, length)
            values_bytes = 8 * self.parameters.values_in_chunk(index, length)
            request = Request(Kind.DECODE, (head, chunk), f"decrypting chunk {index}", values_bytes)
            return np.frombuffer(self._ask_own([request]), dtype=np.int64)

        return self._run(decode_one, enumerate(chunks, first))

    def sum_chunks(self, chunks: Iterable[tuple[str, bytes]]) -> bytes:
        """Return the encrypted sum of several updates' chunks of one index. Call from several threads to use
        several cores.

        Args:
            chunks: whose chunk it is, for the message of an error, and the chunk. Taken some at a time.

        Raises:
            MalformedMessage: a chunk is malformed or not as long as the first one, or there are none, or more
                than max_contributors.
            WorkerDied: a process died twice over a chunk, which is named.
        """
        total, count, total_bytes = b"", 0, 0
        for batch in _split(chunks):
            requests = [make_sum_request(Kind.DROP, _PRIVATE_SUM)]
            if count:
                requests.append(make_sum_request(Kind.RESUME, _PRIVATE_SUM, count, chunk=total))
            for whose, chunk in batch:
                requests.append(make_sum_request(Kind.ADD, _PRIVATE_SUM, count, whose=whose, chunk=chunk))
                count += 1
                total_bytes = self._compute_total_bytes(chunk)
            requests.append(make_sum_request(Kind.TAKE, _PRIVATE_SUM, count, total_bytes=total_bytes))
            total = bytes(_wait(self._submit(self._ask_own, requests)))
        return total

    def add(self, index: int, chunk: bytes, *, whose: str) -> None:
        """Add an update's chunk to the running sum of its index.

        Raises:
            MalformedMessage: it is malformed or not as long as the first one, or one more than
                max_contributors. The sum is then what it was.
            SumLost: the sum's process died since; the sum is empty now, and nothing was added.
            WorkerDied: a process died twice over the chunk.
        """
        self._change(Kind.ADD, index, chunk, whose)

    def subtract(self, index: int, chunk: bytes, *, whose: str) -> None:
        """Take an update's chunk, which was added, out of the running sum of its index.

        Raises:
            MalformedMessage: nothing was added, or not a chunk of that length.
            SumLost: the sum's process died since; the sum is empty now.
            WorkerDied: a process died twice over the chunk.
        """
        self._change(Kind.SUBTRACT, index, chunk, whose)

    def take(self, index: int) -> bytes:
        """Return the running sum of an index, an aggregate's chunk, and forget it.

        Raises:
            MalformedMessage: nothing was added.
            SumLost: the sum's process died since.
            WorkerDied: a process died twice over the sum.
        """
        return bytes(self._change(Kind.TAKE, index, b"", "the sum"))

    def drop(self, index: int) -> None:
        """Forget the running sum of an index."""
        self._change(Kind.DROP, index, b"", "the sum")

    def _change(self, kind: Kind, index: int, chunk: bytes, whose: str) -> memoryview:
        """Ask the process that holds the running sum of an index, and keep count of what is in it."""
        place = index % self.processes
        with self._locks[place]:
            held = self._held[index]
            request = make_sum_request(
                kind, index, held, whose=f"{whose}, chunk {index}", chunk=chunk,
                total_bytes=self._total_bytes.get(index, 0),
            )  # fmt: skip
            try:
                reply = self._workers[place].ask([request])
            except SumLost:
                del self._held[index]
                raise
            if kind in {Kind.TAKE, Kind.DROP}:
                del self._held[index]
                self._total_bytes.pop(index, None)
            else:
                self._held[index] += 1 if kind is Kind.ADD else -1
                self._total_bytes[index] = self._compute_total_bytes(chunk)
            return reply

    def _compute_total_bytes(self, chunk: bytes) -> int:
        """Return how long a sum of chunks like this one is."""
        parameters = self.parameters
        return len(chunk) // parameters.update_frame_bytes * parameters.aggregate_frame_bytes

    def _run(self, handle: Callable[[Task], Outcome], tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield what becomes of the tasks, in order, from the threads of the pool."""
        under_way: deque[Future[Outcome]] = deque()
        try:
            for task in tasks:
                under_way.append(self._submit(handle, task))
                if len(under_way) == 2 * self.processes:
                    yield _wait(under_way.popleft())
            while under_way:
                yield _wait(under_way.popleft())
        finally:
            for future in under_way:
                future.cancel()

    def _submit(self, handle: Callable[[Task], Outcome], task: Task) -> Future[Outcome]:
        try:
            return self._threads.submit(handle, task)
        except RuntimeError as error:
            raise WorkerDied("codec workers: were closed") from error

    def _ask_own(self, requests: Sequence[Request]) -> memoryview:
        """Ask this thread's own process. Only in a thread of the pool."""
        if not hasattr(self._own, "worker"):
            self._own.worker = self._workers[next(self._numbers) % self.processes]
        worker: WorkerProcess = self._own.worker
        return worker.ask(requests)


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _wait(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except CancelledError as error:
        raise WorkerDied("codec workers: were closed") from error


def _split(chunks: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Yield the chunks in batches; a single empty one when there are none."""
    batch: list[tuple[str, bytes]] = []
    size = 0
    for each in chunks:
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += len(each[1])
    yield batch
