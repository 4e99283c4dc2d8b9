"""An aggregator behind a real TLS port, which keeps what it gets in memory, for a test to edit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from fedproof_node.patience import Patience

from fedproof.config import TlsConfig
from fedproof.digests import Digest
from fedproof.keys.tls import issue_certificate, make_authority
from fedproof.keys.wrapping import public_key_digest
from fedproof.manifest import compute_header_root
from fedproof.merkle import leaf_digest
from fedproof.wire import aggregation_pb2 as wire
from fedproof.wire.aggregation_pb2_grpc import AggregationServicer, add_AggregationServicer_to_server

_LONGEST_WAIT_S = 60.0
QUICK = Patience(attempts=3, first_pause_s=0.1, longest_pause_s=0.2, call_s=5.0, stream_s=20.0)
ONCE = Patience(attempts=1, call_s=10.0)


class Aggregator(AggregationServicer):
    """What the aggregator holds, for a test to look at and to edit.

    Attributes:
        failures: by method, what the next calls are answered with instead.
        held: by method, what its calls wait for before they are answered.
        before: by method, what happens before its calls are answered; it may end them.
        cut_after: chunks after which the next uploads are cut off.
        requests: every message that came in.
    """

    def __init__(self) -> None:
        self.federation = wire.GetFederationResponse()
        self.public_keys: dict[bytes, bytes] = {}
        self.wrapped: dict[int, wire.PutWrappedKeysRequest] = {}
        self.headers: dict[tuple[int, bytes], wire.Header] = {}
        self.uploads: dict[tuple[int, bytes], list[bytes]] = {}
        self.aggregates: dict[int, tuple[wire.Header, list[bytes]]] = {}
        self.commitments: dict[tuple[int, bytes], wire.SignedCommitment] = {}
        self.attestations: dict[tuple[int, bytes], wire.PutAttestationRequest] = {}
        self.batches: dict[int, list[wire.SignedCommitment]] = {}
        self.proposals: dict[int, list[wire.SignedAttestation]] = {}
        self.failures: dict[str, list[grpc.StatusCode]] = {}
        self.held: dict[str, threading.Event] = {}
        self.before: dict[str, Callable[[grpc.ServicerContext], None]] = {}
        self.cut_after: list[int] = []
        self.requests: list[Any] = []
        self._lock = threading.Lock()

    def _enter(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        with self._lock:
            self.requests.append(request)
            planned = self.failures.get(method)
            code = planned.pop(0) if planned else None
        if method in self.held:
            self.held[method].wait(_LONGEST_WAIT_S)
        if code is not None:
            context.abort(code, f"planned {code.name}")
        if method in self.before:
            self.before[method](context)

    def GetFederation(self, request: Any, context: grpc.ServicerContext) -> wire.GetFederationResponse:
        self._enter("GetFederation", request, context)
        return self.federation

    def PutPublicKey(self, request: Any, context: grpc.ServicerContext) -> wire.PutPublicKeyResponse:
        self._enter("PutPublicKey", request, context)
        self.public_keys[public_key_digest(request.key)] = request.key
        return wire.PutPublicKeyResponse()

    def GetPublicKey(self, request: Any, context: grpc.ServicerContext) -> wire.GetPublicKeyResponse:
        self._enter("GetPublicKey", request, context)
        if request.digest not in self.public_keys:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such key")
        return wire.GetPublicKeyResponse(key=self.public_keys[request.digest])

    def PutWrappedKeys(self, request: Any, context: grpc.ServicerContext) -> wire.PutWrappedKeysResponse:
        self._enter("PutWrappedKeys", request, context)
        self.wrapped[request.epoch] = request
        return wire.PutWrappedKeysResponse()

    def GetWrappedKeys(self, request: Any, context: grpc.ServicerContext) -> wire.GetWrappedKeysResponse:
        self._enter("GetWrappedKeys", request, context)
        if request.epoch not in self.wrapped:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such epoch")
        return wire.GetWrappedKeysResponse(keys=self.wrapped[request.epoch].keys)

    def GetUpload(self, request: Any, context: grpc.ServicerContext) -> wire.GetUploadResponse:
        self._enter("GetUpload", request, context)
        key = (request.round, request.node)
        held = len(self.uploads.get(key, []))
        is_complete = key in self.headers and held == len(self.headers[key].chunk_digests)
        return wire.GetUploadResponse(next_chunk=held, complete=is_complete)

    def Upload(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> wire.UploadResponse:
        start = next(request_iterator).start
        self._enter("Upload", start, context)
        key = (start.round, start.node)
        self.headers[key] = start.header
        chunks = self.uploads.setdefault(key, [])
        left = self.cut_after.pop(0) if self.cut_after else None
        for request in request_iterator:
            if left == 0:
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut off")
            left = None if left is None else left - 1
            index = request.chunk.index
            if index != len(chunks) or leaf_digest(request.chunk.data) != start.header.chunk_digests[index]:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"expected chunk {len(chunks)}, got {index}")
            self.requests.append(request)
            chunks.append(request.chunk.data)
        if left is not None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "cut off")
        leaves = [Digest(raw) for raw in start.header.chunk_digests]
        root = compute_header_root(start.header.manifest, leaves)
        return wire.UploadResponse(chunks=len(chunks), update_root=root)

    def DownloadUpdate(self, request: Any, context: grpc.ServicerContext) -> Iterator[wire.DownloadResponse]:
        self._enter("DownloadUpdate", request, context)
        key = (request.round, request.node)
        if key not in self.headers:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such update")
        yield from self._serve(self.headers[key], self.uploads[key], request.chunks)

    def DownloadAggregate(
        self, request: Any, context: grpc.ServicerContext
    ) -> Iterator[wire.DownloadResponse]:
        self._enter("DownloadAggregate", request, context)
        if request.round not in self.aggregates:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such aggregate")
        header, chunks = self.aggregates[request.round]
        for position, part in enumerate(self._serve(header, chunks, request.chunks)):
            if position and self.failures.get("AggregateChunk"):
                context.abort(self.failures["AggregateChunk"].pop(0), "cut off")
            yield part

    def PutCommitment(self, request: Any, context: grpc.ServicerContext) -> wire.PutCommitmentResponse:
        self._enter("PutCommitment", request, context)
        self.commitments[request.round, request.commitment.node] = request.commitment
        return wire.PutCommitmentResponse()

    def PutAttestation(self, request: Any, context: grpc.ServicerContext) -> wire.PutAttestationResponse:
        self._enter("PutAttestation", request, context)
        self.attestations[request.round, request.attestation.node] = request
        return wire.PutAttestationResponse()

    def GetBatch(self, request: Any, context: grpc.ServicerContext) -> wire.GetBatchResponse:
        self._enter("GetBatch", request, context)
        if request.round not in self.batches:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such batch")
        return wire.GetBatchResponse(commitments=self.batches[request.round])

    def GetProposal(self, request: Any, context: grpc.ServicerContext) -> wire.GetProposalResponse:
        self._enter("GetProposal", request, context)
        if request.round not in self.proposals:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such proposal")
        return wire.GetProposalResponse(attestations=self.proposals[request.round])

    def _serve(
        self, header: wire.Header, chunks: list[bytes], asked: Iterable[int]
    ) -> Iterator[wire.DownloadResponse]:
        yield wire.DownloadResponse(header=header)
        for index in asked or range(len(chunks)):
            yield wire.DownloadResponse(chunk=wire.Chunk(index=index, data=chunks[index]))


@dataclass
class RunningAggregator:
    """The servicer behind a real TLS port, which a test may close and open again."""

    servicer: Aggregator
    tls: TlsConfig
    port: int = 0
    server: grpc.Server | None = None

    def start(self) -> None:
        credentials = grpc.ssl_server_credentials(
            [(self.tls.key.read_bytes(), self.tls.certificate.read_bytes())],
            root_certificates=self.tls.ca.read_bytes(),
            require_client_auth=True,
        )
        self.server = grpc.server(ThreadPoolExecutor(max_workers=8))
        add_AggregationServicer_to_server(self.servicer, self.server)
        self.port = self.server.add_secure_port(f"localhost:{self.port}", credentials)
        self.server.start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop(None).wait()
            self.server = None

    @property
    def target(self) -> str:
        return f"localhost:{self.port}"


def make_tls(folder: Path, name: str, *, authority: Path) -> TlsConfig:
    """Return a certificate of the authority for localhost."""
    files = issue_certificate(folder / name, authority, name, hosts=["localhost"])
    return TlsConfig(ca=authority / "ca.crt", certificate=files.certificate, key=files.key)


def open_aggregator(folder: Path) -> RunningAggregator:
    """Return an aggregator that listens."""
    make_authority(folder / "authority", "test authority")
    running = RunningAggregator(Aggregator(), make_tls(folder, "aggregator", authority=folder / "authority"))
    running.start()
    return running
