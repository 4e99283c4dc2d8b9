"""Policy documents, manifests, headers, and wrapped keys."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from fedproof.digests import Address, Digest, encode_fields, split_fields
from fedproof.keys.wrapping import WrappingKey, wrap, wrapped_keys_root, wrapping_info
from fedproof.manifest import AggregateManifest, Contribution, UpdateManifest, compute_header_root
from fedproof.merkle import leaf_digest
from fedproof.model import compute_model_digest, encode_clips
from fedproof.policy import (
    CodecPolicy,
    EvidencePolicy,
    ModelPolicy,
    Policy,
    PrivacyPolicy,
    RoundPolicy,
    TrainingPlan,
)
from vectors.form import Entry, Json, Kept, spell_floats, spell_hex

LAYOUT_DIGEST: Final = Digest(b"\x1a" * 32)
VALUES_DIGEST: Final = Digest(b"\x7a" * 32)
CLIPS: Final = (0.25, 2.0**-40, 3.5)
PASSWORD: Final = "correct horse, né"  # noqa: S105 - of a key that everybody may open
CONTEXT_DIGEST: Final = Digest(b"\x0c" * 32)

POLICY: Final = Policy(
    name="three hospitals: né \U0001f512",
    model=ModelPolicy(architecture=LAYOUT_DIGEST, parameters=1001, genesis=Digest(b"\x9e" * 32), seed=7),
    codec=CodecPolicy(
        bits=15, max_contributors=16, clip=0.25, clip_margin=4.0, keep_one_in=4, error_feedback=True
    ),
    rounds=RoundPolicy(
        min_contributors=2,
        attestation_quorum=9,
        max_examples=10_000,
        commit_window_s=600,
        aggregate_window_s=601,
        attest_window_s=602,
    ),
    training=TrainingPlan(epochs=1, batch_size=32, learning_rate=0.05, momentum=0.9, weight_decay=1e-4),
)
EXTREME: Final = Policy(
    name="x" * 200,
    model=replace(POLICY.model, parameters=2**32 - 1, seed=2**63 - 1),
    codec=CodecPolicy(
        bits=24, max_contributors=1000, clip=2.0**64, clip_margin=0.0, keep_one_in=1, error_feedback=False
    ),
    rounds=RoundPolicy(
        min_contributors=1000,
        attestation_quorum=1000,
        max_examples=2**32 - 1,
        commit_window_s=2**24 - 1,
        aggregate_window_s=2**24 - 1,
        attest_window_s=2**24 - 2,
        batching=True,
    ),
    training=replace(POLICY.training, learning_rate=5e-324, momentum=0.0, weight_decay=0.0),
    privacy=PrivacyPolicy(round_cost=2**63 - 1, budget=2**63 - 1),
    evidence=EvidencePolicy(retention_days=36_500),
)
UPDATE: Final = UpdateManifest(
    chain_id=2**64 - 1,
    contract=Address(b"\xc0" * 20),
    round=3,
    node=Address(b"\x0a" * 20),
    epoch=1,
    policy_digest=Digest(b"\x01" * 32),
    base_model=compute_model_digest(LAYOUT_DIGEST, 1001, VALUES_DIGEST, CLIPS),
    base_values=VALUES_DIGEST,
    clips=CLIPS,
    parameters=1001,
    chunks=2,
    examples=120,
)
AGGREGATE: Final = AggregateManifest(
    chain_id=31337,
    contract=Address(b"\xc0" * 20),
    round=2**32 - 1,
    epoch=1,
    policy_digest=Digest(b"\x01" * 32),
    contributors=(
        Contribution(Address(b"\x0a" * 20), Digest(b"\x03" * 32), 120),
        Contribution(Address(b"\x0b" * 19 + b"\x00"), Digest(b"\x02" * 32), 80),
        Contribution(Address(b"\x0b" * 20), Digest(b"\x04" * 32), 2**32 - 1),
    ),
    parameters=1001,
    chunks=2,
)


def build_policy() -> Entry:
    """Return policies as documents and as canonical bytes, and bytes that are no policy."""
    change = _changer(POLICY.canonical())
    return {
        "about": "Policy documents; an update has `update_length` values in `chunks` chunks",
        "policies": [
            {
                "document": _spell_policy(policy),
                "canonical": policy.canonical().hex(),
                "digest": policy.digest.hex(),
                "update_length": policy.update_length,
                "chunks": policy.codec_parameters().chunk_count(policy.update_length),
            }
            for policy in (POLICY, EXTREME)
        ],
        "refused": [
            {"canonical": raw.hex(), "why": why}
            for raw, why in (
                (change({0: b"fedproof.policy.v2"}), "another version"),
                (POLICY.canonical()[:-12], "a field is missing"),
                (POLICY.canonical() + encode_fields(b""), "a field too many"),
                (change({1: b""}), "a name of no characters"),
                (change({1: b"x" * 201}), "a name of 201 characters"),
                (change({1: b"two\nlines"}), "a name with a line feed"),
                (change({1: "\u2028".encode()}), "a name with a line separator"),
                (change({1: b"\xff"}), "a name that is not UTF-8"),
                (change({2: bytes(31)}), "an architecture of 31 bytes"),
                (change({3: 0}), "no parameters"),
                (change({3: 2**32}), "2^32 parameters"),
                (change({5: 2**63}), "a seed of 2^63"),
                (change({6: 7}), "7 bits"),
                (change({6: 25}), "25 bits"),
                (change({7: 1}), "at most one contributor"),
                (change({7: 1001}), "at most 1001 contributors"),
                (change({8: 2.0**-65}), "a clip below 2^-64"),
                (change({8: 2.0**65}), "a clip above 2^64"),
                (change({8: float("nan")}), "a clip that is not a number"),
                (change({9: 0.5}), "a margin between 0 and 1"),
                (change({9: -1.0}), "a margin below 0"),
                (change({9: 1025.0}), "a margin above 1024"),
                (change({10: 0}), "one value of none"),
                (change({10: 1025}), "one value of 1025"),
                (change({11: 2}), "error feedback that is neither 0 nor 1"),
                (change({11: b"\x01"}), "error feedback of one byte"),
                (change({12: 1}), "sums of one"),
                (change({12: 17}), "more contributors than at most"),
                (change({13: 17}), "a larger quorum than there can be contributors"),
                (change({14: 0}), "no examples"),
                (change({15: 2**24}), "a window of 2^24 seconds"),
                (change({18: 1}), "no time to commit after a batch"),
                (change({18: 2}), "batching that is neither 0 nor 1"),
                (change({21: 0.0}), "a learning rate of zero"),
                (change({21: float("inf")}), "an infinite learning rate"),
                (change({22: 1.0}), "a momentum of one"),
                (change({23: -0.5}), "a weight decay below zero"),
                (change({24: 1}), "a privacy cost without a budget"),
                (change({25: 2**63}), "a privacy budget of 2^63"),
                (change({26: 36_501}), "updates kept for 36,501 days"),
            )
        ],
    }


def build_manifests() -> Entry:
    """Return manifests and headers, and what a reader refuses of them."""
    chunks = [leaf_digest(b"chunk 0"), leaf_digest(b"chunk 1")]
    update, aggregate = _changer(UPDATE.encode()), _changer(AGGREGATE.encode())
    contributors = split_fields(AGGREGATE.encode(), "manifest")[6]
    first, second, third = (encode_fields(*astuple_of(each)) for each in AGGREGATE.contributors)
    other_clip = encode_clips((0.5, *CLIPS[1:]))
    return {
        "about": "Manifests, and the roots over each and two chunks' leaf digests",
        "layout_digest": LAYOUT_DIGEST.hex(),
        "chunk_digests": spell_hex(chunks),
        "updates": [
            {
                "manifest": _spell_manifest(UPDATE),
                "encoded": UPDATE.encode().hex(),
                "leaf": leaf_digest(UPDATE.encode()).hex(),
                "root": compute_header_root(UPDATE.encode(), chunks).hex(),
            }
        ],
        "aggregates": [
            {
                "manifest": _spell_manifest(AGGREGATE),
                "encoded": AGGREGATE.encode().hex(),
                "leaf": leaf_digest(AGGREGATE.encode()).hex(),
                "root": compute_header_root(AGGREGATE.encode(), chunks).hex(),
            }
        ],
        "refused_updates": _refuse(
            (AGGREGATE.encode(), "an aggregate's manifest"),
            (update({0: b"fedproof.update-manifest.v2"}), "another version"),
            (UPDATE.encode()[:-12], "a field is missing"),
            (UPDATE.encode() + encode_fields(b""), "a field too many"),
            (UPDATE.encode() + b"\x00", "a byte is left over"),
            (update({1: 0}), "chain 0"),
            (update({2: bytes(19)}), "a contract of 19 bytes"),
            (update({3: 0}), "round 0"),
            (update({3: 2**32}), "round 2^32"),
            (update({7: bytes(33)}), "a base model of 33 bytes"),
            (update({9: b""}), "no clip"),
            (update({9: encode_clips(CLIPS)[:-1]}), "a clip is cut short"),
            (update({9: encode_clips((0.25, 0.0, 3.5))}), "a clip of zero"),
            (update({9: encode_clips((0.25, -0.25, 3.5))}), "a clip below zero"),
            (update({9: encode_clips((float("inf"),))}), "an infinite clip"),
            (update({9: encode_clips((float("nan"),))}), "a clip that is not a number"),
            (update({10: 2**32}), "2^32 parameters"),
            (update({11: 0}), "no chunks"),
            (update({12: 0}), "no examples"),
            (update({12: b"\x01"}), "examples of one byte"),
        ),
        "refused_aggregates": _refuse(
            (UPDATE.encode(), "an update's manifest"),
            (AGGREGATE.encode()[:-12], "a field is missing"),
            (aggregate({1: 0}), "chain 0"),
            (aggregate({6: b""}), "no contributor"),
            (aggregate({6: contributors[:-12]}), "a contributor without examples"),
            (aggregate({6: first + third + second}), "contributors out of order"),
            (aggregate({6: first + first}), "a contributor twice"),
            (aggregate({6: first + encode_fields(third)}), "a contributor as one field"),
            (aggregate({6: encode_fields(bytes(20), bytes(32), 0)}), "a contributor without an example"),
            (aggregate({6: encode_fields(bytes(21), bytes(32), 1)}), "a contributor of 21 bytes"),
            (aggregate({8: 2**32}), "2^32 chunks"),
        ),
        "refused_bases": _refuse(
            (update({8: bytes(32)}), "other base values than the base model's"),
            (update({9: other_clip}), "another clip than the base model's"),
            (update({9: encode_clips((*CLIPS, 1.0))}), "a clip more than the base model has"),
            (update({10: 1000}), "another number of parameters than the base model's"),
            (update({7: VALUES_DIGEST}), "another base model"),
        ),
        "refused_headers": [
            {
                "root": compute_header_root(UPDATE.encode(), chunks[:1]).hex(),
                "encoded": UPDATE.encode().hex(),
                "chunk_digests": spell_hex(chunks[:1]),
                "why": "one chunk digest, where the manifest speaks of two",
            },
            {
                "root": compute_header_root(UPDATE.encode(), chunks).hex(),
                "encoded": UPDATE.encode().hex(),
                "chunk_digests": spell_hex(chunks[::-1]),
                "why": "chunks out of order: another root",
            },
        ],
    }


def build_wrapped_keys(kept: Kept) -> Entry:
    """Return a wrapping key's file, a key that is wrapped for it, and the root over several."""
    file = kept.take("wrapping-key.bin", _draw_wrapping_key)
    key = _load_wrapping_key(file)
    node = Address(b"\x0a" * 20)
    info = wrapping_info(
        chain_id=31337, contract=Address(b"\xc0" * 20), epoch=4, node=node, context_digest=CONTEXT_DIGEST
    )
    secret = bytes(range(32))
    ciphertext = kept.take("wrapped-key.bin", lambda: wrap(secret, key.public_bytes, info=info))
    if key.unwrap(ciphertext, info=info) != secret:
        raise SystemExit("wrapped-key.bin: expected the key 000102..., got another; remove the file")
    wrapped = [(node, ciphertext), (Address(b"\x0b" * 20), b"\x02" * 40)]
    return {
        "about": "A wrapping key in its file, an epoch's key wrapped for it, and the root over two such",
        "file": "wrapping-key.bin",
        "password": PASSWORD,
        "public_key": key.public_bytes.hex(),
        "digest": key.digest.hex(),
        "for": {
            "chain_id": "31337",
            "contract": "c0" * 20,
            "epoch": 4,
            "node": node.hex(),
            "context_digest": CONTEXT_DIGEST.hex(),
        },
        "info": info.hex(),
        "wrapped": "wrapped-key.bin",
        "secret": secret.hex(),
        "others": [["0b" * 20, "02" * 40]],
        "root": wrapped_keys_root(wrapped).hex(),
    }


