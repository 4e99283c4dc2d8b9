"""What a kind of malformed bytes is, and what refusing it may cost."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from fedproof.errors import FedproofError

MOST_SECONDS = 1e-3
MOST_BYTES = 1 << 20

_REPETITIONS = 10
_REPETITIONS_AT_MOST = 300


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of malformed bytes, and how it is refused.

    Attributes:
        name: of the kind.
        what: is wrong with the bytes.
        raw: the bytes.
        parse: what they are given to.
        error: the class of the refusal.
        message: a pattern in the refusal.
    """

    name: str
    what: str
    raw: bytes
    parse: Callable[[bytes], object]
    error: type[FedproofError]
    message: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What a refusal takes: processor time of this thread, and bytes beyond those of the input."""

    seconds: float
    peak_bytes: int


def measure(call: Callable[[], object]) -> Cost:
    """Return what a call costs.

    The least time of several counts, as whatever else the machine does only adds to it; on a busy one it is
    measured more often.
    """
    seconds: list[float] = []
    while len(seconds) < _REPETITIONS or (
        min(seconds) > MOST_SECONDS and len(seconds) < _REPETITIONS_AT_MOST
    ):
        began = time.thread_time()
        call()
        seconds.append(time.thread_time() - began)
    tracemalloc.start()
    try:
        call()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return Cost(min(seconds), peak_bytes)
