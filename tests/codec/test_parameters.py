"""Tests of the planner and of what follows from its choice."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.codec import Codec, CodecParameters
from fedproof.errors import ConfigurationError, MalformedMessage

PROPERTY = settings(derandomize=True, deadline=None, max_examples=100)


def plan(*, bits: int = 15, max_contributors: int = 16) -> CodecParameters:
    return CodecParameters.plan(bits=bits, max_contributors=max_contributors)


@PROPERTY
@given(bits=st.integers(8, 24), max_contributors=st.integers(2, 1000))
def test_every_plan_is_exact(bits: int, max_contributors: int) -> None:
    """Whatever the policy allows, the sum of all contributors fits its field and stays exact, twice over."""
    planned = plan(bits=bits, max_contributors=max_contributors)
    assert max_contributors * (2**bits - 1) < 2**planned.field_bits
    assert planned.plain_modulus == 2 ** (planned.values_per_slot * planned.field_bits)
    noise = max_contributors * 21.5
    assert 2 * noise <= planned.coeff_modulus / (2 * planned.plain_modulus)
    assert planned.coeff_modulus % (2 * 4096) == 1
    assert planned.coefficient_bits <= 60


@pytest.mark.parametrize("max_contributors", [2, 3, 16, 100, 1000])
@pytest.mark.parametrize("bits", range(8, 25))
def test_every_policy_has_a_plan(bits: int, max_contributors: int) -> None:
    """From 2 to 1,000 contributors and 8 to 24 bits, the planner finds parameters that SEAL takes."""
    planned = plan(bits=bits, max_contributors=max_contributors)
    assert 86 * max_contributors * planned.plain_modulus <= planned.coeff_modulus
    assert planned.exact_contributors >= max_contributors
    Codec(planned)


@PROPERTY
@given(bits=st.integers(8, 24), max_contributors=st.integers(2, 1000))
def test_chunks_stay_below_one_mebibyte(bits: int, max_contributors: int) -> None:
    """A full chunk fits one message, of an update as of a sum."""
    planned = plan(bits=bits, max_contributors=max_contributors)
    assert 16 * planned.update_frame_bytes <= 16 * planned.aggregate_frame_bytes <= 1 << 20


@pytest.mark.parametrize(
    ("bits", "values_per_slot", "modulus_bits", "bytes_per_value"),
    [(8, 4, 59, 1.848), (12, 3, 59, 2.464), (15, 2, 49, 3.071), (24, 1, 39, 4.891)],
)
def test_plan_takes_the_fewest_bytes(
    bits: int, values_per_slot: int, modulus_bits: int, bytes_per_value: float
) -> None:
    """For 16 contributors the planner reaches the sizes that the documentation states."""
    planned = plan(bits=bits)
    assert (planned.values_per_slot, planned.coefficient_bits) == (values_per_slot, modulus_bits)
    assert planned.update_frame_bytes / planned.values_per_frame == pytest.approx(bytes_per_value, abs=1e-3)


def test_no_other_number_of_values_per_slot_is_smaller() -> None:
    """Every number of values per slot, with every modulus of other plans, is no smaller or not exact."""
    planned = plan(bits=12, max_contributors=100)
    best = planned.update_frame_bytes / planned.values_per_frame
    primes = {other.coeff_modulus for bits in range(8, 25) for other in [plan(bits=bits)]}
    for values_per_slot in range(1, 5):
        for modulus in primes:
            try:
                other = dataclasses.replace(planned, values_per_slot=values_per_slot, coeff_modulus=modulus)
            except ConfigurationError:
                continue
            assert other.update_frame_bytes / other.values_per_frame >= best


def test_a_million_parameters_at_15_bits_stay_below_3_6_bytes_each() -> None:
    """The upload of a million parameters, the last frame's padding included, takes at most 3.6 bytes each."""
    planned = plan()
    length = 1_000_000
    size = sum(
        planned.frames_in_chunk(index, length) * planned.update_frame_bytes
        for index in range(planned.chunk_count(length))
    )
    assert size / length <= 3.6


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("bits", 8, 7),
        ("bits", 24, 25),
        ("max_contributors", 2, 1),
        ("max_contributors", 1000, 1001),
    ],
)
def test_each_limit_of_the_policy(name: str, allowed: int, refused: int) -> None:
    """The limit is planned, what lies beyond is refused by name."""
    plan(**{name: allowed})
    with pytest.raises(ConfigurationError, match=f"expected {name} from .* got"):
        plan(**{name: refused})


def test_more_contributors_than_the_modulus_carries_are_refused() -> None:
    """With the modulus fixed, the largest number of contributors is accepted, the next one is refused."""
    planned = plan(bits=8, max_contributors=520)
    limit = planned.exact_contributors
    assert limit == planned.coeff_modulus // (86 * planned.plain_modulus)
    assert 520 <= limit < 1000
    assert dataclasses.replace(planned, max_contributors=limit).plain_modulus == planned.plain_modulus
    with pytest.raises(ConfigurationError, match=f"an exact sum of {limit + 1} updates needs"):
        dataclasses.replace(planned, max_contributors=limit + 1)


def test_slots_beyond_the_modulus_are_refused() -> None:
    """More values per slot than fit SEAL's largest prime, or none, are refused."""
    planned = plan()
    for values_per_slot in (0, 4):
        with pytest.raises(
            ConfigurationError, match=f"expected {values_per_slot} values of 19 bits to fit 59 bits"
        ):
            dataclasses.replace(planned, values_per_slot=values_per_slot)


def test_digest_is_the_same_everywhere() -> None:
    """The digest of a plan is a constant that any other implementation reaches."""
    assert plan().digest.hex() == "0fabc5bcb9886b2e61d2e016eefd0ad2868a65d3e62cc2f1b5072e3331d47499"


def test_digest_covers_what_a_ciphertext_depends_on() -> None:
    """Another modulus or packing gives another digest; another cohort with the same ones does not."""
    digests = {plan(bits=bits).digest for bits in range(8, 25)}
    assert len(digests) == 17
    other = dataclasses.replace(plan(), max_contributors=9)
    assert other != plan()
    assert other.digest == plan().digest


def test_chunks_cover_every_value_once() -> None:
    """The chunks' values add up to the length, on both sides of each border."""
    planned = plan()
    for length in (1, 8191, 8192, 8193, 131_071, 131_072, 131_073, 1_000_000):
        count = planned.chunk_count(length)
        sizes = [planned.values_in_chunk(index, length) for index in range(count)]
        assert sum(sizes) == length
        assert all(size == planned.values_per_chunk == 131_072 for size in sizes[:-1])
        assert sizes[-1] >= 1
    assert [planned.frames_in_chunk(0, length) for length in (1, 8192, 8193, 131_072)] == [1, 1, 2, 16]


def test_chunks_that_do_not_exist_are_refused() -> None:
    """An index before the first or after the last chunk is refused, and so is an update without values."""
    planned = plan()
    for index in (-1, 2):
        with pytest.raises(MalformedMessage, match=f"chunk {index}: expected an index from 0 to 1"):
            planned.values_in_chunk(index, 131_073)
    with pytest.raises(ConfigurationError, match="at least one value, got 0"):
        planned.chunk_count(0)
