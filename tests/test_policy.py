"""The policy document: what is agreed on, as TOML and as canonical bytes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedproof.digests import Digest, encode_fields, split_fields
from fedproof.errors import ConfigurationError, MalformedMessage
from fedproof.model import ModelLayout, TensorSpec
from fedproof.policy import (
    CodecPolicy,
    EvidencePolicy,
    ModelPolicy,
    Policy,
    PrivacyPolicy,
    RoundPolicy,
    TrainingPlan,
)

LAYOUT = ModelLayout((TensorSpec("fc.weight", (2, 30), "float32"), TensorSpec("fc.bias", (2,), "float32")))

DOCUMENT = f"""
name = "breast-cancer demo"
[model]
architecture = "0x{LAYOUT.digest.hex()}"
parameters = 62
genesis = "0x{"9e" * 32}"
seed = 7
[codec]
bits = 15
max_contributors = 16
clip = 0.25
clip_margin = 4.0
keep_one_in = 3
error_feedback = true
[rounds]
min_contributors = 2
attestation_quorum = 2
max_examples = 10000
commit_window_s = 900
aggregate_window_s = 600
attest_window_s = 600
batching = true
[training]
epochs = 1
batch_size = 32
learning_rate = 0.05
momentum = 0.9
weight_decay = 0.0
[privacy]
round_cost = 20
budget = 1000
[evidence]
retention_days = 30
"""

POLICY = Policy(
    name="breast-cancer demo",
    model=ModelPolicy(architecture=LAYOUT.digest, parameters=62, genesis=Digest(b"\x9e" * 32), seed=7),
    codec=CodecPolicy(
        bits=15, max_contributors=16, clip=0.25, clip_margin=4.0, keep_one_in=3, error_feedback=True
    ),
    rounds=RoundPolicy(
        min_contributors=2,
        attestation_quorum=2,
        max_examples=10_000,
        commit_window_s=900,
        aggregate_window_s=600,
        attest_window_s=600,
        batching=True,
    ),
    training=TrainingPlan(epochs=1, batch_size=32, learning_rate=0.05, momentum=0.9, weight_decay=0.0),
    privacy=PrivacyPolicy(round_cost=20, budget=1000),
    evidence=EvidencePolicy(retention_days=30),
)

_digests = st.binary(min_size=32, max_size=32).map(Digest)
_counts = st.integers(1, 2**32 - 1)
_seconds = st.integers(1, 2**24 - 1)
_contributors = st.integers(2, 1000)
_positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Return any policy."""
    most = draw(_contributors)
    return Policy(
        name=draw(st.text(min_size=1, max_size=200).filter(str.isprintable)),
        model=ModelPolicy(
            architecture=draw(_digests),
            parameters=draw(_counts),
            genesis=draw(_digests),
            seed=draw(st.integers(0, 2**63 - 1)),
        ),
        codec=CodecPolicy(
            bits=draw(st.integers(8, 24)),
            max_contributors=most,
            clip=draw(st.floats(min_value=2.0**-64, max_value=2.0**64)),
            clip_margin=draw(st.just(0.0) | st.floats(min_value=1, max_value=1024)),
            keep_one_in=draw(st.integers(1, 1024)),
            error_feedback=draw(st.booleans()),
        ),
        rounds=RoundPolicy(
            min_contributors=draw(st.integers(2, most)),
            attestation_quorum=draw(st.integers(1, most)),
            max_examples=draw(_counts),
            attest_window_s=(attest := draw(st.integers(1, 2**24 - 2))),
            aggregate_window_s=draw(_seconds),
            commit_window_s=(commit := draw(_seconds)),
            batching=attest < commit and draw(st.booleans()),
        ),
        training=TrainingPlan(
            epochs=draw(_counts),
            batch_size=draw(_counts),
            learning_rate=draw(_positive),
            momentum=draw(st.floats(min_value=0, max_value=1, exclude_max=True)),
            weight_decay=draw(st.floats(min_value=0, allow_infinity=False)),
        ),
        privacy=PrivacyPolicy(
            round_cost=(cost := draw(st.integers(0, 2**63 - 1))),
            budget=draw(st.integers(min(cost, 1), 2**63 - 1)),
        ),
        evidence=EvidencePolicy(retention_days=draw(st.integers(0, 36_500))),
    )


def _load(folder: Path, text: str) -> Policy:
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return Policy.load(path)


def _refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as refusal:
        _load(folder, text)
    return str(refusal.value).removeprefix(f"{folder}/")


