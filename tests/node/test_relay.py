"""The client of the aggregator against a real TLS port: retries, resumption, and what it refuses to take."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from fedproof_node.patience import Patience
from fedproof_node.relay import Relay
from fedproof_node.spool import EncryptedUpdate, Spool, spool_update

from fedproof.digests import Address, Digest
from fedproof.errors import (
    ConfigurationError,
    DigestMismatch,
    MalformedMessage,
    MissingObject,
    NetworkError,
    PeerError,
)
from fedproof.keys.tls import make_authority
from fedproof.manifest import UpdateManifest
from fedproof.merkle import leaf_digest
from fedproof.wire import aggregation_pb2 as wire
from tests.node.aggregator import QUICK, RunningAggregator, make_tls

NODE = Address(b"\x01" * 20)
CHUNKS = [bytes([i]) * 1000 for i in range(5)]
LEAVES = [leaf_digest(chunk) for chunk in CHUNKS]


@pytest.fixture
def relay(aggregator: RunningAggregator, tmp_path: Path) -> Iterator[Relay]:
    tls = make_tls(tmp_path, "node", authority=tmp_path / "authority")
    with Relay(aggregator.target, tls, patience=QUICK) as relay:
        yield relay


@pytest.fixture
def update(tmp_path: Path) -> EncryptedUpdate:
    manifest = UpdateManifest(
        chain_id=1,
        contract=NODE,
        round=1,
        node=NODE,
        epoch=1,
        policy_digest=Digest(b"\x02" * 32),
        base_model=Digest(b"\x03" * 32),
        base_values=Digest(b"\x05" * 32),
        clips=(0.5,),
        parameters=10,
        chunks=len(CHUNKS),
        examples=1,
    )
    return spool_update(Spool(tmp_path, 1, "update"), manifest, CHUNKS)


def upload(relay: Relay, update: EncryptedUpdate) -> tuple[int, list[tuple[int, int]]]:
    progress: list[tuple[int, int]] = []
    sent = relay.upload(
        update, round_number=1, node=NODE, on_progress=lambda *values: progress.append(values)
    )
    return sent, progress


def sent_chunks(aggregator: RunningAggregator) -> list[int]:
    requests = aggregator.servicer.requests
    return [request.chunk.index for request in requests if isinstance(request, wire.UploadRequest)]


def test_upload_arrives_whole(aggregator: RunningAggregator, relay: Relay, update: EncryptedUpdate) -> None:
    """The aggregator holds header and chunks, and progress ends at the total."""
    sent, progress = upload(relay, update)
    assert aggregator.servicer.uploads[1, NODE] == CHUNKS
    assert aggregator.servicer.headers[1, NODE] == update.header
    assert sent == 5000
    assert progress[-1] == (5000, 5000)


def test_upload_resumes_where_it_was_cut(
    aggregator: RunningAggregator, relay: Relay, update: EncryptedUpdate
) -> None:
    """Cut twice, an upload goes on at the first missing chunk and sends none that arrived a second time."""
    aggregator.servicer.cut_after = [2, 1]
    upload(relay, update)
    assert aggregator.servicer.uploads[1, NODE] == CHUNKS
    assert sent_chunks(aggregator) == [0, 1, 2, 3, 4]


def test_progress_renews_the_attempts(
    aggregator: RunningAggregator, relay: Relay, update: EncryptedUpdate
) -> None:
    """More cuts than attempts are survived as long as each stream brings a chunk."""
    aggregator.servicer.cut_after = [1, 1, 1, 1]
    upload(relay, update)
    assert aggregator.servicer.uploads[1, NODE] == CHUNKS


def test_upload_without_progress_is_given_up(
    aggregator: RunningAggregator, relay: Relay, update: EncryptedUpdate
) -> None:
    """Cuts that let nothing through end in an error that names call, attempts and target."""
    aggregator.servicer.cut_after = [0] * 10
    message = rf"Upload: given up after 3 attempts.*{aggregator.target}: Upload \(round 1, from chunk 0\)"
    with pytest.raises(NetworkError, match=message):
        upload(relay, update)
    assert sent_chunks(aggregator) == []


def test_complete_upload_sends_nothing_again(
    aggregator: RunningAggregator, relay: Relay, update: EncryptedUpdate
) -> None:
    """Uploading twice sends each chunk once."""
    upload(relay, update)
    sent, progress = upload(relay, update)
    assert sent_chunks(aggregator) == [0, 1, 2, 3, 4]
    assert (sent, progress) == (5000, [(5000, 5000)])


def test_refused_upload_is_not_repeated(
    aggregator: RunningAggregator, relay: Relay, update: EncryptedUpdate
) -> None:
    """A refusal of the update itself is a peer error at once."""
    aggregator.servicer.failures["Upload"] = [grpc.StatusCode.INVALID_ARGUMENT]
    with pytest.raises(PeerError, match="INVALID_ARGUMENT: planned"):
        upload(relay, update)
    assert sent_chunks(aggregator) == []


def test_ledger_view_behind_ours_is_waited_for(
    aggregator: RunningAggregator, relay: Relay, update: EncryptedUpdate
) -> None:
    """An aggregator that does not see the commitment yet is asked again."""
    aggregator.servicer.failures["Upload"] = [grpc.StatusCode.FAILED_PRECONDITION]
    upload(relay, update)
    assert aggregator.servicer.uploads[1, NODE] == CHUNKS


def test_damaged_spool_is_our_own_fault(
    aggregator: RunningAggregator, relay: Relay, update: EncryptedUpdate
) -> None:
    """A chunk that changed on our disk is not sent, and the error names the file, not the aggregator."""
    path = update.spool.folder / "000003.chunk"
    path.write_bytes(b"other bytes")
    with pytest.raises(DigestMismatch, match=r"000003\.chunk: expected leaf digest"):
        upload(relay, update)
    # The failure cancels the call, so that what was sent before it may or may not still arrive.
    arrived = sent_chunks(aggregator)
    assert arrived == [0, 1, 2][: len(arrived)]


def serve_aggregate(aggregator: RunningAggregator) -> None:
    header = wire.Header(manifest=b"manifest", chunk_digests=LEAVES)
    aggregator.servicer.aggregates[1] = (header, list(CHUNKS))


def test_aggregate_arrives_whole(aggregator: RunningAggregator, relay: Relay, tmp_path: Path) -> None:
    """Header and chunks come as they are stored."""
    serve_aggregate(aggregator)
    spool = Spool(tmp_path, 1, "aggregate")
    relay.fetch_aggregate(1, leaves=LEAVES, spool=spool)
    assert [spool.read_chunk(i, LEAVES[i]) for i in range(5)] == CHUNKS
    assert relay.fetch_aggregate_header(1).manifest == b"manifest"


def test_cut_download_fetches_the_rest_only(
    aggregator: RunningAggregator, relay: Relay, tmp_path: Path
) -> None:
    """What is in the spool and whole is not asked for again; what is damaged is."""
    serve_aggregate(aggregator)
    spool = Spool(tmp_path, 1, "aggregate")
    spool.write_chunk(1, CHUNKS[1])
    spool.write_chunk(2, b"damaged")
    relay.fetch_aggregate(1, leaves=LEAVES, spool=spool)
    asked = [
        list(request.chunks)
        for request in aggregator.servicer.requests
        if isinstance(request, wire.DownloadAggregateRequest)
    ]
    assert asked == [[0, 2, 3, 4]]
    assert all(spool.holds(i, LEAVES[i]) for i in range(5))


def test_download_survives_cuts(aggregator: RunningAggregator, relay: Relay, tmp_path: Path) -> None:
    """A stream that is cut after its header is asked for again."""
    serve_aggregate(aggregator)
    aggregator.servicer.failures["AggregateChunk"] = [grpc.StatusCode.UNAVAILABLE] * 2
    spool = Spool(tmp_path, 1, "aggregate")
    relay.fetch_aggregate(1, leaves=LEAVES, spool=spool)
    assert all(spool.holds(i, LEAVES[i]) for i in range(5))


def test_altered_chunk_is_not_kept(aggregator: RunningAggregator, relay: Relay, tmp_path: Path) -> None:
    """A chunk of another digest is refused before it reaches the disk."""
    serve_aggregate(aggregator)
    aggregator.servicer.aggregates[1][1][2] = b"altered"
    spool = Spool(tmp_path, 1, "aggregate")
    with pytest.raises(DigestMismatch, match=r"DownloadAggregate \(round 1\): chunk 2"):
        relay.fetch_aggregate(1, leaves=LEAVES, spool=spool)
    assert spool.holds(1, LEAVES[1])
    assert not list(spool.folder.glob("000002*"))


def test_update_chunk_comes_with_its_header(
    aggregator: RunningAggregator, relay: Relay, update: EncryptedUpdate
) -> None:
    """A drawn chunk is fetched with the header that proves it."""
    upload(relay, update)
    assert relay.fetch_update_chunk(1, NODE, chunk=3) == (update.header, CHUNKS[3])


def test_other_chunk_than_asked_for_is_refused(
    aggregator: RunningAggregator, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream out of order, or one that ends early, is malformed."""
    servicer = aggregator.servicer
    servicer.headers[1, NODE] = wire.Header(manifest=b"m", chunk_digests=LEAVES)
    servicer.uploads[1, NODE] = list(CHUNKS)
    serve = servicer._serve
    monkeypatch.setattr(servicer, "_serve", lambda header, chunks, _asked: serve(header, chunks, [4]))
    with pytest.raises(MalformedMessage, match="expected chunk 3, got chunk 4"):
        relay.fetch_update_chunk(1, NODE, chunk=3)
    monkeypatch.setattr(servicer, "_serve", lambda *_: iter([wire.DownloadResponse(header=wire.Header())]))
    with pytest.raises(MalformedMessage, match="expected chunk 3, got the end of the stream"):
        relay.fetch_update_chunk(1, NODE, chunk=3)
    monkeypatch.setattr(servicer, "_serve", lambda *_: iter([]))
    with pytest.raises(MalformedMessage, match="expected a header first, got the end of the stream"):
        relay.fetch_update_chunk(1, NODE, chunk=3)


