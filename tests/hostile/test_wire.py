"""Malformed messages at a real server: refused by gRPC or by us, and the server goes on serving."""

from __future__ import annotations

import re

import grpc
import pytest

from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.world import World, refusal
from tests.hostile.test_uploads import stored
from tests.hostile.wire_kinds import Message, field, messages, varint

MESSAGES = list(messages())


def send_raw(world: World, *raw: bytes, compression: grpc.Compression | None = None) -> wire.UploadResponse:
    """Send bytes as the messages of an upload, as the first node."""
    world.stub(0)
    call = world._channels[-1].stream_unary(
        "/fedproof.wire.Aggregation/Upload",
        request_serializer=bytes,
        response_deserializer=wire.UploadResponse.FromString,
    )
    return call(iter(raw), compression=compression)


def test_a_malformed_message_is_refused(world: World) -> None:
    """Each kind has its status; none is stored, and an honest update is taken at the end."""
    for message in MESSAGES:
        _refuse(world, message)
    assert stored(world) == set()
    world.deliver(0)


def _refuse(world: World, message: Message) -> None:
    code, said = refusal(lambda: send_raw(world, message.raw, compression=message.compression))
    assert (code, bool(re.search(message.message, said))) == (message.code, True), (message.name, said)
    answer = world.stub(1).GetFederation(wire.GetFederationRequest())
    assert answer.contract == world.node(0).contract


def test_a_malformed_message_ends_a_stream(world: World) -> None:
    """What came before it stays, and the stream goes on at the next attempt."""
    update = world.committed_update(0)
    start = wire.UploadStart(round=1, node=update.manifest.node, header=update.header)
    good = [
        wire.UploadRequest(start=start).SerializeToString(),
        wire.UploadRequest(chunk=wire.Chunk(index=0, data=update.chunks[0])).SerializeToString(),
    ]
    with pytest.raises(grpc.RpcError):
        send_raw(world, *good, b"\x0a\x80")
    assert world.standing(0).next_chunk in {0, 1}
    assert not world.standing(0).complete
    assert world.upload(0, update).update_root == update.root


def test_what_protobuf_tolerates_changes_nothing(world: World) -> None:
    """Unknown fields, long varints, repeated fields and any order: what is stored is the canonical header."""
    update = world.committed_update(0)
    round_number = b"\x08" + varint(1, size=10)
    node = field(2, b"another") + field(2, update.manifest.node)
    header = field(3, update.header.SerializeToString() + field(99, b"unknown"))
    start = field(1, header + node + round_number + field(1000, bytes(1000)))
    chunks = [
        wire.UploadRequest(chunk=wire.Chunk(index=index, data=data)).SerializeToString() + field(50, b"x")
        for index, data in enumerate(update.chunks)
    ]
    assert send_raw(world, start, *chunks).update_root == update.root
    stored_header = world.store.header_path(update.root).read_bytes()
    assert stored_header == update.header.SerializeToString(deterministic=True)


def test_kinds_are_told_apart() -> None:
    """Each has a name of its own."""
    assert len({message.name for message in MESSAGES}) == len(MESSAGES)
