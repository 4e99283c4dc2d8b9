"""Whether a published sum is the sum of what the nodes committed to. Pure: bytes in, the proven thing out.

BFV is not CCA-secure: whoever can make a node decrypt a ciphertext of his choice, and watch what it does,
learns about the key. So nothing is decrypted before every check here has passed.

If the aggregator is malicious, then at most it escapes a draw: a sum that is wrong in a fraction f of its
chunks passes one node's draw of k with probability (1 - f)^k, and the nodes draw independently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedproof.codec.frames import check_length
from fedproof.codec.round_encoding import RoundEncoding
from fedproof.codec.workers import CodecWorkers
from fedproof.digests import Address, Digest, as_digest, checksum_address, tagged_digest
from fedproof.errors import DigestMismatch, MalformedMessage, PeerError, WrongSum
from fedproof.manifest import (
    AggregateManifest,
    Contribution,
    UpdateManifest,
    verify_header,
    verify_manifest,
)
from fedproof.merkle import leaf_digest
from fedproof.wire.aggregation_pb2 import Header


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """What the ledger and the policy say about one round: the measure of everything the aggregator sends.

    Attributes:
        base_values: digest of the base model's values.
        encoding: how values travel in this round, with the base model's clips.
        contributions: of the sealed contributors, ascending by address; none before the seal.
        aggregate_root: the published root of the sum; None before it is published.
    """

    chain_id: int
    contract: Address
    round: int
    epoch: int
    policy_digest: Digest
    base_model: Digest
    base_values: Digest
    encoding: RoundEncoding
    contributions: tuple[Contribution, ...] = ()
    aggregate_root: Digest | None = None

    @property
    def chunks(self) -> int:
        """How many chunks an update and the sum have."""
        return self.encoding.chunk_count

    @property
    def total_examples(self) -> int:
        """The examples behind the sum."""
        return sum(contribution.examples for contribution in self.contributions)

    def update_manifest(self, node: Address, *, examples: int) -> UpdateManifest:
        """Return the one manifest that a node's update may have."""
        return UpdateManifest(
            chain_id=self.chain_id,
            contract=self.contract,
            round=self.round,
            node=node,
            epoch=self.epoch,
            policy_digest=self.policy_digest,
            base_model=self.base_model,
            base_values=self.base_values,
            clips=self.encoding.scaling.clips,
            parameters=self.encoding.selection.parameters,
            chunks=self.chunks,
            examples=examples,
        )

    def aggregate_manifest(self) -> AggregateManifest:
        """Return the one manifest that the sum may have."""
        return AggregateManifest(
            chain_id=self.chain_id,
            contract=self.contract,
            round=self.round,
            epoch=self.epoch,
            policy_digest=self.policy_digest,
            contributors=self.contributions,
            parameters=self.encoding.selection.parameters,
            chunks=self.chunks,
        )


def compute_draw(
    block_hash: Digest, node: Address, *, round_number: int, chunks: int, count: int
) -> tuple[int, ...]:
    """Return the chunks that a node recomputes, ascending; anyone can repeat the draw.

    Nobody could know the block's hash when the sum was published, and each node draws its own: index i of the
    stream is SHA-256 over the seed and i, taken modulo `chunks` (bias below 2^-200), and repeats are passed
    over.

    Args:
        block_hash: of the block after the one that holds AggregatePublished.
        node: who draws.
        round_number: for which round.
        chunks: how many chunks there are.
        count: how many to draw; all, where there are no more than that.
    """
    if count >= chunks:
        return tuple(range(chunks))
    seed = tagged_digest("fedproof.draw.v1", block_hash, node, round_number)
    drawn: set[int] = set()
    position = 0
    while len(drawn) < count:
        drawn.add(int.from_bytes(tagged_digest("fedproof.draw-index.v1", seed, position)) % chunks)
        position += 1
    return tuple(sorted(drawn))


def verify_aggregate_header(header: Header, facts: RoundFacts) -> tuple[Digest, ...]:
    """Return the proven leaf digests of the sum's chunks.

    1. The Merkle root over manifest and leaves is the one that AggregatePublished names.
    2. The manifest names this federation, round, epoch, policy and number of chunks, and as contributors
       exactly the sealed set with the roots and example counts that they committed to.

    Raises:
        DigestMismatch: one of them does not hold.
        MalformedMessage: the header is not what the format says.
    """
    if facts.aggregate_root is None:
        raise ValueError(f"round {facts.round}: there is no published root to check against")
    where = f"round {facts.round}: the aggregate's header"
    return _verify_header(header, facts.aggregate_root, facts.aggregate_manifest(), where)


