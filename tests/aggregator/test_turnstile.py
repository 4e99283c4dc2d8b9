"""The turnstile: few messages at a time, in turn, and nobody is kept out by a slow line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from fedproof_aggregator.turnstile import Turnstile


def never() -> None:
    raise AssertionError("cancelled")


def test_no_more_messages_than_places() -> None:
    """However many streams there are, no more of them hold a message than there are places."""
    turnstile = Turnstile(3, patience_s=60)
    lock = threading.Lock()
    held, most = 0, 0

    def messages() -> Iterator[int]:
        nonlocal held, most
        for number in range(20):
            with lock:
                held += 1
                most = max(most, held)
            yield number

    def consume(_stream: int) -> list[int]:
        nonlocal held
        came = []
        for number in turnstile.receive(messages(), never):
            came.append(number)
            with lock:
                held -= 1
        return came

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(consume, range(12))) == [list(range(20))] * 12
    assert 1 <= most <= 3


def test_a_stream_that_ends_early_gives_its_place_back() -> None:
    """An error on either side of the turnstile leaves the place to the next."""
    turnstile = Turnstile(1, patience_s=60)

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the line is down")

    with pytest.raises(OSError, match="the line is down"):
        list(turnstile.receive(broken(), never))
    with closing(turnstile.receive(iter([1, 2]), never)) as paced:
        assert next(paced) == 1
    assert list(turnstile.receive(iter([1, 2]), never)) == [1, 2]


def test_a_slow_line_is_cut_when_others_wait() -> None:
    """Whoever holds a place for longer than the patience is cancelled, and the one who waits gets it."""
    turnstile = Turnstile(1, patience_s=0.05)
    has_place, cancelled = threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        has_place.set()
        assert cancelled.wait(10)
        raise ConnectionError("cancelled")
        yield 0

    def hold() -> None:
        with pytest.raises(ConnectionError):
            list(turnstile.receive(slow(), cancelled.set))

    holder = threading.Thread(target=hold)
    holder.start()
    assert has_place.wait(10)
    assert list(turnstile.receive(iter([7]), never)) == [7]
    holder.join(10)
    assert not holder.is_alive()


def test_a_slow_line_is_left_alone_while_nobody_waits() -> None:
    """As long as there are places, a line may take its time."""
    turnstile = Turnstile(2, patience_s=0.0)
    with closing(turnstile.receive(iter([1]), never)) as slow:
        assert next(slow) == 1
        assert list(turnstile.receive(iter([2, 3]), never)) == [2, 3]


def test_a_download_keeps_its_place_to_its_end() -> None:
    """What a stream of ours has sent stays in memory up to its next message, so nobody comes in between."""
    turnstile = Turnstile(1, patience_s=60)
    other = threading.Event()

    def take() -> None:
        assert list(turnstile.send(iter([9]), never)) == [9]
        other.set()

    with closing(turnstile.send(iter([1, 2]), never)) as first:
        assert next(first) == 1
        waiting = threading.Thread(target=take)
        waiting.start()
        assert next(first) == 2
        assert not other.is_set()
    assert other.wait(10)
    waiting.join()


@pytest.mark.parametrize("way", ["upload", "download"])
def test_a_place_is_had_for_no_longer_than_the_patience(way: str) -> None:
    """Also by a line over which something comes now and then, and while the other place changes hands."""
    turnstile = Turnstile(2, patience_s=0.3)
    has_place, cut, over = threading.Event(), threading.Event(), threading.Event()

    def drip() -> Iterator[int]:
        has_place.set()
        if way == "upload":
            cut.wait(10)
            raise ConnectionError("cancelled")
        while not cut.wait(0.01):
            yield 0
        raise ConnectionError("cancelled")

    def hold() -> None:
        paced = turnstile.receive if way == "upload" else turnstile.send
        with pytest.raises(ConnectionError):
            list(paced(drip(), cut.set))

    def hurry() -> None:
        while not over.is_set():
            assert list(turnstile.receive(iter([1]), never)) == [1]

    threads = [threading.Thread(target=hold)]
    threads[0].start()
    assert has_place.wait(10)
    threads += [threading.Thread(target=hurry) for _ in range(3)]
    for thread in threads[1:]:
        thread.start()
    is_cut = cut.wait(10)
    over.set()
    for thread in threads:
        thread.join(10)
    assert is_cut
    assert not any(thread.is_alive() for thread in threads)


def test_no_more_are_cut_than_wait() -> None:
    """Of several that have had a place for too long, the first makes room for the only one that waits."""
    turnstile = Turnstile(2, patience_s=0.2)
    cut = threading.Event()

    def wait() -> None:
        assert list(turnstile.send(iter([9]), never)) == [9]

    with closing(turnstile.send(iter([1, 2]), cut.set)) as first:
        assert next(first) == 1
        with closing(turnstile.send(iter([1, 2]), never)) as second:
            assert next(second) == 1
            waiting = threading.Thread(target=wait)
            waiting.start()
            assert cut.wait(10)
            first.close()
            waiting.join(10)
            assert not waiting.is_alive()
