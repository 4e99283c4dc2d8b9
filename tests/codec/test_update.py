"""Tests of the codec as a whole."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.codec import Codec, CodecParameters, SecretKey
from fedproof.codec.cipher import SumDecryptor, UpdateEncryptor
from fedproof.codec.frames import encode_update_frames
from fedproof.errors import MalformedMessage, UpdateRefused

PROPERTY = settings(derandomize=True, deadline=None, max_examples=6)


def draw_values(codec: Codec, length: int, seed: int) -> np.ndarray:  # type: ignore[type-arg]
    limit = codec.parameters.limit
    return np.random.default_rng(seed).integers(-limit, limit + 1, length)


def encrypt_one(codec: Codec, encryptor: UpdateEncryptor, length: int, seed: int = 0) -> bytes:
    return codec.encrypt_chunk(draw_values(codec, length, seed), encryptor)


@pytest.mark.parametrize("contributors", [1, 2, 64])
@PROPERTY
@given(length=st.integers(1, 9000), seed=st.integers(0, 2**32))
def test_sums_are_exact(
    codec: Codec,
    encryptor: UpdateEncryptor,
    decryptor: SumDecryptor,
    contributors: int,
    length: int,
    seed: int,
) -> None:
    """The decrypted sum is the sum of Python's integers, for one contributor, two, and as many as planned."""
    updates = [draw_values(codec, length, seed + number) for number in range(contributors)]
    total = codec.sum_chunks(codec.encrypt_chunk(values, encryptor) for values in updates)
    sums = codec.decrypt_chunk(total, decryptor, contributors=contributors, index=0, length=length)
    assert sums.tolist() == [sum(column) for column in zip(*(u.tolist() for u in updates), strict=True)]


def test_a_sum_of_a_thousand_is_exact_and_one_more_is_refused(secret_key: SecretKey) -> None:
    """A thousand updates, each with its own noise, add up to Python's integers; no more are taken."""
    codec = Codec(CodecParameters.plan(bits=8, max_contributors=1000))
    encryptor, decryptor = codec.make_encryptor(secret_key), codec.make_decryptor(secret_key)
    length = codec.parameters.values_per_frame
    expected = [0] * length
    total = codec.start_sum()
    for number in range(1000):
        values = draw_values(codec, length, number)
        values[0], values[-1] = codec.parameters.limit, -codec.parameters.limit
        expected = [one + other for one, other in zip(expected, values.tolist(), strict=True)]
        total.add(codec.encrypt_chunk(values, encryptor), "test")
    sums = codec.decrypt_chunk(total.result(), decryptor, contributors=1000, index=0, length=length)
    assert sums.tolist() == expected
    before = total.result()
    with pytest.raises(MalformedMessage, match="expected 1 to 1000 contributors, got 1001"):
        total.add(codec.encrypt_chunk(values, encryptor), "test")
    assert total.result() == before


@pytest.mark.parametrize("contributors", [2, 1000])
def test_a_sum_of_all_contributors_at_the_limit_is_exact(secret_key: SecretKey, contributors: int) -> None:
    """One update added as often as planned, its noise adding up each time, at both ends of the range."""
    codec = Codec(CodecParameters.plan(bits=8, max_contributors=contributors))
    values = np.tile([codec.parameters.limit, -codec.parameters.limit], 2048)
    chunk = codec.encrypt_chunk(values, codec.make_encryptor(secret_key))
    total = codec.sum_chunks([chunk] * contributors)
    decryptor = codec.make_decryptor(secret_key)
    sums = codec.decrypt_chunk(total, decryptor, contributors=contributors, index=0, length=values.size)
    assert np.array_equal(sums, values * contributors)


@PROPERTY
@given(
    data=st.data(),
    changes=st.lists(st.integers(0, 4), min_size=1, max_size=20),
)
def test_a_sum_depends_on_what_is_in_it_alone(
    codec: Codec, encryptor: UpdateEncryptor, data: st.DataObject, changes: list[int]
) -> None:
    """Chunks added and taken out in any order give the bytes of a plain sum over those that are left."""
    chunks = [encrypt_one(codec, encryptor, 100, seed) for seed in range(5)]
    total, held = codec.start_sum(), set()
    for number in changes:
        if number in held:
            total.subtract(chunks[number], "test")
            held.remove(number)
        else:
            total.add(chunks[number], "test")
            held.add(number)
        assert total.count == len(held)
        if held:
            assert total.result() == codec.sum_chunks(chunks[each] for each in held)
        if held and data.draw(st.booleans()):
            resumed = codec.start_sum()
            resumed.resume(total.result(), total.count)
            total = resumed


