"""Tests of clips: which value has which, and how they follow the training."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.codec.scaling import GroupSquares, Scaling, compute_next_clips
from fedproof.codec.selection import Selection
from fedproof.digests import Digest
from fedproof.errors import ConfigurationError, MalformedMessage, UpdateRefused

PROPERTY = settings(derandomize=True, deadline=None, max_examples=100)


def make_scaling(sizes: list[int], clips: list[float] | None = None) -> Scaling:
    clips = clips or [0.5**number for number in range(len(sizes))]
    return Scaling(limit=100, max_examples=1000, group_sizes=tuple(sizes), clips=tuple(clips))


def next_clips(scaling: Scaling, measured: list[tuple[int, int]], **options: float) -> tuple[float, ...]:
    settings_ = {"contributors": 1, "total_examples": 1000, "clip_margin": 4.0, "clip_max": 1.0, **options}
    squares = GroupSquares(*zip(*measured, strict=True))
    return compute_next_clips(scaling, squares, **settings_)  # type: ignore[arg-type]


@PROPERTY
@given(st.data())
def test_clips_and_squares_are_those_of_each_values_group(data: st.DataObject) -> None:
    """Against one value at a time: for slices and drawn positions, with empty and single-value groups."""
    sizes = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(any))
    scaling = make_scaling(sizes)
    group_of = [group for group, size in enumerate(sizes) for _ in range(size)]
    selection = Selection(sum(sizes), data.draw(st.integers(1, 4)), Digest(bytes(32)))
    start = data.draw(st.integers(0, selection.length - 1))
    positions = selection.positions(start, data.draw(st.integers(start + 1, selection.length)))
    groups = np.array(group_of)[positions].tolist()
    bound = 1000 * 2**23
    sums = data.draw(st.lists(st.integers(-bound, bound), min_size=len(groups), max_size=len(groups)))

    clips = np.broadcast_to(scaling.clips_at(positions), len(groups)).tolist()
    assert clips == [scaling.clips[group] for group in groups]
    assert all(count for count, _ in scaling.runs(positions))
    assert sum(count for count, _ in scaling.runs(positions)) == len(groups)
    of_groups = [
        [s for s, of in zip(sums, groups, strict=True) if of == group] for group in range(len(sizes))
    ]
    measured = scaling.measure(np.array(sums, dtype=np.int64), positions)
    assert measured.counts == tuple(map(len, of_groups))
    assert measured.squares == tuple(sum(s * s for s in of_group) for of_group in of_groups)


def test_a_whole_chunk_of_the_largest_sums_is_measured_exactly() -> None:
    """No square and no sum of squares overflows, whatever their signs; two chunks' measures add up."""
    bound = 1000 * (2**23 - 1)
    sums = np.full(16 * 7 * 4096, bound, dtype=np.int64)
    sums[::2] = -bound
    measured = make_scaling([sums.size]).measure(sums, slice(0, sums.size))
    assert measured == ((sums.size,), (sums.size * bound**2,))
    assert measured.merge(measured) == ((2 * sums.size,), (2 * sums.size * bound**2,))


def test_as_many_sums_as_positions() -> None:
    """Other sums than those of the positions are refused."""
    with pytest.raises(MalformedMessage, match=r"expected 3 sums, got an array of shape \(4,\)"):
        make_scaling([10]).measure(np.zeros(4, dtype=np.int64), slice(2, 5))


def test_a_clip_is_a_margin_above_what_single_updates_came_to() -> None:
    """Four times the root mean square of the mean change, times the root of the number of updates."""
    scaling = make_scaling([10, 10], [0.5, 0.25])
    # Sums of 5 and 4 of 100 steps, of three nodes with 1,000 examples: a mean of 0.5 * 5 / 100 / 3.
    assert next_clips(
        scaling, [(10, 10 * 50**2), (2, 2 * 40**2)], contributors=3, total_examples=3000
    ) == pytest.approx((4 * 3**0.5 * 0.5 * 50 / 100 / 3, 4 * 3**0.5 * 0.25 * 40 / 100 / 3))


def test_clips_do_not_shrink_with_the_size_of_the_cohort() -> None:
    """Of updates that all fill their clip, at random signs, the mean shrinks with the root of their number:
    the next clip is no smaller than this one, for two nodes and for a thousand."""
    rng = np.random.default_rng(5)
    for nodes in (2, 10, 1000):
        scaling = make_scaling([4096], [0.5])
        sums = (rng.choice([-100, 100], size=(nodes, 4096))).sum(axis=0)
        measured = scaling.measure(sums, slice(0, 4096))
        clips = compute_next_clips(
            scaling, measured, contributors=nodes, total_examples=1000 * nodes, clip_margin=1.1, clip_max=9.0
        )
        assert clips[0] >= 0.5


def test_clips_halve_at_most_and_grow_up_to_the_policys() -> None:
    """A round of zeros halves a clip, down to 2^-40 of the policy's; a large change restores the policy's."""
    scaling = make_scaling([1, 1, 1, 1], [0.5, 1.5 * 2.0**-40, 2.0**-40, 2.0**-30])
    measured = [(1, 0), (1, 0), (1, 0), (1, 2**80)]
    assert next_clips(scaling, measured) == (0.25, 2.0**-40, 2.0**-40, 1.0)


