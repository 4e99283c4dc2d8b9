"""From float32 updates to integers, and from sums of integers to the next model. Chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from fedproof.codec.scaling import Clips
from fedproof.codec.selection import Positions
from fedproof.errors import MalformedMessage, UpdateRefused

Float32Vector = npt.NDArray[np.float32]
Int64Vector = npt.NDArray[np.int64]

# Small enough that a block's intermediate values stay in the processor's cache.
_BLOCK: Final = 1 << 15


def quantise(
    delta: Float32Vector, clips: Clips, *, limit: int, weight: float, rng: np.random.Generator
) -> Int64Vector:
    """Return the weighted values as integers between -limit and limit.

    Each value is clipped to [-clip, clip], scaled by limit / clip, weighted, and rounded up or down at random
    such that its expectation is kept (stochastic rounding: floor(y + u) with u uniform in [0, 1)).

    Args:
        delta: values of the update, of shape (n,).
        clips: their clips, of shape (n,) or (1,).
        limit: the largest absolute integer.
        weight: above 0 and at most 1.
        rng: where u comes from; seeded from the system's randomness in a node.

    Raises:
        UpdateRefused: another shape or type, NaN or infinity (named by index).
    """
    if delta.ndim != 1 or delta.dtype != np.float32:
        raise UpdateRefused(
            f"update: expected a flat float32 vector, got {delta.dtype} of shape {delta.shape}"
        )
    check_finite(delta, slice(0, delta.size), what="update")
    values = np.empty(delta.shape, dtype=np.int64)
    for block in _blocks(delta.size):
        scaled = delta[block] * (limit / _part(clips, block))
        np.clip(scaled, -limit, limit, out=scaled)
        scaled *= weight
        scaled += rng.random(scaled.size)
        np.floor(scaled, out=scaled)
        # limit + u rounds to limit + 1 in float64 when u is close enough to 1.
        np.minimum(scaled, limit, out=scaled)
        values[block] = scaled
    return values


def compute_residual(
    delta: Float32Vector, values: Int64Vector, clips: Clips, *, limit: int, weight: float
) -> Float32Vector:
    """Return what the integers leave unsent of the update: what was clipped and what was rounded away.

    Args:
        delta: what was quantised, of shape (n,).
        values: what `quantise` made of it.
        clips: of shape (n,) or (1,).
        limit: as in `quantise`.
        weight: as in `quantise`.
    """
    sent = values * (clips / limit)
    sent /= weight
    return np.subtract(delta, sent, dtype=np.float64).astype(np.float32)


def apply_mean(
    base: Float32Vector,
    sums: Int64Vector,
    clips: Clips,
    *,
    limit: int,
    max_examples: int,
    total_examples: int,
) -> Float32Vector:
    """Return the base values plus the weighted mean of the updates behind the sums.

    In float64, one elementwise operation after another, and one rounding to float32 at the end, so every
    participant computes the same bits: base + sums * (((clip / limit) * max_examples) / total_examples).
    A result may be infinite or NaN; see `check_finite`.

    Args:
        base: values of the model that the updates start from, of shape (n,).
        sums: the decrypted sums, of shape (n,).
        clips: of shape (n,) or (1,).
        limit: the largest absolute integer of one update.
        max_examples: the example count that carries the weight 1.
        total_examples: the sum of the contributors' example counts, each at most max_examples.

    Raises:
        MalformedMessage: shapes differ, or no examples.
    """
    if base.ndim != 1 or base.dtype != np.float32 or base.shape != sums.shape:
        raise MalformedMessage(
            f"model: expected a flat float32 vector and as many sums, got {base.dtype} of shape {base.shape} "
            f"and sums of shape {sums.shape}"
        )
    if total_examples < 1:
        raise MalformedMessage(f"model: expected at least 1 example behind the sums, got {total_examples}")
    applied = np.empty_like(base)
    with np.errstate(over="ignore", invalid="ignore"):
        for block in _blocks(base.size):
            mean = sums[block] * (((_part(clips, block) / limit) * max_examples) / total_examples)
            mean += base[block]
            applied[block] = mean
    return applied


def check_finite(values: Float32Vector, positions: Positions, *, what: str) -> None:
    """Check that no value is NaN or infinite.

    Args:
        values: of shape (n,).
        positions: where they stand in the flat vector, for the message.
        what: what they are, for the message.

    Raises:
        UpdateRefused: one is, named by its index in the flat vector.
    """
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        index = positions.start + first if isinstance(positions, slice) else int(positions[first])
        raise UpdateRefused(f"{what}: expected finite values, got {values[first]} at index {index}")


def _part(clips: Clips, block: slice) -> Clips:
    return clips if clips.size == 1 else clips[block]


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))
