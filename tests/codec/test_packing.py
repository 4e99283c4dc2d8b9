"""Tests of packing values into plaintext polynomials."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.codec import CodecParameters
from fedproof.codec.packing import pack_values, unpack_sums
from fedproof.errors import MalformedMessage, UpdateRefused

PROPERTY = settings(derandomize=True, deadline=None, max_examples=30)


def unpack(
    slots: np.ndarray,  # type: ignore[type-arg]
    parameters: CodecParameters,
    *,
    contributors: int,
    length: int,
) -> list[int]:
    return unpack_sums(
        slots, parameters, contributors=contributors, length=length, where="aggregate chunk 5"
    ).tolist()


@PROPERTY
@given(bits=st.integers(8, 24), contributors=st.sampled_from([2, 3, 16, 1000]), seed=st.integers(0, 99))
def test_sums_of_packed_values_are_the_sums(bits: int, contributors: int, seed: int) -> None:
    """Packed updates add up field by field, for every width, up to the last contributor at the limit."""
    parameters = CodecParameters.plan(bits=bits, max_contributors=contributors)
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 2 * parameters.values_per_frame + 1))
    values = rng.integers(-parameters.limit, parameters.limit + 1, length)
    values[rng.integers(length)] = parameters.limit
    slots = pack_values(values, parameters)
    assert slots.shape == (-(-length // parameters.values_per_frame), 4096)
    assert int(slots.max()) < parameters.plain_modulus
    total = slots * np.uint64(contributors)
    assert int(total.max()) < parameters.plain_modulus
    sums = unpack(total, parameters, contributors=contributors, length=length)
    assert sums == (values * contributors).tolist()


def test_layout_is_field_by_field(parameters: CodecParameters) -> None:
    """Value j of a frame stands in coefficient j mod 4096, at field j div 4096, with the offset added."""
    values = np.arange(8192) - 4000
    (slots,) = pack_values(values, parameters)
    for index in (0, 1, 4095):
        low, high = int(values[index]) + 16_384, int(values[index + 4096]) + 16_384
        assert int(slots[index]) == low + (high << 21)


def test_padding_is_zeros_with_the_offset(parameters: CodecParameters) -> None:
    """What the last frame has left over holds the value 0, not the field 0."""
    slots = pack_values(np.array([5]), parameters)
    assert slots[0, 0] == 16_389 + (16_384 << 21)
    assert np.all(slots[0, 1:] == 16_384 + (16_384 << 21))


@pytest.mark.parametrize("sign", [1, -1])
def test_values_beyond_the_limit_are_refused(parameters: CodecParameters, sign: int) -> None:
    """The limit is packed, one more is refused."""
    pack_values(np.array([0, sign * 16_383]), parameters)
    with pytest.raises(UpdateRefused, match=f"expected values from -16383 to 16383, got {sign * 16_384}"):
        pack_values(np.array([0, sign * 16_384]), parameters)


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_beyond_their_bound_are_refused(parameters: CodecParameters, sign: int) -> None:
    """A sum that honest values reach is returned; one more is refused, naming the chunk and the value."""
    slots = pack_values(np.zeros(8192, dtype=np.int64), parameters) * np.uint64(3)
    slots[0, 7] = np.uint64(3 * 16_384 + (3 * 16_384 + sign * 3 * 16_383 << 21))
    assert unpack(slots, parameters, contributors=3, length=8192)[4103] == sign * 3 * 16_383
    slots[0, 7] = np.uint64(3 * 16_384 + (3 * 16_384 + sign * (3 * 16_383 + 1) << 21))
    expected = "aggregate chunk 5: expected sums of 3 updates from -49149 to 49149"
    with pytest.raises(MalformedMessage, match=f"{expected}, got {sign * 49_150} at value 4103"):
        unpack(slots, parameters, contributors=3, length=8192)


def test_padding_that_is_not_zero_is_refused(parameters: CodecParameters) -> None:
    """Nothing hides in the padding."""
    slots = pack_values(np.array([1, 2, 3]), parameters)
    assert unpack(slots, parameters, contributors=1, length=3) == [1, 2, 3]
    with pytest.raises(MalformedMessage, match="expected zeros as padding, got 3 at value 2"):
        unpack(slots, parameters, contributors=1, length=2)
