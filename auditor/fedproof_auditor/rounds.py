"""Checks 7 to 10 on the stored evidence of rounds, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from fedproof.digests import Address, Digest
from fedproof.errors import DigestMismatch, MalformedMessage, MissingObject
from fedproof.wire.aggregation_pb2 import Header
from fedproof_auditor.chunks import ChunkResult, ChunkTask
from fedproof_auditor.findings import CheckFailed, Failure, Findings
from fedproof_auditor.sums import SeedRegister, plan_tasks, verify_exclusions, verify_sum
from fedproof_auditor.updates import (
    HeaderStore,
    RoundFacts,
    Standing,
    StoredUpdate,
    find_standing,
    header_failure,
    read_header,
    verify_update_header,
)

Examine = Callable[[Iterable[ChunkTask]], Generator[ChunkResult, None, None]]
"""Does chunk tasks, and yields their results in order."""


class ChunkStore(HeaderStore, Protocol):
    """Where headers and chunks are read from: `fedproof_auditor.stored.StoredEvidence`."""

    def read_object(self, digest: Digest) -> bytes:
        """Return what is stored under a leaf digest, unverified, or raise MissingObject."""
        ...


@dataclass(slots=True)
class RoundEvidence:
    """What is stored of one round.

    Attributes:
        updates: those whose header is stored and sound.
        clips: what these were clipped to, which is a fact of the base model; nothing when there are none.
        aggregate: the stored header of the sum.
        tasks: one for each chunk index.
        results: of the tasks that are done.
        complete: the nodes whose update is stored as a whole and sound, once all tasks are done.
    """

    facts: RoundFacts
    updates: list[StoredUpdate]
    clips: tuple[float, ...]
    aggregate: Header | None
    tasks: list[ChunkTask]
    results: list[ChunkResult] = field(default_factory=list)
    complete: frozenset[Address] = frozenset()

    @property
    def is_deleted(self) -> bool:
        """Whether a contributor's chunk is missing and need not be there any more."""
        contributors = self.facts.record.contributors
        is_gone = any(node in contributors for result in self.results for node in result.missing)
        return is_gone and self.facts.has_expired


def read_headers(facts: RoundFacts, store: HeaderStore, findings: Findings) -> RoundEvidence:
    """Return the headers that are stored of a round, collecting the failures of check 7.

    A contributor's header has to be stored, unless the round was given up. An excluded node's may say what it
    likes: that may be why it is excluded.
    """
    updates = []
    clips: tuple[float, ...] = ()
    for commitment in facts.record.commitments.values():
        standing = find_standing(facts.record, commitment.node)
        try:
            header = read_header(commitment, store)
        except MissingObject as error:
            if standing is Standing.CONTRIBUTOR and facts.is_binding:
                findings.failures.append(header_failure(commitment, expected="stored", got=error).failure)
            continue
        except CheckFailed as error:
            findings.failures.append(error.failure)
            continue
        try:
            clips = verify_update_header(header, facts, commitment).clips
        except CheckFailed as error:
            findings.expect(standing is Standing.EXCLUDED, error.failure)
            continue
        leaves = tuple(map(Digest, header.chunk_digests))
        updates.append(StoredUpdate(commitment.node, standing, leaves))
    aggregate = read_aggregate_header(facts, store, findings)
    return RoundEvidence(facts, updates, clips, aggregate, plan_tasks(facts, updates, aggregate))


def read_aggregate_header(facts: RoundFacts, store: HeaderStore, findings: Findings) -> Header | None:
    """Return the stored header of a round's sum, collecting the failure of check 10 if it has to be there."""
    published = facts.record.aggregate
    if published is None:
        return None
    expected = "one with the published root"
    try:
        return store.get_header(published.aggregate_root)
    except MissingObject as error:
        if not facts.is_binding:
            return None
        expected, got = "stored", str(error)
    except (DigestMismatch, MalformedMessage) as error:
        got = str(error)
    failure = Failure(
        check=10, field="header of the sum", expected=expected, got=got, round=facts.record.number
    )
    findings.failures.append(failure)
    return None


def examine_rounds(
    rounds: Iterable[RoundEvidence], examine: Examine, findings: Findings, progress: Callable[[int], None]
) -> None:
    """Do all chunk tasks of some rounds, collecting the failures of checks 8, 9 and 10.

    Args:
        rounds: ascending, their headers read.
        examine: does the tasks.
        findings: takes the failures.
        progress: told how many tasks are done, after each.
    """
    rounds = list(rounds)
    seeds = SeedRegister()
    done = 0
    with closing(examine(task for each in rounds for task in each.tasks)) as results:
        for each in rounds:
            for _ in each.tasks:
                result = next(results)
                each.results.append(result)
                findings.failures += [*result.failures, *seeds.take(result)]
                done += 1
                progress(done)
            each.complete = frozenset(
                update.node
                for update in each.updates
                if all(update.node in result.seeds for result in each.results)
            )
            copied = seeds.copied.get(each.facts.record.number, set())
            findings.failures += verify_exclusions(each.facts, each.complete - copied)
            if each.facts.record.aggregate:
                findings.failures += verify_sum(each.facts, each.results, each.aggregate)
