"""Manifests: what the first leaf of an update and of a sum says."""

from __future__ import annotations

import re
import struct
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedproof.digests import Address, Digest, encode_fields, split_fields
from fedproof.errors import DigestMismatch, MalformedMessage
from fedproof.manifest import (
    AggregateManifest,
    Contribution,
    Manifest,
    UpdateManifest,
    compute_header_root,
    verify_base,
    verify_header,
    verify_manifest,
)
from fedproof.merkle import compute_root, leaf_digest
from fedproof.model import compute_model_digest

UPDATE = UpdateManifest(
    chain_id=31337,
    contract=Address(b"\xc0" * 20),
    round=3,
    node=Address(b"\x0a" * 20),
    epoch=1,
    policy_digest=Digest(b"\x01" * 32),
    base_model=Digest(b"\x02" * 32),
    base_values=Digest(b"\x05" * 32),
    clips=(0.25, 2.0**-30),
    parameters=545,
    chunks=2,
    examples=120,
)
AGGREGATE = AggregateManifest(
    chain_id=31337,
    contract=Address(b"\xc0" * 20),
    round=3,
    epoch=1,
    policy_digest=Digest(b"\x01" * 32),
    contributors=(
        Contribution(Address(b"\x0a" * 20), Digest(b"\x03" * 32), 120),
        Contribution(Address(b"\x0b" * 20), Digest(b"\x04" * 32), 80),
    ),
    parameters=545,
    chunks=2,
)
CHUNK_DIGESTS = [leaf_digest(b"chunk 0"), leaf_digest(b"chunk 1")]

_words = st.integers(1, 2**32 - 1)
_addresses = st.binary(min_size=20, max_size=20).map(Address)
_digests = st.binary(min_size=32, max_size=32).map(Digest)
_updates = st.builds(
    UpdateManifest,
    chain_id=st.integers(1, 2**64 - 1),
    contract=_addresses,
    round=_words,
    node=_addresses,
    epoch=_words,
    policy_digest=_digests,
    base_model=_digests,
    base_values=_digests,
    clips=st.lists(
        st.floats(min_value=0, exclude_min=True, allow_infinity=False), min_size=1, max_size=5
    ).map(tuple),
    parameters=_words,
    chunks=_words,
    examples=_words,
)
_contributors = st.lists(
    st.builds(Contribution, node=_addresses, update_root=_digests, examples=_words),
    min_size=1,
    max_size=4,
    unique_by=lambda contribution: contribution.node,
).map(lambda contributions: tuple(sorted(contributions, key=lambda contribution: contribution.node)))
_aggregates = st.builds(
    AggregateManifest,
    chain_id=st.integers(1, 2**64 - 1),
    contract=_addresses,
    round=_words,
    epoch=_words,
    policy_digest=_digests,
    contributors=_contributors,
    parameters=_words,
    chunks=_words,
)


@given(manifest=_updates)
def test_update_manifest_round_trip(manifest: UpdateManifest) -> None:
    """An update manifest's bytes stand for it."""
    assert UpdateManifest.parse(manifest.encode()) == manifest


@given(manifest=_aggregates)
def test_aggregate_manifest_round_trip(manifest: AggregateManifest) -> None:
    """An aggregate manifest's bytes stand for it."""
    assert AggregateManifest.parse(manifest.encode()) == manifest


@given(raw=st.binary(max_size=400), manifest=_updates | _aggregates, data=st.data())
def test_accepted_bytes_are_canonical(raw: bytes, manifest: Manifest, data: st.DataObject) -> None:
    """Whatever bytes a parser takes, it would write the same ones."""
    encoded = manifest.encode()
    cut = data.draw(st.integers(0, len(encoded)))
    for candidate in (raw, encoded[:cut] + raw[:8] + encoded[cut + 8 :]):
        for kind in (UpdateManifest, AggregateManifest):
            try:
                parsed = kind.parse(candidate)
            except MalformedMessage:
                continue
            assert parsed.encode() == candidate


@pytest.mark.parametrize("manifest", [UPDATE, AGGREGATE])
def test_every_truncation_and_every_trailing_byte_is_refused(manifest: Manifest) -> None:
    """No prefix of a manifest is one, and nothing may follow one."""
    raw = manifest.encode()
    for end in range(len(raw)):
        with pytest.raises(MalformedMessage):
            type(manifest).parse(raw[:end])
    for tail in (b"\x00", b"\x00\x00\x00\x00", b"\x00\x00\x00\x01x"):
        with pytest.raises(MalformedMessage):
            type(manifest).parse(raw + tail)


