"""Tests of the canonical encoding, digests and addresses."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.digests import (
    ZERO_DIGEST,
    as_address,
    as_digest,
    checksum_address,
    decode_float,
    decode_int,
    decode_text,
    encode_fields,
    split_fields,
    tagged_digest,
)
from fedproof.errors import MalformedMessage

PROPERTY = settings(derandomize=True, deadline=None, max_examples=100)
EIP55_EXAMPLE = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


def test_encoding_of_each_type_is_fixed() -> None:
    """Bytes, text, integers and floats encode to the bytes that docs/format.md shows."""
    assert encode_fields(b"\xff", "né", 258, 1.5).hex() == (
        "00000001ff" + "000000036ec3a9" + "000000080000000000000102" + "000000083ff8000000000000"
    )


def test_no_fields_encode_to_no_bytes() -> None:
    """The empty sequence has an encoding, and it is empty."""
    assert encode_fields() == b""
    assert split_fields(b"", "test") == ()


@PROPERTY
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_split_returns_what_was_encoded(fields: list[bytes]) -> None:
    """Fields survive the way there and back."""
    assert split_fields(encode_fields(*fields), "test") == tuple(fields)


@PROPERTY
@given(st.lists(st.binary(max_size=10), min_size=1, max_size=4), st.data())
def test_truncation_is_refused_or_drops_whole_fields(fields: list[bytes], data: st.DataObject) -> None:
    """A cut encoding is refused, unless the cut lies between fields."""
    raw = encode_fields(*fields)
    cut = data.draw(st.integers(0, len(raw) - 1))
    borders = {len(encode_fields(*fields[:count])) for count in range(len(fields))}
    if cut in borders:
        assert len(split_fields(raw[:cut], "test")) < len(fields)
    else:
        with pytest.raises(MalformedMessage, match=r"^test: expected a (length|field) of \d+ bytes at byte"):
            split_fields(raw[:cut], "test")


@PROPERTY
@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_different_fields_encode_differently(one: list[bytes], other: list[bytes]) -> None:
    """No two sequences of fields share an encoding."""
    assert (encode_fields(*one) == encode_fields(*other)) == (one == other)


@pytest.mark.parametrize("value", [0, 2**64 - 1])
def test_integers_up_to_64_bits_survive(value: int) -> None:
    """The smallest and the largest integer decode to themselves."""
    (field,) = split_fields(encode_fields(value), "test")
    assert decode_int(field, "test") == value


@pytest.mark.parametrize("value", [-1, 2**64])
def test_integers_beyond_64_bits_are_refused(value: int) -> None:
    """An integer that has no encoding is refused rather than wrapped."""
    with pytest.raises(ValueError, match="expected an integer from 0"):
        encode_fields(value)


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, math.inf, 5e-324])
def test_floats_survive_bit_for_bit(value: float) -> None:
    """A float decodes to the same bits."""
    (field,) = split_fields(encode_fields(value), "test")
    decoded = decode_float(field, "test")
    assert decoded == value
    assert math.copysign(1, decoded) == math.copysign(1, value)


def test_wrong_sizes_and_text_are_refused() -> None:
    """Integers and floats of another size and text that is not UTF-8 are refused, naming the field."""
    with pytest.raises(MalformedMessage, match="round: expected an integer of 8 bytes, got 7 bytes"):
        decode_int(bytes(7), "round")
    with pytest.raises(MalformedMessage, match="clip: expected a float of 8 bytes, got 9 bytes"):
        decode_float(bytes(9), "clip")
    with pytest.raises(MalformedMessage, match="name: expected UTF-8 text, got byte 1"):
        decode_text(b"a\xff", "name")
    assert decode_text("né".encode(), "name") == "né"


def test_tagged_digest_hashes_tag_and_fields() -> None:
    """The digest is SHA-256 over the encoding of tag and fields, and another tag gives another digest."""
    digest = tagged_digest("fedproof.test.v1", b"a", 1)
    assert digest == hashlib.sha256(encode_fields("fedproof.test.v1", b"a", 1)).digest()
    assert digest != tagged_digest("fedproof.test.v2", b"a", 1)


@pytest.mark.parametrize("size", [31, 33])
def test_digest_of_another_size_is_refused(size: int) -> None:
    """A digest has 32 bytes, no more and no fewer."""
    assert as_digest(bytes(32), "root") == ZERO_DIGEST
    with pytest.raises(MalformedMessage, match=f"root: expected a digest of 32 bytes, got {size} bytes"):
        as_digest(bytes(size), "root")


@pytest.mark.parametrize("text", [EIP55_EXAMPLE, EIP55_EXAMPLE.lower(), "0X" + EIP55_EXAMPLE[2:].upper()])
def test_address_of_any_case_is_read(text: str) -> None:
    """Hex text of any case gives the same 20 bytes, which print as EIP-55 says."""
    address = as_address(text, "node")
    assert as_address(bytes(address), "node") == address
    assert checksum_address(address) == EIP55_EXAMPLE


@pytest.mark.parametrize(
    "raw",
    [
        EIP55_EXAMPLE[2:],
        EIP55_EXAMPLE[:-1],
        EIP55_EXAMPLE + "0",
        "0x" + "g" * 40,
        "0x" + " " * 40,
        "",
        bytes(19),
    ],
)
def test_other_addresses_are_refused(raw: bytes | str) -> None:
    """Without 0x, too short, too long or not hex: refused, naming what was read."""
    with pytest.raises(MalformedMessage, match=r"^node: expected an address of"):
        as_address(raw, "node")
