"""Arithmetic on flat vectors in place, block by block: a model's worth of temporaries is never there."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedproof.codec.quantise import check_finite

Float32Vector = NDArray[np.float32]

# Small enough that a block stays in the processor's cache between the two looks at it.
_BLOCK: Final = 1 << 16


def add_finite(vector: Float32Vector, other: Float32Vector, *, what: str) -> None:
    """Add another vector in place.

    Raises:
        UpdateRefused: a value of the sum is not finite, named by its index; the vector is then spoilt.
    """
    _change(np.add, vector, other, what)


def subtract_finite(vector: Float32Vector, other: Float32Vector, *, what: str) -> None:
    """Subtract another vector in place; otherwise as `add_finite`."""
    _change(np.subtract, vector, other, what)


def _change(operation: np.ufunc, vector: Float32Vector, other: Float32Vector, what: str) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, vector.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            operation(vector[block], other[block], out=vector[block])
            check_finite(vector[block], block, what=what)
