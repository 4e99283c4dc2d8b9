"""One valid example of each document, for seeds and for tests to spoil."""

from __future__ import annotations

from fedproof.digests import Address, Digest
from fedproof.manifest import AggregateManifest, Contribution, UpdateManifest
from fedproof.model import ModelLayout, TensorSpec
from fedproof.policy import CodecPolicy, ModelPolicy, Policy, RoundPolicy, TrainingPlan
from fedproof.wire import aggregation_pb2 as wire

DIGEST = Digest(bytes(range(32)))
NODES = tuple(Address(bytes([i]) * 20) for i in (1, 2, 3))

LAYOUT = ModelLayout(
    (
        TensorSpec("layer.weight", (2, 3), "float32"),
        TensorSpec("steps", (), "int64"),
        TensorSpec("base.weight", (4,), "bfloat16", DIGEST),
        TensorSpec("empty", (0, 5), "float16"),
    )
)
POLICY = Policy(
    name="three hospitals",
    model=ModelPolicy(architecture=LAYOUT.digest, parameters=6, genesis=DIGEST, seed=7),
    codec=CodecPolicy(
        bits=15, max_contributors=4, clip=0.25, clip_margin=4.0, keep_one_in=2, error_feedback=True
    ),
    rounds=RoundPolicy(
        min_contributors=2,
        attestation_quorum=2,
        max_examples=1000,
        commit_window_s=600,
        aggregate_window_s=300,
        attest_window_s=200,
    ),
    training=TrainingPlan(epochs=1, batch_size=32, learning_rate=0.05, momentum=0.9, weight_decay=0.0),
)
UPDATE = UpdateManifest(
    chain_id=31337,
    contract=NODES[0],
    round=1,
    node=NODES[1],
    epoch=1,
    policy_digest=DIGEST,
    base_model=DIGEST,
    base_values=DIGEST,
    clips=(0.25, 0.5),
    parameters=6,
    chunks=2,
    examples=100,
)
AGGREGATE = AggregateManifest(
    chain_id=31337,
    contract=NODES[0],
    round=1,
    epoch=1,
    policy_digest=DIGEST,
    contributors=tuple(Contribution(node, DIGEST, 100) for node in NODES),
    parameters=6,
    chunks=2,
)


def make_header(manifest: bytes, *, chunks: int = 2) -> wire.Header:
    """Return a header with that manifest and so many chunk digests."""
    return wire.Header(manifest=manifest, chunk_digests=[DIGEST] * chunks)


def make_wrapped_keys(*nodes: Address) -> bytes:
    """Return an epoch's list of wrapped keys, serialised."""
    wrapped = [wire.WrappedKey(node=node, ciphertext=bytes(40)) for node in nodes]
    return wire.PutWrappedKeysRequest(epoch=1, keys=wrapped).SerializeToString()
