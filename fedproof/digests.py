"""Digests, addresses, and the one canonical encoding that everything hashed or stored goes through.

The encoding (docs/format.md, "Canonical fields"): each field is its length as four bytes, big-endian, then
its bytes. No two sequences of fields share an encoding, so a digest of one can never stand for another.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from typing import NewType

from fedproof.errors import MalformedMessage

Digest = NewType("Digest", bytes)
"""32 bytes: a SHA-256 or a keccak-256."""

Address = NewType("Address", bytes)
"""20 bytes: an Ethereum account or contract."""

ZERO_DIGEST = Digest(bytes(32))

_LENGTH = struct.Struct(">I")
_FLOAT = struct.Struct(">d")
_INT_BYTES = 8


def as_digest(raw: bytes, what: str) -> Digest:
    """Return the 32 bytes as a digest.

    Args:
        raw: bytes from a peer or a file.
        what: what they stand for, for the message.

    Raises:
        MalformedMessage: they are not 32 bytes.
    """
    if len(raw) != 32:
        raise MalformedMessage(f"{what}: expected a digest of 32 bytes, got {len(raw)} bytes")
    return Digest(bytes(raw))


def as_address(raw: bytes | str, what: str) -> Address:
    """Return an account's 20 bytes, from bytes or from hex text of any case with the prefix 0x.

    Raises:
        MalformedMessage: neither 20 bytes nor 0x and 40 hex digits.
    """
    if isinstance(raw, bytes):
        if len(raw) != 20:
            raise MalformedMessage(f"{what}: expected an address of 20 bytes, got {len(raw)} bytes")
        return Address(raw)
    digits = raw[2:] if raw[:2] in ("0x", "0X") else ""
    if len(digits) != 40 or not set(digits) <= set("0123456789abcdefABCDEF"):
        raise MalformedMessage(f"{what}: expected an address of 0x and 40 hex digits, got {raw[:50]!r}")
    return Address(bytes.fromhex(digits))


@functools.lru_cache(maxsize=1024)
def checksum_address(address: Address) -> str:
    """Return the address as mixed-case hex text (EIP-55)."""
    from eth_utils.address import to_checksum_address  # half of what a codec worker would import

    return str(to_checksum_address(address))


def encode_field(field: bytes | int | str | float) -> bytes:
    """Return one field's bytes, without its length.

    Bytes stand as they are; text as UTF-8; an integer as eight bytes, unsigned, big-endian; a float as eight
    bytes, IEEE 754 binary64, big-endian.

    Raises:
        ValueError: an integer below 0 or above 2^64 - 1.
    """
    match field:
        case bytes():
            return field
        case str():
            return field.encode()
        case float():
            return _FLOAT.pack(field)
        case int():
            if not 0 <= field < 1 << 64:
                raise ValueError(f"expected an integer from 0 to 2^64 - 1, got {field}")
            return field.to_bytes(_INT_BYTES)


def encode_fields(*fields: bytes | int | str | float) -> bytes:
    """Return the canonical encoding of a sequence of fields: each with its length in front."""
    parts = []
    for field in fields:
        encoded = encode_field(field)
        parts += [_LENGTH.pack(len(encoded)), encoded]
    return b"".join(parts)


def split_fields(raw: bytes, what: str, *, most: int | None = None) -> tuple[bytes, ...]:
    """Return the fields that `encode_fields` joined.

    Args:
        raw: bytes from a peer or a file.
        what: what they stand for, for the message.
        most: how many fields are looked at.

    Raises:
        MalformedMessage: a length or a field is cut short, or there are more than `most`.
    """
    fields: list[bytes] = []
    position = 0
    while position < len(raw):
        if len(fields) == most:
            raise MalformedMessage(f"{what}: expected at most {most} fields, got more")
        start = position + _LENGTH.size
        if start > len(raw):
            raise MalformedMessage(
                f"{what}: expected a length of 4 bytes at byte {position}, got {len(raw) - position} bytes"
            )
        (length,) = _LENGTH.unpack_from(raw, position)
        position = start + length
        if position > len(raw):
            raise MalformedMessage(
                f"{what}: expected a field of {length} bytes at byte {start}, got {len(raw) - start} bytes"
            )
        fields.append(bytes(raw[start:position]))
    return tuple(fields)


def decode_int(field: bytes, what: str) -> int:
    """Return the unsigned integer in a field.

    Raises:
        MalformedMessage: the field is not 8 bytes.
    """
    if len(field) != _INT_BYTES:
        raise MalformedMessage(f"{what}: expected an integer of 8 bytes, got {len(field)} bytes")
    return int.from_bytes(field)


def decode_float(field: bytes, what: str) -> float:
    """Return the float in a field.

    Raises:
        MalformedMessage: the field is not 8 bytes.
    """
    if len(field) != _FLOAT.size:
        raise MalformedMessage(f"{what}: expected a float of 8 bytes, got {len(field)} bytes")
    return float(_FLOAT.unpack(field)[0])


def decode_text(field: bytes, what: str) -> str:
    """Return the text in a field.

    Raises:
        MalformedMessage: the field is not UTF-8.
    """
    try:
        return field.decode()
    except UnicodeDecodeError as error:
        raise MalformedMessage(
            f"{what}: expected UTF-8 text, got byte {error.start} of {field[:40]!r}"
        ) from error


def tagged_digest(tag: str, *fields: bytes | int | str | float) -> Digest:
    """Return SHA-256 over the canonical encoding of the tag and the fields.

    Args:
        tag: what is hashed, as ``fedproof.<thing>.v1``; two things never share a tag.
        fields: what `encode_fields` takes.
    """
    return Digest(hashlib.sha256(encode_fields(tag, *fields)).digest())
