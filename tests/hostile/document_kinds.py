"""Kinds of malformed documents: canonical fields, manifests, headers and clips."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from fedproof.digests import (
    ZERO_DIGEST,
    Digest,
    as_address,
    as_digest,
    encode_field,
    encode_fields,
    split_fields,
)
from fedproof.errors import DigestMismatch, FedproofError, MalformedMessage
from fedproof.manifest import (
    AggregateManifest,
    UpdateManifest,
    compute_header_root,
    verify_base,
    verify_header,
)
from fedproof.model import decode_clips
from tests.fuzz.samples import AGGREGATE, DIGEST, LAYOUT, NODES, UPDATE
from tests.hostile.kind import Kind

Parse = Callable[[bytes], object]
Field = bytes | int | str | float

_BELOW_2_32: Final = r"expected 1 to 2\^32 - 1, got "
MOST: Final = 4 << 20  # what one gRPC message may hold


def kinds() -> Iterator[Kind]:
    """Yield every kind."""
    yield from _of_fields()
    yield from _of_update_manifests()
    yield from _of_aggregate_manifests()
    yield from _of_headers()
    yield from _of_clips()


def spoil(raw: bytes, index: int, field: Field) -> bytes:
    """Return canonical fields with another one in place of field `index`."""
    fields = list(split_fields(raw, "example"))
    fields[index] = encode_field(field)
    return encode_fields(*fields)


def table(
    prefix: str,
    parse: Parse,
    rows: dict[str, tuple[str, bytes, str]],
    error: type[FedproofError] = MalformedMessage,
) -> Iterator[Kind]:
    """Yield the kinds in a table of what is wrong, the bytes, and a pattern in the refusal, by name."""
    for name, (what, raw, message) in rows.items():
        yield Kind(f"{prefix}_{name}", what, raw, parse, error, message)


def _of_fields() -> Iterator[Kind]:
    rows = {
        "length_cut": (
            "three bytes of a length",
            b"\0\0\0",
            "expected a length of 4 bytes at byte 0, got 3 bytes",
        ),
        "length_huge": (
            "2^32 - 1 bytes to follow",
            b"\xff" * 4,
            "expected a field of 4294967295 bytes at byte 4",
        ),
        "length_one_more": (
            "one byte more than there is",
            b"\0\0\0\x02a",
            "expected a field of 2 bytes at byte 4",
        ),
        "trailing_byte": (
            "one byte after the last field",
            encode_fields(1) + b"\0",
            "at byte 12, got 1 bytes",
        ),
        "little_endian": (
            "a length the other way round",
            b"\x01\0\0\0a",
            "expected a field of 16777216 bytes",
        ),
    }
    yield from table("fields", lambda raw: split_fields(raw, "fields"), rows)
    yield from table("address", lambda raw: as_address(raw, "node"), _sizes(20, "an address of 20 bytes"))
    yield from table("digest", lambda raw: as_digest(raw, "root"), _sizes(32, "a digest of 32 bytes"))


def _sizes(size: int, expected: str) -> dict[str, tuple[str, bytes, str]]:
    return {
        name: (f"{other} bytes", bytes(other), f"expected {expected}, got {other} bytes")
        for name, other in (("empty", 0), ("short", size - 1), ("long", size + 1))
    }


def _of_update_manifests() -> Iterator[Kind]:
    raw = UPDATE.encode()
    count = r"expected 13 fields, the first 'fedproof\.update-manifest\.v1', got "
    rows = {
        "empty": ("no byte at all", b"", count + "0"),
        "unknown_tag": ("a tag of nobody's", spoil(raw, 0, "fedproof.gradient.v1"), count + "13"),
        "later_version": ("a version to come", spoil(raw, 0, "fedproof.update-manifest.v2"), count + "13"),
        "of_a_sum": ("the manifest of a sum", AGGREGATE.encode(), count + "9"),
        "field_missing": ("without its last field", raw[:-12], count + "12"),
        "field_too_many": ("with one more field", raw + encode_fields(1), count + "14"),
        "trailing_byte": ("with one more byte", raw + b"\0", "expected a length of 4 bytes at byte"),
        "first_length_huge": (
            "a tag of 2^32 - 1 bytes",
            b"\xff" * 4 + raw[4:],
            "a field of 4294967295 bytes",
        ),
        "deep": ("fields in fields, 10,000 deep", nest(10_000), count + "1,"),
        "huge_field": ("one field of 4 MiB", encode_fields(bytes(MOST - 4)), "expected at most 262144 bytes"),
        "many_fields": ("65,536 empty fields", bytes(1 << 18), "expected at most 16 fields, got more"),
        "zlib": ("compressed", b"\x78\x9c" + bytes(100), "expected a field of"),
        "json": ("JSON", b'{"round": 1}', "expected a field of"),
        "short_contract": (
            "a contract of 19 bytes",
            spoil(raw, 2, bytes(19)),
            "contract: expected an address of 20",
        ),
        "text_node": (
            "a node as hex text",
            spoil(raw, 4, "0x" + "11" * 20),
            "node: expected an address of 20",
        ),
        "short_policy": (
            "a digest of 31 bytes",
            spoil(raw, 6, bytes(31)),
            "policy_digest: expected a digest of 32",
        ),
        "long_base": (
            "a digest of 33 bytes",
            spoil(raw, 7, bytes(33)),
            "base_model: expected a digest of 32",
        ),
        "empty_values": ("an empty digest", spoil(raw, 8, b""), "base_values: expected a digest of 32"),
        "short_round": (
            "an integer of 4 bytes",
            spoil(raw, 3, bytes(4)),
            "round: expected an integer of 8 bytes",
        ),
        "long_round": (
            "an integer of 9 bytes",
            spoil(raw, 3, bytes(9)),
            "round: expected an integer of 8 bytes",
        ),
        "chain_0": ("a chain that cannot be", spoil(raw, 1, 0), r"chain_id: expected 1 to 2\^64 - 1, got 0"),
        "round_0": ("round 0", spoil(raw, 3, 0), f"round: {_BELOW_2_32}0"),
        "round_negative": ("round -1", spoil(raw, 3, 2**64 - 1), f"round: {_BELOW_2_32}18446744073709551615"),
        "epoch_0": ("epoch 0", spoil(raw, 5, 0), f"epoch: {_BELOW_2_32}0"),
        "parameters_huge": ("2^32 values", spoil(raw, 10, 2**32), f"parameters: {_BELOW_2_32}4294967296"),
        "chunks_0": ("no chunk", spoil(raw, 11, 0), f"chunks: {_BELOW_2_32}0"),
        "chunks_huge": ("2^63 chunks", spoil(raw, 11, 2**63), f"chunks: {_BELOW_2_32}9223372036854775808"),
        "examples_0": ("no example", spoil(raw, 12, 0), f"examples: {_BELOW_2_32}0"),
        "clips_none": ("no clip", spoil(raw, 9, b""), "clips: expected positive finite numbers"),
        "clips_cut": (
            "15 bytes of clips",
            spoil(raw, 9, bytes(15)),
            "clips: expected 1 to 8192 floats of 8 bytes, got 15 bytes",
        ),
        "clips_nan": (
            "a clip that is no number",
            spoil(raw, 9, math.nan),
            "clips: expected positive finite numbers",
        ),
        "clips_many": (
            "8,193 clips",
            spoil(raw, 9, bytes(8 * 8193)),
            "clips: expected 1 to 8192 floats",
        ),
    }
    yield from table("manifest", UpdateManifest.parse, rows)
    base = {
        "values": (
            "the values of another model",
            spoil(raw, 8, ZERO_DIGEST),
            "base_values, clips: expected those of",
        ),
        "clips": (
            "other clips than the model's",
            spoil(raw, 9, 1.0),
            "base_values, clips: expected those of",
        ),
    }
    yield from table("base", _verify_base, base, DigestMismatch)


def _verify_base(raw: bytes) -> None:
    verify_base(UpdateManifest.parse(raw), layout_digest=LAYOUT.digest)


def _of_aggregate_manifests() -> Iterator[Kind]:
    raw = AGGREGATE.encode()
    count = r"expected 9 fields, the first 'fedproof\.aggregate-manifest\.v1', got "
    order = "expected contributors ascending by node, each once"
    many = encode_fields(*(b"" for _ in range(3001)))
    rows = {
        "of_an_update": ("the manifest of an update", UPDATE.encode(), count + "13"),
        "field_missing": ("without its last field", raw[:-12], count + "8"),
        "field_too_many": ("with one more field", raw + encode_fields(1), count + "10"),
        "nobody": ("no contributor", spoil(raw, 6, b""), "expected at least one contributor, got none"),
        "out_of_order": ("contributors descending", spoil(raw, 6, _contributors(*reversed(NODES))), order),
        "twice": ("one contributor twice", spoil(raw, 6, _contributors(NODES[0], NODES[0])), order),
        "half_a_contributor": ("a node without root", spoil(raw, 6, encode_fields(NODES[0])), "got 1 fields"),
        "many_contributors": (
            "3,001 fields of contributors",
            spoil(raw, 6, many),
            "contributors: expected node, root and examples for each, got 18 fields",
        ),
        "short_root": (
            "a root of 31 bytes",
            spoil(raw, 6, encode_fields(NODES[0], bytes(31), 1)),
            "a digest of 32",
        ),
        "no_examples": ("0 examples", spoil(raw, 6, encode_fields(NODES[0], DIGEST, 0)), _BELOW_2_32 + "0"),
        "contributors_cut": (
            "contributors one byte short",
            spoil(raw, 6, _contributors(*NODES)[:-1]),
            "a field of 8",
        ),
    }
    yield from table("sum_manifest", AggregateManifest.parse, rows)


def _contributors(*nodes: bytes) -> bytes:
    return b"".join(encode_fields(node, DIGEST, 100) for node in nodes)


def _of_headers() -> Iterator[Kind]:
    counts = {"none": 0, "one": 1, "three": 3, "hundred": 100}
    for name, chunks in counts.items():
        yield Kind(
            f"header_digests_{name}",
            f"{chunks} chunk digests under a manifest that speaks of 2",
            UPDATE.encode(),
            partial(_verify_header, chunks=chunks, root=None),
            MalformedMessage,
            f"header: expected 2 chunk digests, got {chunks}",
        )
    yield Kind(
        "header_of_another_root",
        "a header that nobody committed to",
        UPDATE.encode(),
        partial(_verify_header, chunks=2, root=ZERO_DIGEST),
        DigestMismatch,
        "header of 2 chunks: expected the root 0000",
    )
    yield Kind(
        "header_without_manifest",
        "an empty manifest, committed to",
        b"",
        partial(_verify_header, chunks=2, root=None),
        MalformedMessage,
        "aggregate manifest: expected 9 fields",
    )


def _verify_header(raw: bytes, *, chunks: int, root: Digest | None) -> object:
    digests = [DIGEST] * chunks
    return verify_header(raw, digests, root=compute_header_root(raw, digests) if root is None else root)


def _of_clips() -> Iterator[Kind]:
    finite = "clips: expected positive finite numbers"
    rows = {
        "none": ("none", b"", finite),
        "cut": ("seven bytes", bytes(7), "clips: expected 1 to 8192 floats of 8 bytes, got 7 bytes"),
        "one_byte_long": (
            "nine bytes",
            struct.pack(">d", 1.0) + b"\0",
            "clips: expected 1 to 8192 floats of 8 bytes, got 9 bytes",
        ),
        "nan": ("not a number", struct.pack(">d", math.nan), finite),
        "signalling_nan": ("not a number, signalling", bytes.fromhex("7ff0000000000001"), finite),
        "infinite": ("infinity", struct.pack(">d", math.inf), finite),
        "zero": ("0", bytes(8), finite),
        "negative_zero": ("-0", struct.pack(">d", -0.0), finite),
        "negative": ("-1", struct.pack(">d", -1.0), finite),
        "too_many": ("8,193 clips", bytes(8 * 8193), "clips: expected 1 to 8192 floats"),
        "nan_among_many": (
            "one NaN after 8,191 clips",
            struct.pack(">8192d", *[1.0] * 8191, math.nan),
            finite,
        ),
    }
    yield from table("clips", lambda raw: decode_clips(raw, "clips"), rows)


def nest(depth: int) -> bytes:
    """Return a field within a field, and so on."""
    lengths = (struct.pack(">I", 4 * level) for level in range(depth - 1, -1, -1))
    return b"".join(lengths)
