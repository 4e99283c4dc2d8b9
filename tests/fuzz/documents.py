"""Fuzz targets: what is hashed, signed or stands on the ledger."""

from __future__ import annotations

import tomllib

from google.protobuf.message import DecodeError

from fedproof.config import parse_document
from fedproof.digests import ZERO_DIGEST, as_digest, encode_fields, split_fields
from fedproof.errors import ConfigurationError, DigestMismatch, MalformedMessage
from fedproof.ledger.statements import decode_batch, decode_proposal, encode_leaves
from fedproof.manifest import AggregateManifest, UpdateManifest, compute_header_root, verify_header
from fedproof.model import ModelLayout, decode_clips, encode_clips
from fedproof.policy import Policy
from fedproof.wire.aggregation_pb2 import Header
from tests.fuzz.registry import LONGEST_REPORT, refusing, require_same, skip, target


@target(max_bytes=2048)
def canonical_fields(raw: bytes) -> None:
    """`digests.split_fields`: canonical fields."""
    with refusing(MalformedMessage):
        require_same(encode_fields(*split_fields(raw, "fields")), raw)


@target(max_bytes=2048)
def layout(raw: bytes) -> None:
    """`ModelLayout.parse`: a model's layout."""
    with refusing(MalformedMessage):
        require_same(ModelLayout.parse(raw).encode(), raw)


@target(max_bytes=1024)
def clips(raw: bytes) -> None:
    """`model.decode_clips`: the clips of a manifest or model file."""
    with refusing(MalformedMessage):
        require_same(encode_clips(decode_clips(raw, "clips")), raw)


@target(max_bytes=2048)
def policy(raw: bytes) -> None:
    """`Policy.parse`: a policy's canonical bytes, and everything that follows from one."""
    with refusing(MalformedMessage, longest_message=LONGEST_REPORT):
        parsed = Policy.parse(raw)
        require_same(parsed.canonical(), raw)
    assert parsed.codec_parameters().chunk_count(parsed.update_length) > 0
    assert _parse_toml(parsed.dump_toml()) == parsed


@target(max_bytes=2048)
def policy_toml(raw: bytes) -> None:
    """`parse_document`: a policy as people write it."""
    try:
        text = raw.decode()
        document = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        skip()
    with refusing(ConfigurationError, longest_message=LONGEST_REPORT):
        parsed = parse_document(document, Policy, where="policy")
    assert Policy.parse(parsed.canonical()) == parsed == _parse_toml(parsed.dump_toml())


@target(max_bytes=2048)
def update_manifest(raw: bytes) -> None:
    """`UpdateManifest.parse`."""
    with refusing(MalformedMessage):
        require_same(UpdateManifest.parse(raw).encode(), raw)


@target(max_bytes=2048)
def aggregate_manifest(raw: bytes) -> None:
    """`AggregateManifest.parse`."""
    with refusing(MalformedMessage):
        require_same(AggregateManifest.parse(raw).encode(), raw)


@target(max_bytes=2048)
def signed_commitments(raw: bytes) -> None:
    """`statements.decode_batch`: the leaves of an anchored batch."""
    with refusing(MalformedMessage):
        require_same(encode_leaves(decode_batch(raw)), raw)


@target(max_bytes=2048)
def signed_attestations(raw: bytes) -> None:
    """`statements.decode_proposal`: the leaves of a proposed result."""
    with refusing(MalformedMessage):
        require_same(encode_leaves(decode_proposal(raw)), raw)


@target(max_bytes=4096)
def header(raw: bytes) -> None:
    """`manifest.verify_header`: a wire Header under a root of its own, and under another."""
    try:
        message = Header.FromString(raw)
    except DecodeError:
        skip()
    with refusing(MalformedMessage):
        digests = [as_digest(each, "chunk digest") for each in message.chunk_digests]
    try:
        verify_header(message.manifest, digests, root=ZERO_DIGEST)
    except DigestMismatch:
        pass
    else:
        raise AssertionError("took a header under another root")
    with refusing(MalformedMessage):
        root = compute_header_root(message.manifest, digests)
        parsed = verify_header(message.manifest, digests, root=root)
    require_same(parsed.encode(), message.manifest)
    assert parsed.chunks == len(digests)


def _parse_toml(text: str) -> Policy:
    return parse_document(tomllib.loads(text), Policy, where="policy")