def test_document_is_read(tmp_path: Path) -> None:
    """The documented example is the policy that it looks like."""
    assert _load(tmp_path, DOCUMENT) == POLICY


@given(policy=policies())
def test_document_round_trip(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is dumped is read back, to the last bit of each float."""
    assert _load(tmp_path_factory.getbasetemp(), policy.dump_toml()).canonical() == policy.canonical()


@given(policy=policies())
def test_canonical_round_trip(policy: Policy) -> None:
    """The canonical bytes stand for the policy, and for no other bytes' policy."""
    parsed = Policy.parse(policy.canonical())
    assert parsed == policy
    assert parsed.canonical() == policy.canonical()


def test_every_truncation_and_every_trailing_byte_is_refused() -> None:
    """No prefix of a policy is a policy, and nothing may follow one."""
    raw = POLICY.canonical()
    for end in range(len(raw)):
        with pytest.raises(MalformedMessage):
            Policy.parse(raw[:end])
    for tail in (b"\x00", b"\x00\x00\x00\x00", b"\x00\x00\x00\x01x"):
        with pytest.raises(MalformedMessage):
            Policy.parse(raw + tail)


def test_digest_is_pinned() -> None:
    """The digest of a policy never changes between versions: it stands on ledgers."""
    assert POLICY.digest == hashlib.sha256(POLICY.canonical()).digest()
    assert POLICY.digest.hex() == "f1d4e5b09a9eb1bf4ed7eebf005fa680c7eeb6eb6b6864112f19088f26b3244a"


@pytest.mark.parametrize("index", range(27))
def test_each_value_changes_the_digest(index: int) -> None:
    """No value of the policy is left out of its digest."""
    fields = list(split_fields(POLICY.canonical(), "policy"))
    flip = 1 if index in (11, 18) else 4  # error_feedback and batching are 0 or 1
    fields[index] = fields[index][:-1] + bytes([fields[index][-1] ^ flip])
    try:
        changed = Policy.parse(encode_fields(*fields))
    except MalformedMessage:
        assert index == 0  # the tag
    else:
        assert changed != POLICY
        assert changed.digest != POLICY.digest


def test_comments_and_spelling_do_not_change_the_digest(tmp_path: Path) -> None:
    """Two documents that say the same have one digest."""
    text = DOCUMENT.replace("0.05", "5e-2  # a comment").replace("weight_decay = 0.0", "weight_decay = 0")
    assert _load(tmp_path, text).digest == POLICY.digest


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("bits = 15", "bits = 7", "codec.bits: expected greater than or equal to 8, got 7"),
        ("bits = 15", "bits = 25", "codec.bits: expected less than or equal to 24, got 25"),
        ("bits = 15", 'bits = "15"', "codec.bits: expected an integer, got '15'"),
        ("bits = 15", "bits = true", "codec.bits: expected an integer, got True"),
        ("bits = 15", "bits = 15.0", "codec.bits: expected an integer, got 15.0"),
        ("bits = 15", "", "codec.bits: expected a value, got none: the key is missing"),
        ("bits = 15", "bits = 15\nbit = 1", "codec.bit: unknown key (expected one of: bits, clip, clip_m"),
        ("clip = 0.25", "clip = 0", "codec.clip: expected 2^-64 to 2^64, got 0.0"),
        ("clip = 0.25", "clip = inf", "codec.clip: expected 2^-64 to 2^64, got inf"),
        ("clip = 0.25", "clip = nan", "codec.clip: expected 2^-64 to 2^64, got nan"),
        (
            "clip_margin = 4.0",
            "clip_margin = 0.5",
            "codec.clip_margin: expected 0 (clips stay at codec.clip) or",
        ),
        (
            "clip_margin = 4.0",
            "clip_margin = 1025",
            "codec.clip_margin: expected 0 (clips stay at codec.clip) or",
        ),
        (
            "clip_margin = 4.0",
            "clip_margin = nan",
            "codec.clip_margin: expected 0 (clips stay at codec.clip) or",
        ),
        ("clip_margin = 4.0", "", "codec.clip_margin: expected a value, got none: the key is missing"),
        (
            "keep_one_in = 3",
            "keep_one_in = 0",
            "codec.keep_one_in: expected greater than or equal to 1, got 0",
        ),
        ("keep_one_in = 3", "keep_one_in = 1025", "codec.keep_one_in: expected less than or equal to 1024"),
        ("keep_one_in = 3", "", "codec.keep_one_in: expected a value, got none: the key is missing"),
        ("error_feedback = true", "error_feedback = 1", "codec.error_feedback: expected"),
        ("error_feedback = true", "", "codec.error_feedback: expected a value, got none: the key is missing"),
        ("seed = 7", "seed = -1", "model.seed: expected greater than or equal to 0, got -1"),
        ("parameters = 62", "parameters = 0", "model.parameters: expected greater than or equal to 1, got 0"),
        ('"0x9e', '"0x9', "model.genesis: expected a digest of 0x and 64 hex digits, got '0x9"),
        (
            "min_contributors = 2",
            "min_contributors = 1",
            "rounds.min_contributors: expected greater than or equal to 2, got 1",
        ),
        (
            "min_contributors = 2",
            "min_contributors = 17",
            "rounds.min_contributors: expected at most codec.max_contributors (16), got 17",
        ),
        (
            "attestation_quorum = 2",
            "attestation_quorum = 17",
            "rounds.attestation_quorum: expected at most codec.max_contributors (16), got 17",
        ),
        (
            "commit_window_s = 900",
            "commit_window_s = 16777216",
            "rounds.commit_window_s: expected less than 16777216, got 16777216",
        ),
        ("momentum = 0.9", "momentum = 1.0", "training.momentum: expected less than 1, got 1.0"),
        (
            "learning_rate = 0.05",
            "learning_rate = 0",
            "training.learning_rate: expected greater than 0, got 0",
        ),
        (
            "weight_decay = 0.0",
            "weight_decay = inf",
            "training.weight_decay: expected a finite number, got inf",
        ),
        (
            "retention_days = 30",
            "retention_days = 36501",
            "evidence.retention_days: expected less than or equal to 36500, got 36501",
        ),
        (
            "retention_days = 30",
            "retention_days = -1",
            "evidence.retention_days: expected greater than or equal to 0, got -1",
        ),
        (
            "retention_days = 30",
            "retention_days = 0.5",
            "evidence.retention_days: expected an integer, got 0.5",
        ),
        ("budget = 1000", "budget = 0", "privacy: budget: expected above 0, as round_cost is 20, got 0"),
        ("budget = 1000", "", "privacy: budget: expected above 0, as round_cost is 20, got 0"),
        ("[training]", "[trainings]", "training: expected a value, got none: the key is missing"),
        ('name = "breast-cancer demo"', 'name = ""', "name: expected text of at least 1 character, got ''"),
        (
            'name = "breast-cancer demo"',
            r'name = "a\u0000"',
            r"name: expected printable characters, got 'a\x00'",
        ),
        ("[rounds]", "[rounds", "expected TOML, got: "),
    ],
)
def test_bad_document_names_file_key_expected_and_got(
    tmp_path: Path, line: str, instead: str, message: str
) -> None:
    """Each refusal says where, what was expected and what came."""
    assert line in DOCUMENT
    assert _refusal(tmp_path, DOCUMENT.replace(line, instead)).startswith(f"policy.toml: {message}")