def test_nothing_is_taken_out_of_nothing(codec: Codec, encryptor: UpdateEncryptor) -> None:
    """An empty sum refuses to subtract, and has no result."""
    total = codec.start_sum()
    with pytest.raises(MalformedMessage, match="test: expected 0 bytes, got"):
        total.subtract(encrypt_one(codec, encryptor, 10), "test")
    with pytest.raises(MalformedMessage, match="expected 1 to 64 contributors, got 0"):
        total.result()


@PROPERTY
@given(st.permutations(range(5)))
def test_order_does_not_change_a_byte(codec: Codec, encryptor: UpdateEncryptor, order: list[int]) -> None:
    """Whoever adds the same chunks, in whatever order, publishes the same sum."""
    chunks = [encrypt_one(codec, encryptor, 100, seed) for seed in range(5)]
    assert codec.sum_chunks(chunks) == codec.sum_chunks(iter([chunks[number] for number in order]))


def test_an_update_of_several_chunks(
    codec: Codec, encryptor: UpdateEncryptor, decryptor: SumDecryptor
) -> None:
    """Chunks are encrypted, checked, added and decrypted one by one; the last holds fewer frames."""
    size = codec.parameters.values_per_chunk
    length = size + 2 * codec.parameters.values_per_frame - 1
    updates = [draw_values(codec, length, seed) for seed in (1, 2)]
    sums = []
    for index, frames in enumerate((16, 2)):
        parts = [values[index * size : (index + 1) * size] for values in updates]
        chunks = [codec.encrypt_chunk(part, encryptor) for part in parts]
        for chunk in chunks:
            assert len(chunk) == frames * codec.parameters.update_frame_bytes
            codec.check_update_chunk(chunk, index, length)
        total = codec.sum_chunks(chunks)
        codec.check_aggregate_chunk(total, index, length)
        sums.append(codec.decrypt_chunk(total, decryptor, contributors=2, index=index, length=length))
    assert np.array_equal(np.concatenate(sums), updates[0] + updates[1])


def test_encrypting_twice_shares_nothing(codec: Codec, encryptor: UpdateEncryptor) -> None:
    """Equal updates encrypt to chunks with other seeds and other coefficients, frame for frame."""
    length = 3 * codec.parameters.values_per_frame
    size = codec.parameters.update_frame_bytes
    chunks = b"".join(encrypt_one(codec, encryptor, length) for _ in range(2))
    frames = [chunks[start : start + size] for start in range(0, len(chunks), size)]
    assert len({frame[-64:] for frame in frames}) == len({frame[:64] for frame in frames}) == 6


def test_every_truncation_is_refused(
    codec: Codec, encryptor: UpdateEncryptor, decryptor: SumDecryptor
) -> None:
    """No proper prefix of a chunk passes, whether an update's or a sum's; the message has both sizes."""
    length = codec.parameters.values_per_frame + 1
    chunk = encrypt_one(codec, encryptor, length)
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
            codec.decrypt_chunk(total[:size], decryptor, contributors=1, index=0, length=length)


def test_a_trailing_byte_is_refused(
    codec: Codec, encryptor: UpdateEncryptor, decryptor: SumDecryptor
) -> None:
    """One byte more than the chunk is refused everywhere."""
    chunk = encrypt_one(codec, encryptor, 10)
    total = codec.sum_chunks([chunk])
    with pytest.raises(MalformedMessage, match=rf"expected {len(chunk)} bytes, got {len(chunk) + 1}"):
        codec.check_update_chunk(chunk + b"\0", 0, 10)
    with pytest.raises(MalformedMessage, match=r"summand 0: expected 1 to 16 frames"):
        codec.sum_chunks([chunk + b"\0"])
    with pytest.raises(MalformedMessage, match=rf"expected {len(total)} bytes, got {len(total) + 1}"):
        codec.decrypt_chunk(total + b"\0", decryptor, contributors=1, index=0, length=10)


def test_a_coefficient_of_the_modulus_is_refused(
    codec: Codec, encryptor: UpdateEncryptor, decryptor: SumDecryptor
) -> None:
    """A chunk whose first coefficient is q is refused by whoever reads it."""
    modulus, width = codec.parameters.coeff_modulus, codec.parameters.coefficient_bits

    def with_first_coefficient(chunk: bytes, coefficient: int) -> bytes:
        number = int.from_bytes(chunk, "little")
        return ((number >> width << width) | coefficient).to_bytes(len(chunk), "little")

    chunk = encrypt_one(codec, encryptor, 10)
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
        codec.decrypt_chunk(total, decryptor, contributors=1, index=0, length=10)


