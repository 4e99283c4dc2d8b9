"""What a node asks of the aggregator, over gRPC with TLS. Whatever comes back, the caller checks it.

Calls that find no one, or are cut short, are made again with growing pauses, and each failure that is final
names the target, the call and the number of attempts. An upload goes on at the first chunk that the
aggregator misses, a download at the first that the spool misses, and progress renews the attempts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Protocol, TypeVar

import grpc

from fedproof.config import TlsConfig
from fedproof.digests import Address, Digest, as_address, as_digest
from fedproof.errors import FedproofError, MalformedMessage, NetworkError, PeerError
from fedproof.files import read_whole
from fedproof.ledger.statements import SignedAttestation, SignedCommitment
from fedproof.wire import aggregation_pb2 as wire
from fedproof.wire.aggregation_pb2_grpc import AggregationStub
from fedproof_node.patience import Patience, translate_error
from fedproof_node.spool import EncryptedUpdate, Spool
from fedproof_node.verification import verify_chunk

Result = TypeVar("Result")


class _Stream(Protocol):
    """What gRPC returns for a stream of answers."""

    def __iter__(self) -> Iterator[wire.DownloadResponse]: ...

    def cancel(self) -> bool: ...


class Relay:
    """One TLS channel to the aggregator. Use as a context manager."""

    def __init__(self, target: str, tls: TlsConfig, *, patience: Patience) -> None:
        """Open the channel; nothing is sent before the first call.

        Raises:
            ConfigurationError: a PEM file cannot be read.
        """
        self.target = target
        self._patience = replace(patience, over=threading.Event())
        credentials = grpc.ssl_channel_credentials(
            root_certificates=read_whole(tls.ca, "the authority's certificate (PEM)"),
            private_key=read_whole(tls.key, "this node's TLS key (PEM)"),
            certificate_chain=read_whole(tls.certificate, "this node's TLS certificate (PEM)"),
        )
        # Reconnecting keeps pace with our own pauses: gRPC's would grow to two minutes.
        options = [
            ("grpc.initial_reconnect_backoff_ms", int(patience.first_pause_s * 1000)),
            ("grpc.max_reconnect_backoff_ms", int(patience.longest_pause_s * 1000)),
        ]
        self._channel = grpc.secure_channel(target, credentials, options=options)
        self._stub = AggregationStub(self._channel)

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; calls under way end now, in other threads as well."""
        self._patience.over.set()
        self._channel.close()

    def fetch_federation(self) -> wire.GetFederationResponse:
        """Return which federation the aggregator says it serves."""
        return self._call(self._stub.GetFederation, wire.GetFederationRequest(), "GetFederation")

    def put_public_key(self, key: bytes) -> None:
        """Leave this node's public wrapping key for whoever makes the next epoch."""
        self._call(self._stub.PutPublicKey, wire.PutPublicKeyRequest(key=key), "PutPublicKey")

    def fetch_public_key(self, digest: Digest) -> bytes:
        """Return the public key that was left under a digest.

        Raises:
            MissingObject: nobody has left it yet.
        """
        request = wire.GetPublicKeyRequest(digest=digest)
        return self._call(self._stub.GetPublicKey, request, "GetPublicKey").key

    def put_wrapped_keys(self, request: wire.PutWrappedKeysRequest) -> None:
        """Leave an epoch's wrapped keys for the other nodes."""
        self._call(self._stub.PutWrappedKeys, request, "PutWrappedKeys")

    def fetch_wrapped_keys(self, epoch: int) -> Sequence[wire.WrappedKey]:
        """Return an epoch's wrapped keys.

        Raises:
            MissingObject: the key maker has not left them yet.
        """
        request = wire.GetWrappedKeysRequest(epoch=epoch)
        return self._call(self._stub.GetWrappedKeys, request, "GetWrappedKeys").keys

    def put_commitment(self, round_number: int, signed: SignedCommitment) -> None:
        """Hand over this node's signed commitment."""
        message = wire.SignedCommitment(
            node=signed.node,
            update_root=signed.update_root,
            examples=signed.examples,
            nonce=signed.nonce,
            signature=signed.signature,
        )
        request = wire.PutCommitmentRequest(round=round_number, commitment=message)
        self._call(self._stub.PutCommitment, request, f"PutCommitment (round {round_number})")

    def put_attestation(self, round_number: int, model: Digest, signed: SignedAttestation) -> None:
        """Hand over this node's signed attestation."""
        message = wire.SignedAttestation(node=signed.node, signature=signed.signature)
        request = wire.PutAttestationRequest(round=round_number, model_digest=model, attestation=message)
        self._call(self._stub.PutAttestation, request, f"PutAttestation (round {round_number})")

    def fetch_batch(self, round_number: int) -> tuple[SignedCommitment, ...]:
        """Return the signed commitments that the aggregator says it anchored.

        Raises:
            MalformedMessage: a node or root is not as long as it should be.
        """
        what = f"GetBatch (round {round_number})"
        answer = self._call(self._stub.GetBatch, wire.GetBatchRequest(round=round_number), what)
        return tuple(
            SignedCommitment(
                as_address(each.node, what),
                as_digest(each.update_root, what),
                each.examples,
                each.nonce,
                each.signature,
            )
            for each in answer.commitments
        )

    def fetch_proposal(self, round_number: int) -> tuple[SignedAttestation, ...]:
        """Return the signed attestations that the aggregator says it proposed; as `fetch_batch`."""
        what = f"GetProposal (round {round_number})"
        answer = self._call(self._stub.GetProposal, wire.GetProposalRequest(round=round_number), what)
        return tuple(
            SignedAttestation(as_address(each.node, what), each.signature) for each in answer.attestations
        )

    def upload(
        self,
        update: EncryptedUpdate,
        *,
        round_number: int,
        node: Address,
        on_progress: Callable[[int, int], None],
    ) -> int:
        """Send the update, from the first chunk that the aggregator misses, and return the update's bytes.

        Args:
            update: spooled and committed to.
            round_number: of which round.
            node: whose update it is.
            on_progress: called with the bytes that the aggregator has or was sent, and the total. gRPC calls
                it from a thread of its own.

        Raises:
            NetworkError: too many attempts without progress.
            PeerError: the aggregator refuses it.
        """
        total = sum(update.sizes)
        held = -1
        failures = 0
        while True:
            state = self._call(
                self._stub.GetUpload, wire.GetUploadRequest(round=round_number, node=node), "GetUpload"
            )
            if state.complete:
                on_progress(total, total)
                return total
            if state.next_chunk > len(update.leaves):
                raise MalformedMessage(
                    f"{self.target}: GetUpload: expected at most {len(update.leaves)} chunks, got "
                    f"{state.next_chunk}"
                )
            failures = 0 if state.next_chunk > held else failures
            held = state.next_chunk
            try:
                self._send(update, held, round_number=round_number, node=node, on_progress=on_progress)
            except NetworkError as error:
                failures += 1
                self._patience.pause(failures, "Upload", error)
                continue
            return total

    def _send(
        self,
        update: EncryptedUpdate,
        first: int,
        *,
        round_number: int,
        node: Address,
        on_progress: Callable[[int, int], None],
    ) -> None:
        own_faults: list[FedproofError] = []
        sent, total = sum(update.sizes[:first]), sum(update.sizes)

        def requests() -> Iterator[wire.UploadRequest]:
            nonlocal sent
            start = wire.UploadStart(round=round_number, node=node, header=update.header)
            yield wire.UploadRequest(start=start)
            try:
                for index, data in update.chunks(first):
                    yield wire.UploadRequest(chunk=wire.Chunk(index=index, data=data))
                    sent += len(data)
                    on_progress(sent, total)
            except FedproofError as error:
                # gRPC hides what an iterator raises; keep it, so that our own disk is not called a refusal.
                own_faults.append(error)
                raise

        try:
            answer = self._stub.Upload(requests(), timeout=self._patience.stream_s)
        except grpc.RpcError as error:
            if own_faults:
                raise own_faults[0] from error
            raise translate_error(
                error, self.target, f"Upload (round {round_number}, from chunk {first})"
            ) from error
        if answer.update_root != update.root:
            raise PeerError(
                f"{self.target}: round {round_number}: Upload: expected the receipt of root "
                f"{update.root.hex()}, got {answer.update_root.hex()}"
            )

    def fetch_aggregate_header(self, round_number: int) -> wire.Header:
        """Return the header of a round's sum.

        Raises:
            MissingObject: the aggregator does not hold it.
        """

        def fetch() -> wire.Header:
            with closing(self._aggregate_stream(round_number, (0,))) as parts:
                return _take_header(parts, f"{self.target}: DownloadAggregate")

        return self._patience.retry(fetch, f"DownloadAggregate (round {round_number})")

    def fetch_aggregate(self, round_number: int, *, leaves: Sequence[Digest], spool: Spool) -> None:
        """Bring every chunk of a round's sum into the spool, except those that are there already.

        Args:
            round_number: of which round.
            leaves: the proven leaf digest of each chunk.
            spool: where they go; each is verified before it is written.

        Raises:
            DigestMismatch: the aggregator sent a chunk of another digest.
            MissingObject: it does not hold one.
            NetworkError: too many attempts without progress.
        """
        what = f"DownloadAggregate (round {round_number})"
        missing = [index for index, digest in enumerate(leaves) if not spool.holds(index, digest)]
        failures = 0
        while missing:
            before = len(missing)
            try:
                with closing(self._aggregate_stream(round_number, missing)) as parts:
                    _take_header(parts, f"{self.target}: {what}")
                    for index, data in _take_chunks(parts, tuple(missing), f"{self.target}: {what}"):
                        where = f"{self.target}: {what}: chunk {index}"
                        spool.write_chunk(index, verify_chunk(data, leaves[index], where=where))
                        missing.remove(index)
            except NetworkError as error:
                failures = 1 if len(missing) < before else failures + 1
                self._patience.pause(failures, what, error)

    def fetch_update_chunk(
        self, round_number: int, node: Address, *, chunk: int
    ) -> tuple[wire.Header, bytes]:
        """Return the header and one chunk of a contributor's update.

        Raises:
            MissingObject: the aggregator does not hold it.
        """
        what = f"DownloadUpdate (round {round_number}, node 0x{node.hex()}, chunk {chunk})"
        request = wire.DownloadUpdateRequest(round=round_number, node=node, chunks=[chunk])

        def fetch() -> tuple[wire.Header, bytes]:
            stream = self._stub.DownloadUpdate(request, timeout=self._patience.stream_s)
            with closing(self._receive(stream, what)) as parts:
                header = _take_header(parts, f"{self.target}: {what}")
                ((_, data),) = _take_chunks(parts, [chunk], f"{self.target}: {what}")
                return header, data

        return self._patience.retry(fetch, what)

    def _aggregate_stream(
        self, round_number: int, chunks: Sequence[int]
    ) -> Generator[wire.DownloadResponse, None, None]:
        request = wire.DownloadAggregateRequest(round=round_number, chunks=chunks)
        stream = self._stub.DownloadAggregate(request, timeout=self._patience.stream_s)
        return self._receive(stream, f"DownloadAggregate (round {round_number})")

    def _receive(self, stream: _Stream, what: str) -> Generator[wire.DownloadResponse, None, None]:
        try:
            yield from stream
        except grpc.RpcError as error:
            raise translate_error(error, self.target, what) from error
        finally:
            stream.cancel()

    def _call(self, method: Callable[..., Result], request: object, what: str) -> Result:
        def call() -> Result:
            try:
                return method(
                    request,
                    timeout=self._patience.call_s,
                    wait_for_ready=self._patience.awaits_connection,
                )
            except grpc.RpcError as error:
                raise translate_error(error, self.target, what) from error

        return self._patience.retry(call, what)


def _take_header(parts: Iterator[wire.DownloadResponse], what: str) -> wire.Header:
    first = next(parts, None)
    if first is None or first.WhichOneof("part") != "header":
        raise MalformedMessage(f"{what}: expected a header first, got {_kind(first)}")
    return first.header


def _take_chunks(
    parts: Iterator[wire.DownloadResponse], chunks: Sequence[int], what: str
) -> Iterator[tuple[int, bytes]]:
    for index in chunks:
        part = next(parts, None)
        if part is None or part.WhichOneof("part") != "chunk" or part.chunk.index != index:
            raise MalformedMessage(f"{what}: expected chunk {index}, got {_kind(part)}")
        yield index, part.chunk.data


def _kind(part: wire.DownloadResponse | None) -> str:
    if part is None:
        return "the end of the stream"
    kind = part.WhichOneof("part")
    return f"chunk {part.chunk.index}" if kind == "chunk" else str(kind)
