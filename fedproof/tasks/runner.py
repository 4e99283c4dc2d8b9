"""Running a task on flat vectors: what the training process does, and the baselines."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedproof.errors import FedproofError, TaskFailed
from fedproof.task import EvaluationResult, Task, TrainResult
from fedproof.tasks.flat import compute_layout, flatten_model, load_flat
from fedproof.tasks.messages import TrainOutcome

if TYPE_CHECKING:
    from fedproof.policy import TrainingPlan

Result = TypeVar("Result")


class TaskRunner:
    """A task with its genesis model.

    Each call starts from a model built afresh under the seed, so that nothing but the flat vector carries
    over from one round to the next: a restarted node trains as one that never stopped.

    Args:
        task: the user's.
        seed: the policy's, for the genesis model.

    Raises:
        ConfigurationError: the model has no layout that can travel.
        TaskFailed: building it failed.
    """

    def __init__(self, task: Task, *, seed: int) -> None:
        self._task = task
        self._seed = seed
        model = self._build()
        self.layout = compute_layout(model)
        self.genesis = flatten_model(model, self.layout)

    def train(self, flat: NDArray[np.float32], plan: TrainingPlan, *, round: int) -> TrainOutcome:
        """Return the trained model, and what the task says about it.

        Raises:
            ConfigurationError: the vector does not belong to the layout.
            TaskFailed: the task raised, or returned something else than a result.
        """
        model = self._load(flat)
        start = time.perf_counter()
        result = _call_task(lambda: self._task.train(model, plan, round=round), "train", TrainResult)
        seconds = time.perf_counter() - start
        return TrainOutcome(flatten_model(model, self.layout), result.examples, result.loss, seconds)

    def evaluate(self, flat: NDArray[np.float32]) -> EvaluationResult:
        """Return how good a model is.

        Raises:
            ConfigurationError: the vector does not belong to the layout.
            TaskFailed: the task raised, or returned something else than a result.
        """
        model = self._load(flat).eval()
        with torch.no_grad():
            return _call_task(lambda: self._task.evaluate(model), "evaluate", EvaluationResult)

    def _build(self) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            return _call_task(self._task.build_model, "build_model", torch.nn.Module)

    def _load(self, flat: NDArray[np.float32]) -> torch.nn.Module:
        model = self._build()
        load_flat(model, self.layout, flat)
        return model


def _call_task(call: Callable[[], object], method: str, expected: type[Result]) -> Result:
    """Return what one of the task's methods returns, checked; what it raises becomes our error."""
    try:
        result = call()
    except FedproofError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise TaskFailed(f"task: {method} raised:\n{traceback.format_exc()}") from error
    if not isinstance(result, expected):
        raise TaskFailed(
            f"task: {method}: expected it to return {expected.__qualname__}, got {type(result).__qualname__}"
        )
    return result
