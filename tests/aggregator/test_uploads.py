"""What the aggregator takes from a node, and that nothing of it is lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from fedproof.digests import checksum_address
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.world import CHUNKS, World, chunks_of, refusal


def test_a_committed_update_is_taken(world: World) -> None:
    """A whole update is stored chunk by chunk, answered with its root, journalled and logged."""
    update = world.committed_update(0)
    assert len(update.chunks) == CHUNKS
    response = world.upload(0, update)
    assert (response.chunks, response.update_root) == (CHUNKS, update.root)
    assert all(world.store.get(digest) in update.chunks for digest in update.digests)
    assert world.store.get_header(update.root) == update.header
    assert world.standing(0) == wire.GetUploadResponse(next_chunk=CHUNKS, complete=True)
    node = checksum_address(world.node(0).address)
    size = sum(map(len, update.chunks))
    assert [(line["event"], line["round"], line["node"], line["bytes"]) for line in world.logs] == [
        ("upload_started", 1, node, size),
        ("upload_complete", 1, node, size),
    ]


def test_a_commitment_that_has_just_been_mined_counts(world: World) -> None:
    """The ledger is read again before a node is told that it has not committed."""
    world.view.refresh()
    update = world.committed_update(0)
    record = world.view.find_round(1)
    assert record is not None
    assert not record.commitments
    assert world.upload(0, update).chunks == CHUNKS


def test_a_whole_upload_sent_again_changes_nothing(world: World) -> None:
    """An update whose receipt was lost on the way may be sent once more, wholly or by its header alone."""
    update = world.committed_update(0)
    first = world.upload(0, update)
    before = {digest: world.store.object_path(digest).stat().st_mtime_ns for digest in update.digests}
    assert world.upload(0, update) == first
    assert world.upload(0, update, chunks=[]) == first
    assert {digest: world.store.object_path(digest).stat().st_mtime_ns for digest in before} == before
    assert len(world.of_kind("upload_complete")) == 1


@pytest.mark.parametrize("held", [0, 1, 2])
def test_an_upload_resumes_at_the_first_missing_chunk(world: World, held: int) -> None:
    """A stream that ends early is told so, and what it brought stays, also over a restart."""
    update = world.committed_update(0)
    code, message = refusal(lambda: world.upload(0, update, chunks=chunks_of(update, *range(held))))
    assert code is grpc.StatusCode.ABORTED
    assert f"expected {CHUNKS} chunks, the stream ended with {held} of them held" in message
    assert world.standing(0) == wire.GetUploadResponse(next_chunk=held, complete=False)
    world.restart()
    assert world.standing(0) == wire.GetUploadResponse(next_chunk=held, complete=False)
    assert world.upload(0, update, chunks=chunks_of(update, *range(held, CHUNKS))).chunks == CHUNKS
    assert world.standing(0).complete


def test_an_upload_may_resume_where_getupload_said_a_moment_ago(world: World) -> None:
    """A stream that begins at a chunk which another stream has brought since is not refused."""
    update = world.committed_update(0)
    refusal(lambda: world.upload(0, update, chunks=chunks_of(update, 0, 1)))
    assert world.upload(0, update, chunks=chunks_of(update, 1, 2)).chunks == CHUNKS


def test_a_stream_that_is_cut_keeps_what_came(world: World) -> None:
    """When a node goes away in the middle of a stream, the chunks that were taken are still held."""
    update = world.committed_update(0)

    gone = threading.Event()

    def parts() -> Iterator[wire.UploadRequest]:
        start = wire.UploadStart(round=1, node=world.node(0).address, header=update.header)
        yield wire.UploadRequest(start=start)
        yield wire.UploadRequest(chunk=chunks_of(update, 0)[0])
        gone.wait()

    call = world.stub(0).Upload.future(parts())
    deadline = time.monotonic() + 10
    while not world.store.has(update.digests[0]):
        assert time.monotonic() < deadline
    call.cancel()
    gone.set()
    while not world.of_kind("upload_interrupted"):
        assert time.monotonic() < deadline
    assert world.of_kind("upload_refused") == []
    world.restart()
    assert world.standing(0).next_chunk == 1
    assert world.upload(0, update, chunks=chunks_of(update, 1, 2)).chunks == CHUNKS


@pytest.mark.parametrize("spoiled", [None, b"", b"half a chu"], ids=["gone", "empty", "cut short"])
def test_a_power_failure_in_the_middle_of_a_stream_costs_no_update(
    world: World, spoiled: bytes | None
) -> None:
    """Chunks that were not on the disk yet are asked for again, and replace what is left of them."""
    update = world.committed_update(0)
    world.view.refresh()
    start = wire.UploadStart(round=1, node=world.node(0).address, header=update.header)
    incoming = world.intake.begin(start)
    for index in (0, 1):
        world.intake.accept(incoming, index, update.chunks[index])
    world.restart()
    path = world.store.object_path(update.digests[1])
    path.unlink() if spoiled is None else path.write_bytes(spoiled)
    assert world.standing(0).next_chunk == 0
    assert world.upload(0, update).chunks == CHUNKS
    assert [world.store.get(digest) for digest in update.digests] == list(update.chunks)


def test_what_the_journal_counts_is_on_the_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chunk is synced under its name before it is recorded, whether it came in one stream or in two."""
    synced: set[int] = set()
    recorded: list[int] = []
    update = world.committed_update(0)
    sync, record = os.fsync, world.journal.record_chunks

    def note_sync(descriptor: int) -> None:
        sync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def note_record(*place: Any, received: int, **rest: Any) -> None:
        for digest in update.digests[:received]:
            path = world.store.object_path(digest)
            assert {path.stat().st_ino, path.parent.stat().st_ino} <= synced
        record(*place, received=received, **rest)
        recorded.append(received)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(world.journal, "record_chunks", note_record)
    refusal(lambda: world.upload(0, update, chunks=chunks_of(update, 0, 1)))
    assert world.upload(0, update, chunks=chunks_of(update, 1, 2)).chunks == CHUNKS
    assert recorded[-1] == CHUNKS