def test_constructing_checks_too() -> None:
    """A policy that could not be loaded cannot be constructed either."""
    with pytest.raises(ValidationError, match=r"expected at most codec\.max_contributors \(16\), got 17"):
        replace(POLICY, rounds=replace(POLICY.rounds, attestation_quorum=17))


@pytest.mark.parametrize(
    ("index", "field", "message"),
    [
        (0, b"fedproof.policy.v2", "expected 27 fields, the first 'fedproof.policy.v1', got 27, the first"),
        (1, b"\xff", "policy: name: expected UTF-8"),
        (2, bytes(31), "policy: model.architecture: expected a digest"),
        (6, bytes(8), "codec.bits: expected greater than or equal to 8, got 0"),
        (6, bytes(7), "policy: field 6: expected an integer of 8 bytes, got 7 bytes"),
        (9, bytes(7) + b"\x01", "codec.clip_margin: expected 0 .* or 1 to 1024, got 5e-324"),
        (10, bytes(8), "codec.keep_one_in: expected greater than or equal to 1, got 0"),
        (11, (2).to_bytes(8), "policy: codec.error_feedback: expected 0 or 1, got 2"),
        (18, (2).to_bytes(8), "policy: rounds.batching: expected 0 or 1, got 2"),
        (17, (900).to_bytes(8), r"batching: expected attest_window_s \(900\) below commit_window_s \(900\)"),
        (25, bytes(8), "privacy: budget: expected above 0, as round_cost is 20, got 0"),
        (22, b"\x7f\xf8" + bytes(6), "training.momentum: expected less than 1, got nan"),
        (
            26,
            (36_501).to_bytes(8),
            "evidence.retention_days: expected less than or equal to 36500, got 36501",
        ),
        (
            12,
            (17).to_bytes(8),
            r"rounds.min_contributors: expected at most codec.max_contributors \(16\), got 17",
        ),
    ],
)
def test_bad_bytes_are_refused(index: int, field: bytes, message: str) -> None:
    """Canonical bytes from elsewhere are checked like a document."""
    fields = list(split_fields(POLICY.canonical(), "policy"))
    fields[index] = field
    with pytest.raises(MalformedMessage, match=message):
        Policy.parse(encode_fields(*fields))


