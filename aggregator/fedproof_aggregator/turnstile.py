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
        self._lock = threading.Lock()
        # Each with an event of its own: waking all that wait, for each message, costs more than the message.
        self._waiting: deque[tuple[threading.Event, Callable[[], object]]] = deque()
        # The one that is without a message for longest comes first.
        self._holders: dict[threading.Event, tuple[float, Callable[[], object]]] = {}

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
    def _place(self, cancel: Callable[[], object]) -> Iterator[threading.Event]:
        ticket = threading.Event()
        with self._lock:
            self._waiting.append((ticket, cancel))
            self._admit()
        while not ticket.wait(self._patience_s):
            self._cancel_slowest()
        try:
            yield ticket
        finally:
            with self._lock:
                del self._holders[ticket]
                self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._holders) < self._places:
            ticket, cancel = self._waiting.popleft()
            self._holders[ticket] = (time.monotonic(), cancel)
            ticket.set()

    def _renew(self, ticket: threading.Event) -> None:
        with self._lock:
            _, cancel = self._holders.pop(ticket)
            self._holders[ticket] = (time.monotonic(), cancel)

    def _cancel_slowest(self) -> None:
        with self._lock:
            since, cancel = next(iter(self._holders.values()))
        if time.monotonic() - since >= self._patience_s:
            cancel()
