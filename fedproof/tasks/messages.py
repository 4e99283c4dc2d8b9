"""What a daemon and its training process say to each other, over `multiprocessing.connection`.

That pickles. Both ends are one user's on one machine, and the training process already runs the user's code
with all of the user's rights, so nothing is given away. No type of torch's is ever in a message.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedproof.model import ModelLayout
from fedproof.policy import TrainingPlan
from fedproof.task import EvaluationResult


@dataclass(frozen=True, slots=True)
class Start:
    """Load the task and build its model; always the first request."""

    reference: str
    settings: Mapping[str, object]
    seed: int
    threads: int


@dataclass(frozen=True, slots=True)
class Describe:
    """Say what the genesis model is."""


@dataclass(frozen=True, slots=True)
class Train:
    """Train a model."""

    flat: NDArray[np.float32]
    plan: TrainingPlan
    round: int


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate a model."""

    flat: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Started:
    """The task is ready."""


@dataclass(frozen=True, slots=True)
class Description:
    """The genesis model."""

    layout: ModelLayout
    genesis: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """A trained model.

    Attributes:
        flat: float32 vector of shape (d,).
        examples: training examples behind it; its weight.
        loss: mean training loss over the last epoch.
        seconds: what the training alone took.
    """

    flat: NDArray[np.float32]
    examples: int
    loss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """It did not work."""

    error: Literal["ConfigurationError", "TaskFailed"]
    message: str


Request: TypeAlias = Start | Describe | Train | Evaluate
Reply: TypeAlias = Started | Description | TrainOutcome | EvaluationResult | Refusal


def send_message(connection: Connection[Any, Any], message: Request | Reply) -> None:
    """Send a message. Its vectors go after it, as they lie in memory: nothing is copied.

    Raises:
        ConnectionError: the other process is gone.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    connection.send((head, [view.nbytes for view in views]))
    for view in views:
        rest = view
        while rest:
            rest = rest[os.write(connection.fileno(), rest) :]


def receive_message(connection: Connection[Any, Any]) -> Any:
    """Return the next message, its vectors read into place.

    Raises:
        EOFError: the other process is gone; also ConnectionError.
    """
    head, sizes = connection.recv()
    buffers = []
    for size in sizes:
        buffer = np.empty(size, dtype=np.uint8)
        rest = buffer.data
        while rest:
            count = os.readv(connection.fileno(), [rest])
            if not count:
                raise EOFError
            rest = rest[count:]
        buffers.append(buffer)
    return pickle.loads(head, buffers=buffers)  # noqa: S301 - the two ends are one user's, see above
