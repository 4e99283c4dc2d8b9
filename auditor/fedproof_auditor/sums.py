"""Check 10 for whole rounds, and what the chunks show about excluded and copied updates. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from fedproof.digests import Address, Digest
from fedproof.errors import DigestMismatch, MalformedMessage
from fedproof.ledger.events import ExclusionReason
from fedproof.manifest import verify_header
from fedproof.merkle import compute_root, leaf_digest
from fedproof.wire.aggregation_pb2 import Header
from fedproof_auditor.chunks import ChunkResult, ChunkTask, UpdateLeaf
from fedproof_auditor.findings import CheckFailed, Failure, spell
from fedproof_auditor.updates import (
    RoundFacts,
    Standing,
    StoredUpdate,
    expect_aggregate_manifest,
    verify_manifest,
)


def plan_tasks(
    facts: RoundFacts, updates: Sequence[StoredUpdate], aggregate: Header | None
) -> list[ChunkTask]:
    """Return one task for each chunk index of a round."""
    record, policy = facts.record, facts.policy
    contributors = record.contributors if record.aggregate and not record.is_batch_unread else ()
    if not facts.is_binding and not {each.node for each in updates}.issuperset(contributors):
        contributors = ()  # the round was given up, and what is left of it cannot be added
    sums = aggregate.chunk_digests if aggregate else ()
    return [
        ChunkTask(
            round=record.number,
            index=index,
            length=policy.document.update_length,
            parameters=policy.parameters,
            leaves=tuple(UpdateLeaf(each.node, each.standing, each.leaves[index]) for each in updates),
            contributors=len(contributors),
            needs_updates=facts.is_binding and not facts.has_expired,
            needs_sum=facts.is_binding,
            aggregate=Digest(sums[index]) if index < len(sums) else None,
        )
        for index in range(policy.chunks)
    ]


def verify_sum(facts: RoundFacts, results: Sequence[ChunkResult], aggregate: Header | None) -> list[Failure]:
    """Check 10: return where the published sum is not the recomputed one.

    1. The recomputed chunks under the one manifest that the sealed set allows give the published root.
    2. If they do not, the stored header shows which chunk or field differs.

    Args:
        facts: of a round whose aggregate is published.
        results: of all its chunk indices, in order.
        aggregate: the stored header of the sum, whose root is the published one; nothing if it is missing.
    """
    published = facts.record.aggregate
    if published is None or (facts.record.is_batch_unread and not facts.is_binding):
        return []
    number = facts.record.number
    digests = [result.sum_digest for result in results]
    known = [digest for digest in digests if digest is not None]
    try:
        expected = expect_aggregate_manifest(facts)
    except ValueError as error:
        return [_failure(number, "sealed set", "one that a manifest can name", str(error))]
    root = compute_root([leaf_digest(expected.encode()), *known])
    is_complete = len(known) == len(digests)
    if is_complete and root == published.aggregate_root:  # 1
        return []
    if aggregate is None:
        if not is_complete:
            return []  # the chunks that are missing are failures of their own, or need not be there
        return [_failure(number, "aggregate root", spell(root), spell(published.aggregate_root))]
    failures = []
    try:  # 2
        leaves = [Digest(raw) for raw in aggregate.chunk_digests]
        manifest = verify_header(aggregate.manifest, leaves, root=published.aggregate_root)
        verify_manifest(manifest, expected, check=10, round_number=number)
    except (DigestMismatch, MalformedMessage) as error:
        failures.append(_failure(number, "header of the sum", "the published one", str(error)))
    except CheckFailed as error:
        failures.append(error.failure)
    for index, (digest, leaf) in enumerate(zip(digests, aggregate.chunk_digests, strict=False)):
        if digest is not None and digest != leaf:
            failures.append(_failure(number, "sum", f"leaf digest {spell(digest)}", spell(leaf), chunk=index))
    if is_complete and not failures:  # a root that differs never passes, whatever the header explains
        failures.append(_failure(number, "aggregate root", spell(root), spell(published.aggregate_root)))
    return failures


def verify_exclusions(facts: RoundFacts, sound: Collection[Address]) -> list[Failure]:
    """Check 9: return the nodes that were excluded as malformed although their stored update is sound.

    Args:
        facts: of a round.
        sound: nodes whose update is stored as a whole, well-formed and no copy of one that counts.
    """
    sealed = facts.record.sealed
    if sealed is None:
        return []
    return [
        Failure(
            check=9,
            field="reason",
            expected="a stored update that is malformed or a copy",
            got="one that is complete, well-formed, and no copy of one that counts",
            round=facts.record.number,
            node=node,
        )
        for node, reason in sealed.excluded.items()
        if reason == ExclusionReason.MALFORMED and node in sound
    ]


Place = tuple[int, UpdateLeaf, int]
"""Where a frame is: its round, its update there, and the index of its chunk."""


@dataclass(slots=True)
class SeedRegister:
    """Check 8: the seeds of all frames seen so far, of which no two may be equal.

    Attributes:
        copied: by round, excluded nodes that copied: a good reason to exclude them.
    """

    copied: dict[int, set[Address]] = field(default_factory=dict)
    _seen: dict[bytes, Place] = field(default_factory=dict)

    def take(self, result: ChunkResult) -> list[Failure]:
        """Return the copies in one result. Results come by round.

        Of two nodes that share a frame both are named, unless it is proven who had it later. Which of the two
        a round's sum leaves out is up to the aggregator; where it leaves out both, that excuses neither.
        """
        failures = []
        task = result.task
        for leaf in sorted(task.leaves, key=lambda each: (each.standing is Standing.EXCLUDED, each.node)):
            own, here = result.seeds.get(leaf.node, ()), (task.round, leaf, task.index)
            # The very same frame counts once; a node that repeats its own is caught below.
            places = [place for seed in own if (place := self._seen.setdefault(seed, here)) != here]
            if len(set(own)) != len(own):
                places.append(here)
            proven = [place for place in places if _is_proven(place, here)]
            if leaf.standing is Standing.EXCLUDED:
                if proven or any(first.standing is Standing.CONTRIBUTOR for _, first, _ in places):
                    self.copied.setdefault(task.round, set()).add(leaf.node)
                continue
            if not places:
                continue
            number, first, index = (proven or places)[0]
            got = f"one of round {number}, {spell(first.node)}, chunk {index}"
            if not proven:
                got = f"the same of {spell(leaf.node)} as {got}: which came first, nothing proves"
            failures.append(
                Failure(
                    check=8,
                    field="seeds of the frames",
                    expected="seeds that no other frame has",
                    got=got,
                    round=task.round,
                    node=leaf.node if proven else None,
                    chunk=task.index,
                )
            )
        return failures


def _is_proven(first: Place, copy: Place) -> bool:
    """Return whether the update of one frame is shown to be the copy of another's.

    Rounds follow each other in the history hash, but the commitments of one round have no order in it, and
    those of a round that was never sealed are not in it at all.
    """
    (first_round, original, _), (copy_round, copied, _) = first, copy
    is_in_history = Standing.CANDIDATE not in (original.standing, copied.standing)
    return is_in_history and (first_round < copy_round or original.node == copied.node)


def _failure(number: int, what: str, expected: str, got: str, *, chunk: int | None = None) -> Failure:
    return Failure(check=10, field=what, expected=expected, got=got, round=number, chunk=chunk)
