"""Tests of the codec as a whole."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.codec import Codec, CodecParameters, SecretKey
from fedproof.codec.frames import encode_update_frames
from fedproof.errors import MalformedMessage, UpdateRefused

PROPERTY = settings(derandomize=True, deadline=None, max_examples=6)


def draw_values(codec: Codec, length: int, seed: int) -> np.ndarray:  # type: ignore[type-arg]
    limit = codec.parameters.limit
    return np.random.default_rng(seed).integers(-limit, limit + 1, length)


def encrypt_one(codec: Codec, secret_key: SecretKey, length: int, seed: int = 0) -> bytes:
    (chunk,) = codec.encrypt_chunks(draw_values(codec, length, seed), secret_key)
    return chunk


@pytest.mark.parametrize("contributors", [1, 2, 64])
@PROPERTY
@given(length=st.integers(1, 9000), seed=st.integers(0, 2**32))
def test_sums_are_exact(
    codec: Codec, secret_key: SecretKey, contributors: int, length: int, seed: int
) -> None:
    """The decrypted sum is the sum of Python's integers, for one contributor, two, and as many as planned."""
    updates = [draw_values(codec, length, seed + number) for number in range(contributors)]
    chunks = [next(codec.encrypt_chunks(values, secret_key)) for values in updates]
    total = codec.sum_chunks(chunks)
    sums = codec.decrypt_chunk(total, secret_key, contributors=contributors, index=0, length=length)
    assert sums.tolist() == [sum(column) for column in zip(*(u.tolist() for u in updates), strict=True)]


