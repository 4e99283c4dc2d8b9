"""docs/tasks.md says what is so."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fedproof.policy import TrainingPlan
from fedproof.tasks.breast_cancer import BreastCancer
from fedproof.tasks.fashion_mnist import FashionMnist
from fedproof.training import TrainingWorker

DOCUMENT = Path(__file__).parents[1] / "docs" / "tasks.md"
PLAN = TrainingPlan(epochs=5, batch_size=16, learning_rate=0.1, momentum=0.9, weight_decay=0.0)


def read_block(language: str) -> str:
    """Return the document's only code block in a language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


def test_example_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document's task, under 40 lines, trains in a training process as the document configures it."""
    example = read_block("python")
    assert len(example.splitlines()) < 40
    (tmp_path / "transactions.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    random = np.random.default_rng(1)
    features = random.normal(size=(400, 8))
    table = tmp_path / "transactions.npz"
    np.savez(table, features=features, fraudulent=features[:, 0] > features[:, 1])
    task = tomllib.loads(read_block("toml"))["task"]
    with TrainingWorker(task["reference"], {**task["settings"], "file": str(table)}, seed=7) as worker:
        layout, genesis = worker.describe()
        outcome = worker.train(genesis, PLAN, 1)
        result = worker.evaluate(outcome.flat)
    assert layout.parameters == 8 * 32 + 32 + 32 * 2 + 2
    assert (outcome.examples, result.examples) == (300, 100)
    assert result.accuracy > 0.9


@pytest.mark.parametrize("task", [BreastCancer, FashionMnist])
def test_settings_are_documented(task: type) -> None:
    """Each setting stands in the task's table, in order and with its default."""
    section = DOCUMENT.read_text().split(f":{task.__name__}`")[1].split("`fedproof.tasks.")[0]
    documented = re.findall(r"^\| `(\w+)(?: = (.*?))?` \|", section, re.MULTILINE)
    parameters = inspect.signature(task).parameters.values()
    defaults = ["" if p.default is p.empty else str(p.default) for p in parameters]
    assert [(name, value.strip('"')) for name, value in documented] == [
        (p.name, default) for p, default in zip(parameters, defaults, strict=True)
    ]
