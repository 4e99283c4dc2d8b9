"""Manifests: what leaf 0 of an update's and of an aggregate's Merkle tree says about the chunks after it.

A manifest binds the chunks to one chain, contract, round, epoch, policy and base model, so that an update of
one round or federation can never stand for one of another.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from fedproof.digests import (
    Address,
    Digest,
    as_address,
    as_digest,
    checksum_address,
    decode_int,
    encode_fields,
    split_fields,
)
from fedproof.errors import DigestMismatch, MalformedMessage
from fedproof.merkle import compute_root, leaf_digest
from fedproof.model import check_clips, compute_model_digest, decode_clips, encode_clips

_UPDATE_TAG = "fedproof.update-manifest.v1"
_AGGREGATE_TAG = "fedproof.aggregate-manifest.v1"
# More than the longest manifests have, so that whoever commits to more costs its readers nothing.
_MOST_BYTES = 256 << 10
_MOST_FIELDS = 16
# A contributor's fields: a length of 4 bytes before each, then address, digest and integer.
_CONTRIBUTOR_BYTES = 4 + 20 + 4 + 32 + 4 + 8


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateManifest:
    """What one node's encrypted update is, and for which round.

    Attributes:
        base_model: digest of the model that the update is relative to.
        base_values: digest of that model's values.
        clips: what each group of the update was clipped to: the base model's.
        parameters: values in the flat vector.
        chunks: ciphertext chunks after the manifest.
        examples: training examples behind the update, at most the policy's max_examples.
    """

    chain_id: int
    contract: Address
    round: int
    node: Address
    epoch: int
    policy_digest: Digest
    base_model: Digest
    base_values: Digest
    clips: tuple[float, ...]
    parameters: int
    chunks: int
    examples: int

    def __post_init__(self) -> None:
        _check_range("update manifest: chain_id", self.chain_id, bits=64)
        for name in ("round", "epoch", "parameters", "chunks", "examples"):
            _check_range(f"update manifest: {name}", getattr(self, name), bits=32)
        check_clips(self.clips, "update manifest: clips")

    def encode(self) -> bytes:
        """Return the canonical bytes: docs/format.md, "Manifests"."""
        return encode_fields(
            _UPDATE_TAG,
            self.chain_id,
            self.contract,
            self.round,
            self.node,
            self.epoch,
            self.policy_digest,
            self.base_model,
            self.base_values,
            encode_clips(self.clips),
            self.parameters,
            self.chunks,
            self.examples,
        )

    @classmethod
    def parse(cls, raw: bytes) -> UpdateManifest:
        """Return the manifest that canonical bytes stand for.

        Raises:
            MalformedMessage: they are not what `encode` returns for any manifest.
        """
        what = "update manifest"
        parts = _split(raw, _UPDATE_TAG, 13, what)
        try:
            return cls(
                chain_id=decode_int(parts[1], f"{what}: chain_id"),
                contract=as_address(parts[2], f"{what}: contract"),
                round=decode_int(parts[3], f"{what}: round"),
                node=as_address(parts[4], f"{what}: node"),
                epoch=decode_int(parts[5], f"{what}: epoch"),
                policy_digest=as_digest(parts[6], f"{what}: policy_digest"),
                base_model=as_digest(parts[7], f"{what}: base_model"),
                base_values=as_digest(parts[8], f"{what}: base_values"),
                clips=decode_clips(parts[9], f"{what}: clips"),
                parameters=decode_int(parts[10], f"{what}: parameters"),
                chunks=decode_int(parts[11], f"{what}: chunks"),
                examples=decode_int(parts[12], f"{what}: examples"),
            )
        except ValueError as error:
            raise MalformedMessage(str(error)) from error


@dataclass(frozen=True, slots=True)
class Contribution:
    """One update in a sum: whose, under which root, and from how many examples."""

    node: Address
    update_root: Digest
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateManifest:
    """What an encrypted sum is made of.

    Attributes:
        contributors: ascending by node, each once.
        parameters: values in the flat vector.
        chunks: ciphertext chunks after the manifest.
    """

    chain_id: int
    contract: Address
    round: int
    epoch: int
    policy_digest: Digest
    contributors: tuple[Contribution, ...]
    parameters: int
    chunks: int

    def __post_init__(self) -> None:
        what = "aggregate manifest"
        _check_range(f"{what}: chain_id", self.chain_id, bits=64)
        for name in ("round", "epoch", "parameters", "chunks"):
            _check_range(f"{what}: {name}", getattr(self, name), bits=32)
        if not self.contributors:
            raise ValueError(f"{what}: expected at least one contributor, got none")
        for contribution in self.contributors:
            _check_range(f"{what}: examples of {contribution.node.hex()}", contribution.examples, bits=32)
        for before, after in itertools.pairwise(self.contributors):
            if before.node >= after.node:
                raise ValueError(
                    f"{what}: expected contributors ascending by node, each once, "
                    f"got {after.node.hex()} after {before.node.hex()}"
                )

    @property
    def total_examples(self) -> int:
        """The sum of the contributors' examples."""
        return sum(contribution.examples for contribution in self.contributors)

    def encode(self) -> bytes:
        """Return the canonical bytes: docs/format.md, "Manifests"."""
        contributors = b"".join(
            encode_fields(each.node, each.update_root, each.examples) for each in self.contributors
        )
        return encode_fields(
            _AGGREGATE_TAG,
            self.chain_id,
            self.contract,
            self.round,
            self.epoch,
            self.policy_digest,
            contributors,
            self.parameters,
            self.chunks,
        )

    @classmethod
    def parse(cls, raw: bytes) -> AggregateManifest:
        """Return the manifest that canonical bytes stand for.

        Raises:
            MalformedMessage: they are not what `encode` returns for any manifest.
        """
        what = "aggregate manifest"
        parts = _split(raw, _AGGREGATE_TAG, 9, what)
        try:
            return cls(
                chain_id=decode_int(parts[1], f"{what}: chain_id"),
                contract=as_address(parts[2], f"{what}: contract"),
                round=decode_int(parts[3], f"{what}: round"),
                epoch=decode_int(parts[4], f"{what}: epoch"),
                policy_digest=as_digest(parts[5], f"{what}: policy_digest"),
                contributors=_parse_contributors(parts[6], f"{what}: contributors"),
                parameters=decode_int(parts[7], f"{what}: parameters"),
                chunks=decode_int(parts[8], f"{what}: chunks"),
            )
        except ValueError as error:
            raise MalformedMessage(str(error)) from error