def astuple_of(each: Contribution) -> tuple[bytes, bytes, int]:
    """Return a contribution's three fields."""
    return each.node, each.update_root, each.examples


def _changer(raw: bytes) -> Callable[[Mapping[int, bytes | int | float]], bytes]:
    fields = split_fields(raw, "document")

    def change(changes: Mapping[int, bytes | int | float]) -> bytes:
        return encode_fields(*(changes.get(i, field) for i, field in enumerate(fields)))

    return change


def _refuse(*cases: tuple[bytes, str]) -> list[Json]:
    return [{"encoded": raw.hex(), "why": why} for raw, why in cases]


def _spell_policy(policy: Policy) -> Json:
    sections = asdict(policy)
    model = sections["model"]
    model |= {
        "architecture": policy.model.architecture.hex(),
        "genesis": policy.model.genesis.hex(),
        "seed": str(policy.model.seed),
    }
    privacy = asdict(policy.privacy)
    return dict(sections) | {"privacy": {key: str(value) for key, value in privacy.items()}}


def _spell_manifest(manifest: UpdateManifest | AggregateManifest) -> Json:
    spelled: Entry = {}
    for name, value in asdict(manifest).items():
        match value:
            case bytes():
                spelled[name] = value.hex()
            case int() if name == "chain_id":
                spelled[name] = str(value)
            case int():
                spelled[name] = value
            case _ if name == "clips":
                spelled[name] = spell_floats(value)
            case _:
                spelled[name] = [
                    [node.hex(), root.hex(), examples] for node, root, examples in map(dict.values, value)
                ]
    return spelled


def _draw_wrapping_key() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        WrappingKey.generate().save(path, PASSWORD, iterations=1 << 10)
        return path.read_bytes()


def _load_wrapping_key(file: bytes) -> WrappingKey:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        path.write_bytes(file)
        return WrappingKey.load(path, PASSWORD)
