"""Fixed-width integers, back to back.

The bytes, read as one little-endian integer, hold integer i in bits i * width to (i + 1) * width - 1. Eight
integers take exactly `width` bytes, so a strided window of 64 bits reaches one in eight of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

_LANES: Final = 8
_WINDOW_BYTES: Final = 8


def pack_bits(values: Words, width: int) -> bytes:
    """Return the values' packed bytes.

    Args:
        values: integers below 2^width; their number is a multiple of 8.
        width: 8 to 64.
    """
    lanes = values.reshape(-1, _LANES)
    buffer = np.zeros(lanes.shape[0] * width + _WINDOW_BYTES, dtype=np.uint8)
    for lane, (window, overflow, shift) in enumerate(_windows(buffer, width)):
        np.bitwise_or(window, lanes[:, lane] << np.uint64(shift), out=window)
        if shift + width > 64:
            high = (lanes[:, lane] >> np.uint64(64 - shift)).astype(np.uint8)
            np.bitwise_or(overflow, high, out=overflow)
    return buffer[:-_WINDOW_BYTES].tobytes()


def unpack_bits(packed: npt.NDArray[np.uint8], width: int) -> Words:
    """Return the integers that `pack_bits` packed.

    Args:
        packed: their bytes, in an array of any shape; their number is a multiple of width.
        width: 8 to 64.
    """
    buffer = np.empty(packed.size + _WINDOW_BYTES, dtype=np.uint8)
    buffer[:-_WINDOW_BYTES].reshape(packed.shape)[...] = packed
    buffer[-_WINDOW_BYTES:] = 0
    lanes = np.empty((packed.size // width, _LANES), dtype=np.uint64)
    mask = np.uint64((1 << width) - 1)
    for lane, (window, overflow, shift) in enumerate(_windows(buffer, width)):
        value = window >> np.uint64(shift)
        if shift + width > 64:
            value |= overflow.astype(np.uint64) << np.uint64(64 - shift)
        np.bitwise_and(value, mask, out=lanes[:, lane])
    return lanes.reshape(-1)


def _windows(buffer: npt.NDArray[np.uint8], width: int) -> Iterator[tuple[Words, npt.NDArray[np.uint8], int]]:
    """Yield for each lane its 64-bit windows, the byte after each, and where in the window a value begins.

    The buffer ends in `_WINDOW_BYTES` spare bytes, which the last windows reach into.
    """
    rows = (buffer.size - _WINDOW_BYTES) // width
    for lane in range(_LANES):
        start, shift = divmod(lane * width, 8)
        window: Words = np.ndarray((rows,), np.dtype("<u8"), buffer.data, start, (width,))
        overflow_start = min(start + _WINDOW_BYTES, width + _WINDOW_BYTES - 1)
        overflow = np.ndarray((rows,), np.dtype(np.uint8), buffer.data, overflow_start, (width,))
        yield window, overflow, shift
