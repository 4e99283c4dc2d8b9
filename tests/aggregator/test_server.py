"""The server's shell: who may connect, health, limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from fedproof_aggregator.allowance import REQUESTS_PER_CLIENT, STREAMS_PER_CLIENT, Allowance
from fedproof_aggregator.server import SERVICE, compute_threads, start_server
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedproof.config import TlsConfig
from fedproof.errors import ConfigurationError
from fedproof.keys.tls import TlsFiles, issue_certificate, make_authority
from fedproof.wire import aggregation_pb2 as wire
from fedproof.wire.aggregation_pb2_grpc import AggregationStub
from tests.aggregator.federation import POLICY
from tests.aggregator.world import World, refusal


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


def hoard(world: World, path: str, *messages: bytes, connections: int = 4) -> list[grpc.Future]:
    """Let the first node begin more calls than there are threads, and end none."""

    def send(over: threading.Event) -> Iterator[bytes]:
        yield from messages
        over.wait(60)

    calls = []
    for _ in range(connections):
        world.stub(0)
        begin = world._channels[-1].stream_stream(path)
        for _ in range(16):
            over = threading.Event()
            calls.append(begin(send(over)))
            calls[-1].add_callback(over.set)
    return calls


def ask_everything(world: World) -> dict[str, grpc.StatusCode]:
    """Let the second node make each call of the service; return what it was told."""
    stub = world.stub(1)
    codes = {}
    for method in wire.DESCRIPTOR.services_by_name["Aggregation"].methods:
        request = getattr(wire, method.input_type.name)(
            **({"round": 1} if "round" in method.input_type.fields_by_name else {})
        )

        def call(name: str = method.name, request: object = request) -> None:
            answer = getattr(stub, name)(iter([request]) if name == "Upload" else request, timeout=10)
            if isinstance(answer, Iterator):
                list(answer)

        try:
            call()
        except grpc.RpcError as error:
            codes[method.name] = error.code()
        else:
            codes[method.name] = grpc.StatusCode.OK
    return codes


@pytest.mark.parametrize(
    ("path", "messages", "most"),
    [
        ("/fedproof.wire.Aggregation/GetBatch", (), REQUESTS_PER_CLIENT),
        ("/fedproof.wire.Aggregation/Upload", (), STREAMS_PER_CLIENT),
        ("/fedproof.wire.Aggregation/DownloadAggregate", (), STREAMS_PER_CLIENT),
        ("/grpc.health.v1.Health/Check", (), REQUESTS_PER_CLIENT),
        ("/grpc.health.v1.Health/Watch", (b"",), STREAMS_PER_CLIENT),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", (), 0),
    ],
)
def test_what_one_certificate_keeps_under_way_locks_nobody_out(
    world: World, path: str, messages: tuple[bytes, ...], most: int
) -> None:
    """Calls that bring nothing and do not end are counted too, of whatever service; another is served all."""
    before = ask_everything(world)
    assert not {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED} & {*before.values()}
    calls = hoard(world, path, *messages)
    assert ask_everything(world) == before
    deadline = time.monotonic() + 10
    while (left := sum(not call.done() for call in calls)) > most and time.monotonic() < deadline:
        ask_everything(world)
    assert left == most
    for call in calls:
        call.cancel()


def test_all_that_one_certificate_may_have_under_way_locks_nobody_out(world: World) -> None:
    """Streams and requests together, from many connections; another is served all calls."""
    before = ask_everything(world)
    calls = hoard(world, "/fedproof.wire.Aggregation/Upload") + hoard(world, "/grpc.health.v1.Health/Check")
    assert ask_everything(world) == before
    assert sum(not call.done() for call in calls) >= STREAMS_PER_CLIENT + REQUESTS_PER_CLIENT
    for call in calls:
        call.cancel()


def test_a_call_without_a_message_and_one_that_is_none_are_refused(channel: grpc.Channel) -> None:
    """Both are told so, and give back what they held."""
    call = channel.stream_unary("/fedproof.wire.Aggregation/GetBatch")
    for _ in range(3 * REQUESTS_PER_CLIENT):
        assert refusal(lambda: call(iter([])))[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal(lambda: call(iter([b"\xff"])))[0] is grpc.StatusCode.INTERNAL
    assert AggregationStub(channel).GetFederation(wire.GetFederationRequest()).policy_digest == POLICY.digest


def test_there_is_a_thread_for_all_that_a_cohort_may_have_under_way() -> None:
    """So many for each node of the largest cohort and some more, up to what a machine carries."""
    assert compute_threads(2) == 2 * (STREAMS_PER_CLIENT + REQUESTS_PER_CLIENT) + 16
    assert compute_threads(100) == 1216
    assert compute_threads(1000) == 1280


def test_an_address_in_use_is_refused(fresh: World) -> None:
    """A second server on the same port is told so, instead of sharing it."""
    with pytest.raises(ConfigurationError, match="listen: expected an address that can be bound, got"):
        start_server(fresh.service, fresh.address, tls=fresh.config.tls, threads=2, allowance=Allowance())


@pytest.mark.parametrize("key", ["ca", "certificate", "key"])
def test_a_pem_file_that_is_none_is_named(fresh: World, tmp_path: Path, key: str) -> None:
    """A missing file and a file of other bytes are refused by path."""
    tls: TlsConfig = fresh.config.tls
    path = tmp_path / "file.pem"
    changed = tls.model_copy(update={key: path})
    with pytest.raises(ConfigurationError, match=r"file.pem: expected .*PEM.* got"):
        start_server(fresh.service, "localhost:0", tls=changed, threads=2, allowance=Allowance())
    path.write_bytes(b"not PEM")
    with pytest.raises(ConfigurationError, match=r"file.pem: expected .*PEM.* got other bytes"):
        start_server(fresh.service, "localhost:0", tls=changed, threads=2, allowance=Allowance())


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
