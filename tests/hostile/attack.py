"""What a malformed upload is, and the messages that it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc

from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.world import World

INVALID = grpc.StatusCode.INVALID_ARGUMENT
TOO_EARLY = grpc.StatusCode.FAILED_PRECONDITION
DENIED = grpc.StatusCode.PERMISSION_DENIED


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind of malformed upload by the first node.

    Attributes:
        name: of the kind.
        what: is wrong with it.
        send: sends it, and ends in a refusal.
        code: the refusal's status.
        message: a pattern in the refusal.
        number: the round, which another node then contributes to.
    """

    name: str
    what: str
    send: Callable[[World], object]
    code: grpc.StatusCode
    message: str
    number: int = 1


def upload(world: World, *parts: wire.UploadRequest) -> object:
    """Send messages as the first node."""
    return world.stub(0).Upload(iter(parts))


def start_of(
    world: World, header: wire.Header, *, node: bytes | None = None, number: int = 1
) -> wire.UploadRequest:
    """Return a stream's first message."""
    address = world.node(0).address if node is None else node
    return wire.UploadRequest(start=wire.UploadStart(round=number, node=address, header=header))


def chunk_of(index: int, data: bytes) -> wire.UploadRequest:
    """Return a later message of a stream."""
    return wire.UploadRequest(chunk=wire.Chunk(index=index, data=data))
