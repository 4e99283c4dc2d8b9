"""Several quantised values in each coefficient of a plaintext polynomial.

A frame's values, in order, fill first the lowest field of all 4,096 coefficients, then the next field. What
the last frame has left over holds the value 0 (as every field: with the offset added).
"""

from __future__ import annotations

import math

import numpy as np

from fedproof.codec.bits import Words
from fedproof.codec.parameters import RING_DEGREE, CodecParameters
from fedproof.codec.quantise import Int64Vector
from fedproof.errors import MalformedMessage, UpdateRefused


def pack_values(values: Int64Vector, parameters: CodecParameters) -> Words:
    """Return the plaintext polynomials that hold the values, of shape (frames, 4096).

    Args:
        values: at most as many as a chunk holds, each between -limit and limit.

    Raises:
        UpdateRefused: a value is beyond the limit.
    """
    limit = parameters.limit
    if values.min() < -limit or values.max() > limit:
        index = int(np.flatnonzero(np.abs(values) > limit)[0])
        raise UpdateRefused(f"update: expected values from {-limit} to {limit}, got {values[index]}")
    frames = math.ceil(values.size / parameters.values_per_frame)
    fields = np.full(frames * parameters.values_per_frame, parameters.offset, dtype=np.int64)
    fields[: values.size] += values
    planes = fields.view(np.uint64).reshape(frames, parameters.values_per_slot, RING_DEGREE)
    slots = planes[:, -1].copy()
    for plane in range(parameters.values_per_slot - 2, -1, -1):
        slots <<= np.uint64(parameters.field_bits)
        slots |= planes[:, plane]
    return slots


def unpack_sums(
    slots: Words, parameters: CodecParameters, *, contributors: int, length: int, where: str
) -> Int64Vector:
    """Return the sums of the contributors' values.

    A contributor can encrypt what the format does not allow, and nobody sees it before the sum is decrypted.
    What shows then is refused: every node decrypts the same sum, so all of them refuse it.

    Args:
        slots: decrypted plaintext polynomials, of shape (frames, 4096).
        contributors: how many updates are in the sum.
        length: how many values the frames hold; the rest is padding.
        where: the chunk, for the message.

    Raises:
        MalformedMessage: a sum is beyond what that many values can reach, or the padding is not zero.
    """
    shifts = np.arange(parameters.values_per_slot, dtype=np.uint64) * np.uint64(parameters.field_bits)
    mask = np.uint64((1 << parameters.field_bits) - 1)
    fields = ((slots[:, np.newaxis, :] >> shifts[:, np.newaxis]) & mask).reshape(-1).view(np.int64)
    fields -= contributors * parameters.offset
    sums, padding = fields[:length], fields[length:]
    bound = contributors * parameters.limit
    if sums.min() < -bound or sums.max() > bound:
        index = int(np.flatnonzero(np.abs(sums) > bound)[0])
        raise MalformedMessage(
            f"{where}: expected sums of {contributors} updates from {-bound} to {bound}, "
            f"got {sums[index]} at value {index}"
        )
    if padding.any():
        index = int(np.flatnonzero(padding)[0])
        raise MalformedMessage(
            f"{where}: expected zeros as padding, got {padding[index]} at value {length + index}"
        )
    return sums
