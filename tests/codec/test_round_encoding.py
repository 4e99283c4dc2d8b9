"""Tests of a round from flat vectors to the next model."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fedproof.codec import CodecParameters
from fedproof.codec.quantise import quantise
from fedproof.codec.round_encoding import RoundEncoding
from fedproof.codec.scaling import GroupSquares, Scaling
from fedproof.codec.selection import Selection
from fedproof.codec.workers import CodecWorkers, Encoded
from fedproof.digests import Digest
from fedproof.errors import ConfigurationError, MalformedMessage, UpdateRefused

# Groups that end within a chunk, at its border, and that have no value.
SIZES = (100_000, 31_072, 0, 1, 140_000)
CLIPS = (0.05, 0.2, 1.0, 0.1, 0.01)
LENGTH = sum(SIZES)


def make_encoding(parameters: CodecParameters, keep_one_in: int = 1) -> RoundEncoding:
    return RoundEncoding(
        parameters,
        Scaling(limit=parameters.limit, max_examples=1000, group_sizes=SIZES, clips=CLIPS),
        Selection(LENGTH, keep_one_in, Digest(bytes(32))),
    )


def draw_vector(seed: int, scale: float = 0.02) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).normal(0, scale, LENGTH).astype(np.float32)


def select(encoding: RoundEncoding) -> np.ndarray:  # type: ignore[type-arg]
    """Return which values travel."""
    travels = np.zeros(LENGTH, dtype=bool)
    for index in range(encoding.chunk_count):
        travels[encoding.positions(index)] = True
    return travels


def run_round(
    encoding: RoundEncoding,
    workers: CodecWorkers,
    base: np.ndarray,
    changes: dict[int, np.ndarray],  # type: ignore[type-arg]
) -> tuple[np.ndarray, GroupSquares]:  # type: ignore[type-arg]
    updates = []
    for examples, change in changes.items():
        weight = encoding.scaling.compute_weight(examples)
        updates.append([each.chunk for each in workers.encode(encoding.pieces(change), weight=weight)])
    totals = [
        workers.sum_chunks(("test", chunk) for chunk in chunks) for chunks in zip(*updates, strict=True)
    ]
    sums = workers.decode(totals, contributors=len(changes), length=encoding.length)
    return encoding.apply(base, sums, sum(changes))


@pytest.mark.parametrize("keep_one_in", [1, 3, 1000])
def test_a_round_applies_the_clipped_weighted_mean(
    workers: CodecWorkers, parameters: CodecParameters, keep_one_in: int
) -> None:
    """Where values travel, the model moves by the weighted mean of clipped changes; elsewhere it stays."""
    encoding = make_encoding(parameters, keep_one_in)
    base = draw_vector(0, 1.0)
    changes = {100: draw_vector(1), 300: draw_vector(2), 1000: draw_vector(3, 0.5)}
    flat, measured = run_round(encoding, workers, base, changes)
    clips = np.repeat(CLIPS, SIZES)
    mean = sum(n * np.clip(change, -clips, clips).astype(np.float64) for n, change in changes.items()) / 1400
    steps = clips / parameters.limit * 1000 / 1400
    travels = select(encoding)
    assert travels.sum() == encoding.length == -(-LENGTH // keep_one_in)
    assert np.all(np.abs(flat - base - mean)[travels] <= (3 * steps + 1e-6)[travels])
    assert flat[~travels].tobytes() == base[~travels].tobytes()
    for group, (start, size) in enumerate(zip(np.cumsum((0, *SIZES)), SIZES, strict=False)):
        part = slice(start, start + size)
        values = (mean / steps)[part][travels[part]]
        assert measured.counts[group] == values.size
        assert measured.squares[group] == pytest.approx(float(values @ values), rel=0.1, abs=9 * values.size)


def test_the_next_model_is_fixed_to_the_last_bit(parameters: CodecParameters) -> None:
    """Known sums give known bits: base + s * (((clip / limit) * max_examples) / T), one rounding each."""
    encoding = make_encoding(parameters)
    base = draw_vector(0, 1.0)
    sums = np.random.default_rng(1).integers(-(2**20), 2**20, LENGTH)
    parts = np.split(sums, range(parameters.values_per_chunk, LENGTH, parameters.values_per_chunk))
    flat, measured = encoding.apply(base, parts, 777)
    clips = np.repeat(CLIPS, SIZES).tolist()
    for position in [0, 99_999, 100_000, 131_071, 131_072, 131_073, LENGTH - 1]:
        scale = ((clips[position] / parameters.limit) * 1000.0) / 777.0
        assert flat[position] == np.float32(float(base[position]) + float(sums[position]) * scale)
        exact = Fraction(float(base[position])) + Fraction(clips[position]) * int(sums[position]) * 1000 / (
            parameters.limit * 777
        )
        assert float(flat[position]) == pytest.approx(float(exact), rel=1e-6)
    assert measured.counts == SIZES
    assert measured.squares[0] == sum(value**2 for value in sums[:100_000].tolist())
    assert measured.squares[3] == int(sums[131_072]) ** 2


@pytest.mark.parametrize("keep_one_in", [1, 3])
def test_what_an_update_leaves_unsent(
    workers: CodecWorkers, parameters: CodecParameters, keep_one_in: int
) -> None:
    """Sent and unsent make up the change: what was clipped, rounded away, and what did not travel."""
    encoding = make_encoding(parameters, keep_one_in)
    change = draw_vector(5, 0.1)
    before = change.copy()
    totals = []
    encoded = workers.encode(encoding.pieces(change), weight=0.7, wants_residual=True)
    for index, each in enumerate(encoded):
        encoding.store_residual(change, index, each)
        totals.append(workers.sum_chunks([("test", each.chunk)]))
    sums = workers.decode(totals, contributors=1, length=encoding.length)
    sent, _ = encoding.apply(np.zeros(LENGTH, dtype=np.float32), sums, 700)
    assert np.allclose(sent + change, before, rtol=0, atol=1e-6)
    travels = select(encoding)
    assert change[~travels].tobytes() == before[~travels].tobytes()
    clips = np.repeat(CLIPS, SIZES)
    inside = travels & (np.abs(before) < clips)
    assert np.all(np.abs(change)[inside] <= (clips / parameters.limit / 0.7 * 1.001)[inside])


def test_a_residual_has_to_be_asked_for(parameters: CodecParameters) -> None:
    """A chunk without one is not taken for a chunk that leaves nothing."""
    with pytest.raises(ConfigurationError, match="chunk 1: expected a residual"):
        make_encoding(parameters).store_residual(draw_vector(0), 1, Encoded(b"", None))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 131_072, LENGTH - 1])
def test_a_change_that_is_not_finite_is_refused(
    parameters: CodecParameters, value: float, place: int
) -> None:
    """NaN and infinity are named by their index in the flat vector, whatever chunk they are in."""
    encoding = make_encoding(parameters)
    change = draw_vector(0)
    change[place] = value
    with pytest.raises(
        UpdateRefused, match=rf"^update: expected finite values, got {value} at index {place}$"
    ):
        list(encoding.pieces(change))
    assert len(list(encoding.pieces(draw_vector(0)))) == encoding.chunk_count


def test_the_index_of_a_drawn_value_is_that_in_the_flat_vector(parameters: CodecParameters) -> None:
    """Where only some values travel, the one that is not finite is named by where it stands."""
    encoding = make_encoding(parameters, 7)
    places = np.flatnonzero(select(encoding))
    change = draw_vector(0)
    change[places[30_000]] = np.nan
    with pytest.raises(UpdateRefused, match=f"got nan at index {places[30_000]}$"):
        list(encoding.pieces(change))


def test_a_model_that_is_not_finite_is_refused(parameters: CodecParameters) -> None:
    """Overflow does not become a model, and is named by its index in the flat vector."""
    encoding = RoundEncoding(
        parameters,
        Scaling(limit=parameters.limit, max_examples=1000, group_sizes=(LENGTH,), clips=(2.0**80,)),
        Selection(LENGTH, 1, Digest(bytes(32))),
    )
    base = np.zeros(LENGTH, dtype=np.float32)
    base[200_000] = np.finfo(np.float32).max
    sums = [np.zeros(size, dtype=np.int64) for size in (131_072, 131_072, LENGTH - 262_144)]
    encoding.apply(base, sums, 1)
    sums[1][200_000 - 131_072] = 2**33
    with pytest.raises(UpdateRefused, match=r"^model: expected finite values, got inf at index 200000$"):
        encoding.apply(base, sums, 1)


def test_the_sums_of_every_chunk_are_needed(parameters: CodecParameters) -> None:
    """The sums of a chunk too few or too many, or of other values, are refused."""
    encoding = make_encoding(parameters)
    sums = [np.zeros(size, dtype=np.int64) for size in (131_072, 131_072, LENGTH - 262_144)]
    encoding.apply(draw_vector(0), sums, 1)
    for some, came in ((sums[:2], "2"), ([], "0"), ([*sums, sums[0]], "more")):
        with pytest.raises(MalformedMessage, match=f"the sums of 3 chunks, got {came}"):
            encoding.apply(draw_vector(0), some, 1)
    with pytest.raises(MalformedMessage, match="as many sums"):
        encoding.apply(draw_vector(0), [sums[0][:-1]], 1)
    with pytest.raises(MalformedMessage, match="at least 1 example"):
        encoding.apply(draw_vector(0), sums, 0)


def test_vectors_of_another_shape_or_type_are_refused(parameters: CodecParameters) -> None:
    """An update and a base model are flat float32 vectors of the model's length."""
    encoding = make_encoding(parameters)
    for vector in (np.zeros(LENGTH), np.zeros(LENGTH - 1, dtype=np.float32)):
        with pytest.raises(UpdateRefused, match=f"a flat float32 vector of {LENGTH} values"):
            list(encoding.pieces(vector))
        with pytest.raises(UpdateRefused, match=f"a flat float32 vector of {LENGTH} values"):
            encoding.apply(vector, [], 1)


