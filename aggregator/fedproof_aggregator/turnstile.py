"""Bounded memory, whatever the number of streams: only so many of them hold messages at a time.

gRPC keeps little of a stream whose next message nobody asks for or makes; the peer waits.
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

    Whoever has a place is at the mercy of its peer's line. So that slow ones cannot keep the others out, a
    stream that has had a place for longer than the patience, and no message since, is cancelled when somebody
    has waited that long.
    """

    def __init__(self, places: int, *, patience_s: float) -> None:
        self._places = places
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        # The one that is without a message for longest comes first.
        self._holders: dict[object, tuple[float, Callable[[], object]]] = {}

    def receive(
        self, messages: Iterator[Message], cancel: Callable[[], object]
    ) -> Generator[Message, None, None]:
        """Yield the messages that a peer sends, with a place for each until the next one is asked for.

        Args:
            messages: what asks the peer for its next message, and waits for it.
            cancel: ends the stream from another thread; what `messages` waits for then raises.
        """
        while True:
            with self._place(cancel):
                try:
                    # Without a name: the message is gone when its user drops it.
                    yield next(messages)
                except StopIteration:
                    return

    def send(
        self, messages: Iterator[Message], cancel: Callable[[], object]
    ) -> Generator[Message, None, None]:
        """Yield messages for a peer, with a place from the first to the last: gRPC keeps each up to the next.

        Args:
            messages: what makes them.
            cancel: ends the stream from another thread.
        """
        with self._place(cancel) as ticket:
            for message in messages:
                yield message
                self._renew(ticket)

    @contextmanager
    def _place(self, cancel: Callable[[], object]) -> Iterator[object]:
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
            yield ticket
        finally:
            with self._changed:
                del self._holders[ticket]
                self._changed.notify_all()

    def _renew(self, ticket: object) -> None:
        with self._changed:
            _, cancel = self._holders.pop(ticket)
            self._holders[ticket] = (time.monotonic(), cancel)

    def _cancel_slowest(self) -> None:
        since, cancel = next(iter(self._holders.values()), (time.monotonic(), None))
        if cancel is not None and time.monotonic() - since >= self._patience_s:
            cancel()
