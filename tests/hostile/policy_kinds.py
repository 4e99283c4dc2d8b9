"""Kinds of malformed layouts and policies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from fedproof.digests import encode_fields
from fedproof.model import ModelLayout
from fedproof.policy import Policy
from tests.fuzz.samples import DIGEST, POLICY
from tests.hostile.document_kinds import MOST, spoil, table
from tests.hostile.kind import Kind


def kinds() -> Iterator[Kind]:
    """Yield every kind."""
    yield from _of_layouts()
    yield from _of_policies()


def _of_layouts() -> Iterator[Kind]:
    tag = "fedproof.layout.v1"
    weight = encode_fields("w", "float32", b"", 2)
    huge = encode_fields("w", "float32", b"", *[2**32 - 1] * 500)

    def one(*tensors: bytes) -> bytes:
        return encode_fields(tag, *tensors)

    rows = {
        "empty": ("no byte at all", b"", r"expected 'fedproof\.layout\.v1' first"),
        "unknown_tag": (
            "a tag of nobody's",
            encode_fields("tensors", weight),
            r"expected 'fedproof\.layout\.v1' first",
        ),
        "no_tensor": ("no tensor", one(), "expected at least one floating value"),
        "no_value": (
            "a tensor of size 0 alone",
            one(encode_fields("w", "float32", b"", 0)),
            "at least one floating",
        ),
        "integers_alone": (
            "integers alone",
            one(encode_fields("n", "int64", b"", 2)),
            "at least one floating",
        ),
        "frozen_alone": (
            "nothing that travels",
            one(encode_fields("w", "float32", DIGEST, 2)),
            "1 of them frozen",
        ),
        "name_twice": (
            "two tensors of one name",
            one(weight, weight),
            "expected each tensor once, got 'w' twice",
        ),
        "names_twice_late": (
            "50 tensors, the last one twice",
            one(*_many_tensors(50)),
            "each tensor once",
        ),
        "unknown_type": (
            "a type of nobody's",
            one(encode_fields("w", "complex64", b"", 2)),
            "expected a type out of",
        ),
        "long_type": (
            "a type's name of 100 kB",
            one(encode_fields("w", "f" * 100_000, b"")),
            "expected a type out of",
        ),
        "bad_name": (
            "a name that is no UTF-8",
            one(encode_fields(b"\xff", "float32", b"", 2)),
            "expected UTF-8 text",
        ),
        "surrogate_name": (
            "half a surrogate",
            one(encode_fields(b"\xed\xa0\x80", "int8", b"")),
            "expected UTF-8 text",
        ),
        "no_type": ("a name alone", one(encode_fields("w")), "expected a name, a type, frozen values"),
        "size_2_32": (
            "a size of 2^32",
            one(encode_fields("w", "float32", b"", 2**32)),
            r"sizes from 0 to 2\^32 - 1",
        ),
        "size_of_4_bytes": (
            "a size of 4 bytes",
            one(encode_fields("w", "float32", b"", b"1234")),
            "an integer of 8",
        ),
        "frozen_cut": (
            "a digest of 31 bytes",
            one(encode_fields("w", "float32", bytes(31), 2)),
            "a digest of 32 bytes",
        ),
        "values_beyond_count": ("500 sizes of 2^32 - 1", one(huge), "expected at most 64 sizes, got 500"),
    }
    yield from table("layout", ModelLayout.parse, rows)


def _many_tensors(count: int) -> Iterator[bytes]:
    for i in itertools.chain(range(count), [count - 1]):
        yield encode_fields(f"layer.{i}", "float32", b"", 2)


def _of_policies() -> Iterator[Kind]:
    raw = POLICY.canonical()
    count = r"policy: expected 27 fields, the first 'fedproof\.policy\.v1', got "
    rows = {
        "empty": ("no byte at all", b"", count + "0"),
        "trailing_byte": ("with one more byte", raw + b"\0", "policy: expected a length of 4 bytes"),
        "trailing_field": ("with one more field", raw + encode_fields(0), count + "28"),
        "field_missing": ("without its last field", raw[:-12], count + "26"),
        "later_version": ("a version to come", spoil(raw, 0, "fedproof.policy.v2"), count + "27"),
        "many_fields": ("1,024 empty fields", bytes(4096), "policy: expected at most 32 fields, got more"),
        "huge_tag": ("a tag of 4 MiB", spoil(raw, 0, bytes(MOST)), "expected at most 4096 bytes"),
        "name_empty": ("no name", spoil(raw, 1, ""), "name: expected "),
        "name_long": ("a name of 201 characters", spoil(raw, 1, "x" * 201), "name: expected "),
        "name_of_4_mib": ("a name of 4 MiB", spoil(raw, 1, "x" * MOST), "expected at most 4096 bytes"),
        "name_no_utf_8": (
            "a name that is no UTF-8",
            spoil(raw, 1, b"\xff" * 3000),
            "name: expected UTF-8 text",
        ),
        "name_unprintable": (
            "a name that rings a bell",
            spoil(raw, 1, "\a"),
            "name: expected printable characters",
        ),
        "architecture_cut": (
            "a digest of 31 bytes",
            spoil(raw, 2, bytes(31)),
            "architecture: expected a digest",
        ),
        "parameters_0": ("no value", spoil(raw, 3, 0), "parameters: expected greater than or equal to 1"),
        "seed_2_63": ("a seed beyond torch's", spoil(raw, 5, 2**63), "seed: expected less than"),
        "bits_7": ("7 bits", spoil(raw, 6, 7), "bits: expected greater than or equal to 8, got 7"),
        "bits_25": ("25 bits", spoil(raw, 6, 25), "bits: expected less than or equal to 24, got 25"),
        "cohort_1": (
            "one contributor",
            spoil(raw, 7, 1),
            "max_contributors: expected greater than or equal to 2",
        ),
        "cohort_1001": (
            "1001 contributors",
            spoil(raw, 7, 1001),
            "max_contributors: expected less than or equal",
        ),
        "clip_nan": (
            "a clip that is no number",
            spoil(raw, 8, math.nan),
            r"clip: expected 2\^-64 to 2\^64, got nan",
        ),
        "clip_infinite": (
            "an infinite clip",
            spoil(raw, 8, math.inf),
            r"clip: expected 2\^-64 to 2\^64, got inf",
        ),
        "clip_of_4_bytes": (
            "a clip of 4 bytes",
            spoil(raw, 8, b"1234"),
            "field 8: expected a float of 8 bytes",
        ),
        "margin_nan": ("a margin that is no number", spoil(raw, 9, math.nan), "clip_margin: expected 0"),
        "margin_half": ("a margin below 1", spoil(raw, 9, 0.5), "clip_margin: expected 0"),
        "keep_one_in_0": ("one in 0", spoil(raw, 10, 0), "keep_one_in: expected greater than or equal to 1"),
        "keep_one_in_1025": ("one in 1025", spoil(raw, 10, 1025), "keep_one_in: expected less than or equal"),
        "feedback_2": ("neither yes nor no", spoil(raw, 11, 2), "error_feedback: expected 0 or 1, got 2"),
        "quorum_beyond": (
            "a quorum beyond the cohort",
            spoil(raw, 13, 5),
            "attestation_quorum: expected at most",
        ),
        "window_2_24": ("a window of 2^24 s", spoil(raw, 17, 1 << 24), "attest_window_s: expected less than"),
        "batching_2": ("neither yes nor no", spoil(raw, 18, 2), "rounds.batching: expected 0 or 1, got 2"),
        "no_time_to_answer": (
            "batching that leaves no time to commit by oneself",
            spoil(spoil(raw, 18, 1), 17, POLICY.rounds.commit_window_s),
            r"expected attest_window_s \(\d+\) below commit_window_s",
        ),
        "rate_nan": (
            "a rate that is no number",
            spoil(raw, 21, math.nan),
            "learning_rate: expected a finite number",
        ),
        "momentum_nan": (
            "a momentum that is no number",
            spoil(raw, 22, math.nan),
            "momentum: expected less than 1",
        ),
        "momentum_1": ("a momentum of 1", spoil(raw, 22, 1.0), "momentum: expected less than 1"),
        "decay_infinite": (
            "an infinite decay",
            spoil(raw, 23, math.inf),
            "weight_decay: expected a finite number",
        ),
        "cost_2_63": (
            "a cost beyond the contract's",
            spoil(raw, 24, 2**63),
            "round_cost: expected less than",
        ),
        "cost_without_budget": (
            "a cost that nobody counts",
            spoil(spoil(raw, 24, 1), 25, 0),
            "budget: expected above 0, as round_cost is 1, got 0",
        ),
        "budget_2_63": ("a budget beyond it", spoil(raw, 25, 2**63), "budget: expected less than"),
        "retention_of_101_years": (
            "updates kept for 36,501 days",
            spoil(raw, 26, 36_501),
            "retention_days: expected less than or equal to 36500, got 36501",
        ),
    }
    yield from table("policy", Policy.parse, rows)
