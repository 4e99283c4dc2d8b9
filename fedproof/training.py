"""The daemon's side of the training process.

torch lives in a process of its own: it starts slowly, takes memory and may crash, and a round that waits for
chain and network must not wait with all that in the way. Nothing here imports it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedproof.errors import ConfigurationError, TaskFailed, WorkerDied
from fedproof.keys.wallet import PASSWORD_VARIABLE
from fedproof.model import ModelLayout
from fedproof.policy import TrainingPlan
from fedproof.task import EvaluationResult
from fedproof.tasks.messages import (
    Describe,
    Description,
    Evaluate,
    Refusal,
    Reply,
    Request,
    Start,
    Started,
    Train,
    TrainOutcome,
    receive_message,
    send_message,
)

__all__ = ["TrainOutcome", "TrainingWorker", "describe_task"]

Answer = TypeVar("Answer", Started, Description, TrainOutcome, EvaluationResult)

_ERRORS = {"ConfigurationError": ConfigurationError, "TaskFailed": TaskFailed}


class TrainingWorker:
    """A process that holds a task. Use as a context manager.

    Constructing one returns at once, while the process starts; the first request waits for it, and raises
    what is wrong with the task. Any thread may ask; one request runs at a time. It keeps nothing between
    requests, so after `WorkerDied` a new worker does the same work again.

    Args:
        reference: the task, ``package.module:Class``. Found among the installed packages, in PYTHONPATH and,
            last, in the working directory.
        settings: what the task's constructor takes.
        seed: what torch is seeded with before the model is built.
        threads: threads that torch may use.
        timeout_s: longest that one request may take; None waits for ever. May be changed between requests.
    """

    def __init__(
        self,
        reference: str,
        settings: Mapping[str, object],
        *,
        seed: int,
        threads: int = 1,
        timeout_s: float | None = None,
    ) -> None:
        self._reference = reference
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._started = False
        self._closed = False
        self._connection, self._process = _spawn(threads)
        # Small enough for the pipe's buffer, so this does not wait for the process.
        with contextlib.suppress(BrokenPipeError):
            send_message(self._connection, Start(reference, dict(settings), seed, threads))

    def __enter__(self) -> TrainingWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def describe(self) -> tuple[ModelLayout, NDArray[np.float32]]:
        """Return the layout of the task's model, and the genesis model.

        Raises:
            ConfigurationError: the task cannot be used; `TaskFailed` when its own code raised.
            WorkerDied: the process is gone.
        """
        description = self._ask(Describe(), Description, "describing the model")
        return description.layout, description.genesis

    def train(self, flat: NDArray[np.float32], plan: TrainingPlan, round: int) -> TrainOutcome:
        """Return the model that a round of local training makes of `flat`.

        Raises:
            ConfigurationError: `flat` does not belong to the task's model; `TaskFailed` when the task raised.
            WorkerDied: the process is gone.
        """
        return self._ask(Train(flat, plan, round), TrainOutcome, f"training in round {round}")

    def evaluate(self, flat: NDArray[np.float32]) -> EvaluationResult:
        """Return how good a model is on the task's evaluation set.

        Raises:
            ConfigurationError: `flat` does not belong to the task's model; `TaskFailed` when the task raised.
            WorkerDied: the process is gone.
        """
        return self._ask(Evaluate(flat), EvaluationResult, "evaluating")

    def close(self) -> None:
        """End the process, now. A request of another thread's raises `WorkerDied`."""
        self._closed = True
        self._process.kill()  # nothing in it is worth a polite end: all it knows came from us
        self._process.wait()
        with self._lock:
            self._connection.close()

    def _ask(self, request: Request, kind: type[Answer], doing: str) -> Answer:
        with self._lock:
            if self._closed:
                raise WorkerDied(f"training process of {self._reference}: was closed before {doing}")
            try:
                if not self._started:
                    self._receive(Started, "starting")
                    self._started = True
                send_message(self._connection, request)
                return self._receive(kind, doing)
            except (EOFError, ConnectionError) as error:
                raise WorkerDied(
                    f"training process of {self._reference}: {self._describe_end()} while {doing}"
                ) from error
            except ConfigurationError:
                if not self._started:
                    self._process.kill()  # a process without a task has no more answers
                raise
            except BaseException:
                # An answer may still be under way (Ctrl-C), and the next request would take it for its own.
                self._process.kill()
                raise

    def _receive(self, kind: type[Answer], doing: str) -> Answer:
        if not self._connection.poll(self.timeout_s):
            self._process.kill()
            raise TaskFailed(
                f"task {self._reference}: expected {doing} to end within {self.timeout_s} s, got no answer"
            )
        reply = receive_message(self._connection)
        if isinstance(reply, Refusal):
            raise _ERRORS[reply.error](reply.message)
        if not isinstance(reply, kind):
            raise TaskFailed(
                f"training process of {self._reference}: expected {kind.__name__} after {doing}, "
                f"got {type(reply).__name__}"
            )
        return reply

    def _describe_end(self) -> str:
        if self._closed:
            return "was closed"
        status = self._process.wait()
        if status < 0:
            return f"was ended by signal {-status}, {signal.strsignal(-status)},"
        return f"ended with exit status {status}"


def describe_task(
    reference: str, settings: Mapping[str, object], *, seed: int
) -> tuple[ModelLayout, NDArray[np.float32]]:
    """Return the layout of a task's model, and its genesis model under the seed.

    Raises:
        ConfigurationError: the task cannot be used; `TaskFailed` when its own code raised.
        WorkerDied: the process ended before it answered.
    """
    with TrainingWorker(reference, settings, seed=seed) as worker:
        return worker.describe()


def make_child_environment(threads: int) -> dict[str, str]:
    """Return the environment of a process that runs tasks with so many threads.

    It looks for modules where this process does and, last, in the working directory. Start it with
    `python -P`, or a file in the working directory could hide one of the standard library. The password of
    this node's keys is none of a task's business and is left out.
    """
    path = [*filter(None, sys.path), os.getcwd()]
    inherited = {name: value for name, value in os.environ.items() if name != PASSWORD_VARIABLE}
    return {**inherited, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": str(threads)}


def _spawn(threads: int) -> tuple[Connection[Request, Reply], subprocess.Popen[bytes]]:
    ours, theirs = Pipe()
    bound = "bound" if threading.current_thread() is threading.main_thread() else "unbound"
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-P", "-m", "fedproof.tasks.process", str(theirs.fileno()), bound],
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        env=make_child_environment(threads),
        process_group=0,  # a terminal's Ctrl-C does not reach it, not even before it says that it ignores it
    )
    theirs.close()
    return ours, process
