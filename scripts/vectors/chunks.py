"""Chunks of frames, their sums, and what a reader refuses of both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedproof.codec import Codec, CodecParameters, SecretKey
from fedproof.codec.frames import encode_aggregate_frames
from fedproof.codec.parameters import RING_DEGREE
from fedproof.codec.quantise import Int64Vector
from fedproof.merkle import leaf_digest
from vectors.arithmetic import hash_integers
from vectors.ciphertexts import SECRET_KEY, make_values
from vectors.form import Entry, Json, Kept

LENGTH: Final = 5000
RULES: Final = ((1_000_003, 11), (999_979, 8_000_000))
# Rounded once instead of twice, four of its values would be others.
HOSTILE_LABEL: Final = b"hostile sum 1"


@dataclass(frozen=True, slots=True)
class Update:
    """One encrypted update of a single chunk: its file, and what is in it."""

    file: str
    chunk: bytes
    values: Int64Vector


def take_update(kept: Kept, file: str, values: Int64Vector, parameters: CodecParameters) -> Update:
    """Return the update that holds these values, encrypted once and for all.

    Raises:
        SystemExit: the kept file holds others.
    """
    codec, key = Codec(parameters), SecretKey(SECRET_KEY)
    chunk = kept.take(file, lambda: codec.encrypt_chunk(values, codec.make_encryptor(key)))
    alone = codec.decrypt_chunk(
        codec.sum_chunks([chunk]), codec.make_decryptor(key), contributors=1, index=0, length=values.size
    )
    if not np.array_equal(alone, values):
        raise SystemExit(f"{file}: expected other values in it; remove the file to have it encrypted anew")
    return Update(file, chunk, values)


def build_chunks(kept: Kept) -> Entry:
    """Return two updates of two frames each, their sum, what of both is refused, and a hostile sum."""
    parameters = CodecParameters.plan(bits=24, max_contributors=1000)
    updates = [
        take_update(
            kept,
            f"chunk-{name}.bin",
            make_values(LENGTH, parameters.limit, step=step, start=start),
            parameters,
        )
        for name, (step, start) in zip("ab", RULES, strict=True)
    ]
    total = Codec(parameters).sum_chunks([update.chunk for update in updates])
    kept.taken["chunk-sum.bin"] = total
    return {
        "about": "Chunks of updates (values as in packing.json), their sum, and SHA-256 of what it decrypts "
        "to, as 8-byte little-endian integers",
        "secret_key": SECRET_KEY.hex(),
        "bits": parameters.bits,
        "max_contributors": parameters.max_contributors,
        "length": LENGTH,
        "updates": [
            {"file": update.file, "step": step, "start": start, "leaf": leaf_digest(update.chunk).hex()}
            for update, (step, start) in zip(updates, RULES, strict=True)
        ],
        "sum": {
            "file": "chunk-sum.bin",
            "leaf": leaf_digest(total).hex(),
            "sha256": hash_integers(updates[0].values + updates[1].values),
        },
        "refused_updates": _list_changes(parameters, len(updates[0].chunk), parameters.update_frame_bytes),
        "refused_aggregates": [
            *_list_changes(parameters, len(total), parameters.aggregate_frame_bytes),
            {
                "change": ["zero", len(total) - len(total) // 4, len(total) // 4],
                "index": 0,
                "length": LENGTH,
                "why": "the last frame's second polynomial is all zeros",
            },
        ],
        "refused_sums": [
            {"contributors": 1, "length": LENGTH, "why": "sums that one update cannot reach"},
            {"contributors": 2, "length": LENGTH - 1, "why": "padding that is not zero"},
            {"contributors": 1001, "length": LENGTH, "why": "more contributors than the policy allows"},
            {"contributors": 0, "length": LENGTH, "why": "a sum of none"},
        ],
        "refused_pairs": [{"files": ["chunk-a.bin", "chunk-a.bin"], "why": "two frames with one seed"}],
        "hostile": _build_hostile(kept),
    }


def _list_changes(parameters: CodecParameters, size: int, frame: int) -> list[Json]:
    width, q = parameters.coefficient_bits, parameters.coeff_modulus
    polynomial = RING_DEGREE * width // 8
    largest = (1 << width) - 1
    changes: tuple[tuple[list[Json], int, int, str], ...] = (
        (["cut", size], 0, LENGTH, "no bytes"),
        (["cut", 1], 0, LENGTH, "a byte is missing"),
        (["cut", frame], 0, LENGTH, "a frame is missing"),
        (["append", "00"], 0, LENGTH, "a byte too many"),
        (["append", "00" * 64], 0, LENGTH, "64 bytes too many"),
        (["cut", 0], 0, RING_DEGREE, "two frames, where the values need one"),
        (["cut", 0], 0, 2 * RING_DEGREE + 1, "two frames, where the values need three"),
        (["cut", 0], 1, LENGTH, "no chunk has this index"),
        (["set", *_set(0, q, width)], 0, LENGTH, "the first coefficient is q"),
        (["set", *_set(RING_DEGREE - 1, largest, width)], 0, LENGTH, "the 4096th coefficient is 2^w - 1"),
        (
            ["set", frame + polynomial // 2, "ff" * (width // 8 + 2)],
            0,
            LENGTH,
            "a coefficient of the second frame is not below q",
        ),
    )
    return [
        {"change": change, "index": index, "length": length, "why": why}
        for change, index, length, why in changes
    ]


def _set(index: int, value: int, width: int) -> tuple[int, str]:
    """Return where coefficient `index` of a polynomial begins, and bytes in which it has this value.

    The first and the last coefficient share a byte with a neighbour, whose bits are zeros here.
    """
    start, shift = divmod(index * width, 8)
    size = -(-(shift + width) // 8)
    return start, (value << shift).to_bytes(size, "little").hex()


def _build_hostile(kept: Kept) -> Entry:
    """Return a sum of noise far beyond the bound: readers must still decrypt it alike, to the last bit."""
    parameters = CodecParameters.plan(bits=15, max_contributors=16)
    codec, length = Codec(parameters), parameters.values_per_frame
    stream = hashlib.shake_256(HOSTILE_LABEL).digest(2 * RING_DEGREE * 8)
    words = np.frombuffer(stream, dtype="<u8") % np.uint64(parameters.coeff_modulus)
    chunk = encode_aggregate_frames(words.reshape(1, -1), parameters)
    sums = codec.decrypt_chunk(
        chunk, codec.make_decryptor(SecretKey(SECRET_KEY)), contributors=16, index=0, length=length
    )
    kept.taken["hostile-sum.bin"] = chunk
    return {
        "file": "hostile-sum.bin",
        "bits": 15,
        "max_contributors": 16,
        "contributors": 16,
        "length": length,
        "sha256": hash_integers(sums),
    }