def test_call_is_repeated_until_it_succeeds(aggregator: RunningAggregator, relay: Relay) -> None:
    """Two failures of the connection are not noticed by the caller."""
    aggregator.servicer.failures["GetFederation"] = [grpc.StatusCode.UNAVAILABLE] * 2
    aggregator.servicer.federation = wire.GetFederationResponse(chain_id=5)
    assert relay.fetch_federation().chain_id == 5


def test_absent_object_is_told_from_absent_aggregator(aggregator: RunningAggregator, relay: Relay) -> None:
    """NOT_FOUND is no network error, and is not repeated."""
    with pytest.raises(MissingObject, match="GetPublicKey: NOT_FOUND"):
        relay.fetch_public_key(Digest(b"\x04" * 32))
    assert len(aggregator.servicer.requests) == 1


def test_absent_aggregator_is_named(tmp_path: Path) -> None:
    """Nobody at the port: bounded attempts, then the target, the call and their number."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        target = f"localhost:{probe.getsockname()[1]}"
    make_authority(tmp_path / "authority", "test authority")
    tls = make_tls(tmp_path, "node", authority=tmp_path / "authority")
    message = rf"GetFederation: given up after 2 attempts; the last: aggregator {target}"
    with (
        Relay(target, tls, patience=Patience(attempts=2, first_pause_s=0.1)) as relay,
        pytest.raises(NetworkError, match=message),
    ):
        relay.fetch_federation()


def test_another_authoritys_aggregator_is_not_trusted(aggregator: RunningAggregator, tmp_path: Path) -> None:
    """A server whose certificate another authority signed gets nothing, and no call succeeds."""
    make_authority(tmp_path / "other", "another authority")
    tls = make_tls(tmp_path / "stranger", "node", authority=tmp_path / "other")
    with (
        Relay(aggregator.target, tls, patience=Patience(attempts=1)) as relay,
        pytest.raises(NetworkError, match="UNAVAILABLE"),
    ):
        relay.put_public_key(b"key")
    assert aggregator.servicer.requests == []


def test_missing_certificate_is_a_configuration_error(tmp_path: Path) -> None:
    """A PEM file that is not there is named before anything is sent."""
    make_authority(tmp_path / "authority", "test authority")
    tls = make_tls(tmp_path, "node", authority=tmp_path / "authority")
    tls.key.unlink()
    with pytest.raises(ConfigurationError, match=r"tls\.key"):
        Relay("localhost:1", tls, patience=QUICK)


def test_nothing_is_tried_again_once_the_relay_is_closed(aggregator: RunningAggregator) -> None:
    """A thread that waits for its next attempt does not keep a daemon from ending."""
    with Relay(aggregator.target, aggregator.tls, patience=Patience(first_pause_s=3600)) as relay:
        pass
    with pytest.raises(NetworkError, match="Upload: given up after 1 attempts; the last: away"):
        relay._patience.pause(1, "Upload", NetworkError("away"))
