"""Bounded memory, whatever the number of streams: only so many of them hold messages at a time.

gRPC keeps little of a stream whose next message nobody asks for or makes; the peer waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

Message = TypeVar("Message")


# A download may keep a place for so many times the patience, if it moves.
_PATIENCES_A_STREAM: Final = 6


@dataclass(slots=True)
class _Holder:
    """A stream that has a place.

    Attributes:
        cancel: ends it.
        until: when it may be cancelled; since when it is, once that is done.
        until_at_most: when it may be cancelled whatever it sends.
        is_cancelled: whether that is done.
    """

    cancel: Callable[[], object]
    until: float
    until_at_most: float
    is_cancelled: bool = False

    def is_leaving(self, now: float, patience_s: float) -> bool:
        """Return whether it was cancelled, and not so long ago."""
        return self.is_cancelled and now - self.until < patience_s


class Turnstile:
    """Gives places to streams, first come, first served.

    Whoever has a place is at the mercy of its peer's line. So that slow ones cannot keep the others out, one
    is cancelled while somebody waits if it has had a place for longer than the patience without a message, or
    for six times as long with messages, however fast the other places change hands.
    """

    def __init__(self, places: int, *, patience_s: float) -> None:
        self._places = places
        self._patience_s = patience_s
        self._lock = threading.Lock()
        # Each with an event of its own: waking all that wait, for each message, costs more than the message.
        self._waiting: deque[tuple[threading.Event, Callable[[], object]]] = deque()
        self._holders: dict[threading.Event, _Holder] = {}

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
        while not ticket.wait(self._cancel_slow()):
            pass
        try:
            yield ticket
        finally:
            with self._lock:
                del self._holders[ticket]
                self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._holders) < self._places:
            ticket, cancel = self._waiting.popleft()
            now = time.monotonic()
            self._holders[ticket] = _Holder(
                cancel, now + self._patience_s, now + _PATIENCES_A_STREAM * self._patience_s
            )
            ticket.set()

    def _renew(self, ticket: threading.Event) -> None:
        with self._lock:
            holder = self._holders[ticket]
            holder.until = min(time.monotonic() + self._patience_s, holder.until_at_most)

    def _cancel_slow(self) -> float:
        """Cancel who has had a place for too long, one for each that waits; return when to look again."""
        with self._lock:
            now = time.monotonic()
            # Who does not leave when it is cancelled is stuck in our own code, and makes no room.
            leaving = sum(holder.is_leaving(now, self._patience_s) for holder in self._holders.values())
            over = [each for each in self._holders.values() if each.until <= now and not each.is_cancelled]
            over.sort(key=lambda holder: holder.until)
            for holder in over[: max(0, len(self._waiting) - leaving)]:
                holder.is_cancelled = True
                holder.until = now
                # Under the lock: none is cancelled that has just left.
                holder.cancel()
            left_s = (each.until - now for each in self._holders.values() if each.until > now)
            return min(left_s, default=self._patience_s)