def test_leaf_digests_are_pinned() -> None:
    """The encodings never change between versions: roots over them stand on ledgers."""
    assert (
        leaf_digest(UPDATE.encode()).hex()
        == "d043ae379d0913770c19eb34883693b31a5de8931a2023951ecd83108d5ae239"
    )
    assert (
        leaf_digest(AGGREGATE.encode()).hex()
        == "961740804352286e3808c5972d497530905459cfef93abee3faf9a18b4cb0e8e"
    )


def test_one_kind_is_not_the_other() -> None:
    """An update's manifest is no aggregate's, and the other way round."""
    with pytest.raises(MalformedMessage, match=re.escape("the first 'fedproof.aggregate-manifest.v1'")):
        AggregateManifest.parse(UPDATE.encode())
    with pytest.raises(MalformedMessage, match=re.escape("the first 'fedproof.update-manifest.v1'")):
        UpdateManifest.parse(AGGREGATE.encode())


@pytest.mark.parametrize("name", ["chain_id", "round", "epoch", "parameters", "chunks", "examples"])
def test_numbers_have_limits(name: str) -> None:
    """Zero and one beyond the limit are refused; one and the limit are taken."""
    bits = 64 if name == "chain_id" else 32
    position = [field.name for field in fields(UpdateManifest)].index(name) + 1
    for value in (1, 2**bits - 1):
        changed = replace(UPDATE, **{name: value})
        assert UpdateManifest.parse(changed.encode()) == changed
    for value in (0, 2**bits):
        with pytest.raises(ValueError, match=f"update manifest: {name}: expected 1 to"):
            replace(UPDATE, **{name: value})
        if value < 2**64:
            parts: list[bytes | int] = list(split_fields(UPDATE.encode(), ""))
            parts[position] = value
            with pytest.raises(MalformedMessage, match=f"update manifest: {name}: expected 1 to"):
                UpdateManifest.parse(encode_fields(*parts))


@pytest.mark.parametrize("clips", [(), (0.25, 0.0), (0.25, -1.0), (float("nan"),), (float("inf"),)])
def test_clips_are_positive_and_finite(clips: tuple[float, ...]) -> None:
    """No clip, and what cannot bound a value, is refused, constructed or parsed."""
    with pytest.raises(ValueError, match="update manifest: clips: expected positive finite numbers"):
        replace(UPDATE, clips=clips)
    parts = list(split_fields(UPDATE.encode(), ""))
    parts[9] = b"".join(struct.pack(">d", clip) for clip in clips)
    with pytest.raises(MalformedMessage, match="update manifest: clips: expected positive finite numbers"):
        UpdateManifest.parse(encode_fields(*parts))


@pytest.mark.parametrize(
    ("contributors", "message"),
    [
        ((), "expected at least one contributor, got none"),
        (AGGREGATE.contributors[::-1], "expected contributors ascending by node, each once, got 0a"),
        (AGGREGATE.contributors[:1] * 2, "expected contributors ascending by node, each once, got 0a"),
        ((replace(AGGREGATE.contributors[0], examples=0),), "examples of 0a"),
    ],
)
def test_contributors_are_ascending_and_each_counts_once(
    contributors: tuple[Contribution, ...], message: str
) -> None:
    """No contributor, one twice, or any out of order is refused, constructed or parsed."""
    with pytest.raises(ValueError, match=message):
        replace(AGGREGATE, contributors=contributors)
    parts = list(split_fields(AGGREGATE.encode(), ""))
    parts[6] = b"".join(encode_fields(each.node, each.update_root, each.examples) for each in contributors)
    with pytest.raises(MalformedMessage, match=message):
        AggregateManifest.parse(encode_fields(*parts))


def test_total_examples() -> None:
    """The weight of a sum is that of its contributors."""
    assert AGGREGATE.total_examples == 200


@pytest.mark.parametrize("manifest", [UPDATE, AGGREGATE])
def test_header_is_verified_against_the_root(manifest: Manifest) -> None:
    """The manifest is leaf 0 of the tree, and the chunks follow in index order."""
    raw = manifest.encode()
    root = compute_root([leaf_digest(raw), *CHUNK_DIGESTS])
    assert compute_header_root(raw, CHUNK_DIGESTS) == root
    assert verify_header(raw, CHUNK_DIGESTS, root=root) == manifest


