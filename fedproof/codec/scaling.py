"""What one unit of a quantised value stands for in each group of the model, round by round.

A group is one tensor of the model that travels. Its clip bounds what a value of an update may be in the
round, so it also sets the step between two quantised values. The clips of the next round are derived from the
sums of this one, by every node alike.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fedproof.codec.selection import Positions
from fedproof.errors import ConfigurationError, MalformedMessage, UpdateRefused

Runs = tuple[tuple[int, float], ...]
"""Consecutive values with the same clip: how many, and the clip."""

Clips = npt.NDArray[np.float64]
"""One clip for each value, or a single one for all."""

_SMALLEST_SHARE: Final = 2.0**-40
_HALF: Final = 17


class GroupSquares(NamedTuple):
    """Of the sums of a round, for each group: how many there are, and the sum of their squares. Exact."""

    counts: tuple[int, ...]
    squares: tuple[int, ...]

    def merge(self, other: GroupSquares) -> GroupSquares:
        """Return those of both."""
        pairs = zip(self, other, strict=True)
        return GroupSquares(*(tuple(map(operator.add, mine, others)) for mine, others in pairs))


@dataclass(frozen=True, slots=True)
class Scaling:
    """The clips of one round, and what turns clipped values into integers.

    Attributes:
        limit: the largest absolute value of a quantised value.
        max_examples: the example count that carries the weight 1.
        group_sizes: how many values each group has, in the order of the flat vector.
        clips: the bound on a value of the update in each group.

    Raises:
        ConfigurationError: a count is out of range, or the clips are not one positive number for each group.
    """

    limit: int
    max_examples: int
    group_sizes: tuple[int, ...]
    clips: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.limit < 1 or not 1 <= self.max_examples < 1 << 32:
            raise ConfigurationError(
                f"scaling: expected a positive limit and max_examples from 1 to {2**32 - 1}, "
                f"got {self.limit} and {self.max_examples}"
            )
        if len(self.clips) != len(self.group_sizes):
            raise ConfigurationError(
                f"scaling: expected clips of {len(self.group_sizes)} groups, got {len(self.clips)}"
            )
        for group, clip in enumerate(self.clips):
            if not 0 < clip < float("inf"):
                raise ConfigurationError(f"scaling: expected a positive clip of group {group}, got {clip}")

    def compute_weight(self, examples: int) -> float:
        """Return the weight of an update from that many training examples, above 0 and at most 1.

        Raises:
            UpdateRefused: no examples.
        """
        if examples < 1:
            raise UpdateRefused(f"update: expected at least 1 training example, got {examples}")
        return min(examples, self.max_examples) / self.max_examples

    def runs(self, positions: Positions) -> Runs:
        """Return the clips of the values at these positions, those of equal groups together."""
        counts = self._count_by_group(positions).tolist()
        return tuple((count, clip) for count, clip in zip(counts, self.clips, strict=True) if count)

    def clips_at(self, positions: Positions) -> Clips:
        """Return the clip of each value at these positions."""
        return expand_runs(self.runs(positions))

    def measure(self, sums: npt.NDArray[np.int64], positions: Positions) -> GroupSquares:
        """Return how many sums each group has here, and the sum of their squares.

        Args:
            sums: the decrypted sums of the values at these positions, at most a chunk.
            positions: their positions.

        Raises:
            MalformedMessage: there are not as many sums as positions.
        """
        counts = self._count_by_group(positions)
        if sums.shape != (counts.sum(),):
            raise MalformedMessage(f"model: expected {counts.sum()} sums, got an array of shape {sums.shape}")
        present = np.flatnonzero(counts)
        starts = np.cumsum(counts)[present] - counts[present]
        squares = np.zeros(counts.size, dtype=object)
        if max(int(sums.max()), -int(sums.min())) ** 2 * sums.size < 1 << 63:
            squares[present] = np.add.reduceat(sums * sums, starts)
        else:
            # A sum may have 34 bits, and its square more than 64; the parts of a chunk's squares do not.
            high, low = sums >> _HALF, sums & ((1 << _HALF) - 1)
            for part, shift in ((high * high, 2 * _HALF), (high * low, _HALF + 1), (low * low, 0)):
                squares[present] += np.add.reduceat(part, starts).astype(object) << shift
        return GroupSquares(tuple(counts.tolist()), tuple(squares.tolist()))

    def _count_by_group(self, positions: Positions) -> npt.NDArray[np.int64]:
        """Return how many of the positions are in each group."""
        borders: npt.NDArray[np.int64] = np.cumsum((0, *self.group_sizes), dtype=np.int64)
        if isinstance(positions, slice):
            before = np.clip(borders, positions.start, positions.stop)
        else:
            before = np.searchsorted(positions, borders)
        return before[1:] - before[:-1]


def expand_runs(runs: Runs) -> Clips:
    """Return the clip of each value; a single clip when all have the same."""
    counts, clips = [count for count, _ in runs], np.array([clip for _, clip in runs])
    return clips if len(runs) == 1 else np.repeat(clips, counts)


def compute_next_clips(
    scaling: Scaling,
    measured: GroupSquares,
    *,
    contributors: int,
    total_examples: int,
    clip_margin: float,
    clip_max: float,
) -> tuple[float, ...]:
    """Return the clips of the next round: a margin above what single updates came to in this one.

    The root mean square of a group's mean change, times the root of the number of contributors: what one
    update's values come to when updates are independent, and more when they agree. (Without that root, the
    clips of a large cohort would shrink with the mean, and clip ever more away.) A clip may grow up to
    `clip_max` at once, since values beyond it are lost, and at most halves, since one quiet round says
    little. In float64 with one rounding for each operation, in the written order, so every node derives the
    same bits (docs/format.md, "Next clips").

    Args:
        scaling: this round's.
        measured: of all the round's sums.
        contributors: how many updates are in the sums.
        total_examples: what the sums are divided by for the mean.
        clip_margin: how many times that measure a clip is; 0 for the policy's clip everywhere.
        clip_max: the policy's clip, which none exceeds.

    Raises:
        MalformedMessage: not one measure for each group, no contributor, or no examples.
    """
    if len(measured.squares) != len(scaling.clips) or contributors < 1 or total_examples < 1:
        raise MalformedMessage(
            f"clips: expected the squares of {len(scaling.clips)} groups, a contributor and an example, "
            f"got {len(measured.squares)}, {contributors} and {total_examples}"
        )
    if clip_margin == 0:
        return (clip_max,) * len(scaling.clips)
    following = []
    for clip, count, square in zip(scaling.clips, *measured, strict=True):
        if not count:
            following.append(min(clip_max, clip))
            continue
        scale = ((clip / scaling.limit) * scaling.max_examples) / total_examples
        spread = scale * math.sqrt(float(contributors * square) / count)
        following.append(min(clip_max, max(clip_margin * spread, clip / 2, clip_max * _SMALLEST_SHARE)))
    return tuple(following)