@pytest.mark.parametrize("max_contributors", [2, 3, 16, 17, 512, 513, 999, 1000])
@pytest.mark.parametrize("bits", range(8, 25))
def test_every_policy_has_codec_parameters(bits: int, max_contributors: int) -> None:
    """What a policy may say, the codec can do."""
    codec = replace(POLICY.codec, bits=bits, max_contributors=max_contributors)
    parameters = replace(POLICY, codec=codec).codec_parameters()
    assert (parameters.bits, parameters.max_contributors) == (bits, max_contributors)


@pytest.mark.parametrize("clip", [2.0**-64, 2.0**64])
def test_extreme_clips_are_taken(clip: float) -> None:
    """The last clips within the bounds make a policy, the first beyond do not."""
    assert replace(POLICY, codec=replace(POLICY.codec, clip=clip)).codec.clip == clip
    beyond = clip / 2 if clip < 1 else clip * 2
    with pytest.raises(ValidationError, match="expected 2\\^-64 to 2\\^64"):
        replace(POLICY.codec, clip=beyond)


@pytest.mark.parametrize("margin", [0.0, 1.0, 1024.0])
def test_extreme_margins_are_taken(margin: float) -> None:
    """0 and both ends of the range make a policy; what is beyond is refused above."""
    assert replace(POLICY.codec, clip_margin=margin).clip_margin == margin


@pytest.mark.parametrize("days", [0, 1, 36_500])
def test_extreme_retentions_are_taken(days: int) -> None:
    """Nothing, a day and a hundred years make a policy; what is beyond is refused above."""
    assert EvidencePolicy(retention_days=days).retention_days == days


@pytest.mark.parametrize(("cost", "budget"), [(0, 0), (0, 1), (1, 1), (2**63 - 1, 1)])
def test_a_cost_needs_a_budget(cost: int, budget: int) -> None:
    """The smallest budget makes a policy with any cost; a cost with none is refused above."""
    assert PrivacyPolicy(round_cost=cost, budget=budget).budget == budget


def test_updates_expire_after_the_last_second_of_their_days() -> None:
    """At the end of the last day they are kept, a second later no longer; without a retention, for ever."""
    two_days = EvidencePolicy(retention_days=2)
    assert not two_days.has_expired(ended_at=1000, now=1000 + 2 * 86_400)
    assert two_days.has_expired(ended_at=1000, now=1001 + 2 * 86_400)
    assert not EvidencePolicy().has_expired(ended_at=1000, now=2**63)


def test_tables_that_may_be_left_out_are_zeros(tmp_path: Path) -> None:
    """A document without privacy and evidence is one that says 0 in both."""
    shorter = _load(tmp_path, DOCUMENT[: DOCUMENT.index("[privacy]")])
    assert shorter == replace(POLICY, privacy=PrivacyPolicy(), evidence=EvidencePolicy())


@pytest.mark.parametrize(("keep_one_in", "length"), [(1, 62), (2, 31), (3, 21), (61, 2), (62, 1), (1024, 1)])
def test_update_length_rounds_up(keep_one_in: int, length: int) -> None:
    """The last group of values counts even when it is not full, so at least one value travels."""
    assert replace(POLICY, codec=replace(POLICY.codec, keep_one_in=keep_one_in)).update_length == length


def test_other_architecture_is_refused_with_its_tensors() -> None:
    """A model whose shape differs from the policy's is refused, and what came is listed."""
    POLICY.verify_layout(LAYOUT)
    wider = ModelLayout((TensorSpec("fc.weight", (3, 30), "float32"), TensorSpec("fc.bias", (3,), "float32")))
    message = (
        f"model: expected the policy's architecture {LAYOUT.digest.hex()} with 62 values, "
        f"got {wider.digest.hex()} with 93 values: fc.weight float32[3, 30], fc.bias float32[3]"
    )
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        POLICY.verify_layout(wider)
