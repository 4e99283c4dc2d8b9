"""The gRPC server: mutual TLS, health checking, and limits.

Threads rather than asyncio: every handler hashes, checks coefficients, waits for the disk or reads the
ledger, all of it blocking. With a thread for each stream, one may block without the others noticing. How many
streams there can be is known beforehand, since the policy bounds the cohort.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fedproof.config import TlsConfig
from fedproof.errors import ConfigurationError
from fedproof.files import read_whole
from fedproof.wire import aggregation_pb2, aggregation_pb2_grpc
from fedproof_aggregator.allowance import REQUESTS_PER_CLIENT, STREAMS_PER_CLIENT, Allowance

SERVICE = aggregation_pb2.DESCRIPTOR.services_by_name["Aggregation"].full_name

_OPTIONS = (
    # A second aggregator on the same port is an error, not a way to share the load.
    ("grpc.so_reuseport", 0),
    # A node whose machine vanished holds its stream, and thereby a thread, for a minute and not for hours.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Nodes may look just as often whether we are still there.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # More than one certificate may have under way; beyond that its calls wait on its own side.
    ("grpc.max_concurrent_streams", 16),
    # What nobody has asked for yet stays with the sender; else each stream takes some megabytes.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 16_384),
    ("grpc.experimental.tcp_max_read_chunk_size", 65_536),
)
# The default inbound limit of 4 MiB stands: a header of 100,000 chunks, or a chunk of 1 MiB, is below it.

# How many streams each way hold messages at once: a chunk is up to 1 MiB, in memory up to four times.
STREAMS_AT_WORK = 16
# A chunk in this time is the slowest line that others wait for. Where all are slower, ours is at fault.
UPLOAD_PATIENCE_S = 20.0
DOWNLOAD_PATIENCE_S = 10.0

_UNARY_GRACE_S = 0.2
_SPARE_THREADS = 16
_MOST_THREADS = 1280


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that accepts connections.

    Attributes:
        address: host and port, as a node would dial it.
    """

    address: str
    _server: grpc.Server
    _health: health.HealthServicer
    _allowance: Allowance

    def stop(self, grace_s: float) -> None:
        """Refuse new calls, give those under way so many seconds, and return when all have ended."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s + _UNARY_GRACE_S)
        # gRPC itself would wait for every idle client to hang up.
        self._allowance.await_idle(grace_s)
        self._server.stop(_UNARY_GRACE_S).wait()


def compute_threads(max_contributors: int) -> int:
    """Return how many calls are served at once: all that the largest cohort may have under way, and more.

    A thread begins when it is needed first: nodes that do what they should keep a few each at work.
    """
    per_client = STREAMS_PER_CLIENT + REQUESTS_PER_CLIENT
    return min(per_client * max_contributors + _SPARE_THREADS, _MOST_THREADS)


def start_server(
    servicer: aggregation_pb2_grpc.AggregationServicer,
    listen: str,
    *,
    tls: TlsConfig,
    threads: int,
    allowance: Allowance,
) -> RunningServer:
    """Serve the servicer and return once connections are accepted.

    Args:
        servicer: what answers.
        listen: ``host:port``; port 0 takes a free one.
        tls: our certificate, and the authority whose certificates clients must show.
        threads: calls served at once; one more waits for its turn.
        allowance: what each client may ask for, of whatever service.

    Raises:
        ConfigurationError: a PEM file cannot be read, or the address cannot be bound.
    """
    server = grpc.server(
        # Without a limit of gRPC's own, which would refuse whoever comes next, whosever the others are.
        ThreadPoolExecutor(max_workers=threads, thread_name_prefix="rpc"),
        interceptors=[allowance],
        options=_OPTIONS,
    )
    aggregation_pb2_grpc.add_AggregationServicer_to_server(servicer, server)
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    credentials = grpc.ssl_server_credentials(
        [(_read_pem(tls.key, "a PEM private key"), _read_pem(tls.certificate, "a PEM certificate"))],
        root_certificates=_read_pem(tls.ca, "the PEM certificate of the federation's authority"),
        require_client_auth=True,
    )
    try:
        port = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise ConfigurationError(f"listen: expected an address that can be bound, got {listen!r}") from error
    server.start()
    for service in ("", SERVICE):
        health_servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    host = listen.rpartition(":")[0]
    return RunningServer(f"{host}:{port}", server, health_servicer, allowance)


def _read_pem(path: Path, what: str) -> bytes:
    pem = read_whole(path, what)
    if b"-----BEGIN " not in pem:
        raise ConfigurationError(f"{path}: expected {what}, got other bytes")
    return pem
