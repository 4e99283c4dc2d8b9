"""Canonical fields, digests, Merkle trees and draws."""

from __future__ import annotations

import struct

from fedproof_node.verification import compute_draw

from fedproof.digests import Address, Digest, encode_fields, tagged_digest
from fedproof.merkle import compute_root, leaf_digest
from vectors.form import Entry, Json, spell_hex

# The leaves that Certificate Transparency's implementations test against.
PUBLIC_LEAVES = (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)  # fmt: skip
PUBLIC_ROOT = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"

Field = bytes | str | int | float


def build_fields() -> Entry:
    """Return encodings of fields, tagged digests, and bytes that are no encoding."""
    sequences: tuple[tuple[Field, ...], ...] = (
        (),
        (b"\xff", "né", 258, 1.5),
        (b"", ""),
        (b"\x00\x00\x00\x01", 0, 2**64 - 1),
        ("\ufeff\U0001f512 ключ",),
        (0.0, -0.0, 2.0**-1074, 1.7976931348623157e308, 0.1),
        (encode_fields(b"a", b"bc"), b"d"),
    )
    return {
        "about": "Canonical fields: each sequence of fields, [type, value], and its encoding",
        "encodings": [
            {"fields": [_spell_field(field) for field in fields], "encoded": encode_fields(*fields).hex()}
            for fields in sequences
        ],
        "tagged_digests": [
            {
                "tag": tag,
                "fields": [_spell_field(field) for field in fields],
                "digest": tagged_digest(tag, *fields).hex(),
            }
            for tag, fields in (
                ("fedproof.test.v1", ()),
                ("fedproof.test.v1", (b"\x01\x02", "text", 3)),
                ("fedproof.test.v1", (encode_fields(b"\x01\x02", "text", 3),)),
            )
        ],
        "refused": [
            {"types": types, "encoded": raw.hex(), "why": why}
            for types, raw, why in (
                (["bytes"], b"\x00\x00\x00", "a length is cut short"),
                (["bytes"], b"\x00\x00\x00\x02\x01", "a field is cut short"),
                (["bytes"], b"\xff\xff\xff\xff\x01", "a length of 2^32 - 1 before one byte"),
                (["bytes"], encode_fields(b"a", b"b"), "one field too many"),
                (["bytes", "bytes"], encode_fields(b"a"), "one field too few"),
                (["bytes"], encode_fields(b"a") + b"\x00", "a byte is left over"),
                (["integer"], encode_fields(b"\x01" * 7), "an integer of 7 bytes"),
                (["integer"], encode_fields(b"\x00" * 9), "an integer of 9 bytes"),
                (["integer"], encode_fields(b""), "an integer of no bytes"),
                (["float"], encode_fields(b"\x3f\x80\x00\x00"), "a float of 4 bytes"),
                (["text"], encode_fields(b"\xff"), "text that is not UTF-8"),
                (["text"], encode_fields(b"\xc0\x80"), "an overlong form"),
                (["text"], encode_fields(b"\xed\xa0\x80"), "a surrogate"),
                (["text"], encode_fields(b"\xf0\x9f\x94"), "a character that is cut short"),
            )
        ],
    }


def build_merkle() -> Entry:
    """Return trees of several sizes."""
    public = [bytes.fromhex(leaf) for leaf in PUBLIC_LEAVES]
    many = [index.to_bytes(2, "big") for index in range(100)]
    trees = [public[:count] for count in range(len(public) + 1)] + [
        many[:count] for count in (9, 16, 17, 100)
    ]
    return {
        "about": "RFC 6962 trees with SHA-256; the one over eight leaves is Certificate Transparency's",
        "public_root_of_eight": PUBLIC_ROOT,
        "trees": [
            {
                "leaves": spell_hex(leaves),
                "leaf_digests": spell_hex(map(leaf_digest, leaves)),
                "root": compute_root([leaf_digest(leaf) for leaf in leaves]).hex(),
            }
            for leaves in trees
        ],
    }


def build_draw() -> Entry:
    """Return which chunks nodes draw."""
    return {
        "about": "The chunks that a node recomputes, ascending",
        "draws": [
            _draw(
                Digest(struct.pack(">Q", block) * 4),
                Address(bytes([node]) * 20),
                number=number,
                chunks=chunks,
                count=count,
            )
            for block, node, number, chunks, count in (
                (1, 0x0A, 1, 1000, 3),
                (1, 0x0B, 1, 1000, 3),
                (2, 0x0A, 7, 12, 11),
                (3, 0x0A, 7, 12, 12),
                (3, 0x0A, 2**32 - 1, 3, 100),
            )
        ],
    }


def _draw(block_hash: Digest, node: Address, *, number: int, chunks: int, count: int) -> Json:
    drawn = compute_draw(block_hash, node, round_number=number, chunks=chunks, count=count)
    return {
        "block_hash": block_hash.hex(),
        "node": node.hex(),
        "round": number,
        "chunks": chunks,
        "count": count,
        "drawn": list(drawn),
    }


def _spell_field(field: Field) -> Json:
    match field:
        case bytes():
            return ["bytes", field.hex()]
        case str():
            return ["text", field]
        case float():
            return ["float", struct.pack(">d", field).hex()]
        case int():
            return ["integer", str(field)]
