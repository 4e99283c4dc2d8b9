"""Codec parameters, packing, keys and seeds."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from fedproof.codec import Codec, CodecParameters, SecretKey
from fedproof.codec.frames import decode_aggregate_frames, encode_update_frames
from fedproof.codec.packing import pack_values
from fedproof.codec.parameters import RING_DEGREE, SEED_BYTES
from vectors.form import Entry, Json, spell_integers

SECRET_KEY: Final = bytes(range(32))
# A prime that is 1 modulo 8192 and no policy's: one word in twenty of a seed's stream is replaced.
WASTEFUL_MODULUS: Final = 1030544361659744257
COLUMNS: Final = (
    "bits",
    "max_contributors",
    "v",
    "field_bits",
    "q",
    "w",
    "exact_contributors",
    "context_digest",
)


def build_parameters() -> Entry:
    """Return what follows from bits and contributors, and how updates are cut into chunks."""
    planned = [
        (bits, contributors, CodecParameters.plan(bits=bits, max_contributors=contributors))
        for bits in range(8, 25)
        for contributors in (2, 3, 16, 17, 100, 1000)
    ]
    return {
        "about": "Codec parameters by bits and contributors, and the size of some chunks of some updates",
        "columns": list(COLUMNS),
        "rows": [
            [
                bits,
                contributors,
                each.values_per_slot,
                each.field_bits,
                str(each.coeff_modulus),
                each.coefficient_bits,
                each.exact_contributors,
                each.digest.hex(),
            ]
            for bits, contributors, each in planned
        ],
        "refused": [
            [bits, contributors, why]
            for bits, contributors, why in (
                (7, 16, "7 bits"),
                (25, 16, "25 bits"),
                (15, 1, "sums of one"),
                (15, 1001, "more than 1000 contributors"),
            )
        ],
        "chunks": [
            {
                "bits": bits,
                "max_contributors": contributors,
                "length": length,
                "chunks": parameters.chunk_count(length),
                "index": index,
                "update_bytes": frames * parameters.update_frame_bytes,
                "aggregate_bytes": frames * parameters.aggregate_frame_bytes,
            }
            for bits, contributors, length, index in (
                (15, 16, 1, 0),
                (15, 16, 131_072, 0),
                (15, 16, 131_073, 0),
                (15, 16, 131_073, 1),
                (24, 1000, 70_000, 1),
                (8, 2, 2**32 - 1, 9000),
            )
            for parameters in (CodecParameters.plan(bits=bits, max_contributors=contributors),)
            for frames in (parameters.frames_in_chunk(index, length),)
        ],
    }


def make_values(length: int, limit: int, *, step: int, start: int) -> npt.NDArray[np.int64]:
    """Return values by a rule: value j is (start + j * step) mod (2 L + 1) - L."""
    return (start + np.arange(length, dtype=np.int64) * step) % (2 * limit + 1) - limit


def build_packing() -> Entry:
    """Return plaintext polynomials."""
    packings: list[Json] = []
    for bits, contributors, length, step, start in (
        (15, 16, 8192, 7919, 5),
        (15, 16, 4097, 7919, 5),
        (8, 2, 1, 1, 254),
        (8, 1000, 8193, 101, 3),
        (24, 1000, 4096, 1_000_003, 0),
    ):
        parameters = CodecParameters.plan(bits=bits, max_contributors=contributors)
        values = make_values(length, parameters.limit, step=step, start=start)
        packings.append(
            {
                "bits": bits,
                "max_contributors": contributors,
                "length": length,
                "step": step,
                "start": start,
                "frames": [_spell_polynomial(frame) for frame in pack_values(values, parameters)],
            }
        )
    return {
        "about": "Plaintexts of values (value j is (start + j * step) mod (2 L + 1) - L): SHA-256 of a "
        "frame's coefficients as 8-byte little-endian integers, its first and its last",
        "packings": packings,
    }


def build_keys_and_seeds() -> Entry:
    """Return expanded secret keys and expanded seeds."""
    expanded: list[Json] = []
    for bits, contributors in ((15, 16), (8, 1000)):
        parameters = CodecParameters.plan(bits=bits, max_contributors=contributors)
        residues = SecretKey(SECRET_KEY).expand(parameters).astype(np.uint8).tobytes()
        expanded.append(
            {
                "context_digest": parameters.digest.hex(),
                "first": spell_integers(residues[:32]),
                "sha256": hashlib.sha256(residues).hexdigest(),
            }
        )
    wasteful = CodecParameters(bits=8, max_contributors=2, coeff_modulus=WASTEFUL_MODULUS, values_per_slot=1)
    seeds = [
        (SECRET_KEY * 2, CodecParameters.plan(bits=15, max_contributors=16)),
        (bytes(SEED_BYTES), CodecParameters.plan(bits=8, max_contributors=2)),
        (SECRET_KEY * 2, wasteful),
        (b"\xff" * SEED_BYTES, wasteful),
    ]
    return {
        "about": "A secret key's residues modulo 3 under two contexts (SHA-256 of one byte each), and the "
        "polynomials of seeds (SHA-256 of 8-byte little-endian coefficients); the last q is no policy's",
        "secret_key": SECRET_KEY.hex(),
        "expanded": expanded,
        "seeds": [
            {"seed": seed.hex(), "q": str(parameters.coeff_modulus), **polynomial}
            for seed, parameters in seeds
            for polynomial in (_spell_polynomial(expand_seed(seed, parameters)),)
        ],
    }


def expand_seed(seed: bytes, parameters: CodecParameters) -> npt.NDArray[np.uint64]:
    """Return the polynomial that SEAL expands a seed to."""
    zeros = np.zeros((1, RING_DEGREE), dtype=np.uint64)
    frame = encode_update_frames(zeros, np.frombuffer(seed, dtype=np.uint8).reshape(1, -1), parameters)
    whole = decode_aggregate_frames(Codec(parameters).sum_chunks([frame]), parameters, where="sum")
    return whole[0, RING_DEGREE:]


def _spell_polynomial(coefficients: npt.NDArray[np.uint64]) -> Entry:
    return {
        "sha256": hashlib.sha256(coefficients.astype("<u8").tobytes()).hexdigest(),
        "first": str(coefficients[0]),
        "last": str(coefficients[-1]),
    }