Manifest = UpdateManifest | AggregateManifest
_Manifest = TypeVar("_Manifest", bound=UpdateManifest | AggregateManifest)


def compute_header_root(manifest: bytes, chunk_digests: Sequence[Digest]) -> Digest:
    """Return the RFC 6962 root over a manifest's bytes and the chunks' leaf digests, in index order."""
    return compute_root([leaf_digest(manifest), *chunk_digests])


def verify_header(manifest: bytes, chunk_digests: Sequence[Digest], *, root: Digest) -> Manifest:
    """Return the manifest that the ledger's root stands for.

    1. The root over the manifest and the chunk digests is the ledger's.
    2. The manifest's bytes are canonical.
    3. It speaks of as many chunks as there are digests.

    Raises:
        DigestMismatch: check 1 fails.
        MalformedMessage: check 2 or 3 fails.
    """
    # 1
    came = compute_header_root(manifest, chunk_digests)
    if came != root:
        raise DigestMismatch(
            f"header of {len(chunk_digests)} chunks: expected the root {root.hex()}, got {came.hex()}"
        )
    # 2
    is_update = manifest.startswith(encode_fields(_UPDATE_TAG))
    parsed = UpdateManifest.parse(manifest) if is_update else AggregateManifest.parse(manifest)
    # 3
    if parsed.chunks != len(chunk_digests):
        raise MalformedMessage(f"header: expected {parsed.chunks} chunk digests, got {len(chunk_digests)}")
    return parsed


def verify_manifest(manifest: Manifest, *, expected: _Manifest) -> _Manifest:
    """Return the manifest, once each of its fields is what the ledger implies.

    Raises:
        DigestMismatch: a field differs; the message names the first one.
    """
    if type(manifest) is not type(expected):
        raise DigestMismatch(f"expected an {type(expected).__name__}, got an {type(manifest).__name__}")
    for field in fields(expected):
        want, came = getattr(expected, field.name), getattr(manifest, field.name)
        if want != came:
            raise DigestMismatch(
                f"{type(expected).__name__}: {field.name}: expected {_spell(want)}, got {_spell(came)}"
            )
    return expected


def verify_base(manifest: UpdateManifest, *, layout_digest: Digest) -> None:
    """Check that an update's values and clips are those of its base model, which the ledger names.

    The digest of a base model was attested by the nodes that derived it, so this makes the clips a fact of
    the ledger for whoever does not hold the model.

    Args:
        manifest: of the update.
        layout_digest: the policy's `model.architecture`.

    Raises:
        DigestMismatch: they are not.
    """
    came = compute_model_digest(layout_digest, manifest.parameters, manifest.base_values, manifest.clips)
    if came != manifest.base_model:
        raise DigestMismatch(
            f"UpdateManifest: base_values, clips: expected those of the base model "
            f"{manifest.base_model.hex()}, got those of {came.hex()}"
        )


def _spell(value: object) -> str:
    match value:
        case bytes() if len(value) == 20:
            return checksum_address(Address(value))
        case bytes():
            return value.hex()
        case tuple():
            return "[" + ", ".join(_spell(each) for each in value) + "]"
        case Contribution(node, update_root, examples):
            return f"{checksum_address(node)} ({update_root.hex()}, {examples} examples)"
        case _:
            return str(value)


def _check_range(what: str, value: int, *, bits: int) -> None:
    if not 1 <= value < 1 << bits:
        raise ValueError(f"{what}: expected 1 to 2^{bits} - 1, got {value}")


def _split(raw: bytes, tag: str, count: int, what: str) -> tuple[bytes, ...]:
    if len(raw) > _MOST_BYTES:
        raise MalformedMessage(f"{what}: expected at most {_MOST_BYTES} bytes, got {len(raw)}")
    parts = split_fields(raw, what, most=_MOST_FIELDS)
    if len(parts) != count or parts[0] != tag.encode():
        first = parts[0][:40] if parts else b""
        raise MalformedMessage(
            f"{what}: expected {count} fields, the first {tag!r}, got {len(parts)}, the first {first!r}"
        )
    return parts


def _parse_contributors(raw: bytes, what: str) -> tuple[Contribution, ...]:
    contributors = []
    for start in range(0, len(raw), _CONTRIBUTOR_BYTES):
        parts = split_fields(raw[start : start + _CONTRIBUTOR_BYTES], what)
        if len(parts) != 3:
            raise MalformedMessage(
                f"{what}: expected node, root and examples for each, got {len(parts)} fields"
            )
        node, update_root, examples = parts
        contributors.append(
            Contribution(
                as_address(node, f"{what}: node"),
                as_digest(update_root, f"{what}: update_root"),
                decode_int(examples, f"{what}: examples"),
            )
        )
    return tuple(contributors)
