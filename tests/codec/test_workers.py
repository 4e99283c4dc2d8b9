"""Tests of the work that daemons leave to processes of their own."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from fedproof.codec import Codec, CodecParameters, SecretKey
from fedproof.codec.cipher import SumDecryptor, UpdateEncryptor
from fedproof.codec.workers import CodecWorkers, Piece
from fedproof.errors import ConfigurationError, MalformedMessage, UpdateRefused, WorkerDied


def draw_piece(size: int, seed: int = 0, *, clip: float = 0.25) -> Piece:
    delta = np.random.default_rng(seed).normal(0, 0.05, size).astype(np.float32)
    return Piece(delta, ((size, clip),), seed.to_bytes(32, "little"))


def encrypt(codec: Codec, encryptor: UpdateEncryptor, seed: int, *, length: int = 100) -> bytes:
    limit = codec.parameters.limit
    return codec.encrypt_chunk(np.random.default_rng(seed).integers(-limit, limit + 1, length), encryptor)


def test_pieces_come_back_in_order(workers: CodecWorkers, codec: Codec, decryptor: SumDecryptor) -> None:
    """Each encrypted piece holds its own values, in the order that they came in."""
    pieces = [draw_piece(size, size) for size in (131_072, 8192, 1, 100_000, 8193, 3)]
    encoded = list(workers.encode(pieces, weight=0.5))
    assert len(encoded) == len(pieces)
    for piece, each in zip(pieces, encoded, strict=True):
        assert each.residual is None
        sums = codec.decrypt_chunk(
            codec.sum_chunks([each.chunk]), decryptor, contributors=1, index=0, length=piece.delta.size
        )
        scaled = np.clip(piece.delta, -0.25, 0.25) * (codec.parameters.limit / 0.25) * 0.5
        assert np.all(np.abs(sums - scaled) <= 1)


def test_what_is_left_unsent_comes_along(workers: CodecWorkers) -> None:
    """With a residual, what was sent and what was left make up the piece."""
    piece = draw_piece(9000)
    (encoded,) = workers.encode([piece], weight=0.5, wants_residual=True)
    total = workers.sum_chunks([("test", encoded.chunk)])
    (sums,) = workers.decode([total], contributors=1, length=9000)
    assert encoded.residual is not None
    sent = sums * (0.25 / workers.parameters.limit) / 0.5
    assert np.allclose(sent + encoded.residual, piece.delta, rtol=0, atol=1e-7)


def test_decoding_what_was_encoded_is_unbiased(workers: CodecWorkers) -> None:
    """The mean over a chunk of equal values, quantised and encrypted and decrypted, is that value.

    An unbiased rounding with another seed would fail this with a probability below 1e-9: by Hoeffding's
    inequality, the mean of n values within one step is off by more than e with at most 2 exp(-2 n e^2).
    """
    size = workers.parameters.values_per_chunk
    bound = math.sqrt(math.log(2 / 1e-9) / (2 * size))
    value = np.float32(-0.0123456)
    piece = Piece(np.full(size, value), ((size, 0.25),), bytes(32))
    (encoded,) = workers.encode([piece], weight=1.0)
    (sums,) = workers.decode([workers.sum_chunks([("test", encoded.chunk)])], contributors=1, length=size)
    assert abs(sums.mean() - float(value) * workers.parameters.limit / 0.25) < bound < 0.01


def test_each_value_has_its_groups_clip(workers: CodecWorkers) -> None:
    """A piece across groups is quantised with the clip of each."""
    delta = np.full(30, 0.1, dtype=np.float32)
    piece = Piece(delta, ((10, 0.1), (5, 0.2), (15, 0.4)), bytes(32))
    (encoded,) = workers.encode([piece], weight=1.0)
    (sums,) = workers.decode([workers.sum_chunks([("test", encoded.chunk)])], contributors=1, length=30)
    limit = workers.parameters.limit
    assert np.all(np.abs(sums - np.repeat([limit, limit / 2, limit / 4], [10, 5, 15])) <= 1)


def test_pieces_are_taken_as_there_is_room(workers: CodecWorkers) -> None:
    """No more than two pieces for each process are under way, so memory does not grow with the model."""
    taken = itertools.count()

    def endless() -> Iterator[Piece]:
        while True:
            yield draw_piece(10, next(taken))

    encoded = workers.encode(endless(), weight=1.0)
    for _ in range(5):
        next(encoded)
    encoded.close()  # type: ignore[attr-defined]
    assert next(taken) <= 5 + 2 * workers.processes


def test_no_two_frames_share_a_seed(workers: CodecWorkers) -> None:
    """Workers that come from one process draw their own randomness, for equal pieces as well."""
    size = workers.parameters.values_per_chunk
    pieces = [Piece(np.zeros(size, dtype=np.float32), ((size, 1.0),), bytes(32))] * 6
    chunks = b"".join(encoded.chunk for encoded in workers.encode(pieces, weight=1.0))
    step = workers.parameters.update_frame_bytes
    frames = [chunks[start : start + step] for start in range(0, len(chunks), step)]
    assert len({frame[-64:] for frame in frames}) == len({frame[:64] for frame in frames}) == 6 * 16


def test_chunks_of_a_sum_are_decoded_from_any_index(workers: CodecWorkers) -> None:
    """Consecutive chunks come back in order, the last one shorter, from the index that is named."""
    length = workers.parameters.values_per_chunk * 2 + 5
    sizes = [workers.parameters.values_in_chunk(index, length) for index in range(3)]
    encoded = workers.encode([draw_piece(size, size) for size in sizes], weight=1.0)
    totals = [workers.sum_chunks([("test", each.chunk)]) for each in encoded]
    whole = list(workers.decode(totals, contributors=1, length=length))
    assert [sums.size for sums in whole] == sizes
    for first in range(3):
        parts = workers.decode(totals[first:], contributors=1, length=length, first=first)
        for part, expected in zip(parts, whole[first:], strict=True):
            assert np.array_equal(part, expected)
    with pytest.raises(MalformedMessage, match="chunk 3: expected an index from 0 to 2"):
        list(workers.decode(totals[:1], contributors=1, length=length, first=3))


def test_sums_are_those_of_the_codec(workers: CodecWorkers, codec: Codec, encryptor: UpdateEncryptor) -> None:
    """A sum has the bytes that the codec gives it in one process, of one chunk as of many."""
    chunks = [encrypt(codec, encryptor, seed) for seed in range(5)]
    for count in (1, 2, 5):
        named = [(f"node {number}", chunk) for number, chunk in enumerate(chunks[:count])]
        assert workers.sum_chunks(iter(named)) == codec.sum_chunks(chunks[:count])


def test_a_sum_of_more_than_is_kept_at_a_time(
    workers: CodecWorkers, codec: Codec, encryptor: UpdateEncryptor
) -> None:
    """As many full chunks as are planned, many times what a process is given at once, add up the same."""
    chunks = [encrypt(codec, encryptor, seed, length=131_072) for seed in range(3)]
    many = [chunks[number % 3] for number in range(64)]
    assert sum(map(len, many)) > 16 << 20
    assert workers.sum_chunks(("test", chunk) for chunk in many) == codec.sum_chunks(many)
    with pytest.raises(MalformedMessage, match="expected 1 to 64 contributors, got 65"):
        workers.sum_chunks(("test", chunk) for chunk in [*many, chunks[0]])


def test_running_sums_are_those_of_the_codec(
    workers: CodecWorkers, codec: Codec, encryptor: UpdateEncryptor
) -> None:
    """Chunks of several indices, added in turns and taken out again, give the sums of those that are left."""
    chunks = [[encrypt(codec, encryptor, 10 * index + node) for node in range(4)] for index in range(5)]
    for node in (2, 0, 3, 1):
        for index in range(5):
            workers.add(index, chunks[index][node], whose=f"node {node}")
    for index in range(5):
        workers.subtract(index, chunks[index][3], whose="node 3")
        assert workers.take(index) == codec.sum_chunks(chunks[index][:3])
        with pytest.raises(MalformedMessage, match="expected 1 to 64 contributors, got 0"):
            workers.take(index)


def test_a_dropped_sum_begins_anew(workers: CodecWorkers, codec: Codec, encryptor: UpdateEncryptor) -> None:
    """What was in a sum before it was dropped is not in it."""
    one, other = encrypt(codec, encryptor, 1), encrypt(codec, encryptor, 2)
    workers.add(7, one, whose="node 1")
    workers.drop(7)
    workers.drop(7)
    workers.add(7, other, whose="node 2")
    assert workers.take(7) == codec.sum_chunks([other])


def test_a_malformed_chunk_is_refused_by_name_and_leaves_the_sum(
    workers: CodecWorkers, codec: Codec, encryptor: UpdateEncryptor
) -> None:
    """Whose chunk it is stands in the message, and the sum is what it was."""
    chunk = encrypt(codec, encryptor, 1)
    workers.add(0, chunk, whose="node 1")
    ones = b"\xff" * len(chunk)
    with pytest.raises(MalformedMessage, match=r"^node 2, chunk 0: expected coefficients below"):
        workers.add(0, ones, whose="node 2")
    with pytest.raises(MalformedMessage, match=rf"^node 2, chunk 0: expected {len(chunk)} bytes, got 0$"):
        workers.add(0, b"", whose="node 2")
    with pytest.raises(MalformedMessage, match=r"^node 2, chunk 0: expected at most 1048576 bytes"):
        workers.add(0, bytes((1 << 20) + 1), whose="node 2")
    assert workers.take(0) == codec.sum_chunks([chunk])
    with pytest.raises(MalformedMessage, match=r"^node 2: expected coefficients below"):
        workers.sum_chunks([("node 1", chunk), ("node 2", ones), ("node 3", chunk)])
    with pytest.raises(MalformedMessage, match="expected 1 to 64 contributors, got 0"):
        workers.sum_chunks([])
    assert workers.sum_chunks([("node 1", chunk)]) == codec.sum_chunks([chunk])


def test_a_malformed_sum_is_refused(workers: CodecWorkers) -> None:
    """Nothing is decrypted that is not as long as it must be, and the next request is answered."""
    with pytest.raises(MalformedMessage, match=r"^aggregate chunk 4: expected \d+ bytes, got 3$"):
        list(workers.decode([b"abc"], contributors=1, length=10**6, first=4))
    with pytest.raises(MalformedMessage, match="expected 1 to 64 contributors, got 65"):
        list(workers.decode([b"abc"], contributors=65, length=10))


def test_an_update_that_is_not_finite_is_refused(workers: CodecWorkers) -> None:
    """NaN is refused by the worker as well, and the next piece is encoded."""
    delta = np.array([0, np.nan], dtype=np.float32)
    with pytest.raises(UpdateRefused, match="expected finite values, got nan at index 1"):
        list(workers.encode([Piece(delta, ((2, 1.0),), bytes(32))], weight=1.0))
    assert len(list(workers.encode([draw_piece(5)], weight=1.0))) == 1


def test_without_a_key_nothing_is_encoded_or_decoded(parameters: CodecParameters, codec: Codec) -> None:
    """Workers of an aggregator or an auditor hold no key."""
    with CodecWorkers(parameters, processes=1) as workers:
        with pytest.raises(ConfigurationError, match="expected a secret key before anything is encoded"):
            list(workers.encode([draw_piece(5)], weight=1.0))
        with pytest.raises(ConfigurationError, match="expected a secret key before anything is decoded"):
            list(workers.decode([b""], contributors=1, length=5))


def test_parameters_that_seal_refuses_name_the_reason(parameters: CodecParameters) -> None:
    """What the codec in the process refuses to start with reaches the caller."""
    other = CodecParameters(bits=15, max_contributors=2, coeff_modulus=2**54 + 1, values_per_slot=2)
    with CodecWorkers(other, processes=1) as workers:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="expected parameters that SEAL accepts"):
                workers.drop(0)


def test_any_thread_may_call(workers: CodecWorkers, codec: Codec, encryptor: UpdateEncryptor) -> None:
    """Threads that add, sum and encode at once all get what they asked for."""
    chunks = [encrypt(codec, encryptor, seed) for seed in range(8)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for index in range(6):
                workers.add(index, chunks[number], whose=f"node {number}")
            assert workers.sum_chunks([("test", chunks[number])]) == codec.sum_chunks([chunks[number]])
            assert len(list(workers.encode([draw_piece(9), draw_piece(9)], weight=1.0))) == 2
        except BaseException as error:  # noqa: BLE001 - for the test's own thread to see
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    expected = codec.sum_chunks(chunks)
    assert [workers.take(index) for index in range(6)] == [expected] * 6


def test_closed_workers_say_so(parameters: CodecParameters, secret_key: SecretKey) -> None:
    """After closing, also twice, every request is refused."""
    workers = CodecWorkers(parameters, processes=1, secret_key=secret_key)
    encoded = workers.encode(itertools.repeat(draw_piece(5)), weight=1.0)
    next(encoded)
    workers.close()
    workers.close()
    for use in (
        lambda: list(encoded),
        lambda: workers.drop(0),
        lambda: workers.sum_chunks([("test", b"")]),
        lambda: list(workers.encode([draw_piece(5)], weight=1.0)),
    ):
        with pytest.raises(WorkerDied, match="closed"):
            use()
