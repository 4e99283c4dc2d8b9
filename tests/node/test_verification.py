"""What a node accepts as the sum of the committed updates, and what it refuses."""

from __future__ import annotations

import dataclasses
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from fedproof_node.verification import (
    RoundFacts,
    compute_draw,
    verify_aggregate_header,
    verify_chunk,
    verify_distinct,
    verify_sum,
    verify_update_header,
)

from fedproof.codec import Codec, CodecParameters
from fedproof.codec.round_encoding import RoundEncoding
from fedproof.codec.scaling import Scaling
from fedproof.codec.selection import Selection
from fedproof.codec.workers import CodecWorkers
from fedproof.digests import Address, Digest, checksum_address
from fedproof.errors import DigestMismatch, MalformedMessage, PeerError
from fedproof.manifest import Contribution, compute_header_root
from fedproof.merkle import leaf_digest
from fedproof.wire.aggregation_pb2 import Header

NODES = tuple(Address(bytes([i]) * 20) for i in (1, 2, 3))
BLOCK = Digest(b"\x0b" * 32)
PARAMETERS = CodecParameters.plan(bits=15, max_contributors=16)


def make_encoding(length: int, *, clip: float = 0.25) -> RoundEncoding:
    """Return how a model of one tensor travels, whole."""
    return RoundEncoding(
        PARAMETERS,
        Scaling(limit=PARAMETERS.limit, max_examples=100, group_sizes=(length,), clips=(clip,)),
        Selection(length, 1, BLOCK),
    )


@dataclass
class Sum:
    """A whole honest round of three nodes, which a test then edits."""

    codec: Codec
    workers: CodecWorkers
    facts: RoundFacts
    headers: dict[Address, Header]
    chunks: dict[Address, list[bytes]]
    aggregate_header: Header
    aggregate: list[bytes]

    def updates(self, index: int) -> list[tuple[Address, bytes, Digest]]:
        return [
            (node, self.chunks[node][index], Digest(self.headers[node].chunk_digests[index]))
            for node in self.chunks
        ]

    def verify(self, index: int, updates: list[tuple[Address, bytes, Digest]] | None = None) -> bytes:
        chosen = self.updates(index) if updates is None else updates
        return verify_sum(self.workers, self.aggregate[index], chosen, index=index, facts=self.facts)


@pytest.fixture(scope="module")
def workers() -> Iterator[CodecWorkers]:
    with CodecWorkers(PARAMETERS, processes=1) as workers:
        yield workers


@pytest.fixture(scope="module")
def honest(workers: CodecWorkers) -> Sum:
    codec = Codec(PARAMETERS)
    encryptor = codec.make_encryptor(codec.generate_secret_key())
    rng = np.random.default_rng(5)
    facts = RoundFacts(
        chain_id=31337,
        contract=Address(b"\x0c" * 20),
        round=4,
        epoch=1,
        policy_digest=Digest(b"\x0d" * 32),
        base_model=Digest(b"\x0e" * 32),
        base_values=Digest(b"\x0f" * 32),
        encoding=make_encoding(PARAMETERS.values_per_chunk + 1000),
    )
    assert facts.chunks == 2
    chunks = {}
    headers = {}
    contributions = []
    for examples, node in enumerate(NODES, start=40):
        chunks[node] = [
            codec.encrypt_chunk(rng.integers(-PARAMETERS.limit, PARAMETERS.limit, size), encryptor)
            for size in (PARAMETERS.values_per_chunk, 1000)
        ]
        manifest = facts.update_manifest(node, examples=examples).encode()
        leaves = [leaf_digest(chunk) for chunk in chunks[node]]
        headers[node] = Header(manifest=manifest, chunk_digests=leaves)
        contributions.append(Contribution(node, compute_header_root(manifest, leaves), examples))
    facts = dataclasses.replace(facts, contributions=tuple(contributions))
    aggregate = [codec.sum_chunks([chunks[node][index] for node in NODES]) for index in range(2)]
    manifest = facts.aggregate_manifest().encode()
    leaves = [leaf_digest(chunk) for chunk in aggregate]
    facts = dataclasses.replace(facts, aggregate_root=compute_header_root(manifest, leaves))
    return Sum(
        codec, workers, facts, headers, chunks, Header(manifest=manifest, chunk_digests=leaves), aggregate
    )


def test_honest_round_is_accepted(honest: Sum) -> None:
    """Headers and recomputed chunks of an honest aggregator pass."""
    assert verify_aggregate_header(honest.aggregate_header, honest.facts) == tuple(
        leaf_digest(chunk) for chunk in honest.aggregate
    )
    for contribution in honest.facts.contributions:
        header = honest.headers[contribution.node]
        leaves = verify_update_header(header, contribution, honest.facts)
        assert leaves == tuple(leaf_digest(chunk) for chunk in honest.chunks[contribution.node])
    assert [honest.verify(0), honest.verify(1)] == honest.aggregate


