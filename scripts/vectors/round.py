"""One round from its policy and base model to the next model: most of docs/format.md in one example."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from fedproof.codec import Codec, SecretKey
from fedproof.codec.quantise import Float32Vector, apply_mean, quantise
from fedproof.codec.scaling import Scaling, compute_next_clips
from fedproof.codec.selection import Selection, compute_selection_seed
from fedproof.digests import Address, Digest
from fedproof.manifest import AggregateManifest, Contribution, UpdateManifest, compute_header_root
from fedproof.merkle import leaf_digest
from fedproof.model import Model, ModelLayout, TensorSpec, compute_values_digest, encode_clips
from fedproof.policy import CodecPolicy, ModelPolicy, Policy
from vectors.arithmetic import draw_generator, list_positions
from vectors.chunks import Update, take_update
from vectors.ciphertexts import SECRET_KEY
from vectors.documents import POLICY
from vectors.form import Entry, Json, Kept, spell_floats, spell_integers

CHAIN_ID: Final = 31337
CONTRACT: Final = Address(b"\xc0" * 20)
NUMBER: Final = 7
EPOCH: Final = 2
NODES: Final = {"a": (0x0A, 120), "b": (0x0B, 900), "c": (0x0C, 1000)}
LAYOUT: Final = ModelLayout(
    (
        TensorSpec("embedding.weight", (4, 5), "float32"),
        TensorSpec("base.weight", (2, 2), "bfloat16", Digest(b"\x0f" * 32)),
        TensorSpec("nothing", (0, 2), "float32"),
        TensorSpec("norm.running_mean", (3,), "float64"),
        TensorSpec("norm.num_batches_tracked", (), "int64"),
        TensorSpec("scale", (), "float32"),
        TensorSpec("head.bias", (8,), "float32"),
    )
)


@dataclass(frozen=True, slots=True)
class Trained:
    """What one node trained, and what its update became."""

    name: str
    delta: Float32Vector
    drawn: tuple[float, ...]
    examples: int
    update: Update


def build_round(kept: Kept) -> Entry:
    """Return the round, step by step."""
    rng = np.random.default_rng(7)
    base = Model(
        rng.normal(0, 1, LAYOUT.parameters).astype(np.float32),
        tuple(0.25 / (1 << group) for group, _ in enumerate(LAYOUT.group_sizes)),
    )
    policy = _make_policy()
    parameters = policy.codec_parameters()
    scaling = Scaling(parameters.limit, policy.rounds.max_examples, LAYOUT.group_sizes, base.clips)
    base_digest = base.compute_digest(LAYOUT.digest)
    seed = compute_selection_seed(chain_id=CHAIN_ID, contract=CONTRACT, round=NUMBER, base_model=base_digest)
    selection = Selection(LAYOUT.parameters, policy.codec.keep_one_in, seed)
    positions = selection.positions(0, selection.length)
    clips = scaling.clips_at(positions)
    trained = []
    for name, (_, examples) in NODES.items():
        # The first group stays within its clip, the others go beyond theirs.
        delta = rng.normal(0, 0.05, selection.length).astype(np.float32)
        drawn = tuple(rng.random(selection.length).tolist())
        values = quantise(
            delta,
            clips,
            limit=parameters.limit,
            weight=scaling.compute_weight(examples),
            rng=draw_generator(drawn),
        )
        update = take_update(kept, f"round-{name}.bin", values, parameters)
        trained.append(Trained(name, delta, drawn, examples, update))
    manifests = [_make_manifest(policy, base, each) for each in trained]
    roots = [
        compute_header_root(manifest.encode(), [leaf_digest(each.update.chunk)])
        for manifest, each in zip(manifests, trained, strict=True)
    ]
    codec = Codec(parameters)
    total = codec.sum_chunks([each.update.chunk for each in trained])
    kept.taken["round-sum.bin"] = total
    aggregate = AggregateManifest(
        chain_id=CHAIN_ID,
        contract=CONTRACT,
        round=NUMBER,
        epoch=EPOCH,
        policy_digest=policy.digest,
        contributors=tuple(
            Contribution(manifest.node, root, manifest.examples)
            for manifest, root in zip(manifests, roots, strict=True)
        ),
        parameters=LAYOUT.parameters,
        chunks=1,
    )
    sums = codec.decrypt_chunk(
        total,
        codec.make_decryptor(SecretKey(SECRET_KEY)),
        contributors=len(trained),
        index=0,
        length=selection.length,
    )
    flat = base.flat.copy()
    flat[positions] = apply_mean(
        base.flat[positions],
        sums,
        clips,
        limit=parameters.limit,
        max_examples=scaling.max_examples,
        total_examples=aggregate.total_examples,
    )
    following = Model(
        flat,
        compute_next_clips(
            scaling,
            scaling.measure(sums, positions),
            contributors=len(trained),
            total_examples=aggregate.total_examples,
            clip_margin=policy.codec.clip_margin,
            clip_max=policy.codec.clip,
        ),
    )
    return {
        "about": "A round of three nodes, from policy and base model to the next model; delta and u of what "
        "travels",
        "chain_id": str(CHAIN_ID),
        "contract": CONTRACT.hex(),
        "round": NUMBER,
        "epoch": EPOCH,
        "policy": policy.canonical().hex(),
        "layout": LAYOUT.encode().hex(),
        "base": _spell_model(base),
        "secret_key": SECRET_KEY.hex(),
        "positions": list_positions(positions),
        "updates": [
            {
                "node": manifest.node.hex(),
                "examples": each.examples,
                "delta": each.delta.astype("<f4").tobytes().hex(),
                "u": spell_floats(each.drawn),
                "values": spell_integers(each.update.values),
                "chunk": each.update.file,
                "manifest": manifest.encode().hex(),
                "root": root.hex(),
            }
            for manifest, root, each in zip(manifests, roots, trained, strict=True)
        ],
        "aggregate": {
            "chunk": "round-sum.bin",
            "manifest": aggregate.encode().hex(),
            "root": compute_header_root(aggregate.encode(), [leaf_digest(total)]).hex(),
            "sums": spell_integers(sums),
        },
        "next": _spell_model(following),
    }


def _make_policy() -> Policy:
    """Return the policy; its genesis is of no matter in a later round."""
    return replace(
        POLICY,
        name="one round",
        model=ModelPolicy(
            architecture=LAYOUT.digest, parameters=LAYOUT.parameters, genesis=Digest(bytes(32)), seed=1
        ),
        codec=CodecPolicy(
            bits=15, max_contributors=16, clip=0.25, clip_margin=2.0, keep_one_in=3, error_feedback=False
        ),
        rounds=replace(POLICY.rounds, max_examples=1000),
    )


def _make_manifest(policy: Policy, base: Model, trained: Trained) -> UpdateManifest:
    return UpdateManifest(
        chain_id=CHAIN_ID,
        contract=CONTRACT,
        round=NUMBER,
        node=Address(bytes([NODES[trained.name][0]]) * 20),
        epoch=EPOCH,
        policy_digest=policy.digest,
        base_model=base.compute_digest(LAYOUT.digest),
        base_values=compute_values_digest(base.flat),
        clips=base.clips,
        parameters=LAYOUT.parameters,
        chunks=1,
        examples=trained.examples,
    )


def _spell_model(model: Model) -> Json:
    return {
        "flat": model.flat.astype("<f4").tobytes().hex(),
        "clips": encode_clips(model.clips).hex(),
        "digest": model.compute_digest(LAYOUT.digest).hex(),
    }
