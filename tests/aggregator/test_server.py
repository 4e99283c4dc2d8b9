"""The server's shell: who may connect, health, reflection, limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from fedproof_aggregator.server import SERVICE, compute_stream_limit, start_server
from fedproof_aggregator.service import STREAMS_PER_CLIENT
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fedproof.config import TlsConfig
from fedproof.errors import ConfigurationError
from fedproof.keys.tls import TlsFiles, issue_certificate, make_authority
from fedproof.wire import aggregation_pb2 as wire
from fedproof.wire.aggregation_pb2_grpc import AggregationStub
from tests.aggregator.world import POLICY, World, refusal


@pytest.fixture
def ca(aggregator_certificates: tuple[list[TlsFiles], Path]) -> bytes:
    return aggregator_certificates[1].read_bytes()


@pytest.fixture
def channel(
    fresh: World, aggregator_certificates: tuple[list[TlsFiles], Path], ca: bytes
) -> Iterator[grpc.Channel]:
    files = aggregator_certificates[0][1]
    credentials = grpc.ssl_channel_credentials(ca, files.key.read_bytes(), files.certificate.read_bytes())
    with grpc.secure_channel(fresh.address, credentials) as opened:
        yield opened


def test_the_federation_is_named(channel: grpc.Channel, fresh: World) -> None:
    """A node can tell whether this is its own federation's aggregator."""
    assert AggregationStub(channel).GetFederation(wire.GetFederationRequest()) == wire.GetFederationResponse(
        chain_id=fresh.view.chain_id, contract=fresh.view.contract, policy_digest=POLICY.digest
    )


def test_health_is_served(channel: grpc.Channel) -> None:
    """The standard health check says SERVING, for the server and for the service."""
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_service(channel: grpc.Channel) -> None:
    """A generic client finds out what can be called."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
    names = {service.name for service in answer.list_services_response.service}
    assert names >= {"fedproof.wire.Aggregation", "grpc.health.v1.Health"}


@pytest.mark.parametrize("stranger", ["nobody", "another authority's", "plain text"])
def test_a_client_without_the_authoritys_certificate_does_not_get_in(
    fresh: World, ca: bytes, tmp_path: Path, stranger: str
) -> None:
    """No certificate, one of another authority, or no TLS at all: the connection fails before any call."""
    if stranger == "plain text":
        opened = grpc.insecure_channel(fresh.address)
    elif stranger == "nobody":
        opened = grpc.secure_channel(fresh.address, grpc.ssl_channel_credentials(ca))
    else:
        make_authority(tmp_path / "other", "other")
        files = issue_certificate(tmp_path / "node", tmp_path / "other", "node", hosts=["localhost"])
        credentials = grpc.ssl_channel_credentials(ca, files.key.read_bytes(), files.certificate.read_bytes())
        opened = grpc.secure_channel(fresh.address, credentials)
    with opened:
        stub = AggregationStub(opened)
        code, _ = refusal(lambda: stub.GetFederation(wire.GetFederationRequest(), timeout=10))
    assert code is grpc.StatusCode.UNAVAILABLE


def test_a_message_above_the_default_limit_is_refused(channel: grpc.Channel) -> None:
    """gRPC's inbound limit of 4 MiB stands."""
    request = wire.PutPublicKeyRequest(key=bytes(4 * 1024 * 1024 + 1))
    code, _ = refusal(lambda: AggregationStub(channel).PutPublicKey(request))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_one_certificate_holds_a_bounded_number_of_streams(world: World) -> None:
    """One stream too many is told to try again, others go on, and a stream that ends makes room."""
    update = world.committed_update(0)
    release = threading.Event()
    begun = [threading.Event() for _ in range(STREAMS_PER_CLIENT)]

    def parts(started: threading.Event) -> Iterator[wire.UploadRequest]:
        start = wire.UploadStart(round=1, node=world.node(0).address, header=update.header)
        yield wire.UploadRequest(start=start)
        started.set()
        release.wait()

    stub = world.stub(0)
    calls = [stub.Upload.future(parts(event)) for event in begun]
    for event in begun:
        assert event.wait(10)
    while len(world.of_kind("upload_started")) < STREAMS_PER_CLIENT:
        world.standing(0)
    code, message = refusal(lambda: world.upload(0, update))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (
        message == f"expected at most {STREAMS_PER_CLIENT} streams at once under one certificate; try again"
    )
    world.deliver(1)
    release.set()
    for call in calls:
        assert refusal(call.result)[0] is grpc.StatusCode.ABORTED
    assert world.upload(0, update).chunks == 3


def test_the_stream_limit_follows_the_policy() -> None:
    """Two calls for each node of the largest cohort and some more, up to what a machine carries."""
    assert compute_stream_limit(2) == 20
    assert compute_stream_limit(16) == 48
    assert compute_stream_limit(1000) == 256


def test_an_address_in_use_is_refused(fresh: World) -> None:
    """A second server on the same port is told so, instead of sharing it."""
    with pytest.raises(ConfigurationError, match="listen: expected an address that can be bound, got"):
        start_server(fresh.service, fresh.address, tls=fresh.config.tls, max_streams=2)


@pytest.mark.parametrize("key", ["ca", "certificate", "key"])
def test_a_pem_file_that_is_none_is_named(fresh: World, tmp_path: Path, key: str) -> None:
    """A missing file and a file of other bytes are refused by path."""
    tls: TlsConfig = fresh.config.tls
    path = tmp_path / "file.pem"
    changed = tls.model_copy(update={key: path})
    with pytest.raises(ConfigurationError, match=r"file.pem: expected .*PEM.* got"):
        start_server(fresh.service, "localhost:0", tls=changed, max_streams=2)
    path.write_bytes(b"not PEM")
    with pytest.raises(ConfigurationError, match=r"file.pem: expected .*PEM.* got other bytes"):
        start_server(fresh.service, "localhost:0", tls=changed, max_streams=2)


def test_a_stream_under_way_is_let_finish_and_an_idle_client_is_not_waited_for(world: World) -> None:
    """On shutdown an upload that ends within the grace is taken, and nothing waits once no stream is left."""
    update = world.committed_update(0)
    shutting_down = threading.Event()

    def parts() -> Iterator[wire.UploadRequest]:
        start = wire.UploadStart(round=1, node=world.node(0).address, header=update.header)
        yield wire.UploadRequest(start=start)
        shutting_down.wait()
        for index, data in enumerate(update.chunks):
            yield wire.UploadRequest(chunk=wire.Chunk(index=index, data=data))

    call = world.stub(0).Upload.future(parts())
    world.standing(1)
    while not world.of_kind("upload_started"):
        world.standing(0)
    stopping = threading.Thread(target=world.stop_server, args=(60.0,))
    started = time.monotonic()
    stopping.start()
    shutting_down.set()
    assert call.result().chunks == 3
    stopping.join(30)
    assert not stopping.is_alive()
    assert time.monotonic() - started < 30


def test_a_stream_that_does_not_end_is_cut_after_the_grace(world: World) -> None:
    """A node that only holds its stream open does not keep the aggregator from ending."""
    update = world.committed_update(0)
    release = threading.Event()

    def parts() -> Iterator[wire.UploadRequest]:
        start = wire.UploadStart(round=1, node=world.node(0).address, header=update.header)
        yield wire.UploadRequest(start=start)
        release.wait()

    call = world.stub(0).Upload.future(parts())
    while not world.of_kind("upload_started"):
        world.standing(1)
    world.stop_server(0.1)
    with pytest.raises(grpc.RpcError):
        call.result()
    release.set()
    assert world.of_kind("upload_refused") == []
