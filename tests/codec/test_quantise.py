"""Tests of quantisation and of applying the mean."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.codec.quantise import apply_mean, check_finite, compute_residual, quantise
from fedproof.errors import MalformedMessage, UpdateRefused

PROPERTY = settings(derandomize=True, deadline=None, max_examples=100)
FLOATS = st.floats(-1.0, 1.0, width=32)
CLIPS = st.floats(2.0**-64, 2.0**64)
LIMIT = 16_383
CLIP = np.array([0.25])


class AlwaysHighest(np.random.Generator):
    """A generator whose every draw is the largest float64 below 1."""

    def random(self, size: int) -> np.ndarray:  # type: ignore[override,type-arg]
        return np.full(size, np.nextafter(1.0, 0.0))


class AlwaysZero(np.random.Generator):
    """A generator whose every draw is 0."""

    def random(self, size: int) -> np.ndarray:  # type: ignore[override,type-arg]
        return np.zeros(size)


def float32(*values: float) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(values, dtype=np.float32)


@PROPERTY
@given(
    st.lists(st.tuples(FLOATS, st.floats(2.0**-20, 2.0)), min_size=1, max_size=50),
    st.floats(0, 1, exclude_min=True),
    st.integers(7, 23),
    st.integers(0, 2**32),
)
def test_decoding_returns_the_clipped_update_within_one_step(
    values: list[tuple[float, float]], weight: float, bits: int, seed: int
) -> None:
    """Each clipped value is off by less than one step of its own clip, whatever the weight."""
    limit = 2**bits - 1
    delta, clips = float32(*(value for value, _ in values)), np.array([clip for _, clip in values])
    quantised = quantise(delta, clips, limit=limit, weight=weight, rng=np.random.default_rng(seed))
    assert np.abs(quantised).max() <= limit
    off = quantised * (clips / limit) - np.clip(delta, -clips, clips) * weight
    assert np.all(np.abs(off) <= clips / limit * (1 + 1e-6))


@pytest.mark.parametrize("value", [0.1234567, -0.1234567, 1e-6, -0.2499999])
def test_rounding_is_unbiased(value: float) -> None:
    """The mean over many roundings is the unrounded value.

    An unbiased rounding with another seed would fail this with a probability below 1e-9: by Hoeffding's
    inequality, the mean of n values within one step is off by more than e with at most 2 exp(-2 n e^2).
    """
    draws = 200_000
    bound = math.sqrt(math.log(2 / 1e-9) / (2 * draws))
    delta = np.full(draws, value, dtype=np.float32)
    quantised = quantise(delta, CLIP, limit=LIMIT, weight=0.6, rng=np.random.default_rng(5))
    exact = float(delta[0]) * (LIMIT / 0.25) * 0.6
    assert set(quantised.tolist()) <= {math.floor(exact), math.floor(exact) + 1}
    assert abs(quantised.mean() - exact) < bound < 0.01


def test_same_randomness_gives_the_same_integers() -> None:
    """Two runs from one seed agree; another seed rounds otherwise."""
    delta = np.random.default_rng(0).normal(0, 0.05, 100_000).astype(np.float32)
    first, second, third = (
        quantise(delta, CLIP, limit=LIMIT, weight=1.0, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_each_value_has_its_own_clip() -> None:
    """The same value under clips twice as large is half as many steps, and one clip serves for all alike."""
    rng = AlwaysZero(np.random.PCG64(0))
    delta = float32(0.25, 0.25, 0.25)
    clips = np.array([0.125, 0.25, 0.5])
    assert quantise(delta, clips, limit=100, weight=1.0, rng=rng).tolist() == [100, 100, 50]
    assert quantise(delta, clips[2:], limit=100, weight=1.0, rng=rng).tolist() == [50, 50, 50]


@pytest.mark.parametrize("generator", [AlwaysHighest, AlwaysZero])
@pytest.mark.parametrize("limit", [127, 2**23 - 1])
def test_values_are_clipped_to_the_limit(generator: type[np.random.Generator], limit: int) -> None:
    """At and beyond the clip the integer is the limit, whatever the rounding draws."""
    delta = float32(0.25, -0.25, 3e38, -3e38)
    quantised = quantise(delta, CLIP, limit=limit, weight=1.0, rng=generator(np.random.PCG64(0)))
    assert quantised[[0, 2]].tolist() == [limit, limit]
    assert all(-limit <= value <= -limit + 1 for value in quantised[[1, 3]].tolist())


@PROPERTY
@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False), clip=CLIPS)
def test_any_finite_value_under_any_clip_is_quantised(value: float, clip: float) -> None:
    """The widest values and the extreme clips neither overflow nor warn."""
    rng = np.random.default_rng(0)
    (quantised,) = quantise(float32(value), np.array([clip]), limit=LIMIT, weight=1.0, rng=rng)
    assert abs(quantised) <= LIMIT


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 32_767, 99_999])
def test_values_that_are_not_finite_are_refused(value: float, index: int) -> None:
    """NaN and infinity are refused, naming the first index."""
    delta = np.zeros(100_000, dtype=np.float32)
    delta[[index, -1]] = value
    with pytest.raises(
        UpdateRefused, match=rf"^update: expected finite values, got {value} at index {index}$"
    ):
        quantise(delta, CLIP, limit=LIMIT, weight=1.0, rng=np.random.default_rng(0))


def test_the_index_is_that_in_the_flat_vector() -> None:
    """What is not finite is named by where it stands in the whole vector."""
    values = float32(1, np.nan, np.inf)
    check_finite(values[:1], slice(7, 8), what="model")
    with pytest.raises(UpdateRefused, match=r"^model: expected finite values, got nan at index 8$"):
        check_finite(values, slice(7, 10), what="model")
    with pytest.raises(UpdateRefused, match=r"got nan at index 95$"):
        check_finite(values, np.array([3, 95, 200]), what="model")


def test_other_shapes_and_types_are_refused() -> None:
    """What is not a flat float32 vector is refused."""
    rng = np.random.default_rng(0)
    with pytest.raises(UpdateRefused, match=r"got float32 of shape \(2, 2\)"):
        quantise(np.zeros((2, 2), dtype=np.float32), CLIP, limit=LIMIT, weight=1.0, rng=rng)
    with pytest.raises(UpdateRefused, match="got float64 of shape"):
        quantise(np.zeros(2), CLIP, limit=LIMIT, weight=1.0, rng=rng)  # type: ignore[arg-type]


@PROPERTY
@given(st.lists(FLOATS, min_size=1), st.floats(2.0**-10, 4.0), st.sampled_from([1.0, 0.37, 1 / 1000]))
def test_what_is_sent_and_what_is_left_are_the_update(
    values: list[float], clip: float, weight: float
) -> None:
    """The residual is the update without what the integers stand for, to float32's last bit."""
    delta, clips = float32(*values), np.array([clip])
    quantised = quantise(delta, clips, limit=LIMIT, weight=weight, rng=np.random.default_rng(1))
    residual = compute_residual(delta, quantised, clips, limit=LIMIT, weight=weight)
    assert residual.dtype == np.float32
    expected = [
        np.float32(float(value) - (sent * (clip / LIMIT)) / weight)
        for value, sent in zip(delta, quantised.tolist(), strict=True)
    ]
    assert residual.tobytes() == np.array(expected, dtype=np.float32).tobytes()


