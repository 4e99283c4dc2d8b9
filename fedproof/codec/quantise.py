"""From float32 updates to integers, and from sums of integers to the next model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedproof.codec.parameters import CodecParameters
from fedproof.errors import MalformedMessage, UpdateRefused

Float32Vector = npt.NDArray[np.float32]
Int64Vector = npt.NDArray[np.int64]

# Small enough that a block's intermediate values stay in the processor's cache.
_BLOCK = 1 << 15


def quantise(
    delta: Float32Vector, parameters: CodecParameters, *, examples: int, rng: np.random.Generator
) -> Int64Vector:
    """Return the weighted update as integers between -limit and limit.

    Each value is clipped to [-clip, clip], scaled by limit / clip, weighted by
    min(examples, max_examples) / max_examples, and rounded up or down at random such that its expectation is
    kept (stochastic rounding: floor(y + u) with u uniform in [0, 1)).

    Args:
        delta: the update, of shape (d,).
        examples: training examples behind it; at least 1.
        rng: where u comes from; seeded from the system's randomness in a node.

    Raises:
        UpdateRefused: another shape or type, NaN or infinity (named by index), or no examples.
    """
    if delta.ndim != 1 or delta.dtype != np.float32:
        raise UpdateRefused(
            f"update: expected a flat float32 vector, got {delta.dtype} of shape {delta.shape}"
        )
    if examples < 1:
        raise UpdateRefused(f"update: expected at least 1 training example, got {examples}")
    limit = float(parameters.limit)
    scale = limit / parameters.clip
    weight = min(examples, parameters.max_examples) / parameters.max_examples
    quantised = np.empty(delta.size, dtype=np.int64)
    for start in range(0, delta.size, _BLOCK):
        block = delta[start : start + _BLOCK]
        finite = np.isfinite(block)
        if not finite.all():
            index = int(np.flatnonzero(~finite)[0])
            raise UpdateRefused(
                f"update: expected finite values, got {block[index]} at index {start + index}"
            )
        scaled = block.astype(np.float64)
        scaled *= scale
        np.clip(scaled, -limit, limit, out=scaled)
        scaled *= weight
        scaled += rng.random(block.size)
        np.floor(scaled, out=scaled)
        # limit + u rounds to limit + 1 in float64 when u is close enough to 1.
        np.minimum(scaled, limit, out=scaled)
        quantised[start : start + _BLOCK] = scaled
    return quantised


def apply_mean(
    base: Float32Vector, sums: Int64Vector, parameters: CodecParameters, *, total_examples: int
) -> Float32Vector:
    """Return the base model plus the weighted mean of the updates behind the sums.

    In float64, one elementwise operation after another, and one rounding to float32 at the end, so every
    participant computes the same bits: base + sums * ((step * max_examples) / total_examples).

    Args:
        base: the model that the updates start from, of shape (d,).
        sums: the decrypted sums, of shape (d,).
        total_examples: the sum of the contributors' example counts, each at most max_examples.

    Raises:
        MalformedMessage: shapes differ, or no examples.
        UpdateRefused: a value of the new model is not finite.
    """
    if base.ndim != 1 or base.dtype != np.float32 or base.shape != sums.shape:
        raise MalformedMessage(
            f"model: expected a flat float32 vector and as many sums, got {base.dtype} of shape {base.shape} "
            f"and sums of shape {sums.shape}"
        )
    if total_examples < 1:
        raise MalformedMessage(f"model: expected at least 1 example behind the sums, got {total_examples}")
    scale = (parameters.step * parameters.max_examples) / total_examples
    applied = np.empty_like(base)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, base.size, _BLOCK):
            mean = sums[start : start + _BLOCK].astype(np.float64)
            mean *= scale
            mean += base[start : start + _BLOCK]
            applied[start : start + _BLOCK] = mean
    finite = np.isfinite(applied)
    if not finite.all():
        index = int(np.flatnonzero(~finite)[0])
        raise UpdateRefused(f"model: expected finite values, got {applied[index]} at index {index}")
    return applied
