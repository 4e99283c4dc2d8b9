"""Tests of frames and chunks on the wire."""

from __future__ import annotations

import numpy as np
import pytest

from fedproof.codec import CodecParameters
from fedproof.codec.frames import (
    decode_aggregate_frames,
    decode_update_frames,
    encode_aggregate_frames,
    encode_update_frames,
    split_seeds,
)
from fedproof.errors import MalformedMessage


def draw_coefficients(parameters: CodecParameters, *shape: int) -> np.ndarray:  # type: ignore[type-arg]
    rng = np.random.default_rng(1)
    return rng.integers(0, parameters.coeff_modulus, size=shape, dtype=np.uint64)


def make_seeds(frames: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(2).integers(0, 256, size=(frames, 64), dtype=np.uint8)


@pytest.mark.parametrize("frames", [1, 2, 16])
def test_update_frames_survive(parameters: CodecParameters, frames: int) -> None:
    """Polynomials and seeds come back, and a frame is its packed polynomial followed by its seed."""
    polynomials, seeds = draw_coefficients(parameters, frames, 4096), make_seeds(frames)
    chunk = encode_update_frames(polynomials, seeds, parameters)
    assert len(chunk) == frames * parameters.update_frame_bytes
    assert chunk[-64:] == seeds[-1].tobytes()
    mask = (1 << parameters.coefficient_bits) - 1
    last = chunk[-parameters.update_frame_bytes :]
    assert int.from_bytes(last, "little") & mask == int(polynomials[-1, 0])
    decoded_polynomials, decoded_seeds = decode_update_frames(chunk, parameters, where="test")
    assert np.array_equal(decoded_polynomials, polynomials)
    assert np.array_equal(decoded_seeds, seeds)
    assert split_seeds(chunk, parameters) == [seed.tobytes() for seed in seeds]


@pytest.mark.parametrize("frames", [1, 16])
def test_aggregate_frames_survive(parameters: CodecParameters, frames: int) -> None:
    """Both polynomials of each frame come back."""
    ciphertexts = draw_coefficients(parameters, frames, 8192)
    chunk = encode_aggregate_frames(ciphertexts, parameters)
    assert len(chunk) == frames * parameters.aggregate_frame_bytes
    assert np.array_equal(decode_aggregate_frames(chunk, parameters, where="test"), ciphertexts)


def test_coefficients_up_to_the_modulus(parameters: CodecParameters) -> None:
    """The coefficient q - 1 is accepted; q is refused, naming chunk, frame and coefficient."""
    polynomials, seeds = draw_coefficients(parameters, 2, 4096), make_seeds(2)
    ciphertexts = draw_coefficients(parameters, 2, 8192)
    polynomials[1, 4095] = ciphertexts[1, 8191] = parameters.coeff_modulus - 1
    decode_update_frames(encode_update_frames(polynomials, seeds, parameters), parameters, where="test")
    decode_aggregate_frames(encode_aggregate_frames(ciphertexts, parameters), parameters, where="test")
    polynomials[1, 4095] = ciphertexts[1, 8191] = parameters.coeff_modulus
    modulus = parameters.coeff_modulus
    with pytest.raises(
        MalformedMessage,
        match=f"^test: expected coefficients below {modulus}, got {modulus} at frame 1, coefficient 4095$",
    ):
        decode_update_frames(encode_update_frames(polynomials, seeds, parameters), parameters, where="test")
    with pytest.raises(MalformedMessage, match=f"got {modulus} at frame 1, coefficient 8191$"):
        decode_aggregate_frames(encode_aggregate_frames(ciphertexts, parameters), parameters, where="test")


@pytest.mark.parametrize("frames", [0, 17])
def test_other_numbers_of_frames_are_refused(parameters: CodecParameters, frames: int) -> None:
    """A chunk has 1 to 16 frames."""
    with pytest.raises(MalformedMessage, match="expected 1 to 16 frames"):
        decode_update_frames(bytes(frames * parameters.update_frame_bytes), parameters, where="test")
    with pytest.raises(MalformedMessage, match="expected 1 to 16 frames"):
        decode_aggregate_frames(bytes(frames * parameters.aggregate_frame_bytes), parameters, where="test")


@pytest.mark.parametrize("change", [-1, 1])
def test_partial_frames_are_refused(parameters: CodecParameters, change: int) -> None:
    """A missing or a trailing byte is refused, with both sizes."""
    size = 2 * parameters.update_frame_bytes + change
    with pytest.raises(
        MalformedMessage, match=f"frames of {parameters.update_frame_bytes} bytes, got {size} bytes"
    ):
        decode_update_frames(bytes(size), parameters, where="test")
    with pytest.raises(MalformedMessage, match=f"frames of {parameters.aggregate_frame_bytes} bytes"):
        decode_aggregate_frames(bytes(parameters.aggregate_frame_bytes + change), parameters, where="test")


def test_a_sum_in_the_clear_is_refused(parameters: CodecParameters) -> None:
    """A second polynomial of zeros is refused: with a single other coefficient it is accepted."""
    ciphertexts = draw_coefficients(parameters, 2, 8192)
    ciphertexts[1, 4096:] = 0
    with pytest.raises(
        MalformedMessage, match="expected an encrypted frame 1, got a second polynomial of zeros"
    ):
        decode_aggregate_frames(encode_aggregate_frames(ciphertexts, parameters), parameters, where="test")
    ciphertexts[1, 8191] = 1
    decode_aggregate_frames(encode_aggregate_frames(ciphertexts, parameters), parameters, where="test")
