"""Several processes come to the same as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from fedproof_auditor.chunks import ChunkResult, ChunkTask
from fedproof_auditor.documents import AdoptedPolicy
from fedproof_auditor.findings import Findings
from fedproof_auditor.pool import examine_in_processes
from fedproof_auditor.rounds import read_headers
from fedproof_auditor.stored import StoredEvidence
from fedproof_auditor.updates import RoundFacts

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
            RoundFacts(evidence.chain_id, evidence.contract, world.audit().chronicle.rounds[number], policy),
            store,
            Findings(),
        ).tasks
    ]


def test_processes_give_the_results_in_order(world: World, tasks: list[ChunkTask]) -> None:
    """Two processes return what one returns, in the order of the tasks."""
    with examine_in_processes(world.store, jobs=1) as examine:
        alone = list(examine(tasks))
    with examine_in_processes(world.store, jobs=2) as examine:
        together = list(examine(tasks))
    assert len(alone) == 4
    assert together == alone
    assert all(result.sum_digest for result in together)


def test_few_chunks_start_no_process(
    world: World, tasks: list[ChunkTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a wish, a small audit stays in its own process."""

    def refuse(*_arguments: object, **_options: object) -> Iterator[ChunkResult]:
        raise AssertionError("a process was started")

    monkeypatch.setattr("fedproof_auditor.pool.ProcessPoolExecutor", refuse)
    with examine_in_processes(world.store, jobs=None) as examine:
        assert len(list(examine(iter_of(tasks)))) == 4


def iter_of(tasks: Iterable[ChunkTask]) -> Iterator[ChunkTask]:
    yield from tasks
