"""The training process of this node, started anew whenever it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedproof.errors import TaskFailed, WorkerDied
from fedproof.model import ModelLayout
from fedproof.policy import Policy
from fedproof.task import EvaluationResult
from fedproof.training import TrainingWorker, TrainOutcome

Answer = TypeVar("Answer")

# Training may outlast a short commitment window, which the deadline then notices; hanging is another matter.
_SHORTEST_TIMEOUT_S = 60.0


class Trainer:
    """Keeps one training process ready. Use as a context manager.

    A request that fails because of the task, or of the process itself, raises and is not repeated; where the
    process is gone, the next request meets another. Training and evaluation may take as long as a commitment
    may: later nobody wants the answer.
    """

    def __init__(self, reference: str, settings: Mapping[str, object], *, policy: Policy) -> None:
        """Start the process; returns before it is ready."""
        self._reference = reference
        self._settings = settings
        self._policy = policy
        self._worker = self._start()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()

    def describe(self) -> tuple[ModelLayout, NDArray[np.float32]]:
        """Return the layout of the task's model, and the genesis model.

        Raises:
            ConfigurationError: the task cannot be used; `TaskFailed` when its own code raised.
            WorkerDied: the process is gone.
        """
        self._worker.timeout_s = None  # a first import of torch from a cold disk takes what it takes
        return self._ask(lambda worker: worker.describe())

    def train(self, base: NDArray[np.float32], *, round_number: int) -> TrainOutcome:
        """Return what one round of local training makes of the base model.

        Raises:
            TaskFailed: the task raised, or took longer than the commitment window.
            WorkerDied: the process is gone.
        """
        self._worker.timeout_s = self._timeout_s()
        return self._ask(lambda worker: worker.train(base, self._policy.training, round_number))

    def evaluate(self, model: NDArray[np.float32]) -> EvaluationResult:
        """Return how good a model is on the task's evaluation set.

        Raises:
            TaskFailed: the task raised, or took longer than the commitment window.
            WorkerDied: the process is gone.
        """
        self._worker.timeout_s = self._timeout_s()
        return self._ask(lambda worker: worker.evaluate(model))

    def _timeout_s(self) -> float:
        return max(_SHORTEST_TIMEOUT_S, float(self._policy.rounds.commit_window_s))

    def _ask(self, request: Callable[[TrainingWorker], Answer]) -> Answer:
        try:
            return request(self._worker)
        except TaskFailed:
            # One that took too long was killed; one whose task raised is as good as before.
            if not self._is_alive():
                self._replace()
            raise
        except WorkerDied:
            self._replace()
            raise

    def _is_alive(self) -> bool:
        try:
            self._worker.describe()
        except (TaskFailed, WorkerDied):
            return False
        return True

    def _replace(self) -> None:
        self._worker.close()
        self._worker = self._start()

    def _start(self) -> TrainingWorker:
        return TrainingWorker(
            self._reference,
            self._settings,
            seed=self._policy.model.seed,
        )
