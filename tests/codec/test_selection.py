"""Tests of which values travel."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.codec.selection import Selection, compute_selection_seed
from fedproof.digests import Address, Digest, encode_fields
from fedproof.errors import ConfigurationError

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40)
SEED = Digest(bytes(range(32)))


def draw(selection: Selection, number: int) -> int:
    """Return where one travelling value stands, from docs/format.md and one value at a time."""
    block, place = divmod(number, 65_536)
    fields = encode_fields("fedproof.selection-block.v1", selection.seed, block)
    stream = hashlib.shake_256(fields).digest(4 * 65_536)
    word = int.from_bytes(stream[4 * place : 4 * place + 4], "little")
    run = number * selection.keep_one_in
    return run + word % min(selection.keep_one_in, selection.parameters - run)


@PROPERTY
@given(
    keep_one_in=st.integers(1, 1024),
    parameters=st.integers(1, 2**40),
    start=st.integers(0, 2**40),
    count=st.integers(1, 5),
)
def test_positions_are_those_of_the_format(keep_one_in: int, parameters: int, start: int, count: int) -> None:
    """Each position is drawn as documented, anywhere in the longest vector."""
    selection = Selection(parameters, keep_one_in, SEED)
    start = start % selection.length
    stop = min(start + count, selection.length)
    positions = selection.positions(start, stop)
    if keep_one_in == 1:
        assert positions == slice(start, stop)
    else:
        assert isinstance(positions, np.ndarray)
        assert positions.tolist() == [draw(selection, number) for number in range(start, stop)]


@pytest.mark.parametrize("parameters", [1, 299_999, 300_000, 300_001])
def test_one_value_of_each_run_travels(parameters: int) -> None:
    """Of every three consecutive values one travels, across blocks and in a shorter last run."""
    selection = Selection(parameters, 3, SEED)
    positions = selection.positions(0, selection.length)
    assert isinstance(positions, np.ndarray)
    assert positions.tolist()[-1] < parameters
    assert np.array_equal(positions // 3, np.arange(-(-parameters // 3)))


def test_parts_are_parts_of_the_whole() -> None:
    """Whatever range is asked for, a value has one position."""
    selection = Selection(1_000_000, 5, SEED)
    whole = selection.positions(0, selection.length)
    assert isinstance(whole, np.ndarray)
    for start, stop in ((0, 1), (65_535, 65_537), (65_536, 131_072), (1, 199_999)):
        assert np.array_equal(selection.positions(start, stop), whole[start:stop])


def test_every_place_of_a_run_is_as_likely() -> None:
    """Over 100,000 runs of 8 values each place is drawn one time in 8, within five standard deviations."""
    positions = Selection(800_000, 8, SEED).positions(0, 100_000)
    assert isinstance(positions, np.ndarray)
    counts = np.bincount(positions % 8, minlength=8)
    assert np.all(np.abs(counts - 12_500) < 5 * (100_000 * 7 / 64) ** 0.5)


def test_each_round_draws_anew() -> None:
    """The seed covers chain, contract, round and base model, and another seed draws other values."""
    facts = {"chain_id": 1, "contract": Address(bytes(20)), "round": 1, "base_model": SEED}
    others = [
        {"chain_id": 2},
        {"contract": Address(b"\1" * 20)},
        {"round": 2},
        {"base_model": Digest(b"\1" * 32)},
    ]
    seeds = [compute_selection_seed(**{**facts, **other}) for other in ({}, *others)]  # type: ignore[arg-type]
    assert len(set(seeds)) == 5
    drawn = {Selection(10_000, 4, seed).positions(0, 2500).tobytes() for seed in seeds}  # type: ignore[union-attr]
    assert len(drawn) == 5


def test_a_known_draw() -> None:
    """Seed and positions are constants that any other implementation reaches."""
    seed = compute_selection_seed(chain_id=1337, contract=Address(b"\2" * 20), round=3, base_model=SEED)
    assert seed.hex() == "7f6110b016901507f55f9c45e90b5744b13876bd2d6eedad8e65666c5ce2441d"
    positions = Selection(200_000, 7, seed).positions(28_566, 28_572)
    assert isinstance(positions, np.ndarray)
    assert positions.tolist() == [199968, 199972, 199976, 199985, 199994, 199998]


@pytest.mark.parametrize(("parameters", "keep_one_in"), [(0, 1), (1, 0), (1, 1025)])
def test_each_limit(parameters: int, keep_one_in: int) -> None:
    """A vector has values, and one in 1 to 1,024 of them travels."""
    Selection(1, 1024, SEED)
    with pytest.raises(ConfigurationError, match=r"^selection: expected"):
        Selection(parameters, keep_one_in, SEED)