def test_groups_and_vector_agree(parameters: CodecParameters) -> None:
    """The groups have as many values as the vector, and one limit."""
    scaling = make_encoding(parameters).scaling
    with pytest.raises(ConfigurationError, match=f"expected groups of {LENGTH + 1} values"):
        RoundEncoding(parameters, scaling, Selection(LENGTH + 1, 1, Digest(bytes(32))))
    other = CodecParameters.plan(bits=8, max_contributors=2)
    with pytest.raises(ConfigurationError, match="and the limit 127"):
        RoundEncoding(other, scaling, Selection(LENGTH, 1, Digest(bytes(32))))


def test_seeds_are_new_for_each_piece(parameters: CodecParameters) -> None:
    """No two chunks, and no two encodings of one update, are rounded with the same randomness."""
    encoding = make_encoding(parameters)
    seeds = {piece.seed for _ in range(2) for piece in encoding.pieces(draw_vector(0))}
    assert len(seeds) == 2 * encoding.chunk_count
    assert {len(seed) for seed in seeds} == {32}


def test_pieces_hold_what_the_codec_quantises(workers: CodecWorkers, parameters: CodecParameters) -> None:
    """A piece is quantised by the worker as its documented formula says, from the piece's own seed."""
    encoding = make_encoding(parameters, 3)
    (piece,) = encoding.pieces(draw_vector(4))
    (encoded,) = workers.encode([piece], weight=0.3)
    (sums,) = workers.decode(
        [workers.sum_chunks([("test", encoded.chunk)])], contributors=1, length=encoding.length
    )
    rng = np.random.Generator(np.random.SFC64(int.from_bytes(piece.seed, "little")))
    clips = encoding.scaling.clips_at(encoding.positions(0))
    assert np.array_equal(sums, quantise(piece.delta, clips, limit=parameters.limit, weight=0.3, rng=rng))
