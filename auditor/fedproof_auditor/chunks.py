"""Checks 8 and 10 for one chunk index of one round: read, verify and add the stored ciphertexts.

The sum is recomputed by `CodecWorkers`, in processes of their own, so a chunk that crashes SEAL is a finding,
and not the end of the audit. Adding needs no key, and there is none in this package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fedproof.codec.frames import check_length, split_seeds
from fedproof.codec.parameters import CodecParameters
from fedproof.codec.workers import CodecWorkers
from fedproof.digests import Address, Digest
from fedproof.errors import DigestMismatch, MalformedMessage, MissingObject, WorkerDied
from fedproof.merkle import leaf_digest
from fedproof_auditor.findings import Failure, spell
from fedproof_auditor.updates import Standing

ReadObject = Callable[[Digest], bytes]
"""Returns what is stored under a leaf digest, unverified, or raises MissingObject."""


@dataclass(frozen=True, slots=True)
class UpdateLeaf:
    """One update's chunk of the index in question, by its proven leaf digest."""

    node: Address
    standing: Standing
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTask:
    """Chunk `index` of all of a round's stored updates.

    Attributes:
        length: values in a whole update.
        leaves: of each update.
        contributors: how many updates the sum has to hold; 0 when no sum is wanted.
        needs_updates: whether a contributor's chunk must be there.
        needs_sum: whether the sum's must be.
        aggregate: leaf digest of the stored sum's chunk, where its header names one.
    """

    round: int
    index: int
    length: int
    parameters: CodecParameters
    leaves: tuple[UpdateLeaf, ...]
    contributors: int
    needs_updates: bool
    needs_sum: bool
    aggregate: Digest | None

    @property
    def chunk_bytes(self) -> int:
        """Size of an update's chunk of this index."""
        return self.parameters.frames_in_chunk(self.index, self.length) * self.parameters.update_frame_bytes


@dataclass(slots=True, kw_only=True)
class ChunkResult:
    """What one task came to.

    Attributes:
        failures: of checks 8 and 10.
        missing: nodes whose chunk is not stored, and need not be.
        malformed: nodes whose stored chunk is the committed one, and not well-formed.
        seeds: by node, the seed of each frame.
        sum_digest: leaf digest of the recomputed sum; nothing when it was not wanted or could not be made.
        bytes_added: of the chunks that went into the sum.
    """

    task: ChunkTask
    failures: list[Failure] = field(default_factory=list)
    missing: list[Address] = field(default_factory=list)
    malformed: list[Address] = field(default_factory=list)
    seeds: dict[Address, tuple[bytes, ...]] = field(default_factory=dict)
    sum_digest: Digest | None = None
    bytes_added: int = 0

    def fail(self, check: int, what: str, *, expected: str, got: str, node: Address | None = None) -> None:
        """Keep a failure of this chunk."""
        self.failures.append(
            Failure(
                check=check,
                field=what,
                expected=expected,
                got=got,
                round=self.task.round,
                node=node,
                chunk=self.task.index,
            )
        )

    def reject(self, leaf: UpdateLeaf, got: str) -> None:
        """Keep that an update's chunk is not well-formed, for which an excluded node may be excluded."""
        self.seeds.pop(leaf.node, None)
        self.malformed.append(leaf.node)
        if leaf.standing is not Standing.EXCLUDED:
            self.fail(8, "stored ciphertext", expected="well-formed frames", got=got, node=leaf.node)


def examine_chunk(task: ChunkTask, workers: CodecWorkers, read: ReadObject) -> ChunkResult:
    """Return what the stored ciphertexts of one chunk index show. Memory: some chunks and the sum.

    Check 8: each is there, hashes to its leaf, and is well-formed.
    Check 10: their sum is computed, for the comparison with the published root; and the stored chunk of the
    sum is there and is the one that its header names.
    """
    result = ChunkResult(task=task)
    counted = [leaf for leaf in task.leaves if leaf.standing is Standing.CONTRIBUTOR]
    if task.contributors:
        _add(result, workers, read, counted)
    for leaf in task.leaves:
        if leaf.standing is not Standing.CONTRIBUTOR or not task.contributors:
            _check(result, workers, read, leaf)
    if task.aggregate is not None:
        _read_aggregate(result, read, task.aggregate)
    return result


def verify_leaf(data: bytes, digest: Digest) -> bytes:
    """Return bytes that have a leaf digest.

    Raises:
        DigestMismatch: they have another one, which is all that the message says.
    """
    actual = leaf_digest(data)
    if actual != digest:
        raise DigestMismatch(spell(actual))
    return data


def _read(result: ChunkResult, read: ReadObject, leaf: UpdateLeaf) -> bytes | None:
    """Return a stored chunk that has its digest and its length, and note its seeds.

    What is wrong with another one goes into the result.
    """
    task, what = result.task, "stored ciphertext"
    try:
        data = verify_leaf(read(leaf.digest), leaf.digest)
        check_length(data, task.chunk_bytes, where=f"chunk {task.index}")
    except MissingObject as error:
        if task.needs_updates and leaf.standing is Standing.CONTRIBUTOR:
            result.fail(8, what, expected="stored", got=str(error), node=leaf.node)
        else:
            result.missing.append(leaf.node)
    except DigestMismatch as error:
        result.fail(8, what, expected=f"leaf digest {spell(leaf.digest)}", got=str(error), node=leaf.node)
    except MalformedMessage as error:
        result.reject(leaf, str(error))
    else:
        result.seeds[leaf.node] = tuple(split_seeds(data, task.parameters))
        return data
    return None


def _check(result: ChunkResult, workers: CodecWorkers, read: ReadObject, leaf: UpdateLeaf) -> None:
    """Check 8 for one chunk: whether it can be added."""
    data = _read(result, read, leaf)
    if data is None:
        return
    try:
        workers.sum_chunks([(f"chunk {result.task.index}", data)])
    except MalformedMessage as error:
        result.reject(leaf, str(error))
    except WorkerDied as error:
        workers.drop(0)  # raises if no worker lives, whatever it is given; then this is not the chunk's fault
        result.reject(leaf, str(error))


def _add(result: ChunkResult, workers: CodecWorkers, read: ReadObject, counted: Sequence[UpdateLeaf]) -> None:
    """Add the contributors' chunks up; if that fails, find out over which of them."""
    task = result.task
    trouble = ""
    chunks = ((spell(leaf.node), data) for leaf in counted if (data := _read(result, read, leaf)))
    try:
        total = workers.sum_chunks(chunks)
    except (MalformedMessage, WorkerDied) as error:
        trouble = str(error)
        for leaf in counted:
            if result.seeds.pop(leaf.node, None):
                _check(result, workers, read, leaf)
    if len(result.seeds) != task.contributors:
        trouble = f"{len(result.seeds)} that can be added (checks 7 and 8)"
    if not trouble:
        result.sum_digest = leaf_digest(total)
        result.bytes_added = task.contributors * task.chunk_bytes
    elif task.needs_updates or not result.missing:
        result.fail(10, "sum", expected=f"the ciphertexts of {task.contributors} contributors", got=trouble)


def _read_aggregate(result: ChunkResult, read: ReadObject, leaf: Digest) -> None:
    what = "stored chunk of the sum"
    try:
        verify_leaf(read(leaf), leaf)
    except MissingObject as error:
        if result.task.needs_sum:
            result.fail(10, what, expected="stored", got=str(error))
    except DigestMismatch as error:
        result.fail(10, what, expected=f"leaf digest {spell(leaf)}", got=str(error))
