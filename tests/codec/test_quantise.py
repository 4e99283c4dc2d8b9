"""Tests of quantisation and of applying the mean."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.codec import Codec, CodecParameters
from fedproof.errors import MalformedMessage, UpdateRefused

PROPERTY = settings(derandomize=True, deadline=None, max_examples=100)
FLOATS = st.floats(-1.0, 1.0, width=32)


class AlwaysHighest(np.random.Generator):
    """A generator whose every draw is the largest float64 below 1."""

    def random(self, size: int) -> np.ndarray:  # type: ignore[override,type-arg]
        return np.full(size, np.nextafter(1.0, 0.0))


class AlwaysZero(np.random.Generator):
    """A generator whose every draw is 0."""

    def random(self, size: int) -> np.ndarray:  # type: ignore[override,type-arg]
        return np.zeros(size)


@PROPERTY
@given(st.lists(FLOATS, min_size=1, max_size=50), st.integers(1, 2000), st.integers(0, 2**32))
def test_decoding_returns_the_clipped_update_within_one_step(
    codec: Codec, values: list[float], examples: int, seed: int
) -> None:
    """Applying a single encoded update gives each clipped value, off by at most one weighted step."""
    delta = np.array(values, dtype=np.float32)
    quantised = codec.quantise(delta, examples=examples, rng=np.random.default_rng(seed))
    counted = min(examples, 1000)
    applied = codec.apply_mean(np.zeros_like(delta), quantised, total_examples=counted)
    step = codec.parameters.step * 1000 / counted
    assert np.all(np.abs(applied - np.clip(delta, -0.25, 0.25)) <= step * (1 + 1e-6))


@pytest.mark.parametrize("value", [0.1234567, -0.1234567, 1e-6, -0.2499999])
def test_rounding_is_unbiased(codec: Codec, value: float) -> None:
    """The mean over many roundings is the unrounded value, within five standard errors."""
    draws = 200_000
    delta = np.full(draws, value, dtype=np.float32)
    quantised = codec.quantise(delta, examples=600, rng=np.random.default_rng(5))
    exact = float(delta[0]) * 0.6 / codec.parameters.step
    assert set(quantised.tolist()) <= {int(np.floor(exact)), int(np.floor(exact)) + 1}
    assert abs(quantised.mean() - exact) < 5 * 0.5 / draws**0.5


def test_same_randomness_gives_the_same_integers(codec: Codec) -> None:
    """Two runs from one seed agree; another seed rounds otherwise."""
    delta = np.random.default_rng(0).normal(0, 0.05, 100_000).astype(np.float32)
    first, second, third = (
        codec.quantise(delta, examples=1000, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


@pytest.mark.parametrize("generator", [AlwaysHighest, AlwaysZero])
def test_values_are_clipped_to_the_limit(codec: Codec, generator: type[np.random.Generator]) -> None:
    """At and beyond the clip the integer is the limit, whatever the rounding draws."""
    delta = np.array([0.25, -0.25, 3e38, -3e38], dtype=np.float32)
    limit = codec.parameters.limit
    quantised = codec.quantise(delta, examples=1000, rng=generator(np.random.PCG64(0)))
    assert quantised[[0, 2]].tolist() == [limit, limit]
    assert all(-limit <= value <= -limit + 1 for value in quantised[[1, 3]].tolist())


def test_weight_is_capped_at_max_examples(codec: Codec) -> None:
    """A node's weight grows with its examples up to the cap, and not beyond."""
    delta = np.array([0.25], dtype=np.float32)
    rng = AlwaysZero(np.random.PCG64(0))
    limit = codec.parameters.limit
    quantised = [
        codec.quantise(delta, examples=examples, rng=rng)[0] for examples in (1, 500, 1000, 1001, 10**9)
    ]
    assert quantised == [limit // 1000, limit // 2, limit, limit, limit]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 32_767, 32_768, 99_999])
def test_values_that_are_not_finite_are_refused(codec: Codec, value: float, index: int) -> None:
    """NaN and infinity are refused, naming the first index."""
    delta = np.zeros(100_000, dtype=np.float32)
    delta[[index, -1]] = value
    with pytest.raises(UpdateRefused, match=rf"expected finite values, got {value} at index {index}$"):
        codec.quantise(delta, examples=1, rng=np.random.default_rng(0))


def test_other_shapes_types_and_counts_are_refused(codec: Codec) -> None:
    """What is not a flat float32 vector with examples behind it is refused."""
    rng = np.random.default_rng(0)
    with pytest.raises(UpdateRefused, match=r"got float32 of shape \(2, 2\)"):
        codec.quantise(np.zeros((2, 2), dtype=np.float32), examples=1, rng=rng)
    with pytest.raises(UpdateRefused, match="got float64 of shape"):
        codec.quantise(np.zeros(2), examples=1, rng=rng)  # type: ignore[arg-type]
    with pytest.raises(UpdateRefused, match="at least 1 training example, got 0"):
        codec.quantise(np.zeros(2, dtype=np.float32), examples=0, rng=rng)


def test_weighted_mean_is_over_those_who_contributed(codec: Codec) -> None:
    """Constant updates of nodes with 100 and 300 examples give the mean that those counts weight."""
    rng = np.random.default_rng(3)
    updates = [(np.full(20_000, 0.2, dtype=np.float32), 100), (np.full(20_000, -0.1, dtype=np.float32), 300)]
    sums = sum(codec.quantise(delta, examples=examples, rng=rng) for delta, examples in updates)
    applied = codec.apply_mean(np.ones(20_000, dtype=np.float32), np.asarray(sums), total_examples=400)
    assert applied.mean(dtype=np.float64) == pytest.approx(1 + (0.2 * 100 - 0.1 * 300) / 400, abs=1e-5)


@PROPERTY
@given(
    clip=st.floats(1e-3, 10.0),
    values=st.lists(st.tuples(st.floats(-100, 100, width=32), st.integers(-(2**20), 2**20)), min_size=1),
    max_examples=st.integers(1, 2**32 - 1),
    total_examples=st.integers(1, 2**40),
)
def test_applying_the_mean_is_exact_to_the_last_bit_but_one(
    clip: float, values: list[tuple[float, int]], max_examples: int, total_examples: int
) -> None:
    """Each value is the exact rational result rounded to float32, or its neighbour."""
    parameters = CodecParameters.plan(bits=15, max_contributors=64, clip=clip, max_examples=max_examples)
    base = np.array([value for value, _ in values], dtype=np.float32)
    sums = np.array([value for _, value in values], dtype=np.int64)
    applied = Codec(parameters).apply_mean(base, sums, total_examples=total_examples)
    for start, total, result in zip(base.tolist(), sums.tolist(), applied.tolist(), strict=True):
        mean = Fraction(clip) * total * max_examples / (parameters.limit * total_examples)
        exact = Fraction(start) + mean
        # Where base and mean cancel, what is left of float64's rounding is all that remains.
        tolerance = max(float(np.spacing(np.float32(abs(result)))), float(abs(mean)) * 2**-50)
        assert abs(Fraction(result) - exact) <= tolerance


def test_applying_the_mean_is_the_same_bit_for_bit(codec: Codec) -> None:
    """A fixed input gives fixed bits, in one block and across blocks."""
    rng = np.random.default_rng(11)
    base = rng.normal(0, 1, 100_001).astype(np.float32)
    sums = rng.integers(-(2**20), 2**20, 100_001)
    applied = codec.apply_mean(base, sums, total_examples=12_345)
    parts = [
        codec.apply_mean(base[part], sums[part], total_examples=12_345)
        for part in np.s_[:7, 7:40_000, 40_000:]
    ]
    assert np.concatenate(parts).tobytes() == applied.tobytes()
    scale = ((0.25 / 16_383) * 1000) / 12_345
    expected = [
        np.float32(float(start) + float(total) * scale) for start, total in zip(base, sums, strict=True)
    ]
    assert np.array(expected).tobytes() == applied.tobytes()


def test_a_model_that_is_not_finite_is_refused(codec: Codec) -> None:
    """Overflow and NaN do not become a model."""
    sums = np.array([0, 2**20], dtype=np.int64)
    base = np.array([0.0, np.finfo(np.float32).max], dtype=np.float32)
    assert np.isfinite(codec.apply_mean(base, sums, total_examples=1)).all()
    for value in (np.nan, np.inf):
        with pytest.raises(UpdateRefused, match=f"got {value} at index 1"):
            codec.apply_mean(np.array([0.0, value], dtype=np.float32), sums, total_examples=1)


def test_sums_of_another_shape_or_without_examples_are_refused(codec: Codec) -> None:
    """The base model and the sums have one length, and somebody contributed."""
    base = np.zeros(3, dtype=np.float32)
    with pytest.raises(
        MalformedMessage, match=r"as many sums, got float32 of shape \(3,\) and sums of shape \(4,\)"
    ):
        codec.apply_mean(base, np.zeros(4, dtype=np.int64), total_examples=1)
    with pytest.raises(MalformedMessage, match="at least 1 example behind the sums, got 0"):
        codec.apply_mean(base, np.zeros(3, dtype=np.int64), total_examples=0)
