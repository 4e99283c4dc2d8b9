"""Tests of what a daemon and a worker say to each other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from fedproof.codec.messages import LARGEST_BODY, Kind, receive_message, send_message


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
