"""Naming a task and constructing it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedproof.errors import ConfigurationError, TaskFailed
from fedproof.task import EvaluationResult, TrainResult, load_task

MODULE = """
class Good:
    def __init__(self, *, folder: str, share: float = 0.5) -> None:
        if share > 1:
            raise ValueError("a share beyond the whole")
        self.folder = folder

    def build_model(self): ...
    def train(self, model, plan, *, round): ...
    def evaluate(self, model): ...

class Mute:
    def build_model(self): ...
    def train(self, model, plan, *, round): ...

good = Good(folder="")
"""


@pytest.fixture(autouse=True)
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module of the user's importable."""
    (tmp_path / "users_own.py").write_text(MODULE)
    (tmp_path / "users_broken.py").write_text("import a_missing_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_own", raising=False)


def test_load_task_constructs_with_the_settings() -> None:
    """The class that the reference names gets the settings as keyword arguments."""
    task = load_task("users_own:Good", {"folder": "scans"})
    assert type(task).__name__ == "Good"
    assert vars(task) == {"folder": "scans"}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("users_own.Good", "expected package.module:Class, got 'users_own.Good'"),
        ("users_own:", "expected package.module:Class, got 'users_own:'"),
        ("users own:Good", "expected package.module:Class"),
        ("..users_own:Good", "expected package.module:Class"),
        ("a:b:c", "expected package.module:Class"),
        ("nowhere.at_all:Good", "expected a module nowhere.at_all that can be imported, found no nowhere"),
        ("users_own:Bad", "expected a class Bad in users_own, got nothing of that name"),
        ("users_own:good", "expected a class good in users_own, got a Good"),
        ("users_own:Mute", "expected the methods build_model, train, evaluate, missing: evaluate"),
    ],
)
def test_load_task_refuses_a_reference_that_names_no_task(reference: str, message: str) -> None:
    """The message says what was expected and what the reference led to."""
    with pytest.raises(ConfigurationError) as caught:
        load_task(reference, {"folder": ""})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folder": "x", "shar": 1}, "expected folder, share (= 0.5); got folder, shar (unknown: shar)"),
        ({}, "expected folder, share (= 0.5); got none (missing a required argument: 'folder')"),
    ],
)
def test_load_task_refuses_other_settings(settings: dict[str, object], message: str) -> None:
    """The message names the file's table, what the constructor takes, and what came."""
    with pytest.raises(ConfigurationError) as caught:
        load_task("users_own:Good", settings)
    assert str(caught.value).startswith("[task.settings] of users_own:Good: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "settings", "message"),
    [
        ("users_own:Good", {"folder": "", "share": 2}, "ValueError: a share beyond the whole"),
        ("users_broken:Good", {}, "No module named 'a_missing_dependency'"),
    ],
)
def test_load_task_shows_where_the_users_code_raised(
    reference: str, settings: dict[str, object], message: str
) -> None:
    """An error inside the user's code arrives with its traceback, not as a wrong reference."""
    with pytest.raises(TaskFailed) as caught:
        load_task(reference, settings)
    assert message in str(caught.value)
    assert "Traceback" in str(caught.value)


def test_results_hold_plain_numbers() -> None:
    """What numpy counted leaves the training process as Python's own numbers."""
    result = EvaluationResult(np.int64(7), loss=np.float32(0.5), accuracy=np.float64(1.0))  # type: ignore[arg-type]
    assert [type(value) for value in (result.examples, result.loss, result.accuracy)] == [int, float, float]


@pytest.mark.parametrize("examples", [0, -1, 2.0, None])
def test_results_refuse_a_count_of_no_examples(examples: object) -> None:
    """An update's weight is a positive integer."""
    with pytest.raises(TaskFailed, match="task: examples: expected"):
        TrainResult(examples=examples, loss=0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("accuracy", [-0.01, 1.01, 97.0, float("nan")])
def test_results_refuse_an_accuracy_that_is_no_fraction(accuracy: float) -> None:
    """A percentage is not taken for a fraction."""
    with pytest.raises(TaskFailed, match="expected a fraction from 0 to 1"):
        EvaluationResult(examples=1, loss=0.1, accuracy=accuracy)


def test_task_and_training_import_no_torch() -> None:
    """A daemon that imports the seam and the worker does not pay for torch."""
    script = (
        "import sys, fedproof.task, fedproof.training, fedproof.baselines; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
