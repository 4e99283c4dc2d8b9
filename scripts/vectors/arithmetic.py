"""Selection, quantisation, the next model and the next clips: everything that rounds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from fedproof.codec.quantise import apply_mean, compute_residual, quantise
from fedproof.codec.scaling import Scaling, compute_next_clips
from fedproof.codec.selection import Positions, Selection, compute_selection_seed
from fedproof.digests import Address, Digest
from fedproof.model import encode_clips
from vectors.form import Entry, Json, spell_floats, spell_integers

ALMOST_ONE: Final = 1 - 2.0**-53


class Drawn:
    """A generator that draws what it is told to: the u of a quantisation."""

    def __init__(self, drawn: Sequence[float]) -> None:
        self._drawn = np.array(drawn)

    def random(self, size: int) -> npt.NDArray[np.float64]:
        """Return the next values."""
        values, self._drawn = self._drawn[:size], self._drawn[size:]
        return values


def build_selection() -> Entry:
    """Return which positions travel, with vectors that end in a short run, and beyond a block."""
    selections: list[Json] = []
    for number, (parameters, keep_one_in) in enumerate(
        ((10, 1), (10, 3), (9, 3), (1, 1024), (1023, 1024), (1025, 1024), (262_147, 2))
    ):
        round_number, base_model = number + 1, Digest(bytes([number]) * 32)
        seed = compute_selection_seed(
            chain_id=31337, contract=Address(b"\xc0" * 20), round=round_number, base_model=base_model
        )
        selection = Selection(parameters, keep_one_in, seed)
        positions = list_positions(selection.positions(0, selection.length))
        selections.append(
            {
                "round": round_number,
                "base_model": base_model.hex(),
                "seed": seed.hex(),
                "parameters": parameters,
                "keep_one_in": keep_one_in,
                "length": selection.length,
                "first": positions[:10],
                "last": positions[-3:],
                "sha256": hash_integers(positions),
            }
        )
    return {
        "about": "Positions that travel: the first, the last, and SHA-256 of all as 8-byte little-endian",
        "chain_id": "31337",
        "contract": "c0" * 20,
        "selections": selections,
    }


def build_quantisation() -> Entry:
    """Return updates with the u that were drawn, what they became, and what is left of them."""
    clips = (0.25, 1.0, 2.0**-60, 1 / 3)
    delta = np.array(
        [0.1, -0.25, 0.3, -3e38, 1e-45, -0.0, 2.0**-61, -1e-30, 1 / 7, -1 / 3, 0.3333], dtype="<f4"
    )
    drawn = [0.0, 0.5, ALMOST_ONE, ALMOST_ONE, 0.999, 0.0, 0.25, 0.75, 1 / 3, ALMOST_ONE, 0.125]
    positions = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 12]
    scaled = ((8, 1000, 1000), (15, 333, 1000), (24, 1, 2**32 - 1), (12, 5000, 1000))
    return {
        "about": "Quantisation with given u, and the residual; the values stand at `positions`",
        "group_sizes": [4, 3, 2, 0, 4],
        "clips": encode_clips((*clips[:3], 7.0, clips[3])).hex(),
        "positions": spell_integers(positions),
        "delta": delta.tobytes().hex(),
        "u": spell_floats(drawn),
        "updates": [
            _quantise(
                Scaling((1 << (bits - 1)) - 1, max_examples, (4, 3, 2, 0, 4), (*clips[:3], 7.0, clips[3])),
                np.array(positions),
                delta,
                drawn,
                bits=bits,
                examples=examples,
            )
            for bits, examples, max_examples in scaled
        ],
        "refused": [
            {"delta": np.array(delta, dtype="<f4").tobytes().hex(), "why": why}
            for delta, why in (
                ([0.0, np.nan], "not a number"),
                ([np.inf], "infinity"),
                ([1.0, -np.inf, 0.0], "infinity below zero"),
            )
        ],
    }


def build_next_model() -> Entry:
    """Return models, the sums that they take up, and what they become."""
    scaling = Scaling(16383, 1000, (3, 4, 2), (0.25, 1 / 3, 2.0**-30))
    largest = np.finfo(np.float32).max
    base = np.array([-0.0, 1.0, 0.1, 3e38, -1e-45, 65504.0, 7.0, 1e-20, -2.5], dtype="<f4")
    positions = np.array([0, 1, 2, 4, 5, 6, 7])
    sums = np.array([0, 49149, -1, 32768, -49149, 1, 12345])
    return {
        "about": "The next model of a base model and the sums at `positions`",
        "bits": 15,
        "max_examples": scaling.max_examples,
        "group_sizes": list(scaling.group_sizes),
        "clips": encode_clips(scaling.clips).hex(),
        "positions": spell_integers(positions),
        "base": base.tobytes().hex(),
        "models": [
            _apply(scaling, base, sums * sign, positions, total_examples=total)
            for sign, total in ((1, 1), (1, 1337), (-1, 3000), (1, 2**32 + 1))
        ],
        "refused": [
            {
                "bits": 15,
                "max_examples": 2**32 - 1,
                "base": np.array([largest], dtype="<f4").tobytes().hex(),
                "clips": encode_clips((2.0**64,)).hex(),
                "group_sizes": [1],
                "sums": [16383 * 1000],
                "positions": [0],
                "total_examples": 1,
                "why": "infinity",
            }
        ],
    }


def build_next_clips() -> Entry:
    """Return rounds with few bits and with many, and the clips that follow."""
    few = Scaling(127, 1000, (3, 2, 2, 0, 1, 2), (0.25, 0.1, 2.0**-42, 0.25, 1 / 3, 0.5))
    many = Scaling((1 << 23) - 1, 7, (5,), (1 / 777,))
    return {
        "about": "Next clips; `counts`: how many sums each group has, `squares`: the sum of their squares",
        "rounds": [
            _list_next_clips(
                few,
                np.array([5, -300, 299, 0, 0, 1, 381, 77]),
                np.array([0, 1, 2, 3, 4, 5, 8, 9]),
                bits=8,
                contributors=3,
                margins=((0.0, 3000), (1.0, 3000), (4.0, 2345), (1.1, 7), (1024.0, 2**40)),
            ),
            # Their squares are beyond 2^53, some even beyond 2^64.
            _list_next_clips(
                many,
                np.array([1000 * many.limit, -999_999_937, 123_456_789, -1, 7]),
                np.arange(5),
                bits=24,
                contributors=1000,
                margins=((1.0, 7000), (1.5, 9999), (12.0, 6999)),
            ),
        ],
    }


def list_positions(positions: Positions) -> list[int]:
    """Return positions one by one."""
    if isinstance(positions, slice):
        return list(range(positions.start, positions.stop))
    return [int(each) for each in positions]


def hash_integers(values: Sequence[int] | npt.NDArray[np.int64]) -> str:
    """Return the SHA-256 of integers, 8 bytes each, little-endian, in hexadecimal."""
    return hashlib.sha256(np.array(values, dtype="<i8").tobytes()).hexdigest()


def draw_generator(drawn: Sequence[float]) -> np.random.Generator:
    """Return what `quantise` takes for a generator, and draws these."""
    return cast("np.random.Generator", Drawn(drawn))


def _quantise(
    scaling: Scaling,
    positions: npt.NDArray[np.int64],
    delta: npt.NDArray[np.float32],
    drawn: Sequence[float],
    *,
    bits: int,
    examples: int,
) -> Json:
    limit = (1 << (bits - 1)) - 1
    clips, weight = scaling.clips_at(positions), scaling.compute_weight(examples)
    values = quantise(delta, clips, limit=limit, weight=weight, rng=draw_generator(drawn))
    residual = compute_residual(delta, values, clips, limit=limit, weight=weight)
    return {
        "bits": bits,
        "examples": examples,
        "max_examples": scaling.max_examples,
        "values": spell_integers(values),
        "residual": residual.astype("<f4").tobytes().hex(),
    }


def _list_next_clips(
    scaling: Scaling,
    sums: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    *,
    bits: int,
    contributors: int,
    margins: Sequence[tuple[float, int]],
) -> Json:
    measured, clip_max = scaling.measure(sums, positions), 0.5
    return {
        "bits": bits,
        "contributors": contributors,
        "max_examples": scaling.max_examples,
        "clip_max": clip_max,
        "group_sizes": list(scaling.group_sizes),
        "clips": encode_clips(scaling.clips).hex(),
        "positions": spell_integers(positions),
        "sums": spell_integers(sums),
        "counts": list(measured.counts),
        "squares": [str(square) for square in measured.squares],
        "following": [
            {
                "clip_margin": margin,
                "total_examples": total,
                "clips": encode_clips(
                    compute_next_clips(
                        scaling,
                        measured,
                        contributors=contributors,
                        total_examples=total,
                        clip_margin=margin,
                        clip_max=clip_max,
                    )
                ).hex(),
            }
            for margin, total in margins
        ],
    }


def _apply(
    scaling: Scaling,
    base: npt.NDArray[np.float32],
    sums: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    *,
    total_examples: int,
) -> Json:
    model = base.copy()
    model[positions] = apply_mean(
        base[positions],
        sums,
        scaling.clips_at(positions),
        limit=scaling.limit,
        max_examples=scaling.max_examples,
        total_examples=total_examples,
    )
    return {
        "total_examples": total_examples,
        "sums": spell_integers(sums),
        "model": model.astype("<f4").tobytes().hex(),
    }