def test_tampered_sum_is_refused(honest: Sum) -> None:
    """A sum with one bit changed is refused, naming round, chunk and contributors."""
    tampered = bytearray(honest.aggregate[1])
    tampered[7] ^= 1
    evil = dataclasses.replace(honest, aggregate=[honest.aggregate[0], bytes(tampered)])
    assert evil.verify(0) == honest.aggregate[0]
    with pytest.raises(PeerError, match="round 4: chunk 1 of the aggregate is not the sum") as caught:
        evil.verify(1)
    assert all(checksum_address(node) in str(caught.value) for node in NODES)


def test_update_counted_twice_is_refused(honest: Sum) -> None:
    """A sum that holds one node's update twice and another's not at all is refused."""
    a, b, _ = (honest.chunks[node][0] for node in NODES)
    evil = dataclasses.replace(honest, aggregate=[honest.codec.sum_chunks([a, b, b]), honest.aggregate[1]])
    with pytest.raises(PeerError, match="chunk 0 of the aggregate is not the sum"):
        evil.verify(0)


def test_update_left_out_is_refused(honest: Sum) -> None:
    """A sum without one contributor is refused, and so is a recomputation from one update too few."""
    a, b, _ = (honest.chunks[node][0] for node in NODES)
    evil = dataclasses.replace(honest, aggregate=[honest.codec.sum_chunks([a, b]), honest.aggregate[1]])
    with pytest.raises(PeerError, match="is not the sum"):
        evil.verify(0)
    with pytest.raises(PeerError, match="round 4: chunk 0: expected the updates of"):
        evil.verify(0, evil.updates(0)[:2])


def test_swapped_chunks_are_refused(honest: Sum) -> None:
    """A chunk served at another index, or as another node's, does not match its leaf."""
    updates = honest.updates(0)
    node, _, digest = updates[1]
    updates[1] = (node, honest.chunks[NODES[2]][0], digest)
    with pytest.raises(DigestMismatch, match=f"round 4: chunk 0 of {checksum_address(NODES[1])}"):
        honest.verify(0, updates)


def test_malformed_chunk_is_refused(honest: Sum) -> None:
    """A contributor's chunk that is cut short is refused by name, even if its digest was committed to."""
    updates = honest.updates(1)
    short = updates[0][1][:-1]
    updates[0] = (NODES[0], short, leaf_digest(short))
    with pytest.raises(MalformedMessage, match=f"round 4: chunk 1 of {checksum_address(NODES[0])}"):
        honest.verify(1, updates)


def test_coefficient_beyond_the_modulus_is_refused(honest: Sum) -> None:
    """A contributor's chunk with a coefficient that is none is refused by name, in the worker."""
    updates = honest.updates(1)
    full = b"\xff" * 100 + updates[2][1][100:]
    updates[2] = (NODES[2], full, leaf_digest(full))
    with pytest.raises(MalformedMessage, match=f"round 4: chunk 1 of {checksum_address(NODES[2])}"):
        honest.verify(1, updates)


def test_altered_chunk_is_refused(honest: Sum) -> None:
    """Bytes that differ from the proven leaf are refused."""
    with pytest.raises(DigestMismatch, match="here: expected leaf digest"):
        verify_chunk(honest.aggregate[0] + b"\0", leaf_digest(honest.aggregate[0]), where="here")


def test_aggregate_header_with_another_root_is_refused(honest: Sum) -> None:
    """A header whose leaves are not those of the published root is refused."""
    header = Header(
        manifest=honest.aggregate_header.manifest, chunk_digests=honest.aggregate_header.chunk_digests[::-1]
    )
    with pytest.raises(DigestMismatch, match=r"round 4: the aggregate's header.*expected the root"):
        verify_aggregate_header(header, honest.facts)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"round": 5}, "round"),
        ({"epoch": 2}, "epoch"),
        ({"chain_id": 1}, "chain_id"),
        ({"contract": Address(b"\x01" * 20)}, "contract"),
        ({"policy_digest": Digest(b"\x01" * 32)}, "policy_digest"),
        ({"encoding": make_encoding(PARAMETERS.values_per_chunk + 1001)}, "parameters"),
    ],
)
def test_aggregate_of_something_else_is_refused(honest: Sum, change: dict[str, object], named: str) -> None:
    """A published root over a manifest that does not fit the ledger is refused, naming the field."""
    other = dataclasses.replace(honest.facts, **change)  # type: ignore[arg-type]
    manifest = other.aggregate_manifest().encode()
    leaves = [Digest(raw) for raw in honest.aggregate_header.chunk_digests]
    facts = dataclasses.replace(honest.facts, aggregate_root=compute_header_root(manifest, leaves))
    with pytest.raises(DigestMismatch, match=named):
        verify_aggregate_header(Header(manifest=manifest, chunk_digests=leaves), facts)


def test_wrong_contributors_are_refused(honest: Sum) -> None:
    """An aggregate whose manifest names fewer contributors than were sealed is refused."""
    fewer = dataclasses.replace(honest.facts, contributions=honest.facts.contributions[:2])
    manifest = fewer.aggregate_manifest().encode()
    leaves = [Digest(raw) for raw in honest.aggregate_header.chunk_digests]
    facts = dataclasses.replace(honest.facts, aggregate_root=compute_header_root(manifest, leaves))
    with pytest.raises(DigestMismatch, match="contributors"):
        verify_aggregate_header(Header(manifest=manifest, chunk_digests=leaves), facts)


