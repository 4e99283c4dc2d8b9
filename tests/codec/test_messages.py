"""Tests of what a daemon and a worker say to each other."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from fedproof.codec.messages import LARGEST_BODY, Kind, receive_message, send_message
from fedproof.codec.worker_process import Request, make_sum_request


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_message_arrives_whole(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    """Kind and body come back, the parts joined, also where they exceed what the socket holds."""
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    sender = threading.Thread(target=send_message, args=(pair[0], Kind.ADD, body, memoryview(b"end")))
    sender.start()
    kind, received = receive_message(pair[1])
    sender.join()
    assert (kind, bytes(received)) == (Kind.ADD, body + b"end")


def test_every_truncation_is_the_other_sides_end(pair: tuple[socket.socket, socket.socket]) -> None:
    """A message that is cut short anywhere does not pass for one."""
    message = bytes([Kind.DONE, 3, 0, 0, 0]) + b"abc"
    for size in range(len(message)):
        one, other = socket.socketpair()
        with other:
            one.sendall(message[:size])
            one.close()
            with pytest.raises(EOFError):
                receive_message(other)


@pytest.mark.parametrize("kind", [9, 63, 69, 255])
def test_other_kinds_are_refused(pair: tuple[socket.socket, socket.socket], kind: int) -> None:
    """A byte that stands for no kind is refused."""
    pair[0].sendall(bytes([kind, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match=f"{kind} is not a valid Kind"):
        receive_message(pair[1])


@pytest.mark.parametrize("size", [LARGEST_BODY + 1, 2**32 - 1])
def test_a_size_is_not_believed(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    """A body larger than any is refused before memory is taken for it."""
    pair[0].sendall(bytes([Kind.DONE]) + size.to_bytes(4, "little"))
    with pytest.raises(ValueError, match=f"a body of at most {LARGEST_BODY} bytes, got {size}"):
        receive_message(pair[1])


def test_a_deadline_is_for_the_whole_message(pair: tuple[socket.socket, socket.socket]) -> None:
    """What has not come by then is waited for no longer, and what comes after it is not read."""
    pair[0].sendall(bytes([Kind.DONE, 3, 0, 0, 0]) + b"ab")
    with pytest.raises(TimeoutError):
        receive_message(pair[1], deadline_s=time.monotonic() + 0.05)
    pair[0].sendall(bytes([Kind.DONE, 0, 0, 0, 0]))
    with pytest.raises(TimeoutError, match="expected 5 bytes in time, got 0"):
        receive_message(pair[1], deadline_s=time.monotonic())


def test_a_request_does_not_print_the_key() -> None:
    """What starts a worker holds the key, and may turn up in a traceback."""
    assert "secret" not in repr(Request(Kind.START, (b"secret",), "starting"))


def test_a_sum_that_is_taken_has_the_length_that_is_known() -> None:
    """Only of the request that takes it: the others are answered with nothing."""
    assert make_sum_request(Kind.TAKE, 0, 1, total_bytes=9).reply_bytes == 9
    assert make_sum_request(Kind.ADD, 0, 1, total_bytes=9).reply_bytes == 0
