"""The gRPC service: one method for each call of the proto, and errors as status codes.

Who calls does not matter: each thing that comes is checked against the ledger. How much one party may ask
for has been seen to before (`fedproof_aggregator.allowance`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager

import grpc
from structlog.typing import FilteringBoundLogger

from fedproof.digests import Digest, as_address, checksum_address
from fedproof.errors import (
    DigestMismatch,
    LedgerError,
    MalformedMessage,
    MissingObject,
    PeerError,
    WorkerDied,
)
from fedproof.wire import aggregation_pb2 as wire
from fedproof.wire.aggregation_pb2_grpc import AggregationServicer
from fedproof_aggregator.intake import Incoming, Intake
from fedproof_aggregator.keyrelay import KeyRelay
from fedproof_aggregator.outlet import Outlet
from fedproof_aggregator.refusal import Refused, malformed
from fedproof_aggregator.statements import Statements
from fedproof_aggregator.turnstile import Turnstile
from fedproof_aggregator.view import LedgerView


class _Interrupted(PeerError):
    """A stream ended before its update was whole; what came stays, and a later stream brings the rest."""


class AggregationService(AggregationServicer):
    """Answers nodes, each call in a thread of its own."""

    def __init__(
        self,
        *,
        view: LedgerView,
        outlet: Outlet,
        intake: Intake,
        key_relay: KeyRelay,
        statements: Statements,
        uploads: Turnstile,
        downloads: Turnstile,
        policy_digest: Digest,
        logger: FilteringBoundLogger,
        on_progress: Callable[[], None],
    ) -> None:
        """Bind the calls to what answers them.

        Args:
            view: the ledger.
            outlet: gives updates and sums.
            intake: takes updates.
            key_relay: takes and gives keys.
            statements: takes and gives what nodes sign.
            uploads: what their streams wait at.
            downloads: likewise.
            policy_digest: of the policy that this aggregator serves.
            logger: hears of uploads and refusals.
            on_progress: called when something came that a round may have waited for.
        """
        self._view = view
        self._outlet = outlet
        self._intake = intake
        self._key_relay = key_relay
        self._statements = statements
        self._uploads = uploads
        self._downloads = downloads
        self._policy_digest = policy_digest
        self._logger = logger
        self._on_progress = on_progress

    def GetFederation(
        self, request: wire.GetFederationRequest, context: grpc.ServicerContext
    ) -> wire.GetFederationResponse:
        """Say which federation this is."""
        with self._answering(context):
            return wire.GetFederationResponse(
                chain_id=self._view.chain_id, contract=self._view.contract, policy_digest=self._policy_digest
            )

    def PutPublicKey(
        self, request: wire.PutPublicKeyRequest, context: grpc.ServicerContext
    ) -> wire.PutPublicKeyResponse:
        """Keep a registered public key."""
        with self._answering(context):
            self._key_relay.put_public_key(request.key)
        return wire.PutPublicKeyResponse()

    def GetPublicKey(
        self, request: wire.GetPublicKeyRequest, context: grpc.ServicerContext
    ) -> wire.GetPublicKeyResponse:
        """Give a public key."""
        with self._answering(context):
            return wire.GetPublicKeyResponse(key=self._key_relay.find_public_key(request.digest))

    def PutWrappedKeys(
        self, request: wire.PutWrappedKeysRequest, context: grpc.ServicerContext
    ) -> wire.PutWrappedKeysResponse:
        """Keep a published epoch's wrapped keys."""
        with self._answering(context):
            self._key_relay.put_wrapped_keys(request.epoch, request.keys)
        self._on_progress()
        return wire.PutWrappedKeysResponse()

    def GetWrappedKeys(
        self, request: wire.GetWrappedKeysRequest, context: grpc.ServicerContext
    ) -> wire.GetWrappedKeysResponse:
        """Give an epoch's wrapped keys."""
        with self._answering(context):
            return wire.GetWrappedKeysResponse(keys=self._key_relay.find_wrapped_keys(request.epoch))

    def GetUpload(
        self, request: wire.GetUploadRequest, context: grpc.ServicerContext
    ) -> wire.GetUploadResponse:
        """Say how far an update has come."""
        with self._answering(context):
            standing = self._intake.find_standing(request.round, request.node)
        if standing is None:
            return wire.GetUploadResponse(next_chunk=0, complete=False)
        return wire.GetUploadResponse(next_chunk=standing.received, complete=standing.is_complete)

    def Upload(
        self, request_iterator: Iterator[wire.UploadRequest], context: grpc.ServicerContext
    ) -> wire.UploadResponse:
        """Take an update, or the rest of one."""
        paced = self._uploads.receive(request_iterator, context.cancel)
        with self._answering(context), closing(paced) as requests:
            first = next(requests, None)
            if first is None or first.WhichOneof("part") != "start":
                raise malformed(f"upload: expected a start message first, got {_kind(first)}")
            start = first.start
            try:
                incoming = self._receive(start, requests)
            except (Refused, MalformedMessage) as error:
                self._logger.warning(
                    "upload_refused", round=start.round, node=_name(start), reason=str(error)
                )
                raise
            except (_Interrupted, grpc.RpcError) as error:
                # gRPC tells a node that went away, or our own shutdown, now as one and now as the other.
                held = str(error) or "the connection was lost"
                self._logger.warning("upload_interrupted", round=start.round, node=_name(start), reason=held)
                context.abort(grpc.StatusCode.ABORTED, held)
        return wire.UploadResponse(chunks=len(incoming.chunk_digests), update_root=incoming.root)

    def DownloadUpdate(
        self, request: wire.DownloadUpdateRequest, context: grpc.ServicerContext
    ) -> Iterator[wire.DownloadResponse]:
        """Give a sealed contributor's header and chunks, which no round can count a copy of."""
        with self._answering(context):
            parts = self._outlet.read_update(request.round, request.node, request.chunks)
            yield from self._downloads.send(parts, context.cancel)

    def DownloadAggregate(
        self, request: wire.DownloadAggregateRequest, context: grpc.ServicerContext
    ) -> Iterator[wire.DownloadResponse]:
        """Give a sum's header and chunks."""
        with self._answering(context):
            parts = self._outlet.read_aggregate(request.round, request.chunks)
            yield from self._downloads.send(parts, context.cancel)

    def PutCommitment(
        self, request: wire.PutCommitmentRequest, context: grpc.ServicerContext
    ) -> wire.PutCommitmentResponse:
        """Take a node's signed commitment."""
        with self._answering(context):
            self._statements.put_commitment(request.round, request.commitment)
        return wire.PutCommitmentResponse()

    def PutAttestation(
        self, request: wire.PutAttestationRequest, context: grpc.ServicerContext
    ) -> wire.PutAttestationResponse:
        """Take a node's signed attestation."""
        with self._answering(context):
            self._statements.put_attestation(request.round, request.model_digest, request.attestation)
        self._on_progress()
        return wire.PutAttestationResponse()

    def GetBatch(self, request: wire.GetBatchRequest, context: grpc.ServicerContext) -> wire.GetBatchResponse:
        """Give the signed commitments that were anchored."""
        with self._answering(context):
            return wire.GetBatchResponse(commitments=self._statements.get_batch(request.round))

    def GetProposal(
        self, request: wire.GetProposalRequest, context: grpc.ServicerContext
    ) -> wire.GetProposalResponse:
        """Give the signed attestations that were proposed."""
        with self._answering(context):
            return wire.GetProposalResponse(attestations=self._statements.get_proposal(request.round))

    def _receive(self, start: wire.UploadStart, rest: Iterable[wire.UploadRequest]) -> Incoming:
        incoming = self._intake.begin(start)
        was_complete = incoming.is_complete
        if not was_complete:
            self._logger.info(
                "upload_started",
                round=incoming.round,
                node=_name(start),
                bytes=incoming.terms.compute_update_bytes(),
                next_chunk=incoming.held,
            )
        try:
            for part in rest:
                if part.WhichOneof("part") != "chunk":
                    raise malformed(f"{incoming.where}: expected a chunk, got {_kind(part)}")
                # One copy of a chunk at a time, and none while the stream waits for its turn.
                index, data = part.chunk.index, part.chunk.data
                del part
                self._intake.accept(incoming, index, data)
                del data
        finally:
            self._intake.settle(incoming)
        if not incoming.is_complete:
            raise _Interrupted(
                f"{incoming.where}: expected {len(incoming.chunk_digests)} chunks, the stream ended with "
                f"{incoming.held} of them held"
            )
        if not was_complete:
            self._logger.info(
                "upload_complete",
                round=incoming.round,
                node=_name(start),
                bytes=incoming.terms.compute_update_bytes(),
            )
            self._on_progress()
        return incoming

    @contextmanager
    def _answering(self, context: grpc.ServicerContext) -> Iterator[None]:
        """End a call with the status code of an error."""
        try:
            yield
        except Refused as error:
            context.abort(error.code, str(error))
        except MalformedMessage as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        # Paths and endpoints are the operator's to know, not the peer's.
        except (DigestMismatch, MissingObject) as error:
            self._log_error(str(error))
            context.abort(grpc.StatusCode.DATA_LOSS, "a stored object is damaged or lost; see the operator")
        except LedgerError as error:
            self._log_error(str(error))
            context.abort(grpc.StatusCode.UNAVAILABLE, "the aggregator cannot read the ledger; try again")
        except WorkerDied as error:
            self._log_error(str(error))
            context.abort(grpc.StatusCode.UNAVAILABLE, "the aggregator cannot add updates now; try again")
        except (OSError, sqlite3.Error) as error:
            self._log_error(f"disk: {error}")
            context.abort(grpc.StatusCode.UNAVAILABLE, "the aggregator cannot use its disk; try again")

    def _log_error(self, message: str) -> None:
        self._logger.error("error", message=message)


def _kind(part: wire.UploadRequest | None) -> str:
    return "the end of the stream" if part is None else str(part.WhichOneof("part") or "an empty message")


def _name(start: wire.UploadStart) -> str:
    if len(start.node) == 20:
        return checksum_address(as_address(start.node, "node"))
    # Whatever a peer writes there, the log's line stays short.
    return "0x" + start.node[:20].hex()