@pytest.mark.parametrize(
    ("raw", "digests"),
    [
        (replace(UPDATE, examples=121).encode(), CHUNK_DIGESTS),
        (UPDATE.encode(), CHUNK_DIGESTS[::-1]),
        (UPDATE.encode(), CHUNK_DIGESTS[:1]),
        (UPDATE.encode(), [*CHUNK_DIGESTS, CHUNK_DIGESTS[1]]),
        (b"", CHUNK_DIGESTS),
    ],
)
def test_altered_header_is_refused(raw: bytes, digests: list[Digest]) -> None:
    """A manifest altered, or digests swapped, dropped or doubled, do not reach the committed root."""
    root = compute_header_root(UPDATE.encode(), CHUNK_DIGESTS)
    with pytest.raises(DigestMismatch, match=f"expected the root {root.hex()}, got "):
        verify_header(raw, digests, root=root)


@pytest.mark.parametrize("digests", [[], CHUNK_DIGESTS[:1], [*CHUNK_DIGESTS, CHUNK_DIGESTS[0]]])
def test_committed_header_with_another_number_of_chunks_is_refused(digests: list[Digest]) -> None:
    """A commitment to a manifest that contradicts its own tree does not count."""
    raw = UPDATE.encode()
    with pytest.raises(MalformedMessage, match=f"expected 2 chunk digests, got {len(digests)}"):
        verify_header(raw, digests, root=compute_header_root(raw, digests))


def test_committed_garbage_is_refused() -> None:
    """A commitment to bytes that are no manifest does not count."""
    with pytest.raises(MalformedMessage, match="manifest"):
        verify_header(b"junk", CHUNK_DIGESTS, root=compute_header_root(b"junk", CHUNK_DIGESTS))


def test_manifest_as_expected_is_returned() -> None:
    """A manifest that says what the ledger implies comes back."""
    assert verify_manifest(UPDATE, expected=replace(UPDATE)) == UPDATE
    assert verify_manifest(AGGREGATE, expected=replace(AGGREGATE)) == AGGREGATE


@pytest.mark.parametrize("name", [field.name for field in fields(UpdateManifest)])
def test_each_field_of_an_update_manifest_is_compared(name: str) -> None:
    """An update for another federation, round, node, epoch, policy or model is refused, naming the field."""
    value = getattr(UPDATE, name)
    other = value + 1 if isinstance(value, int) else value[:1] if name == "clips" else bytes(len(value))
    with pytest.raises(DigestMismatch, match=f"UpdateManifest: {name}: expected .*, got "):
        verify_manifest(replace(UPDATE, **{name: other}), expected=UPDATE)


def test_contributors_are_compared_and_spelt() -> None:
    """A contributor left out of the sum is named."""
    message = r"contributors: expected .*0x0B0b.* 80 examples.*, got \[0x0A0A[^,]*, 120 examples\)\]"
    with pytest.raises(DigestMismatch, match=message):
        verify_manifest(replace(AGGREGATE, contributors=AGGREGATE.contributors[:1]), expected=AGGREGATE)


def test_base_is_bound_to_values_and_clips() -> None:
    """Whoever knows only the base model's digest learns the clips from a manifest, and no others."""
    layout_digest = Digest(b"\x07" * 32)
    digest = compute_model_digest(layout_digest, UPDATE.parameters, UPDATE.base_values, UPDATE.clips)
    honest = replace(UPDATE, base_model=digest)
    verify_base(honest, layout_digest=layout_digest)
    for changed in (
        replace(honest, clips=(0.25, 2.0**-29)),
        replace(honest, clips=UPDATE.clips[:1]),
        replace(honest, base_values=Digest(bytes(32))),
        replace(honest, parameters=546),
        UPDATE,
    ):
        message = f"expected those of the base model {changed.base_model.hex()}, got those of "
        with pytest.raises(DigestMismatch, match=message):
            verify_base(changed, layout_digest=layout_digest)
    with pytest.raises(DigestMismatch):
        verify_base(honest, layout_digest=Digest(bytes(32)))


def test_other_kind_of_manifest_is_refused() -> None:
    """A sum does not pass for an update."""
    with pytest.raises(DigestMismatch, match="expected an UpdateManifest, got an AggregateManifest"):
        verify_manifest(AGGREGATE, expected=UPDATE)
