"""Fuzz targets: whole streams of messages, at the aggregator and at a node.

An input is a stream: canonical fields, each a message.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NoReturn, TypeVar

import grpc
from fedproof_node.relay import _take_chunks, _take_header
from fedproof_node.verification import RoundFacts, verify_aggregate_header, verify_chunk
from google.protobuf.message import DecodeError, Message

from fedproof.codec.round_encoding import RoundEncoding
from fedproof.codec.scaling import Scaling
from fedproof.codec.selection import Selection
from fedproof.digests import ZERO_DIGEST, Digest, encode_fields, split_fields
from fedproof.errors import DigestMismatch, MalformedMessage
from fedproof.ledger.rounds import Commitment
from fedproof.manifest import compute_header_root
from fedproof.wire.aggregation_pb2 import DownloadResponse, Header, UploadRequest, UploadStart
from tests.aggregator.federation import deploy_federation, make_certificates
from tests.aggregator.world import World, opened
from tests.fuzz.chunks import PARAMETERS
from tests.fuzz.files import scratch_folder
from tests.fuzz.registry import refusing, skip, target
from tests.fuzz.samples import AGGREGATE

AnyMessage = TypeVar("AnyMessage", bound=Message)

_VALUES: Final = PARAMETERS.values_per_chunk + 1
FACTS: Final = RoundFacts(
    chain_id=AGGREGATE.chain_id,
    contract=AGGREGATE.contract,
    round=AGGREGATE.round,
    epoch=AGGREGATE.epoch,
    policy_digest=AGGREGATE.policy_digest,
    base_model=ZERO_DIGEST,
    base_values=ZERO_DIGEST,
    encoding=RoundEncoding(
        PARAMETERS,
        Scaling(limit=PARAMETERS.limit, max_examples=1000, group_sizes=(_VALUES,), clips=(1.0,)),
        Selection(_VALUES, 1, ZERO_DIGEST),
    ),
    contributions=AGGREGATE.contributors,
)
_REFUSALS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
}


@target(max_bytes=4096)
def upload(raw: bytes) -> None:
    """`AggregationService.Upload`, and the intake behind it: a node's stream."""
    messages = _parse_stream(raw, UploadRequest)
    context = _Context()
    for message in messages:
        if message.WhichOneof("part") == "start":
            _commit_to(message.start)
    with refusing(MalformedMessage):
        try:
            world().service.Upload(iter(messages), context)
        except _Aborted:
            if context.code in _REFUSALS:
                raise MalformedMessage(context.details) from None
    # What is left is a stream that was in order as far as it went.
    assert context.code in {None, grpc.StatusCode.ABORTED}, context.details


@target(max_bytes=4096)
def download(raw: bytes) -> None:
    """A node's side of `DownloadAggregate`: the aggregator's stream."""
    messages = iter(_parse_stream(raw, DownloadResponse))
    with refusing(MalformedMessage, DigestMismatch):
        header = _take_header(messages, "download")
        digests = [Digest(each) for each in header.chunk_digests]
        facts = replace(FACTS, aggregate_root=compute_header_root(header.manifest, digests))
        leaves = verify_aggregate_header(header, facts)
        for index, data in _take_chunks(messages, range(len(leaves)), "download"):
            verify_chunk(data, leaves[index], where="download")
    assert len(leaves) == facts.chunks


def make_stream(*messages: Message) -> bytes:
    """Return the input that stands for a stream."""
    return encode_fields(*(message.SerializeToString() for message in messages))


def make_upload() -> UploadStart:
    """Return the start of an honest upload."""
    update = world().make_update(0)
    return UploadStart(round=1, node=update.manifest.node, header=update.header)


@cache
def world() -> World:
    """Return an aggregator with a round open, which lives as long as this process."""
    stack = ExitStack()
    atexit.register(stack.close)
    folder = Path(stack.enter_context(TemporaryDirectory(dir=scratch_folder())))
    federation, link = deploy_federation()
    made = stack.enter_context(opened(federation, link, folder, *make_certificates(folder / "tls")))
    made.open_round()
    made.view.refresh()
    return made


def _commit_to(start: UploadStart) -> None:
    """Let the ledger, as the aggregator has read it, hold the first node's commitment to any header."""
    header: Header = start.header
    try:
        digests = [Digest(each) for each in header.chunk_digests]
        root = compute_header_root(header.manifest, digests)
    except TypeError:
        return
    rounds = world().view._history.rounds
    rounds.put(replace(rounds[1], commitments={world().node(0).address: Commitment(root, 100)}))


def _parse_stream(raw: bytes, kind: type[AnyMessage]) -> list[AnyMessage]:
    """Return the messages of a stream; those that are no protobuf are refused by gRPC, before us."""
    try:
        return [kind.FromString(each) for each in split_fields(raw, "stream")]
    except (MalformedMessage, DecodeError):
        skip()


class _Aborted(Exception):
    """The service ended the call."""


class _Context(grpc.ServicerContext):  # type: ignore[misc]
    """gRPC's side of a call, with no connection behind it."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self.details = ""

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self.code, self.details = code, details
        raise _Aborted

    def auth_context(self) -> dict[str, Iterator[bytes]]:
        return {}

    def cancel(self) -> None:
        """Nobody waits."""


_Context.__abstractmethods__ = frozenset()
