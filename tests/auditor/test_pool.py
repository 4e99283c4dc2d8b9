"""Several processes come to the same as one, and take tasks as they can do them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest
from fedproof_auditor.chunks import ChunkTask
from fedproof_auditor.documents import AdoptedPolicy
from fedproof_auditor.findings import Findings
from fedproof_auditor.pool import examine_in_parallel
from fedproof_auditor.rounds import read_headers
from fedproof_auditor.stored import StoredEvidence
from fedproof_auditor.updates import RoundFacts

from fedproof.codec import CodecParameters
from tests.auditor.world import World


@pytest.fixture(scope="module")
def tasks(world: World) -> list[ChunkTask]:
    """The chunk tasks of two rounds."""
    policy = AdoptedPolicy(world.policy, world.policy.codec_parameters())
    store = StoredEvidence(world.store)
    evidence = world.evidence
    return [
        task
        for number in (1, 2)
        for task in read_headers(
            RoundFacts(
                evidence.chain_id,
                evidence.contract,
                world.audit().chronicle.rounds[number],
                policy,
                has_expired=False,
            ),
            store,
            Findings(),
        ).tasks
    ]


def test_processes_give_the_results_in_order(world: World, tasks: list[ChunkTask]) -> None:
    """Two processes return what one returns, in the order of the tasks."""
    store = StoredEvidence(world.store)
    alone = list(examine_in_parallel(store, jobs=1)(tasks))
    together = list(examine_in_parallel(store, jobs=2)(tasks))
    assert len(alone) == 4
    assert together == alone
    assert all(result.sum_digest for result in together)


def test_tasks_are_taken_as_they_are_done(world: World, tasks: list[ChunkTask]) -> None:
    """However many there are, four for each process are under way; what was not taken is not done."""
    left = iter(tasks * 5)
    with closing(examine_in_parallel(StoredEvidence(world.store), jobs=1)(left)) as results:
        first = [next(results), next(results)]
    assert [result.task for result in first] == tasks[:2]
    assert len(list(left)) == 20 - 5


def test_each_policy_is_examined_by_its_own_parameters(world: World, tasks: list[ChunkTask]) -> None:
    """Tasks of another codec between others are refused by its measure, and change nothing for the others."""
    other = replace(tasks[0], parameters=CodecParameters.plan(bits=8, max_contributors=4))
    results = list(examine_in_parallel(StoredEvidence(world.store), jobs=1)([tasks[0], other, tasks[1]]))
    assert [bool(result.sum_digest) for result in results] == [True, False, True]
    assert {failure.check for failure in results[1].failures} == {8, 10}
