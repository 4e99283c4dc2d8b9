"""Kinds of malformed messages: bytes that are no protobuf, or that abuse it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import grpc

INTERNAL = grpc.StatusCode.INTERNAL
INVALID = grpc.StatusCode.INVALID_ARGUMENT
TOO_LARGE = grpc.StatusCode.RESOURCE_EXHAUSTED
OUT_OF_TURN = grpc.StatusCode.FAILED_PRECONDITION

# gRPC's own words; the specification gives a message that does not parse this status.
_NO_MESSAGE = "Exception deserializing request!"
_NO_START = "upload: expected a start message first, got an empty message"


@dataclass(frozen=True, slots=True)
class Message:
    """One kind of malformed first message of an upload.

    Attributes:
        name: of the kind.
        what: is wrong with it.
        raw: its bytes.
        code: the refusal's status.
        message: a pattern in the refusal.
        compression: how gRPC sends it.
    """

    name: str
    what: str
    raw: bytes
    code: grpc.StatusCode
    message: str
    compression: grpc.Compression = grpc.Compression.NoCompression


def field(number: int, raw: bytes) -> bytes:
    """Return a field of bytes, or a message within a message."""
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def varint(value: int, *, size: int = 1) -> bytes:
    """Return a varint of at least that many bytes."""
    octets = []
    while value or len(octets) < size:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets[-1] &= 0x7F
    return bytes(octets)


def messages() -> Iterator[Message]:
    """Yield every kind."""
    yield from _of_varints()
    yield from _of_lengths()
    yield from _of_wire_types()
    yield from _of_sizes()


def _of_varints() -> Iterator[Message]:
    rows = {
        "varint_of_11_bytes": ("a round of 11 bytes", field(1, b"\x08" + b"\x80" * 10 + b"\x01")),
        "varint_without_end": ("a round that does not end", field(1, b"\x08" + b"\xff" * 5)),
        "tag_of_11_bytes": ("a field's number of 11 bytes", b"\x80" * 10 + b"\x01"),
        "tag_beyond_32_bits": ("a field's number beyond 32 bits", varint(1 << 40)),
        "length_of_11_bytes": ("a length of 11 bytes", b"\x0a" + b"\x80" * 10 + b"\x01"),
    }
    for name, (what, raw) in rows.items():
        yield Message(name, what, raw, INTERNAL, _NO_MESSAGE)
    negative = field(1, b"\x08" + varint((1 << 64) - 1) + field(2, bytes(20)))
    words = "round 4294967295, .*: expected an open round, round 4294967295 is in phase NONE"
    yield Message("round_negative", "round -1, of nobody's", negative, OUT_OF_TURN, words)
    chunk = field(2, b"\x08" + varint((1 << 64) - 1) + field(2, b"x"))
    yield Message(
        "index_negative", "chunk -1, and no header", chunk, INVALID, "start message first, got chunk"
    )


def _of_lengths() -> Iterator[Message]:
    rows = {
        "beyond_the_end": ("a start longer than the message", b"\x0a\x05\x08"),
        "nested_beyond_the_end": ("a node longer than its start", field(1, b"\x12\xff\x01ab")),
        "length_2_32": ("a start of 2^32 - 1 bytes", b"\x0a" + varint(2**32 - 1)),
        "length_2_63": ("a start of 2^63 bytes", b"\x0a" + varint(1 << 63)),
        "length_cut": ("a length cut short", b"\x0a\x80"),
        "one_byte": ("a field's number alone", b"\x0a"),
    }
    for name, (what, raw) in rows.items():
        yield Message(name, what, raw, INTERNAL, _NO_MESSAGE)


def _of_wire_types() -> Iterator[Message]:
    rows = {
        "group_without_end": ("a group that does not end", b"\x1b"),
        "group_end_alone": ("the end of no group", b"\x1c"),
        "groups_deep": ("10,000 groups, one in the other", b"\x1b" * 10_000 + b"\x1c" * 10_000),
        "group_ends_crossed": ("groups that end crosswise", b"\x1b\x23\x1c\x24"),
        "wire_type_6": ("a wire type that is none", b"\x0e"),
        "wire_type_7": ("a wire type that is none", b"\x0f"),
        "field_0": ("field 0", b"\x00\x00"),
        "random": ("no protobuf at all", b"GET / HTTP/1.1\r\n\r\n"),
        "pickle": ("a pickle", b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    }
    for name, (what, raw) in rows.items():
        yield Message(name, what, raw, INTERNAL, _NO_MESSAGE)
    empty = {
        "no_bytes": ("no byte", b""),
        "start_as_number": ("a number in the header's place", b"\x08\x01"),
        "start_as_fixed": ("8 bytes in the header's place", b"\x09" + bytes(8)),
        "unknown_fields": ("a thousand fields of nobody's", field(100, b"x") * 1000),
        "unknown_deep": ("fields of nobody's, nested", _nest(2000)),
    }
    for name, (what, raw) in empty.items():
        yield Message(name, what, raw, INVALID, _NO_START)


def _of_sizes() -> Iterator[Message]:
    yield Message("five_mebibytes", "5 MiB", bytes(5 << 20), TOO_LARGE, "larger than max")
    bomb = field(1, bytes(64 << 20))
    gzip, deflate = grpc.Compression.Gzip, grpc.Compression.Deflate
    yield Message("gzip_bomb", "64 MiB in 64 KiB, by gzip", bomb, TOO_LARGE, "larger than max", gzip)
    yield Message("deflate_bomb", "64 MiB in 64 KiB, by deflate", bomb, TOO_LARGE, "larger than max", deflate)


def _nest(depth: int) -> bytes:
    raw = b""
    for _ in range(depth):
        raw = field(7, raw)
    return raw