def test_any_coefficients_and_seed_are_survived(
    codec: Codec, encryptor: UpdateEncryptor, decryptor: SumDecryptor
) -> None:
    """A hostile frame with coefficients in range adds up, and decrypts to an error rather than a crash."""
    rng = np.random.default_rng(4)
    for _ in range(5):
        polynomial = rng.integers(0, codec.parameters.coeff_modulus, (1, 4096), dtype=np.uint64)
        seed = rng.integers(0, 256, (1, 64), dtype=np.uint8)
        hostile = encode_update_frames(polynomial, seed, codec.parameters)
        total = codec.sum_chunks([hostile, encrypt_one(codec, encryptor, 10)])
        with pytest.raises(MalformedMessage, match=r"aggregate chunk 0: expected (sums|zeros)"):
            codec.decrypt_chunk(total, decryptor, contributors=2, index=0, length=10)


def test_another_key_decrypts_to_nothing(codec: Codec, encryptor: UpdateEncryptor) -> None:
    """What another epoch's key makes of a sum is refused."""
    total = codec.sum_chunks([encrypt_one(codec, encryptor, 10)])
    with pytest.raises(MalformedMessage, match="aggregate chunk 0: expected sums of 1 updates"):
        codec.decrypt_chunk(
            total, codec.make_decryptor(SecretKey.generate()), contributors=1, index=0, length=10
        )


def test_a_wrong_number_of_contributors_shows(
    codec: Codec, encryptor: UpdateEncryptor, decryptor: SumDecryptor
) -> None:
    """A sum of two that is announced as a sum of one or three is refused."""
    total = codec.sum_chunks([encrypt_one(codec, encryptor, 10, seed) for seed in range(2)])
    for announced in (1, 3):
        with pytest.raises(
            MalformedMessage, match=f"expected (sums of {announced} updates|zeros as padding)"
        ):
            codec.decrypt_chunk(total, decryptor, contributors=announced, index=0, length=10)


def test_numbers_of_contributors_are_limited(
    codec: Codec, encryptor: UpdateEncryptor, decryptor: SumDecryptor
) -> None:
    """As many as planned are added and decrypted; none, or one more, are refused."""
    chunk = encrypt_one(codec, encryptor, 10)
    total = codec.sum_chunks([chunk] * 64)
    codec.decrypt_chunk(total, decryptor, contributors=64, index=0, length=10)
    for count in (0, 65):
        with pytest.raises(MalformedMessage, match=f"expected 1 to 64 contributors, got {count}"):
            codec.sum_chunks([chunk] * count)
        with pytest.raises(MalformedMessage, match=f"expected 1 to 64 contributors, got {count}"):
            codec.decrypt_chunk(total, decryptor, contributors=count, index=0, length=10)


def test_values_of_another_type_shape_or_number_are_refused(codec: Codec, encryptor: UpdateEncryptor) -> None:
    """Only a flat vector of int64, at least one and at most a chunk's, is encrypted."""
    most = codec.parameters.values_per_chunk
    codec.encrypt_chunk(np.zeros(most, dtype=np.int64), encryptor)
    for values in (np.zeros(3), *(np.zeros(shape, dtype=np.int64) for shape in ((2, 2), 0, most + 1))):
        with pytest.raises(UpdateRefused, match=f"expected a flat int64 vector of 1 to {most} values"):
            codec.encrypt_chunk(values, encryptor)


def test_the_sum_of_known_chunks_is_known(codec: Codec) -> None:
    """Adding is fixed to the last bit: chunks of known numbers and seeds give a sum with a known digest."""
    numbers = np.arange(2 * 4096, dtype=np.uint64).reshape(2, 4096) * np.uint64(2**34)
    seeds = np.arange(2 * 64, dtype=np.uint8).reshape(2, 64)
    chunks = [
        encode_update_frames(numbers + np.uint64(i), seeds + np.uint8(i), codec.parameters) for i in range(3)
    ]
    digest = hashlib.sha256(codec.sum_chunks(chunks)).hexdigest()
    assert digest == "a7fcee4e0fb763b513e260936211ebb1d9a05d088a61c109d0e27352ca0d4fad"
