"""The seam between fedproof and a participant's own model and data.

A task is a class that builds the model, trains it on this participant's data and evaluates it. A node's
configuration names it as ``package.module:Class`` and gives the settings that its constructor takes.

This module loads no deep-learning library: a node's daemon imports it, and only the training process,
which runs the task, pays for torch.
"""

from __future__ import annotations

import inspect
import operator
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from fedproof.errors import ConfigurationError, FedproofError, TaskFailed

if TYPE_CHECKING:
    import torch

    from fedproof.policy import TrainingPlan

METHODS = ("build_model", "train", "evaluate")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What one round of local training was. Constructing one checks it.

    Attributes:
        examples: how many different training examples stand behind the update; the update's weight.
        loss: mean training loss over the last epoch.
    """

    examples: int
    loss: float

    def __post_init__(self) -> None:
        _set_number(self, "examples", _read_count(self.examples))
        _set_number(self, "loss", float(self.loss))


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """How good a model is on the task's evaluation set. Constructing one checks it.

    Attributes:
        examples: size of that set.
        loss: mean loss on it.
        accuracy: fraction of it that the model gets right, 0 to 1.
    """

    examples: int
    loss: float
    accuracy: float

    def __post_init__(self) -> None:
        _set_number(self, "examples", _read_count(self.examples))
        _set_number(self, "loss", float(self.loss))
        _set_number(self, "accuracy", float(self.accuracy))
        if not 0.0 <= self.accuracy <= 1.0:
            raise TaskFailed(f"task: accuracy: expected a fraction from 0 to 1, got {self.accuracy}")


class Task(Protocol):
    """A participant's model and data.

    The three methods run in the training process, one at a time.
    """

    def build_model(self) -> torch.nn.Module:
        """Return the untrained model.

        Every participant builds the same architecture, whatever its data. torch's global generator is
        seeded with the policy's seed before the call, so the usual initialisation is the same everywhere.

        Parameters with ``requires_grad = False`` are frozen: they do not travel, every participant has to
        build them with the same values, and `train` must leave them alone.
        """
        ...

    def train(self, model: torch.nn.Module, plan: TrainingPlan, *, round: int) -> TrainResult:
        """Train the model, in place, on this participant's data.

        Args:
            model: built by `build_model`, holding the round's base model.
            plan: the policy's hyper-parameters, equal for all participants.
            round: the round's number; mix it into the seed of what is drawn at random.
        """
        ...

    def evaluate(self, model: torch.nn.Module) -> EvaluationResult:
        """Evaluate the model, unchanged, on this participant's evaluation set.

        The model is in evaluation mode, and no gradients are recorded.
        """
        ...


def load_task(reference: str, settings: Mapping[str, object]) -> Task:
    """Return the task that ``package.module:Class`` names, constructed with the settings.

    Raises:
        ConfigurationError: the reference has another form, its module or class does not exist, the class
            lacks a method, or its constructor takes other settings; `TaskFailed` when the user's code raised.
    """
    try:
        constructor = _find_class(reference)
        _check_settings(reference, constructor, settings)
        return cast(Task, constructor(**settings))
    except FedproofError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise TaskFailed(
            f"task {reference}: raised while it was loaded:\n{traceback.format_exc()}"
        ) from error


def _set_number(result: object, name: str, value: float) -> None:
    # Plain numbers in place of numpy's and torch's scalars: a result leaves the process that has torch.
    object.__setattr__(result, name, value)


def _read_count(examples: int) -> int:
    try:
        count = operator.index(examples)
    except TypeError as error:
        raise TaskFailed(f"task: examples: expected an integer, got {examples!r}") from error
    if count < 1:
        raise TaskFailed(f"task: examples: expected at least one, got {count}")
    return count


def _find_class(reference: str) -> type:
    module_name, colon, class_name = reference.partition(":")
    if not (colon and class_name.isidentifier() and all(map(str.isidentifier, module_name.split(".")))):
        raise ConfigurationError(f"task: expected package.module:Class, got {reference!r}")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it needs is not: its own traceback says what
        raise ConfigurationError(
            f"task {reference}: expected a module {module_name} that can be imported, found no {error.name} "
            "(looked among the installed packages, in PYTHONPATH and in the working directory)"
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        got = "nothing of that name" if found is None else f"a {type(found).__name__}"
        raise ConfigurationError(
            f"task {reference}: expected a class {class_name} in {module_name}, got {got}"
        )
    if missing := [name for name in METHODS if not callable(getattr(found, name, None))]:
        raise ConfigurationError(
            f"task {reference}: expected the methods {', '.join(METHODS)}, missing: {', '.join(missing)}"
        )
    return found


def _check_settings(reference: str, constructor: type, settings: Mapping[str, object]) -> None:
    signature = inspect.signature(constructor)
    try:
        signature.bind(**settings)
    except TypeError as error:
        unknown = ", ".join(name for name in settings if name not in signature.parameters)
        raise ConfigurationError(
            f"[task.settings] of {reference}: expected {_describe_parameters(signature)}; "
            f"got {', '.join(settings) or 'none'} ({f'unknown: {unknown}' if unknown else error})"
        ) from error


def _describe_parameters(signature: inspect.Signature) -> str:
    """Return a signature's parameters as the reader of a configuration file needs them: ``a, b (= 3)``."""
    return (
        ", ".join(
            name if parameter.default is parameter.empty else f"{name} (= {parameter.default!r})"
            for name, parameter in signature.parameters.items()
        )
        or "no settings"
    )
