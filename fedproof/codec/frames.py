"""Ciphertexts on the wire: chunks of frames, and nothing in a frame that could be anything but a number.

A frame of an update is its first polynomial, bit-packed, and the seed of its second. A frame of a sum is both
polynomials, bit-packed. What SEAL's own files say about sizes and versions never travels.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fedproof.codec.bits import Words, pack_bits, unpack_bits
from fedproof.codec.parameters import FRAMES_PER_CHUNK, RING_DEGREE, SEED_BYTES, CodecParameters
from fedproof.errors import MalformedMessage

Seeds = npt.NDArray[np.uint8]

# Enough to spread numpy's cost of a call, and few enough for the processor's cache.
_FRAMES_AT_ONCE: Final = 4


def encode_update_frames(polynomials: Words, seeds: Seeds, parameters: CodecParameters) -> bytes:
    """Return the chunk of freshly encrypted frames.

    Args:
        polynomials: first polynomials, of shape (frames, 4096).
        seeds: of shape (frames, 64).
    """
    packed = memoryview(pack_bits(polynomials.reshape(-1), parameters.coefficient_bits))
    size = parameters.update_frame_bytes - SEED_BYTES
    frames = (packed[start : start + size] for start in range(0, len(packed), size))
    return b"".join(part for frame in zip(frames, seeds, strict=True) for part in frame)


def decode_update_frames(chunk: bytes, parameters: CodecParameters, *, where: str) -> tuple[Words, Seeds]:
    """Return what `encode_update_frames` took.

    Raises:
        MalformedMessage: the length is not that of 1 to 16 frames, or a coefficient is not below q.
    """
    table = _split_frames(chunk, parameters.update_frame_bytes, where)
    packed, seeds = table[:, :-SEED_BYTES], table[:, -SEED_BYTES:]
    return _unpack_polynomials(packed, parameters, where), seeds


def split_seeds(chunk: bytes, parameters: CodecParameters) -> list[bytes]:
    """Return the seed of each frame of a well-formed update chunk.

    Whoever copies a ciphertext, even to change it (BFV is malleable), has to keep its seed: the seed expands
    to the half of the ciphertext that does not travel.
    """
    size = parameters.update_frame_bytes
    return [chunk[end - SEED_BYTES : end] for end in range(size, len(chunk) + 1, size)]


def encode_aggregate_frames(ciphertexts: Words, parameters: CodecParameters) -> bytes:
    """Return the chunk of summed frames.

    Args:
        ciphertexts: both polynomials of each, of shape (frames, 2 * 4096).
    """
    return pack_bits(ciphertexts.reshape(-1), parameters.coefficient_bits)


def decode_aggregate_frames(chunk: bytes, parameters: CodecParameters, *, where: str) -> Words:
    """Return what `encode_aggregate_frames` took.

    Raises:
        MalformedMessage: the length is not that of 1 to 16 frames, a coefficient is not below q, or a second
            polynomial is all zeros (what stands beside it would be in the clear).
    """
    table = _split_frames(chunk, parameters.aggregate_frame_bytes, where)
    ciphertexts = _unpack_polynomials(table, parameters, where)
    encrypted = ciphertexts[:, RING_DEGREE:].any(axis=1)
    if not encrypted.all():
        frame = int(np.flatnonzero(~encrypted)[0])
        raise MalformedMessage(
            f"{where}: expected an encrypted frame {frame}, got a second polynomial of zeros"
        )
    return ciphertexts


def check_length(chunk: bytes, expected: int, *, where: str) -> None:
    """Check a chunk's length.

    Raises:
        MalformedMessage: it is not the expected one.
    """
    if len(chunk) != expected:
        raise MalformedMessage(f"{where}: expected {expected} bytes, got {len(chunk)}")


def _split_frames(chunk: bytes, frame_bytes: int, where: str) -> npt.NDArray[np.uint8]:
    frames, rest = divmod(len(chunk), frame_bytes)
    if rest or not 1 <= frames <= FRAMES_PER_CHUNK:
        raise MalformedMessage(
            f"{where}: expected 1 to {FRAMES_PER_CHUNK} frames of {frame_bytes} bytes, got {len(chunk)} bytes"
        )
    return np.frombuffer(chunk, dtype=np.uint8).reshape(frames, frame_bytes)


def _unpack_polynomials(packed: npt.NDArray[np.uint8], parameters: CodecParameters, where: str) -> Words:
    modulus = parameters.coeff_modulus
    polynomials = np.empty((len(packed), packed.shape[1] * 8 // parameters.coefficient_bits), dtype=np.uint64)
    for start in range(0, len(packed), _FRAMES_AT_ONCE):
        some = slice(start, start + _FRAMES_AT_ONCE)
        polynomials[some].reshape(-1)[:] = unpack_bits(packed[some], parameters.coefficient_bits)
    if polynomials.max() >= modulus:
        frame, index = (int(i) for i in np.argwhere(polynomials >= modulus)[0])
        raise MalformedMessage(
            f"{where}: expected coefficients below {modulus}, "
            f"got {polynomials[frame, index]} at frame {frame}, coefficient {index}"
        )
    return polynomials
