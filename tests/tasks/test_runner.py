"""Running a task on flat vectors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from fedproof.errors import ConfigurationError, TaskFailed
from fedproof.policy import TrainingPlan
from fedproof.task import EvaluationResult, TrainResult
from fedproof.tasks.runner import TaskRunner

PLAN = TrainingPlan(epochs=1, batch_size=4, learning_rate=0.1, momentum=0.0, weight_decay=0.0)


@dataclass
class Shift:
    """Adds the round's number to every weight, and notes the modes that it finds."""

    result: object = field(default_factory=lambda: TrainResult(examples=3, loss=0.5))
    grow: bool = False
    modes: list[tuple[str, bool, bool]] = field(default_factory=list)

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def train(self, model: nn.Module, plan: TrainingPlan, *, round: int) -> TrainResult:
        self.modes.append(("train", model.training, torch.is_grad_enabled()))
        model(torch.ones(4, 2))  # moves the batch normalisation's statistics and its integer count
        with torch.no_grad():
            for values in model.parameters():
                values.add_(round)
        if self.grow:
            model.append(nn.Linear(2, 2))  # type: ignore[operator]
        return self.result  # type: ignore[return-value]

    def evaluate(self, model: nn.Module) -> EvaluationResult:
        self.modes.append(("evaluate", model.training, torch.is_grad_enabled()))
        return EvaluationResult(examples=1, loss=float(model[0].weight.mean()), accuracy=1.0)  # type: ignore[index]


def test_genesis_depends_on_the_seed_alone() -> None:
    """Whatever torch drew before, equal seeds build equal models, and other seeds others."""
    torch.manual_seed(1)
    first = TaskRunner(Shift(), seed=7)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = TaskRunner(Shift(), seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(first.genesis, second.genesis)
    assert not np.array_equal(first.genesis, TaskRunner(Shift(), seed=8).genesis)


def test_train_returns_the_trained_model() -> None:
    """The vector that comes back is the base with the task's training applied; the base is as it was."""
    runner = TaskRunner(Shift(), seed=7)
    base = np.arange(runner.layout.parameters, dtype=np.float32)
    outcome = runner.train(base, PLAN, round=5)
    assert np.array_equal(base, np.arange(runner.layout.parameters))
    assert np.array_equal(outcome.flat[:10], base[:10] + 5)
    assert (outcome.examples, outcome.loss) == (3, 0.5)
    assert outcome.seconds > 0


def test_nothing_but_the_vector_carries_over() -> None:
    """The same base always trains to the same model, so a restart makes no difference."""
    runner = TaskRunner(Shift(), seed=7)
    first = runner.train(runner.genesis, PLAN, round=1)
    runner.train(first.flat, PLAN, round=2)
    runner.evaluate(first.flat)
    again = runner.train(runner.genesis, PLAN, round=1)
    assert np.array_equal(first.flat, again.flat)


def test_modes_are_set_for_the_task() -> None:
    """A task trains in training mode with gradients, and evaluates in evaluation mode without."""
    task = Shift()
    runner = TaskRunner(task, seed=7)
    runner.evaluate(runner.genesis)
    runner.train(runner.genesis, PLAN, round=1)
    assert task.modes == [("evaluate", False, False), ("train", True, True)]


def test_wrong_vector_is_refused() -> None:
    """A vector of another model never reaches the task."""
    task = Shift()
    runner = TaskRunner(task, seed=7)
    with pytest.raises(ConfigurationError, match="expected a float32 vector"):
        runner.train(runner.genesis[:-1], PLAN, round=1)
    assert task.modes == []


@pytest.mark.parametrize("result", [None, 0.5, {"examples": 3, "loss": 0.5}])
def test_wrong_result_is_refused(result: object) -> None:
    """A task that returns no TrainResult is told so."""
    runner = TaskRunner(Shift(result=result), seed=7)
    with pytest.raises(TaskFailed, match="train: expected it to return TrainResult, got "):
        runner.train(runner.genesis, PLAN, round=1)


def test_model_that_changes_its_layout_is_refused() -> None:
    """Training may not add tensors to the model."""
    runner = TaskRunner(Shift(grow=True), seed=7)
    with pytest.raises(ConfigurationError, match=r"expected no more tensors, got 2\.weight"):
        runner.train(runner.genesis, PLAN, round=1)


@dataclass
class Adapted(Shift):
    """The same, of which the first layer's weight is frozen."""

    thaw: bool = False

    def build_model(self) -> nn.Module:
        model = super().build_model()
        model[0].weight.requires_grad_(False)  # type: ignore[index]
        return model

    def train(self, model: nn.Module, plan: TrainingPlan, *, round: int) -> TrainResult:
        with torch.no_grad():
            for values in model.parameters():
                if values.requires_grad or self.thaw:
                    values.add_(round)
        return TrainResult(examples=3, loss=0.5)


def test_frozen_tensors_do_not_travel() -> None:
    """The vector has the other tensors alone, and a frozen weight is the same in every round."""
    runner = TaskRunner(Adapted(), seed=7)
    assert runner.layout.group_sizes == (2, 2, 2, 2, 2)
    outcome = runner.train(runner.genesis, PLAN, round=5)
    assert np.array_equal(outcome.flat[:6], runner.genesis[:6] + 5)
    before, after = (runner.evaluate(flat).loss for flat in (runner.genesis, outcome.flat))
    assert before == after  # the mean of the frozen weight


def test_training_that_changes_a_frozen_tensor_is_refused() -> None:
    """What does not travel must not be trained either: the tensor is named, and the runner stays usable."""
    runner = TaskRunner(Adapted(thaw=True), seed=7)
    message = r"frozen tensor '0.weight': .* training must not change it"
    with pytest.raises(ConfigurationError, match=message):
        runner.train(runner.genesis, PLAN, round=1)
    assert runner.evaluate(runner.genesis).examples == 1