def verify_update_header(header: Header, contribution: Contribution, facts: RoundFacts) -> tuple[Digest, ...]:
    """Return the proven leaf digests of one contributor's chunks.

    1. The Merkle root over manifest and leaves is the one that the node committed to.
    2. The manifest names this federation, round, node, epoch, policy, base model with its values and clips,
       number of chunks and examples.

    Raises:
        DigestMismatch: one of them does not hold.
        MalformedMessage: the header is not what the format says.
    """
    where = f"round {facts.round}: the update's header of {checksum_address(contribution.node)}"
    expected = facts.update_manifest(contribution.node, examples=contribution.examples)
    return _verify_header(header, contribution.update_root, expected, where)


def verify_distinct(leaves: Mapping[Address, Sequence[Digest]], *, round_number: int) -> None:
    """Raise if one chunk stands in two updates: somebody copied ciphertexts that are not his.

    Raises:
        DigestMismatch: naming both nodes and both chunks.
    """
    seen: dict[Digest, tuple[Address, int]] = {}
    for node, digests in leaves.items():
        for index, digest in enumerate(digests):
            if digest in seen:
                other, other_index = seen[digest]
                raise DigestMismatch(
                    f"round {round_number}: expected every chunk once, got chunk {index} of "
                    f"{checksum_address(node)} equal to chunk {other_index} of {checksum_address(other)}"
                )
            seen[digest] = (node, index)


def verify_chunk(data: bytes, digest: Digest, *, where: str) -> bytes:
    """Return the chunk, whose leaf digest is the proven one.

    Raises:
        DigestMismatch: it is not.
    """
    actual = leaf_digest(data)
    if actual != digest:
        raise DigestMismatch(f"{where}: expected leaf digest {digest.hex()}, got {actual.hex()}")
    return data


def verify_sum(
    workers: CodecWorkers,
    published: bytes,
    updates: Iterable[tuple[Address, bytes, Digest]],
    *,
    index: int,
    facts: RoundFacts,
) -> bytes:
    """Return the published chunk, which is the sum of the contributors' chunks.

    1. Each contributor's chunk has the leaf digest that its committed root proves.
    2. It is an update's chunk: of the exact length, each coefficient below the modulus.
    3. There is one from each sealed contributor, in order.
    4. Their sum, recomputed, is the published chunk byte for byte.

    Args:
        workers: without a key.
        published: the chunk of the aggregate, checked against its own proven leaf already.
        updates: node, chunk and proven leaf digest of each contributor, ascending by address; each is dropped
            before the next is taken.
        index: which chunk.
        facts: of the round.

    Raises:
        DigestMismatch: 1 does not hold; names the node.
        MalformedMessage: 2 does not hold; names the node.
        PeerError: 3 does not hold.
        WrongSum: 4 does not hold.
        WorkerDied: a worker crashed over a chunk; names the node.
    """
    parameters = workers.parameters
    expected_bytes = parameters.frames_in_chunk(index, facts.encoding.length) * parameters.update_frame_bytes
    where = f"round {facts.round}: chunk {index}"
    came: list[Address] = []

    def checked() -> Iterator[tuple[str, bytes]]:
        for node, data, digest in updates:
            of_node = f"{where} of {checksum_address(node)}"
            verify_chunk(data, digest, where=of_node)  # 1
            check_length(data, expected_bytes, where=of_node)  # 2, and the workers look at each coefficient
            came.append(node)
            yield of_node, data

    total = workers.sum_chunks(checked())
    expected = [contribution.node for contribution in facts.contributions]
    if came != expected:  # 3
        raise PeerError(f"{where}: expected the updates of {_names(expected)}, got {_names(came)}")
    if total != published:  # 4
        raise WrongSum(
            f"{where} of the aggregate is not the sum of the updates of {_names(expected)}: "
            f"expected leaf digest {leaf_digest(total).hex()}, got {leaf_digest(published).hex()}",
            index=index,
        )
    return published


def _verify_header(
    header: Header, root: Digest, expected: UpdateManifest | AggregateManifest, where: str
) -> tuple[Digest, ...]:
    try:
        leaves = tuple(as_digest(raw, "chunk digest") for raw in header.chunk_digests)
        manifest = verify_header(header.manifest, leaves, root=root)  # 1
        # The ledger and the policy fix every field, so exactly one manifest is right.
        verify_manifest(manifest, expected=expected)  # 2
    except DigestMismatch as error:
        raise DigestMismatch(f"{where}: {error}") from error
    except MalformedMessage as error:
        raise MalformedMessage(f"{where}: {error}") from error
    return leaves


def _names(nodes: Sequence[Address]) -> str:
    return ", ".join(checksum_address(node) for node in nodes) or "nobody"
