"""What the aggregator gives: the same bytes that came, and nothing before its time."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import pytest

from fedproof.manifest import AggregateManifest, Contribution, verify_header
from fedproof.merkle import leaf_digest
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.federation import EXAMPLES, PARAMETERS, POLICY, codec, encrypted, secret_key, values
from tests.aggregator.world import Update, World, refusal


def download_update(
    world: World, index: int, chunks: Sequence[int] = (), *, number: int = 1
) -> tuple[wire.Header, list[wire.Chunk]]:
    node = world.node(index).address
    request = wire.DownloadUpdateRequest(round=number, node=node, chunks=chunks)
    header, *rest = world.stub().DownloadUpdate(request)
    return header.header, [part.chunk for part in rest]


def download_aggregate(world: World, chunks: Sequence[int] = ()) -> tuple[wire.Header, list[wire.Chunk]]:
    header, *rest = world.stub().DownloadAggregate(wire.DownloadAggregateRequest(round=1, chunks=chunks))
    return header.header, [part.chunk for part in rest]


def seal(world: World, *indices: int) -> list[Update]:
    """Take a round to its seal."""
    updates = world.deliver(*indices)
    if len(indices) < 3:
        world.pass_deadline()
    assert world.daemon.step()
    assert world.of_kind("sealed")
    return updates


def test_an_update_is_given_as_it_came(world: World) -> None:
    """The header comes first, then every chunk in index order."""
    update = seal(world, 0, 1)[0]
    header, chunks = download_update(world, 0)
    assert header == update.header
    assert [(chunk.index, chunk.data) for chunk in chunks] == list(enumerate(update.chunks))


def test_chunks_come_in_the_order_asked_for(world: World) -> None:
    """Only the chunks that are named are sent."""
    update = seal(world, 0, 1)[0]
    _, chunks = download_update(world, 0, (2, 0))
    assert [(chunk.index, chunk.data) for chunk in chunks] == [(2, update.chunks[2]), (0, update.chunks[0])]


def test_an_update_is_not_given_while_its_round_is_open(world: World) -> None:
    """Nobody can copy an update into a commitment of their own."""
    world.deliver(0)
    code, message = refusal(lambda: download_update(world, 0))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert message.endswith("updates can be downloaded once the round is sealed, it is open")


def test_what_is_not_there_is_not_found(world: World) -> None:
    """An unknown round, a node without a commitment, a header that is lost, a sum to come: each is named."""
    assert refusal(lambda: download_update(world, 0, number=9))[0] is grpc.StatusCode.NOT_FOUND
    update = seal(world, 0, 1)[0]
    code, message = refusal(lambda: download_update(world, 3))
    assert (code, "the node is no contributor of this round" in message) == (grpc.StatusCode.NOT_FOUND, True)
    world.store.header_path(update.root).unlink()
    code, message = refusal(lambda: download_update(world, 0))
    assert (code, "no header of root" in message) == (grpc.StatusCode.NOT_FOUND, True)
    code, message = refusal(lambda: download_aggregate(world))
    assert (code, message) == (
        grpc.StatusCode.NOT_FOUND,
        "round 1, aggregate: not published, the round is in phase SEALED",
    )


def test_what_came_of_an_excluded_update_is_not_given(world: World) -> None:
    """A power failure may have taken back whose its frames are, and somebody could send them as its own."""
    late = world.committed_update(2)
    refusal(lambda: world.upload(2, late, chunks=[wire.Chunk(index=0, data=late.chunks[0])]))
    assert world.store.has(late.digests[0])
    world.deliver(0, 1)
    world.pass_deadline(by_s=60)
    assert world.daemon.step()
    code, message = refusal(lambda: download_update(world, 2))
    assert (code, "the node is no contributor of this round" in message) == (grpc.StatusCode.NOT_FOUND, True)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ((3,), "expected at most 3 chunks, each below 3, got 1, the highest 3"),
        ((0, 0, 0, 0), "expected at most 3 chunks, each below 3, got 4, the highest 0"),
    ],
)
def test_asking_for_too_much_is_refused(world: World, chunks: Sequence[int], message: str) -> None:
    """An index beyond the last chunk, or more chunks than there are, is malformed."""
    seal(world, 0, 1)
    code, came = refusal(lambda: download_update(world, 0, chunks))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message in came


def test_a_damaged_object_is_not_given(world: World) -> None:
    """A rotten chunk ends the stream with DATA_LOSS; its path goes to the log, not to the peer."""
    update = seal(world, 0, 1)[0]
    path = world.store.object_path(update.digests[1])
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    code, message = refusal(lambda: download_update(world, 0))
    assert (code, message) == (
        grpc.StatusCode.DATA_LOSS,
        "a stored object is damaged or lost; see the operator",
    )
    assert str(path) in world.of_kind("error")[0]["message"]
    world.store.header_path(update.root).write_bytes(b"\xff")
    assert refusal(lambda: download_update(world, 0))[0] is grpc.StatusCode.DATA_LOSS


def test_the_sum_decrypts_to_the_sum(world: World) -> None:
    """The published root is over a manifest that names every contributor, and chunks that add up."""
    updates = seal(world, 0, 1, 2)
    assert world.daemon.step()
    header, chunks = download_aggregate(world)
    record = world.view.find_round(1)
    world.view.refresh()
    record = world.view.find_round(1)
    assert record is not None
    assert record.aggregate_root is not None
    digests = [leaf_digest(chunk.data) for chunk in chunks]
    assert list(header.chunk_digests) == digests
    manifest = verify_header(header.manifest, digests, root=record.aggregate_root)
    assert manifest == AggregateManifest(
        chain_id=world.view.chain_id,
        contract=world.view.contract,
        round=1,
        epoch=1,
        policy_digest=POLICY.digest,
        contributors=tuple(
            Contribution(world.node(i).address, update.root, EXAMPLES[i]) for i, update in enumerate(updates)
        ),
        parameters=PARAMETERS,
        chunks=3,
    )
    decryptor = codec().make_decryptor(secret_key())
    expected = sum(values(i, 1) for i in range(3))
    for chunk in chunks:
        index = chunk.index
        sums = codec().decrypt_chunk(chunk.data, decryptor, contributors=3, index=index, length=PARAMETERS)
        size = codec().parameters.values_per_chunk
        assert (sums == expected[index * size : index * size + sums.size]).all()


def test_a_whole_header_is_below_the_default_inbound_limit() -> None:
    """gRPC's default of 4 MiB carries a header of 100,000 chunks, and no chunk exceeds 1 MiB."""
    header = wire.Header(manifest=bytes(1000), chunk_digests=[bytes(32)] * 100_000)
    assert header.ByteSize() < 4 * 1024 * 1024
    assert max(map(len, encrypted(0))) <= 1024 * 1024
