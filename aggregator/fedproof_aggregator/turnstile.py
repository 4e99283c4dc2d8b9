"""Bounded memory, whatever the number of streams: only so many of them hold a message at a time.

gRPC keeps next to nothing of a stream whose next message nobody asks for; the peer waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

Message = TypeVar("Message")


class Turnstile:
    """Gives places to streams, first come, first served.

    Whoever holds a place is at the mercy of its peer's line. So that slow ones cannot keep the others out, a
    place that was held for longer than the patience is taken back when somebody has waited that long.
    """

    def __init__(self, places: int, *, patience_s: float) -> None:
        self._places = places
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._holders: dict[object, tuple[float, Callable[[], object]]] = {}

    def pace(
        self, messages: Iterator[Message], cancel: Callable[[], object]
    ) -> Generator[Message, None, None]:
        """Yield the messages, each from before it is made until the next one is asked for in a place.

        Args:
            messages: received, or about to be sent.
            cancel: ends the stream from another thread; what it was waiting for then raises.
        """
        while True:
            with self._place(cancel):
                try:
                    # Without a name: the message is gone when its user drops it.
                    yield next(messages)
                except StopIteration:
                    return

    @contextmanager
    def _place(self, cancel: Callable[[], object]) -> Iterator[None]:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or len(self._holders) >= self._places:
                    if not self._changed.wait(self._patience_s):
                        self._cancel_slowest()
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            self._holders[ticket] = (time.monotonic(), cancel)
        try:
            yield
        finally:
            with self._changed:
                del self._holders[ticket]
                self._changed.notify_all()

    def _cancel_slowest(self) -> None:
        since, cancel = next(iter(self._holders.values()), (time.monotonic(), None))
        if cancel is not None and time.monotonic() - since >= self._patience_s:
            cancel()
