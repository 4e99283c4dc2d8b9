"""Who takes part in the aggregator's tests: policy, keys, values, certificates, and the line to the chain."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from requests.exceptions import ConnectionError as NoConnection

from fedproof.codec.secret_key import SecretKey
from fedproof.codec.update import Codec
from fedproof.digests import Address
from fedproof.keys.tls import TlsFiles, issue_certificate, make_authority
from fedproof.keys.wrapping import WrappingKey, wrapped_keys_root
from fedproof.model import compute_model_digest
from fedproof.policy import CodecPolicy, ModelPolicy, Policy, RoundPolicy, TrainingPlan
from tests.chain import Federation, MemoryChain, make_digest

COMMIT_WINDOW_S = 600
ATTEST_WINDOW_S = 200
EXAMPLES = (100, 200, 300)
WRAPPED = b"only the node can open this"

# What is behind the digest of the first model.
PARAMETERS = 400_000
BASE_VALUES = make_digest("values")
CLIPS = (0.25, 0.25)

POLICY = Policy(
    name="three nodes",
    model=ModelPolicy(
        architecture=make_digest("layout"),
        parameters=PARAMETERS,
        genesis=compute_model_digest(make_digest("layout"), PARAMETERS, BASE_VALUES, CLIPS),
        seed=7,
    ),
    codec=CodecPolicy(
        bits=15, max_contributors=4, clip=0.25, clip_margin=4.0, keep_one_in=1, error_feedback=False
    ),
    rounds=RoundPolicy(
        min_contributors=2,
        attestation_quorum=2,
        max_examples=1000,
        commit_window_s=COMMIT_WINDOW_S,
        aggregate_window_s=300,
        attest_window_s=ATTEST_WINDOW_S,
    ),
    training=TrainingPlan(epochs=1, batch_size=32, learning_rate=0.05, momentum=0.9, weight_decay=0.0),
)
BATCHING = replace(POLICY, rounds=replace(POLICY.rounds, batching=True))


@cache
def codec() -> Codec:
    """Return the policy's codec; learning SEAL's file form takes a moment."""
    return Codec(POLICY.codec_parameters())


@cache
def secret_key() -> SecretKey:
    """Return the epoch's key, which the nodes share and nobody else has."""
    return codec().generate_secret_key()


@cache
def wrapping_key() -> WrappingKey:
    """Return the first node's wrapping key."""
    return WrappingKey.generate()


@cache
def values(node: int, version: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return a node's quantised update."""
    rng = np.random.default_rng([node, version])
    return rng.integers(-16_383, 16_384, PARAMETERS, dtype=np.int64)


@cache
def encrypted(node: int, version: int = 0) -> tuple[bytes, ...]:
    """Return a node's encrypted chunks: two whole ones and a shorter one."""
    encryptor = codec().make_encryptor(secret_key())
    size = codec().parameters.values_per_chunk
    update = values(node, version)
    return tuple(
        codec().encrypt_chunk(update[start : start + size], encryptor)
        for start in range(0, update.size, size)
    )


class Link:
    """The line to the chain: threads take turns on it, and a test can cut it.

    Attributes:
        down: methods that get no answer.
        is_terse: whether a refusal comes without its reason, as from some endpoints.
    """

    def __init__(self, chain: MemoryChain) -> None:
        self.down: set[str] = set()
        self.is_terse = False
        self._lock = threading.RLock()  # an answer may take further requests
        self._ask = chain.provider.make_request
        chain.provider.make_request = self._make_request  # type: ignore[method-assign]

    def _make_request(self, method: Any, params: Any) -> Any:
        if method in self.down:
            raise NoConnection(f"{method}: connection refused")
        with self._lock:
            answer = self._ask(method, params)
        if self.is_terse and "error" in answer:
            answer["error"].pop("data", None)
        return answer


def wrapped_keys(federation: Federation) -> list[tuple[Address, bytes]]:
    """Return the first epoch's wrapped keys, which nobody here can open."""
    return [(node.address, WRAPPED + bytes([i])) for i, node in enumerate(federation.nodes[:3])]


def deploy_federation(policy: Policy = POLICY) -> tuple[Federation, Link]:
    """Return a federation with its policy and first epoch, and the line to its chain."""
    chain = MemoryChain()
    # Before the first request: web3 keeps hold of what it has called once.
    link = Link(chain)
    federation = Federation(chain)
    for index, node in enumerate(federation.nodes[:3]):
        digest = wrapping_key().digest if index == 0 else make_digest(f"wrapping {index}")
        node.register(digest, make_digest(f"certificate {index}"))
        federation.admin.admit(node.address)
    federation.admin.adopt_policy(policy)
    federation.admin.request_epoch(federation.nodes[0].address)
    root = wrapped_keys_root(wrapped_keys(federation))
    federation.nodes[0].publish_epoch(1, codec().parameters.digest, root, membership=3)
    return federation, link


def make_certificates(folder: Path) -> tuple[list[TlsFiles], Path]:
    """Return a certificate for each of four nodes, and their authority's."""
    authority = folder / "authority"
    ca = make_authority(authority, "authority").certificate
    files = [
        issue_certificate(folder / f"node-{i}", authority, f"node-{i}", hosts=["localhost"]) for i in range(4)
    ]
    return files, ca
