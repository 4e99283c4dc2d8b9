"""What a daemon and a codec worker say to each other: fixed headers and raw bytes, over a socket.

Nothing is ever unpickled, and a daemon believes no size that a worker claims: a worker is the first to touch
a peer's bytes, and one that they took over must not reach the daemon.

A message is its kind (1 byte), the size of its body (4 bytes, little-endian) and its body. The daemon sends
requests, and reads one reply to each before it sends the next.
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import Final

import numpy as np

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


def send_message(connection: socket.socket, kind: Kind, *parts: Part) -> None:
    """Send a message whose body is the parts, one after the other.

    Raises:
        OSError: the other side is gone.
    """
    views = [memoryview(part).cast("B") for part in parts]
    connection.sendall(_HEAD.pack(kind, sum(view.nbytes for view in views)))
    for view in views:
        connection.sendall(view)


def receive_message(connection: socket.socket) -> tuple[Kind, memoryview]:
    """Return the next message's kind and body.

    Raises:
        EOFError: the other side is gone.
        OSError: likewise.
        ValueError: no such kind, or a body larger than any.
    """
    kind, size = _HEAD.unpack(_receive(connection, _HEAD.size))
    if size > LARGEST_BODY:
        raise ValueError(f"expected a body of at most {LARGEST_BODY} bytes, got {size}")
    return Kind(kind), _receive(connection, size)


def _receive(connection: socket.socket, size: int) -> memoryview:
    body = np.empty(size, dtype=np.uint8).data
    received = 0
    while received < size:
        count = connection.recv_into(body[received:])
        if not count:
            raise EOFError
        received += count
    return body
