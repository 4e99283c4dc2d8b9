"""Bounded memory, whatever the number of streams: only so many of them hold messages at a time.

gRPC keeps little of a stream whose next message nobody asks for or makes; the peer waits.
"""

from __future__ import annotations

import itertools
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
    place is had for no longer than the patience while somebody waits: whoever has had one for longest is then
    cancelled, whatever came over its line and however fast the other places change hands.
    """

    def __init__(self, places: int, *, patience_s: float) -> None:
        self._places = places
        self._patience_s = patience_s
        self._lock = threading.Lock()
        # Each with an event of its own: waking all that wait, for each message, costs more than the message.
        self._waiting: deque[tuple[threading.Event, Callable[[], object]]] = deque()
        # Since when, and what ends the stream; whoever has had a place for longest comes first.
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
        with self._place(cancel):
            yield from messages

    @contextmanager
    def _place(self, cancel: Callable[[], object]) -> Iterator[None]:
        ticket = threading.Event()
        with self._lock:
            self._waiting.append((ticket, cancel))
            self._admit()
        while not ticket.wait(self._cancel_slow()):
            pass
        try:
            yield
        finally:
            with self._lock:
                del self._holders[ticket]
                self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._holders) < self._places:
            ticket, cancel = self._waiting.popleft()
            self._holders[ticket] = (time.monotonic(), cancel)
            ticket.set()

    def _cancel_slow(self) -> float:
        """Cancel who has had a place for too long, one for each that waits; return when to look again."""
        with self._lock:
            slowest = list(itertools.islice(self._holders.values(), len(self._waiting)))
        left_s = self._patience_s
        for since, cancel in slowest:
            own_left_s = since + self._patience_s - time.monotonic()
            if own_left_s <= 0:
                cancel()
            else:
                left_s = min(left_s, own_left_s)
        return left_s