def test_update_of_another_node_or_weight_is_refused(honest: Sum) -> None:
    """A committed header whose manifest claims other examples, clips, base or node is refused."""
    node = NODES[0]
    other = Digest(b"\x01" * 32)
    for change in (
        {"examples": 99},
        {"base_model": other},
        {"base_values": other},
        {"clips": (0.5,)},
        {"node": NODES[1]},
    ):
        manifest = dataclasses.replace(
            honest.facts.update_manifest(node, examples=40),
            **change,  # type: ignore[arg-type]
        ).encode()
        leaves = [Digest(raw) for raw in honest.headers[node].chunk_digests]
        contribution = Contribution(node, compute_header_root(manifest, leaves), 40)
        with pytest.raises(DigestMismatch, match=next(iter(change))):
            verify_update_header(Header(manifest=manifest, chunk_digests=leaves), contribution, honest.facts)


def test_digest_of_the_wrong_size_is_refused(honest: Sum) -> None:
    """A header with a leaf of 31 bytes is malformed."""
    header = Header(manifest=honest.aggregate_header.manifest, chunk_digests=[b"\0" * 31])
    with pytest.raises(MalformedMessage, match=r"round 4: the aggregate's header.*32 bytes"):
        verify_aggregate_header(header, honest.facts)


def test_copied_chunk_is_refused(honest: Sum) -> None:
    """One ciphertext in two nodes' updates is refused, naming both."""
    leaves = {node: list(map(Digest, honest.headers[node].chunk_digests)) for node in NODES}
    verify_distinct(leaves, round_number=4)
    leaves[NODES[2]][1] = leaves[NODES[0]][0]
    with pytest.raises(
        DigestMismatch,
        match=f"chunk 1 of {checksum_address(NODES[2])} equal to chunk 0 of {checksum_address(NODES[0])}",
    ):
        verify_distinct(leaves, round_number=4)


def test_draw_is_deterministic_and_distinct() -> None:
    """The same block, node and round give the same distinct, ascending indexes."""
    draw = compute_draw(BLOCK, NODES[0], round_number=7, chunks=86, count=10)
    assert draw == compute_draw(BLOCK, NODES[0], round_number=7, chunks=86, count=10)
    assert list(draw) == sorted(set(draw))
    assert len(draw) == 10
    assert all(0 <= index < 86 for index in draw)


def test_draw_is_pinned() -> None:
    """An auditor who implements the draw from its description gets these indexes."""
    assert compute_draw(BLOCK, NODES[0], round_number=7, chunks=1000, count=3) == (133, 349, 508)


def test_draw_depends_on_block_node_and_round() -> None:
    """Another block, node or round draws other chunks."""
    draws = {
        compute_draw(BLOCK, NODES[0], round_number=7, chunks=10**6, count=3),
        compute_draw(Digest(b"\x0f" * 32), NODES[0], round_number=7, chunks=10**6, count=3),
        compute_draw(BLOCK, NODES[1], round_number=7, chunks=10**6, count=3),
        compute_draw(BLOCK, NODES[0], round_number=8, chunks=10**6, count=3),
    }
    assert len(draws) == 4


@pytest.mark.parametrize("count", [5, 6, 100])
def test_draw_of_everything(count: int) -> None:
    """Asking for as many chunks as there are, or more, gives each once."""
    assert compute_draw(BLOCK, NODES[0], round_number=1, chunks=5, count=count) == (0, 1, 2, 3, 4)


def test_draw_is_even() -> None:
    """Over many blocks each chunk is drawn about equally often (within six standard deviations)."""
    counts: Counter[int] = Counter()
    draws, chunks, count = 2000, 10, 3
    for seed in range(draws):
        counts.update(
            compute_draw(Digest(seed.to_bytes(32)), NODES[0], round_number=1, chunks=chunks, count=count)
        )
    expected = draws * count / chunks
    deviation = (draws * (count / chunks) * (1 - count / chunks)) ** 0.5
    assert all(abs(counts[index] - expected) < 6 * deviation for index in range(chunks))


def test_random_bytes_are_no_header() -> None:
    """Bytes that are no manifest at all are refused as such, not with a crash."""
    facts = RoundFacts(
        chain_id=1,
        contract=NODES[0],
        round=1,
        epoch=1,
        policy_digest=BLOCK,
        base_model=BLOCK,
        base_values=BLOCK,
        encoding=make_encoding(1),
        contributions=(Contribution(NODES[0], BLOCK, 1),),
    )
    manifest = secrets.token_bytes(80)
    root = compute_header_root(manifest, [BLOCK])
    with pytest.raises(MalformedMessage, match="aggregate's header"):
        verify_aggregate_header(
            Header(manifest=manifest, chunk_digests=[BLOCK]), dataclasses.replace(facts, aggregate_root=root)
        )
