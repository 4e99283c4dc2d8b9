"""Kinds of malformed chunks: of an update, as a node sends it, and of a sum, as the aggregator sends it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Final

import numpy as np

from fedproof.codec import Codec, CodecParameters
from fedproof.codec.bits import pack_bits
from fedproof.codec.frames import decode_update_frames
from fedproof.errors import MalformedMessage
from tests.hostile import seal_objects
from tests.hostile.kind import Kind

PARAMETERS: Final = CodecParameters.plan(bits=15, max_contributors=16)
FRAMES: Final = 3
LENGTH: Final = FRAMES * PARAMETERS.values_per_frame
FRAME: Final = PARAMETERS.update_frame_bytes
POLYNOMIAL: Final = FRAME - 64
SUM_FRAME: Final = PARAMETERS.aggregate_frame_bytes
WIDTH: Final = PARAMETERS.coefficient_bits


@cache
def codec() -> Codec:
    """Return the codec under attack."""
    return Codec(PARAMETERS)


@cache
def update_chunk() -> bytes:
    """Return a chunk of three frames as an honest node makes it."""
    encryptor = codec().make_encryptor(codec().generate_secret_key())
    return codec().encrypt_chunk(np.zeros(LENGTH, dtype=np.int64), encryptor)


@cache
def sum_chunk() -> bytes:
    """Return the chunk of a sum as an honest aggregator makes it."""
    return codec().sum_chunks([update_chunk()])


def parse_update(raw: bytes) -> object:
    """Take bytes for chunk 0 of an update of three frames, as the aggregator's worker does."""
    return codec().check_update_chunk(raw, 0, LENGTH)


def parse_sum(raw: bytes) -> object:
    """Take bytes for chunk 0 of a sum of three frames, as a node's worker does."""
    return codec().check_aggregate_chunk(raw, 0, LENGTH)


def kinds() -> Iterator[Kind]:
    """Yield every kind."""
    yield from _of_wrong_length()
    yield from _of_other_systems()
    yield from _of_coefficients()
    yield from _of_sums()


def _update(name: str, what: str, raw: bytes, message: str) -> Kind:
    return Kind(f"chunk_{name}", what, raw, parse_update, MalformedMessage, f"update chunk 0: {message}")


def _sum(name: str, what: str, raw: bytes, message: str) -> Kind:
    return Kind(f"sum_{name}", what, raw, parse_sum, MalformedMessage, f"aggregate chunk 0: {message}")


