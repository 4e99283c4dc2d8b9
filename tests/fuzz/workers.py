"""Fuzz targets: what a codec worker says to its daemon, once a peer's bytes have taken the worker over."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from unittest.mock import patch

import numpy as np

from fedproof.codec import SecretKey, worker_process
from fedproof.codec.messages import Kind
from fedproof.codec.workers import CodecWorkers, Piece
from fedproof.errors import ConfigurationError, MalformedMessage, UpdateRefused, WorkerDied
from tests.fuzz.chunks import PARAMETERS
from tests.fuzz.registry import refusing, target

VALUES: Final = 5
CHUNK: Final = bytes(PARAMETERS.update_frame_bytes)
SUM_BYTES: Final = PARAMETERS.aggregate_frame_bytes
STARTED: Final = bytes([Kind.DONE, 0, 0, 0, 0])


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A worker that has said all it has to say, whatever it is asked.

    Attributes:
        connection: the daemon's end.
        theirs: its own.
    """

    connection: socket.socket
    theirs: socket.socket
    pid: int = 0

    @classmethod
    def saying(cls, replies: bytes) -> TakenOver:
        """Return a worker that says these bytes."""
        ours, theirs = socket.socketpair()
        theirs.sendall(replies)
        theirs.shutdown(socket.SHUT_WR)
        return cls(ours, theirs)

    def has_ended(self) -> bool:
        """As of one that has not been asked anything yet."""
        return False

    def kill(self) -> None:
        """There is no process."""

    def close(self) -> None:
        """Give the sockets back."""
        self.connection.close()
        self.theirs.close()


@contextmanager
def taken_over(replies: bytes) -> Iterator[CodecWorkers]:
    """Give workers that start, and then say these bytes, one after the other, every time."""
    start = lambda: TakenOver.saying(STARTED + replies)  # noqa: E731
    with (
        patch.object(worker_process, "start_worker", start),
        CodecWorkers(PARAMETERS, processes=1, secret_key=SecretKey(bytes(32))) as workers,
    ):
        yield workers


@target(max_bytes=60_000)
def worker_reply(raw: bytes) -> None:
    """`CodecWorkers`: replies of a worker. The first byte chooses what it was asked."""
    ask = _QUESTIONS[raw[0] % len(_QUESTIONS)] if raw else _add
    with (
        refusing(WorkerDied, MalformedMessage, UpdateRefused, ConfigurationError),
        taken_over(raw[1:]) as workers,
    ):
        ask(workers)


def ask_encode(workers: CodecWorkers) -> None:
    """Have a few values encrypted."""
    (encoded,) = workers.encode([_piece()], weight=1.0)
    assert len(encoded.chunk) == len(CHUNK)
    assert encoded.residual is None


def _encode_with_residual(workers: CodecWorkers) -> None:
    (encoded,) = workers.encode([_piece()], weight=1.0, wants_residual=True)
    assert len(encoded.chunk) == len(CHUNK)
    assert encoded.residual is not None
    assert encoded.residual.shape == (VALUES,)


def ask_decode(workers: CodecWorkers) -> None:
    """Have a sum of a few values decrypted."""
    (sums,) = workers.decode([CHUNK], contributors=1, length=VALUES)
    assert (sums.dtype, sums.shape) == (np.int64, (VALUES,))


def _sum(workers: CodecWorkers) -> None:
    assert isinstance(workers.sum_chunks([("node-1", CHUNK), ("node-2", CHUNK)]), bytes)


def _add(workers: CodecWorkers) -> None:
    workers.add(0, CHUNK, whose="node-1")
    workers.subtract(0, CHUNK, whose="node-1")


def _take(workers: CodecWorkers) -> None:
    workers.add(0, CHUNK, whose="node-1")
    assert isinstance(workers.take(0), bytes)


_QUESTIONS: Final[tuple[Callable[[CodecWorkers], None], ...]] = (
    _add,
    _take,
    _sum,
    ask_decode,
    ask_encode,
    _encode_with_residual,
)


def _piece() -> Piece:
    return Piece(np.zeros(VALUES, dtype=np.float32), ((VALUES, 1.0),), bytes(32))
