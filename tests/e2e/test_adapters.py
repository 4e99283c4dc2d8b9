"""A federation of real processes that trains low-rank adapters of a model that everybody has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from fedproof.commands.codec import compute_update_bytes
from fedproof.local import Event, LocalFederation
from fedproof.model import Model, load_model, save_model
from fedproof.policy import Policy
from fedproof.tasks.fashion_mnist import FashionMnist
from fedproof.tasks.runner import TaskRunner
from tests.tasks.fashion_files import write_bars

from .conftest import audit, follow, make_plan, of_kind

pytestmark = pytest.mark.e2e

ROUNDS = 2


@dataclass(frozen=True)
class AdapterRun:
    """A run that has ended, and the first node's task, built as it builds it."""

    federation: LocalFederation
    events: list[Event]
    policy: Policy
    runner: TaskRunner


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdapterRun]:
    """Two nodes, two rounds: adapters of rank 8 in a CNN from a file."""
    folder = tmp_path_factory.mktemp("adapters")
    write_bars(folder)
    whole = TaskRunner(FashionMnist(node=0, folder=str(folder)), seed=3)
    clips = (1.0,) * len(whole.layout.group_sizes)
    save_model(folder / "cnn.model", whole.layout, Model(whole.genesis, clips))
    common = {"nodes": 2, "adapter_rank": 8, "folder": str(folder), "pretrained": str(folder / "cnn.model")}
    plan = make_plan(
        rounds=ROUNDS,
        task="fedproof.tasks.fashion_mnist:FashionMnist",
        nodes={f"node-{i}": {**common, "node": i} for i in range(2)},
        policy={
            "max-contributors": "4", "min-contributors": "2", "attestation-quorum": "2",
            "epochs": "1", "batch-size": "8", "learning-rate": "0.03",
        },
    )  # fmt: skip
    with LocalFederation(folder / "run", plan) as federation:
        federation.prepare()
        federation.start()
        events = follow(federation)
        policy = Policy.load(federation.folder / "policy.toml")
        task = FashionMnist(**plan.nodes["node-0"])  # type: ignore[arg-type]
        yield AdapterRun(federation, events, policy, TaskRunner(task, seed=policy.model.seed))


def test_only_adapters_are_sent(run: AdapterRun) -> None:
    """Every upload has the adapters' frames, and not those of the 105,866 values that are frozen."""
    values = 8 * ((16 + 9) + (32 + 16 * 9) + (64 + 1568) + (10 + 64))
    assert run.policy.model.parameters == values
    sent = [event["bytes_sent"] for event in of_kind(run.events, "uploaded")]
    codec = run.policy.codec_parameters()
    assert sent == [compute_update_bytes(codec, values)] * 2 * ROUNDS
    assert sent[0] < compute_update_bytes(codec, 105_866) / 4


def test_adapters_learn_on_frozen_tensors_that_stay(run: AdapterRun) -> None:
    """The nodes' last model, on top of the file's, is better, and as good as they say."""
    assert [event["round"] for event in of_kind(run.events, "finalised")] == [1, 2]
    assert run.runner.layout.digest == run.policy.model.architecture
    before = run.runner.evaluate(run.runner.genesis)
    last = [event for event in of_kind(run.events, "applied") if event["round"] == ROUNDS]
    assert len({event["model"] for event in last}) == 1
    for node, event in zip(("node-0", "node-1"), last, strict=True):
        models = run.federation.folder / "nodes" / node
        (path,) = models.rglob(f"{event['model'].removeprefix('0x')}.model")
        layout, model = load_model(path)
        assert layout == run.runner.layout
        assert not np.array_equal(model.flat, run.runner.genesis)
        after = run.runner.evaluate(model.flat)
        assert (after.accuracy, after.loss) == (event["accuracy"], pytest.approx(event["loss"]))
        assert after.loss < before.loss


def test_a_run_with_adapters_is_audited(run: AdapterRun) -> None:
    """The audit, which knows the frozen tensors by the architecture's digest alone, ends with status 0."""
    report = audit(run.federation.folder)
    assert report.returncode == 0, report.stdout + report.stderr
    assert json.loads(report.stdout)["counts"]["updates"] == 2 * ROUNDS