def test_a_group_of_which_nothing_travelled_keeps_its_clip() -> None:
    """Nothing is known of it, neither that it moved nor that it did not."""
    assert next_clips(make_scaling([1, 0], [0.5, 0.3]), [(1, 0), (0, 0)]) == (0.25, 0.3)


def test_without_a_margin_clips_are_the_policys() -> None:
    """A policy with the margin 0 has its clip in every round, whatever an earlier policy left behind."""
    scaling = make_scaling([1, 1, 0])
    assert next_clips(scaling, [(1, 0), (1, 10**9), (0, 0)], clip_margin=0.0) == (1.0, 1.0, 1.0)


def test_known_clips_to_the_last_bit() -> None:
    """Every operation is rounded once, in the documented order."""
    scaling = Scaling(limit=16_383, max_examples=1_009, group_sizes=(5, 5), clips=(0.3, 0.07))
    # 7 * (2^60 + 1) has 63 bits: it is rounded once, and then divided.
    expected = [
        3.7 * ((((c / 16_383.0) * 1009.0) / 7_919.0) * (float(7 * s) / 5.0) ** 0.5)
        for s, c in ((2**60 + 1, 0.3), (9_001, 0.07))
    ]
    clips = next_clips(
        scaling,
        [(5, 2**60 + 1), (5, 9_001)],
        contributors=7,
        total_examples=7_919,
        clip_margin=3.7,
        clip_max=1e6,
    )
    assert clips == (expected[0], 0.07 / 2)


@PROPERTY
@given(
    clip_max=st.floats(2.0**-64, 2.0**64),
    share=st.floats(2.0**-40, 1),
    count=st.integers(0, 2**32),
    square=st.integers(0, 2**32 * (1000 * 2**23) ** 2),
    contributors=st.integers(1, 1000),
    total_examples=st.integers(1, 1000 * 2**32),
    clip_margin=st.floats(1, 1024),
)
def test_clips_stay_within_the_policys_bounds(
    clip_max: float,
    share: float,
    count: int,
    square: int,
    contributors: int,
    total_examples: int,
    clip_margin: float,
) -> None:
    """Whatever the sums, a clip is positive, finite, at most the policy's, and makes a scaling again."""
    clip = max(clip_max * share, clip_max * 2.0**-40)
    scaling = Scaling(limit=127, max_examples=2**32 - 1, group_sizes=(1,), clips=(clip,))
    clips = compute_next_clips(
        scaling,
        GroupSquares((count,), (square,)),
        contributors=contributors,
        total_examples=total_examples,
        clip_margin=clip_margin,
        clip_max=clip_max,
    )
    assert clip_max * 2.0**-40 <= clips[0] <= clip_max
    Scaling(limit=127, max_examples=1, group_sizes=(1,), clips=clips)


def test_next_clips_need_every_group_a_contributor_and_examples() -> None:
    """The measure of fewer groups, or a mean over nothing, is refused."""
    scaling = make_scaling([1, 1])
    with pytest.raises(MalformedMessage, match="squares of 2 groups, a contributor and an example, got 1, 1"):
        next_clips(scaling, [(1, 3)])
    with pytest.raises(MalformedMessage, match="got 2, 0 and 5"):
        next_clips(scaling, [(1, 3), (1, 3)], contributors=0, total_examples=5)
    with pytest.raises(MalformedMessage, match="got 2, 1 and 0"):
        next_clips(scaling, [(1, 3), (1, 3)], total_examples=0)


def test_weight_is_capped_at_max_examples() -> None:
    """A node's weight grows with its examples up to the cap, and not beyond; without examples it has none."""
    scaling = make_scaling([1])
    weights = [scaling.compute_weight(examples) for examples in (1, 500, 1000, 1001, 10**9)]
    assert weights == [0.001, 0.5, 1.0, 1.0, 1.0]
    with pytest.raises(UpdateRefused, match="at least 1 training example, got 0"):
        scaling.compute_weight(0)


@pytest.mark.parametrize("clip", [0.0, -1.0, math.inf, math.nan])
def test_clips_are_positive_and_finite(clip: float) -> None:
    """Any other clip is refused, and its group named."""
    with pytest.raises(ConfigurationError, match=r"^scaling: expected a positive clip of group 1, got"):
        make_scaling([1, 1], [1.0, clip])


def test_each_limit() -> None:
    """One clip for each group, a limit, and at most 2^32 - 1 examples."""
    with pytest.raises(ConfigurationError, match="expected clips of 2 groups, got 1"):
        make_scaling([1, 1], [1.0])
    for limit, max_examples in ((0, 1), (1, 0), (1, 2**32)):
        with pytest.raises(ConfigurationError, match=f"got {limit} and {max_examples}"):
            Scaling(limit=limit, max_examples=max_examples, group_sizes=(), clips=())