def test_weighted_mean_is_over_those_who_contributed() -> None:
    """Constant updates of nodes with 100 and 300 examples give the mean that those counts weight."""
    rng = np.random.default_rng(3)
    updates = [(np.full(20_000, 0.2, dtype=np.float32), 0.1), (np.full(20_000, -0.1, dtype=np.float32), 0.3)]
    first, second = (quantise(delta, CLIP, limit=LIMIT, weight=weight, rng=rng) for delta, weight in updates)
    base = np.ones(20_000, dtype=np.float32)
    applied = apply_mean(base, first + second, CLIP, limit=LIMIT, max_examples=1000, total_examples=400)
    assert applied.mean(dtype=np.float64) == pytest.approx(1 + (0.2 * 100 - 0.1 * 300) / 400, abs=1e-5)


@PROPERTY
@given(
    values=st.lists(
        st.tuples(st.floats(-100, 100, width=32), st.integers(-(2**20), 2**20), st.floats(1e-3, 10.0)),
        min_size=1,
    ),
    max_examples=st.integers(1, 2**32 - 1),
    total_examples=st.integers(1, 2**40),
)
def test_applying_the_mean_is_exact_to_the_last_bit_but_one(
    values: list[tuple[float, int, float]], max_examples: int, total_examples: int
) -> None:
    """Each value is the exact rational result rounded to float32, or its neighbour."""
    base = float32(*(value for value, _, _ in values))
    sums = np.array([value for _, value, _ in values], dtype=np.int64)
    clips = np.array([value for _, _, value in values])
    applied = apply_mean(
        base, sums, clips, limit=LIMIT, max_examples=max_examples, total_examples=total_examples
    )
    for start, total, clip, result in zip(
        base.tolist(), sums.tolist(), clips.tolist(), applied.tolist(), strict=True
    ):
        mean = Fraction(clip) * total * max_examples / (LIMIT * total_examples)
        # Where base and mean cancel, what is left of float64's rounding is all that remains.
        tolerance = max(float(np.spacing(np.float32(abs(result)))), float(abs(mean)) * 2**-50)
        assert abs(Fraction(result) - (Fraction(start) + mean)) <= tolerance


def test_applying_the_mean_is_the_same_bit_for_bit() -> None:
    """A fixed input gives fixed bits, whole and in parts, with one clip and with one for each value."""
    rng = np.random.default_rng(11)
    base = rng.normal(0, 1, 100_001).astype(np.float32)
    sums = rng.integers(-(2**20), 2**20, 100_001)

    def apply(part: slice, clips: np.ndarray) -> bytes:  # type: ignore[type-arg]
        return apply_mean(
            base[part], sums[part], clips, limit=LIMIT, max_examples=1000, total_examples=12_345
        ).tobytes()

    applied = apply(np.s_[:], CLIP)
    parts = (apply(part, CLIP.repeat(base[part].size)) for part in np.s_[:7, 7:40_000, 40_000:])
    assert b"".join(parts) == applied
    scale = ((0.25 / 16_383) * 1000) / 12_345
    expected = [
        np.float32(float(start) + float(total) * scale) for start, total in zip(base, sums, strict=True)
    ]
    assert np.array(expected).tobytes() == applied


def test_sums_of_another_shape_or_without_examples_are_refused() -> None:
    """The base model and the sums have one length, and somebody contributed."""
    base = np.zeros(3, dtype=np.float32)
    with pytest.raises(
        MalformedMessage, match=r"as many sums, got float32 of shape \(3,\) and sums of shape \(4,\)"
    ):
        apply_mean(base, np.zeros(4, dtype=np.int64), CLIP, limit=LIMIT, max_examples=1000, total_examples=1)
    with pytest.raises(MalformedMessage, match="at least 1 example behind the sums, got 0"):
        apply_mean(base, np.zeros(3, dtype=np.int64), CLIP, limit=LIMIT, max_examples=1000, total_examples=0)
