"""Checks 8 and 10 for one chunk index of one round: read, verify and add the stored ciphertexts.

The sum is recomputed by `Codec.sum_chunks`, which needs no key, and there is none in this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fedproof.codec import Codec
from fedproof.codec.parameters import SEED_BYTES, CodecParameters
from fedproof.digests import Address, Digest
from fedproof.errors import DigestMismatch, MalformedMessage, MissingObject
from fedproof.merkle import leaf_digest
from fedproof_auditor.findings import Failure, spell
from fedproof_auditor.updates import Standing

ReadObject = Callable[[Digest], bytes]
"""Returns the stored bytes of a leaf digest, or raises MissingObject or DigestMismatch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTask:
    """Chunk `index` of all of a round's stored updates.

    Attributes:
        length: values in a whole update.
        leaves: of each update, in the order of the commitments: node, standing, the chunk's leaf digest.
        is_summed: whether the contributors' sum is wanted.
        is_binding: whether a contributor's chunk must be there.
        aggregate: leaf digest of the stored sum's chunk, where its header names one.
    """

    round: int
    index: int
    length: int
    parameters: CodecParameters
    leaves: tuple[tuple[Address, Standing, Digest], ...]
    is_summed: bool
    is_binding: bool
    aggregate: Digest | None


@dataclass(slots=True, kw_only=True)
class ChunkResult:
    """What one task came to.

    Attributes:
        failures: of checks 8 and 10.
        missing: nodes whose chunk is not stored, and need not be.
        malformed: excluded nodes whose stored chunk is not well-formed.
        seeds: by node, the seed of each frame.
        sum_digest: leaf digest of the recomputed sum; nothing when it was not wanted or could not be made.
        bytes_read: of the updates' chunks.
        bytes_added: of those that went into the sum.
    """

    task: ChunkTask
    failures: list[Failure] = field(default_factory=list)
    missing: list[Address] = field(default_factory=list)
    malformed: list[Address] = field(default_factory=list)
    seeds: dict[Address, tuple[bytes, ...]] = field(default_factory=dict)
    sum_digest: Digest | None = None
    bytes_read: int = 0
    bytes_added: int = 0


def examine_chunk(task: ChunkTask, codec: Codec, read: ReadObject) -> ChunkResult:
    """Return what the stored ciphertexts of one chunk index show. Memory: one chunk and the sum.

    Check 8: each is there, hashes to its leaf, and is well-formed.
    Check 10: their sum is computed for the comparison with the published root, and the stored chunk of the sum
    is there and is the one that its header names.
    """
    result = ChunkResult(task=task)

    def contributions() -> Iterator[bytes]:
        for node, standing, leaf in task.leaves:
            if standing is Standing.CONTRIBUTOR and (
                data := _take(result, codec, read, node, standing, leaf)
            ):
                result.bytes_added += len(data)
                yield data

    contributors = sum(standing is Standing.CONTRIBUTOR for _, standing, _ in task.leaves)
    if task.is_summed and contributors:
        _add(result, codec, contributions(), contributors)
    else:
        for _ in contributions():
            pass  # read and checked, not added
        result.bytes_added = 0
    for node, standing, leaf in task.leaves:
        if standing is not Standing.CONTRIBUTOR:
            _take(result, codec, read, node, standing, leaf)
    if task.aggregate is not None:
        _read_aggregate(result, read, task.aggregate)
    return result


def split_seeds(chunk: bytes, parameters: CodecParameters) -> tuple[bytes, ...]:
    """Return the seed of each frame of a well-formed update chunk: its last 64 bytes (docs/format.md).

    Whoever copies another's ciphertext, even to change it (BFV is malleable), has to keep its seed: the seed
    expands to the half of the ciphertext that does not travel.
    """
    size = parameters.update_frame_bytes
    return tuple(chunk[end - SEED_BYTES : end] for end in range(size, len(chunk) + 1, size))


def _take(
    result: ChunkResult, codec: Codec, read: ReadObject, node: Address, standing: Standing, leaf: Digest
) -> bytes | None:
    """Return a chunk that passes check 8; what is wrong with another goes into the result."""
    task = result.task
    is_needed = standing is Standing.CONTRIBUTOR and task.is_binding
    expected, got = "", ""
    try:
        data = read(leaf)
        codec.check_update_chunk(data, task.index, task.length)
    except MissingObject as error:
        if not is_needed:
            result.missing.append(node)
            return None
        expected, got = "stored", str(error)
    except DigestMismatch:
        expected, got = f"leaf digest {spell(leaf)}", "other bytes under that name"
    except MalformedMessage as error:
        if standing is Standing.EXCLUDED:
            result.malformed.append(node)
            return None
        expected, got = "well-formed frames", str(error)
    else:
        result.bytes_read += len(data)
        result.seeds[node] = split_seeds(data, task.parameters)
        return data
    result.failures.append(
        Failure(
            check=8,
            field="stored ciphertext",
            expected=expected,
            got=got,
            round=task.round,
            node=node,
            chunk=task.index,
        )
    )
    return None


def _add(result: ChunkResult, codec: Codec, chunks: Iterator[bytes], contributors: int) -> None:
    task = result.task
    trouble = ""
    try:
        total = codec.sum_chunks(chunks)
    except MalformedMessage as error:
        trouble = str(error)
    if len(result.seeds) < contributors:
        result.bytes_added = 0
        trouble = f"{len(result.seeds)} that can be added (check 8)"
    if not trouble:
        result.sum_digest = leaf_digest(total)
    elif task.is_binding or len(result.seeds) + len(result.missing) < contributors:
        result.failures.append(
            Failure(
                check=10,
                field="sum",
                expected=f"the ciphertexts of {contributors} contributors",
                got=trouble,
                round=task.round,
                chunk=task.index,
            )
        )


def _read_aggregate(result: ChunkResult, read: ReadObject, leaf: Digest) -> None:
    task = result.task
    try:
        read(leaf)
    except MissingObject as error:
        if not task.is_binding:
            return
        expected, got = "stored", str(error)
    except DigestMismatch:
        expected, got = f"leaf digest {spell(leaf)}", "other bytes under that name"
    else:
        return
    result.failures.append(
        Failure(
            check=10,
            field="stored chunk of the sum",
            expected=expected,
            got=got,
            round=task.round,
            chunk=task.index,
        )
    )
