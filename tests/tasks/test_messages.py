"""What passes between a daemon and its training process."""

from __future__ import annotations

import threading
import tracemalloc
from multiprocessing import Pipe

import numpy as np
import pytest

from fedproof.tasks.messages import Evaluate, Start, TrainOutcome, receive_message, send_message

MIB = 1 << 20


@pytest.mark.parametrize("length", [1, 3, MIB // 4, MIB // 4 + 1, MIB])
def test_vectors_come_back(length: int) -> None:
    """A vector of any length, a view's too, arrives as it was; the receiver owns it."""
    ours, theirs = Pipe()
    flat = np.arange(2 * length, dtype=np.float32)[::2]
    for vector in (flat, np.ascontiguousarray(flat)):
        thread = threading.Thread(target=send_message, args=(ours, TrainOutcome(vector, 7, 0.5, 1.5)))
        thread.start()
        came = receive_message(theirs)
        thread.join()
        assert (came.examples, came.loss, came.seconds) == (7, 0.5, 1.5)
        assert came.flat.dtype == np.float32
        assert np.array_equal(came.flat, flat)
        came.flat[0] = -1.0


def test_messages_without_vectors() -> None:
    """Settings and the like arrive, too."""
    ours, theirs = Pipe()
    start = Start("package.module:Class", {"hospital": 0, "names": ["a", "b"]}, 7, 1)
    send_message(ours, start)
    assert receive_message(theirs) == start


def test_vectors_are_not_copied_on_the_way() -> None:
    """Passing a model takes its place at the receiver, and a few pieces."""
    ours, theirs = Pipe()
    message = Evaluate(np.ones(8 * MIB, dtype=np.float32))
    size = message.flat.nbytes
    tracemalloc.start()
    try:
        thread = threading.Thread(target=send_message, args=(ours, message))
        thread.start()
        came = receive_message(theirs)
        thread.join()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert came.flat.nbytes == size
    assert peak < size + 8 * MIB


def test_end_of_the_other_process_is_noticed() -> None:
    """Half a message is none."""
    ours, theirs = Pipe()
    ours.send((b"", [3 * MIB]))
    ours.close()
    with pytest.raises(EOFError):
        receive_message(theirs)
