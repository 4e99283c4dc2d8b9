"""Tests of fixed-width bit packing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.codec.bits import pack_bits, unpack_bits

PROPERTY = settings(derandomize=True, deadline=None, max_examples=150)


@PROPERTY
@given(width=st.integers(8, 64), data=st.data())
def test_packed_bytes_are_one_little_endian_integer(width: int, data: st.DataObject) -> None:
    """Integer i stands in bits i * width and up of the bytes, read as one little-endian integer; and back."""
    groups = data.draw(st.integers(1, 3))
    integer = st.integers(0, (1 << width) - 1) | st.just((1 << width) - 1)
    values = data.draw(st.lists(integer, min_size=8 * groups, max_size=8 * groups))
    packed = pack_bits(np.array(values, dtype=np.uint64), width)
    assert len(packed) == groups * width
    assert int.from_bytes(packed, "little") == sum(value << (i * width) for i, value in enumerate(values))
    assert unpack_bits(np.frombuffer(packed, dtype=np.uint8), width).tolist() == values


@pytest.mark.parametrize("width", range(30, 61))
def test_every_width_of_a_modulus_survives(width: int) -> None:
    """A chunk of random coefficients comes back for every width that a modulus can have."""
    values = np.random.default_rng(width).integers(0, 1 << width, size=16 * 4096, dtype=np.uint64)
    packed = np.frombuffer(pack_bits(values, width), dtype=np.uint8)
    assert np.array_equal(unpack_bits(packed, width), values)
