"""What a daemon and a codec worker say to each other: fixed headers and raw bytes, over a socket.

Nothing is ever unpickled, and a daemon believes no size that a worker claims: a worker is the first to touch
a peer's bytes, and one that they took over must not reach the daemon.

A message is its kind (1 byte), the size of its body (4 bytes, little-endian) and its body. The daemon sends
requests, and reads one reply to each before it sends the next.
"""

from __future__ import annotations

import socket
import struct
import time
from enum import IntEnum
from typing import Final

import numpy as np

from fedproof.errors import ConfigurationError, FedproofError, MalformedMessage, SumLost, UpdateRefused

Part = bytes | memoryview

_HEAD: Final = struct.Struct("<BI")

# No chunk is larger. Of the other bodies, the largest are a chunk's values, 5 in each coefficient and 8 bytes
# each, and their clips.
LARGEST_CHUNK: Final = 1 << 20
LARGEST_BODY: Final = 16 << 20

START: Final = struct.Struct("<BHQB")  # bits, max_contributors, coeff_modulus, values_per_slot; then the key
ENCODE: Final = struct.Struct("<dBII32s")  # weight, wants_residual, values, runs, seed; then runs, delta
RUN: Final = struct.Struct("<Id")  # values, clip
DECODE: Final = struct.Struct("<IIQ")  # contributors, index, length; then the chunk
SUM: Final = struct.Struct("<qIH")  # the sum's number, how many it holds, bytes of the name; then name, chunk


class Kind(IntEnum):
    """What a message is. Sums are told apart by number."""

    START = 0
    ENCODE = 1
    DECODE = 2
    ADD = 3
    SUBTRACT = 4
    RESUME = 5
    TAKE = 6
    DROP = 7
    DONE = 64
    MALFORMED_MESSAGE = 65
    UPDATE_REFUSED = 66
    CONFIGURATION_ERROR = 67
    SUM_LOST = 68


# What a refusal is at the daemon's end.
ERRORS: Final[dict[Kind, type[FedproofError]]] = {
    Kind.MALFORMED_MESSAGE: MalformedMessage,
    Kind.UPDATE_REFUSED: UpdateRefused,
    Kind.CONFIGURATION_ERROR: ConfigurationError,
    Kind.SUM_LOST: SumLost,
}

# What each request may be refused with. A worker that was taken over could else choose an error that nobody
# expects there, and end its daemon with it.
REFUSALS: Final[dict[Kind, frozenset[Kind]]] = {
    Kind.START: frozenset({Kind.CONFIGURATION_ERROR}),
    Kind.ENCODE: frozenset({Kind.UPDATE_REFUSED}),
    Kind.DECODE: frozenset({Kind.MALFORMED_MESSAGE}),
    Kind.ADD: frozenset({Kind.MALFORMED_MESSAGE, Kind.SUM_LOST}),
    Kind.SUBTRACT: frozenset({Kind.MALFORMED_MESSAGE, Kind.SUM_LOST}),
    Kind.RESUME: frozenset({Kind.MALFORMED_MESSAGE, Kind.SUM_LOST}),
    Kind.TAKE: frozenset({Kind.MALFORMED_MESSAGE, Kind.SUM_LOST}),
    Kind.DROP: frozenset(),
}


def send_message(connection: socket.socket, kind: Kind, *parts: Part) -> None:
    """Send a message whose body is the parts, one after the other.

    Raises:
        OSError: the other side is gone.
    """
    views = [memoryview(part).cast("B") for part in parts]
    connection.sendall(_HEAD.pack(kind, sum(view.nbytes for view in views)))
    for view in views:
        connection.sendall(view)


def receive_message(connection: socket.socket, *, deadline_s: float | None = None) -> tuple[Kind, memoryview]:
    """Return the next message's kind and body.

    Args:
        connection: where it comes from. With a deadline, its timeout is changed.
        deadline_s: by when all of it must have come, on the monotonic clock.

    Raises:
        EOFError: the other side is gone.
        OSError: likewise, or the deadline is over.
        ValueError: no such kind, or a body larger than any.
    """
    kind, size = _HEAD.unpack(_receive(connection, _HEAD.size, deadline_s))
    if size > LARGEST_BODY:
        raise ValueError(f"expected a body of at most {LARGEST_BODY} bytes, got {size}")
    return Kind(kind), _receive(connection, size, deadline_s)


def _receive(connection: socket.socket, size: int, deadline_s: float | None) -> memoryview:
    body = np.empty(size, dtype=np.uint8).data
    received = 0
    while received < size:
        if deadline_s is not None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"expected {size} bytes in time, got {received}")
            connection.settimeout(left_s)
        count = connection.recv_into(body[received:])
        if not count:
            raise EOFError
        received += count
    return body