@pytest.mark.parametrize("contributors", [2, 1000])
def test_a_sum_of_all_contributors_at_the_limit_is_exact(secret_key: SecretKey, contributors: int) -> None:
    """One update added as often as planned, its noise adding up each time, at both ends of the range."""
    parameters = CodecParameters.plan(bits=8, max_contributors=contributors, clip=1.0, max_examples=1)
    codec = Codec(parameters)
    values = np.tile([parameters.limit, -parameters.limit], parameters.values_per_frame // 2)
    chunk = next(codec.encrypt_chunks(values, secret_key))
    total = codec.sum_chunks([chunk] * contributors)
    sums = codec.decrypt_chunk(total, secret_key, contributors=contributors, index=0, length=values.size)
    assert np.array_equal(sums, values * contributors)


@PROPERTY
@given(st.permutations(range(5)))
def test_order_does_not_change_a_byte(codec: Codec, secret_key: SecretKey, order: list[int]) -> None:
    """Whoever adds the same chunks, in whatever order, publishes the same sum."""
    chunks = [encrypt_one(codec, secret_key, 100, seed) for seed in range(5)]
    assert codec.sum_chunks(chunks) == codec.sum_chunks(iter([chunks[number] for number in order]))


def test_an_update_of_several_chunks(codec: Codec, secret_key: SecretKey) -> None:
    """Chunks are encrypted, checked, added and decrypted one by one; the last holds fewer frames."""
    length = codec.parameters.values_per_chunk + 2 * codec.parameters.values_per_frame - 1
    updates = [draw_values(codec, length, seed) for seed in (1, 2)]
    encrypted = [list(codec.encrypt_chunks(values, secret_key)) for values in updates]
    frame_bytes = codec.parameters.update_frame_bytes
    assert [len(chunk) for chunk in encrypted[0]] == [16 * frame_bytes, 2 * frame_bytes]
    sums = []
    for index, chunks in enumerate(zip(*encrypted, strict=True)):
        for chunk in chunks:
            codec.check_update_chunk(chunk, index, length)
        total = codec.sum_chunks(chunks)
        codec.check_aggregate_chunk(total, index, length)
        sums.append(codec.decrypt_chunk(total, secret_key, contributors=2, index=index, length=length))
    assert np.array_equal(np.concatenate(sums), updates[0] + updates[1])


def test_upload_of_a_million_parameters_at_15_bits_is_at_most_3_6_bytes_each(secret_key: SecretKey) -> None:
    """Counted over real chunks, for as many contributors as the default policy."""
    codec = Codec(CodecParameters.plan(bits=15, max_contributors=16, clip=0.25, max_examples=1000))
    chunks = codec.encrypt_chunks(draw_values(codec, 1_000_000, 0), secret_key)
    assert sum(len(chunk) for chunk in chunks) / 1_000_000 <= 3.6


def test_encrypting_twice_shares_nothing(codec: Codec, secret_key: SecretKey) -> None:
    """Equal updates encrypt to chunks with other seeds and other coefficients, frame for frame."""
    length = 3 * codec.parameters.values_per_frame
    size = codec.parameters.update_frame_bytes
    chunks = b"".join(encrypt_one(codec, secret_key, length) for _ in range(2))
    frames = [chunks[start : start + size] for start in range(0, len(chunks), size)]
    assert len({frame[-64:] for frame in frames}) == len({frame[:64] for frame in frames}) == 6


def test_every_truncation_is_refused(codec: Codec, secret_key: SecretKey) -> None:
    """No proper prefix of a chunk passes, whether an update's or a sum's; the message has both sizes."""
    length = codec.parameters.values_per_frame + 1
    chunk = encrypt_one(codec, secret_key, length)
    total = codec.sum_chunks([chunk])
    refused = 0
    for whole, check in ((chunk, codec.check_update_chunk), (total, codec.check_aggregate_chunk)):
        view = memoryview(whole)
        for size in range(len(whole)):
            try:
                check(view[:size], 0, length)  # type: ignore[arg-type]
            except MalformedMessage as error:
                refused += f"expected {len(whole)} bytes, got {size}" in str(error)
    assert refused == len(chunk) + len(total)
    for size in range(0, len(chunk), 501):
        with pytest.raises(MalformedMessage, match="summand 1: expected"):
            codec.sum_chunks([chunk, chunk[:size]])
        with pytest.raises(MalformedMessage, match=f"expected {len(total)} bytes"):
            codec.decrypt_chunk(total[:size], secret_key, contributors=1, index=0, length=length)


def test_a_trailing_byte_is_refused(codec: Codec, secret_key: SecretKey) -> None:
    """One byte more than the chunk is refused everywhere."""
    chunk = encrypt_one(codec, secret_key, 10)
    total = codec.sum_chunks([chunk])
    with pytest.raises(MalformedMessage, match=rf"expected {len(chunk)} bytes, got {len(chunk) + 1}"):
        codec.check_update_chunk(chunk + b"\0", 0, 10)
    with pytest.raises(MalformedMessage, match=r"summand 0: expected 1 to 16 frames"):
        codec.sum_chunks([chunk + b"\0"])
    with pytest.raises(MalformedMessage, match=rf"expected {len(total)} bytes, got {len(total) + 1}"):
        codec.decrypt_chunk(total + b"\0", secret_key, contributors=1, index=0, length=10)


def test_a_coefficient_of_the_modulus_is_refused(codec: Codec, secret_key: SecretKey) -> None:
    """A chunk whose first coefficient is q is refused by whoever reads it."""
    modulus, width = codec.parameters.coeff_modulus, codec.parameters.coefficient_bits

    def with_first_coefficient(chunk: bytes, coefficient: int) -> bytes:
        number = int.from_bytes(chunk, "little")
        return ((number >> width << width) | coefficient).to_bytes(len(chunk), "little")

    chunk = encrypt_one(codec, secret_key, 10)
    total = codec.sum_chunks([chunk])
    codec.check_update_chunk(with_first_coefficient(chunk, modulus - 1), 0, 10)
    codec.check_aggregate_chunk(with_first_coefficient(total, modulus - 1), 0, 10)
    chunk, total = with_first_coefficient(chunk, modulus), with_first_coefficient(total, modulus)
    where = "frame 0, coefficient 0"
    with pytest.raises(MalformedMessage, match=where):
        codec.check_update_chunk(chunk, 0, 10)
    with pytest.raises(MalformedMessage, match=where):
        codec.sum_chunks([chunk])
    with pytest.raises(MalformedMessage, match=where):
        codec.check_aggregate_chunk(total, 0, 10)
    with pytest.raises(MalformedMessage, match=where):
        codec.decrypt_chunk(total, secret_key, contributors=1, index=0, length=10)


def test_any_coefficients_and_seed_are_survived(codec: Codec, secret_key: SecretKey) -> None:
    """A hostile frame with coefficients in range adds up, and decrypts to an error rather than a crash."""
    rng = np.random.default_rng(4)
    for _ in range(5):
        polynomial = rng.integers(0, codec.parameters.coeff_modulus, (1, 4096), dtype=np.uint64)
        seed = rng.integers(0, 256, (1, 64), dtype=np.uint8)
        hostile = encode_update_frames(polynomial, seed, codec.parameters)
        total = codec.sum_chunks([hostile, encrypt_one(codec, secret_key, 10)])
        with pytest.raises(MalformedMessage, match=r"aggregate chunk 0: expected (sums|zeros)"):
            codec.decrypt_chunk(total, secret_key, contributors=2, index=0, length=10)


def test_another_key_decrypts_to_nothing(codec: Codec, secret_key: SecretKey) -> None:
    """What another epoch's key makes of a sum is refused."""
    total = codec.sum_chunks([encrypt_one(codec, secret_key, 10)])
    with pytest.raises(MalformedMessage, match="aggregate chunk 0: expected sums of 1 updates"):
        codec.decrypt_chunk(total, codec.generate_secret_key(), contributors=1, index=0, length=10)


def test_a_wrong_number_of_contributors_shows(codec: Codec, secret_key: SecretKey) -> None:
    """A sum of two that is announced as a sum of one or three is refused."""
    total = codec.sum_chunks([encrypt_one(codec, secret_key, 10, seed) for seed in range(2)])
    for announced in (1, 3):
        with pytest.raises(
            MalformedMessage, match=f"expected (sums of {announced} updates|zeros as padding)"
        ):
            codec.decrypt_chunk(total, secret_key, contributors=announced, index=0, length=10)


def test_numbers_of_contributors_are_limited(codec: Codec, secret_key: SecretKey) -> None:
    """As many as planned are added and decrypted; none, or one more, are refused."""
    chunk = encrypt_one(codec, secret_key, 10)
    total = codec.sum_chunks([chunk] * 64)
    codec.decrypt_chunk(total, secret_key, contributors=64, index=0, length=10)
    for count in (0, 65):
        with pytest.raises(MalformedMessage, match=f"expected 1 to 64 contributors, got {count}"):
            codec.sum_chunks([chunk] * count)
        with pytest.raises(MalformedMessage, match=f"expected 1 to 64 contributors, got {count}"):
            codec.decrypt_chunk(total, secret_key, contributors=count, index=0, length=10)


def test_updates_of_another_type_or_shape_are_refused(codec: Codec, secret_key: SecretKey) -> None:
    """Only a flat vector of at least one int64 is encrypted."""
    for values in (np.zeros(3), np.zeros((2, 2), dtype=np.int64), np.zeros(0, dtype=np.int64)):
        with pytest.raises(UpdateRefused, match="expected a flat int64 vector of at least one value"):
            next(codec.encrypt_chunks(values, secret_key))  # type: ignore[arg-type]


def test_the_sum_of_known_chunks_is_known(codec: Codec) -> None:
    """Adding is fixed to the last bit: chunks of known numbers and seeds give a sum with a known digest."""
    numbers = np.arange(2 * 4096, dtype=np.uint64).reshape(2, 4096) * np.uint64(2**34)
    seeds = np.arange(2 * 64, dtype=np.uint8).reshape(2, 64)
    chunks = [
        encode_update_frames(numbers + np.uint64(i), seeds + np.uint8(i), codec.parameters) for i in range(3)
    ]
    digest = hashlib.sha256(codec.sum_chunks(chunks)).hexdigest()
    assert digest == "a7fcee4e0fb763b513e260936211ebb1d9a05d088a61c109d0e27352ca0d4fad"