def _of_wrong_length() -> Iterator[Kind]:
    chunk = update_chunk()
    cuts = {
        "empty": ("no byte at all", 0),
        "one_byte": ("its first byte alone", 1),
        "half_a_coefficient": ("cut within the first coefficient", WIDTH // 16),
        "one_coefficient": ("cut behind the first coefficient", WIDTH // 8 + 1),
        "one_lane": ("cut where eight coefficients end on a byte", WIDTH),
        "cut_in_polynomial": ("cut in the middle of the first polynomial", POLYNOMIAL // 2),
        "cut_before_seed": ("cut where the first seed begins", POLYNOMIAL),
        "cut_in_seed": ("cut in the middle of the first seed", POLYNOMIAL + 32),
        "cut_before_frame_end": ("the first frame, one byte short", FRAME - 1),
        "one_frame": ("one frame where three are due", FRAME),
        "two_frames": ("two frames where three are due", 2 * FRAME),
        "one_byte_short": ("the last byte is missing", len(chunk) - 1),
    }
    for name, (what, end) in cuts.items():
        yield _update(name, what, chunk[:end], f"expected {len(chunk)} bytes, got {end}$")
    long = {
        "one_byte_long": ("a byte after the last frame", chunk + b"\0"),
        "seed_long": ("a second seed after the last frame", chunk + bytes(64)),
        "four_frames": ("four frames where three are due", chunk + chunk[:FRAME]),
        "seventeen_frames": ("more frames than any chunk holds", chunk[:FRAME] * 17),
        "trailing_bomb": ("a compression bomb after the last frame", chunk + seal_objects.compression_bomb()),
        "four_mebibytes": ("as long as gRPC lets it be", bytes(4 << 20)),
        "packed_bytes_missing": ("seeds alone", bytes(64 * FRAMES)),
        "words_not_packed": ("coefficients as 64-bit words", bytes((8 * 4096 + 64) * FRAMES)),
    }
    for name, (what, raw) in long.items():
        yield _update(name, what, raw, f"expected {len(chunk)} bytes, got {len(raw)}$")
    for name, frames in (("no_frame", 0), ("seventeenth_frame", 17)):
        yield Kind(
            f"chunk_{name}",
            f"{frames} whole frames, where any number from 1 to 16 may be due",
            chunk[:FRAME] * frames,
            partial(decode_update_frames, parameters=PARAMETERS, where="summand"),
            MalformedMessage,
            f"summand: expected 1 to 16 frames of {FRAME} bytes, got {frames * FRAME} bytes",
        )
    no_index = partial(_parse_at, index=1)
    yield Kind(
        "chunk_index_beyond_the_last",
        "a chunk that an update of this length does not have",
        chunk,
        no_index,
        MalformedMessage,
        "chunk 1: expected an index from 0 to 0",
    )
    negative = partial(_parse_at, index=-1)
    yield Kind(
        "chunk_index_negative",
        "a chunk before the first",
        chunk,
        negative,
        MalformedMessage,
        "chunk -1: expected an index from 0 to 0",
    )


def _of_other_systems() -> Iterator[Kind]:
    expected = f"expected {FRAMES * FRAME} bytes, got"
    bfv = seal_objects.bfv(PARAMETERS)
    others = {
        "bfv_seeded": ("SEAL's own file of a fresh BFV ciphertext", bfv["seeded"]),
        "bfv_whole": ("SEAL's file of a BFV ciphertext with both polynomials", bfv["whole"]),
        "bfv_ntt": ("SEAL's file of a BFV ciphertext, with the NTT flag", bfv["ntt"]),
        "bfv_three_polynomials": ("SEAL's file of a product", bfv["three_polynomials"]),
        "bfv_secret_key": ("SEAL's file of a secret key", bfv["secret_key"]),
        "bfv_plaintext": ("SEAL's file of a plaintext", bfv["plaintext"]),
        "bgv": ("SEAL's file of a BGV ciphertext", seal_objects.bgv(PARAMETERS)),
        "tenseal_bfv": ("a BFV vector as TenSEAL sends it", seal_objects.tenseal_bfv()),
        "tenseal_ckks": ("a CKKS vector as NVFlare sends it", seal_objects.ckks()),
        "seal_header": ("SEAL's header and nothing after it", bfv["whole"][:16]),
        "seal_size_bomb": ("SEAL's header, which claims 2^63 bytes", seal_objects.size_bomb()),
        "seal_compression_bomb": ("2 KiB of zstd that swell to 64 MiB", seal_objects.compression_bomb()),
        "seal_allocation_bomb": ("113 bytes that ask SEAL for 16 GiB", seal_objects.allocation_bomb()),
        "nested_bombs": ("SEAL files within SEAL files", seal_objects.size_bomb() * 1000),
    }
    for name, (what, raw) in others.items():
        yield _update(name, what, raw, f"{expected} {len(raw)}$")
    foreign = {
        "foreign_modulus": ("under the q of 8-bit values", CodecParameters.plan(bits=8, max_contributors=16)),
        "foreign_cohort": ("under the q of 1000 nodes", CodecParameters.plan(bits=15, max_contributors=1000)),
    }
    for name, (what, parameters) in foreign.items():
        raw = bytes(FRAMES * parameters.update_frame_bytes)
        yield _update(name, f"frames {what}", raw, f"{expected} {len(raw)}$")
    for degree in (2048, 8192, 16_384):
        raw = bytes(FRAMES * (degree * WIDTH // 8 + 64))
        yield _update(
            f"degree_{degree}", f"frames of a ring of degree {degree}", raw, f"{expected} {len(raw)}$"
        )


def _of_coefficients() -> Iterator[Kind]:
    q = PARAMETERS.coeff_modulus
    values = {
        "q": ("the modulus itself", q),
        "q_plus_1": ("the modulus and one", q + 1),
        "all_bits": ("every bit of its field", (1 << WIDTH) - 1),
    }
    # Eight lanes: each begins at another bit of a byte.
    places = {f"lane_{lane}": 8 * 100 + lane for lane in range(8)} | {"first": 0, "last": 4095}
    for name, (what, value) in values.items():
        for place, index in places.items():
            if name != "q" and place not in {"first", "last"}:
                continue
            raw = _with_coefficient(FRAMES - 1, index, value)
            message = (
                f"expected coefficients below {q}, got {value} at frame {FRAMES - 1}, coefficient {index}$"
            )
            yield _update(f"coefficient_{name}_{place}", f"{what} as coefficient {index}", raw, message)
    ones = b"\xff" * 8
    chunk = update_chunk()
    patterns = {
        "word_of_ones": (
            "eight bytes of ones in a polynomial, 2^64 - 1",
            chunk[:WIDTH] + ones + chunk[WIDTH + 8 :],
        ),
        "polynomial_of_ones": ("ones in a polynomial's place", b"\xff" * POLYNOMIAL + chunk[POLYNOMIAL:]),
        "everything_ones": ("ones from the first byte to the last", b"\xff" * len(chunk)),
        "seed_first": ("the seed before its polynomial", b"\xff" * 64 + chunk[:-64]),
    }
    for name, (what, raw) in patterns.items():
        yield _update(name, what, raw, f"expected coefficients below {q}, got ")
    # The largest chunk there is, and its fault at the very end.
    raw = bytes(FRAME * 16 - 64 - WIDTH // 8) + ones[: WIDTH // 8] + bytes(64)
    yield Kind(
        "chunk_last_of_sixteen", "a full chunk whose last coefficient is too large", raw,
        lambda raw: codec().check_update_chunk(raw, 0, PARAMETERS.values_per_chunk), MalformedMessage,
        f"expected coefficients below {q}, got ",
    )  # fmt: skip


def _of_sums() -> Iterator[Kind]:
    chunk, half = sum_chunk(), SUM_FRAME // 2
    q = PARAMETERS.coeff_modulus
    lengths = {
        "empty": ("no byte at all", b""),
        "one_byte_short": ("the last byte is missing", chunk[:-1]),
        "one_byte_long": ("a byte after the last frame", chunk + b"\0"),
        "first_polynomial_alone": ("a frame without its second polynomial", chunk[:-half]),
        "update_in_its_place": ("an update's chunk in place of a sum's", update_chunk()),
        "bfv_whole": ("SEAL's file of a ciphertext", seal_objects.bfv(PARAMETERS)["whole"]),
        "tenseal_ckks": ("a CKKS vector as NVFlare sends it", seal_objects.ckks()),
        "seventeen_frames": ("more frames than any chunk holds", chunk[:SUM_FRAME] * 17),
    }
    for name, (what, raw) in lengths.items():
        yield _sum(name, what, raw, f"expected {len(chunk)} bytes, got {len(raw)}$")
    clear = {
        "zero": ("zeros alone", bytes(len(chunk)), 0),
        "first_frame_in_the_clear": (
            "zeros as a second polynomial",
            chunk[:half] + bytes(half) + chunk[2 * half :],
            0,
        ),
        "last_frame_in_the_clear": ("zeros as the last polynomial", chunk[:-half] + bytes(half), FRAMES - 1),
    }
    for name, (what, raw, frame) in clear.items():
        message = f"expected an encrypted frame {frame}, got a second polynomial of zeros"
        yield _sum(name, what, raw, message)
    yield _sum(
        "coefficient_q",
        "the modulus as the last coefficient of a second polynomial",
        chunk[:-half] + _pack(4095, q),
        f"expected coefficients below {q}, got {q} at frame {FRAMES - 1}, coefficient 8191$",
    )
    yield _sum("everything_ones", "ones", b"\xff" * len(chunk), f"expected coefficients below {q}, got ")


def _parse_at(raw: bytes, *, index: int) -> object:
    return codec().check_update_chunk(raw, index, LENGTH)


def _pack(index: int, value: int) -> bytes:
    """Return a packed polynomial of zeros and one coefficient."""
    polynomial = np.zeros(4096, dtype=np.uint64)
    polynomial[index] = value
    return pack_bits(polynomial, WIDTH)


def _with_coefficient(frame: int, index: int, value: int) -> bytes:
    """Return the honest chunk, but for one frame's polynomial, which is zeros and one coefficient."""
    start = frame * FRAME
    chunk = update_chunk()
    return chunk[:start] + _pack(index, value) + chunk[start + POLYNOMIAL :]
