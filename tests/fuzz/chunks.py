"""Fuzz targets: encrypted chunks, as they come from a node or from the aggregator.

Whole chunks are too long for a fuzzer to get right. So an input is a byte that says how many frames the chunk
is to be filled with, and a pattern to fill it; 0 takes the pattern as it is.
"""

from __future__ import annotations

from typing import Final

from fedproof.codec.frames import (
    decode_aggregate_frames,
    decode_update_frames,
    encode_aggregate_frames,
    encode_update_frames,
    split_seeds,
)
from fedproof.codec.parameters import FRAMES_PER_CHUNK, SEED_BYTES, CodecParameters
from fedproof.errors import MalformedMessage
from tests.fuzz.registry import refusing, require_same, target

# The shortest frames that the codec knows: 17 bits a coefficient.
PARAMETERS: Final = CodecParameters(bits=8, max_contributors=2, coeff_modulus=114_689, values_per_slot=1)


@target(max_bytes=PARAMETERS.update_frame_bytes + 1)
def update_chunk(raw: bytes) -> None:
    """`frames.decode_update_frames`: a node's chunk."""
    chunk = fill(raw, PARAMETERS.update_frame_bytes)
    with refusing(MalformedMessage):
        polynomials, seeds = decode_update_frames(chunk, PARAMETERS, where="chunk")
    require_same(encode_update_frames(polynomials, seeds, PARAMETERS), chunk)
    assert polynomials.max() < PARAMETERS.coeff_modulus
    assert 1 <= len(split_seeds(chunk, PARAMETERS)) == len(polynomials) <= FRAMES_PER_CHUNK
    assert all(len(seed) == SEED_BYTES for seed in split_seeds(chunk, PARAMETERS))


@target(max_bytes=PARAMETERS.aggregate_frame_bytes + 1)
def aggregate_chunk(raw: bytes) -> None:
    """`frames.decode_aggregate_frames`: a chunk of a sum."""
    chunk = fill(raw, PARAMETERS.aggregate_frame_bytes)
    with refusing(MalformedMessage):
        ciphertexts = decode_aggregate_frames(chunk, PARAMETERS, where="chunk")
    require_same(encode_aggregate_frames(ciphertexts, PARAMETERS), chunk)
    assert ciphertexts.max() < PARAMETERS.coeff_modulus
    assert ciphertexts[:, 4096:].any(axis=1).all()


def fill(raw: bytes, frame_bytes: int) -> bytes:
    """Return the chunk that an input stands for."""
    frames, pattern = raw[:1], raw[1:]
    if not pattern or not any(frames):
        return pattern
    size = frames[0] % 20 * frame_bytes
    return (pattern * (size // len(pattern) + 1))[:size]
