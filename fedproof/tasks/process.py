"""The training process: `python -m fedproof.tasks.process`, which fedproof/training.py starts and talks to.

It ends when the daemon's end of the connection closes, which the kernel does however the daemon ends.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from fedproof.errors import ConfigurationError, FedproofError, TaskFailed
from fedproof.task import load_task
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
    receive_message,
    send_message,
)

if TYPE_CHECKING:
    from fedproof.tasks.runner import TaskRunner

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Serve requests on the connection whose descriptor is the first argument, until it closes.

    The second argument is "bound" if the daemon started this process from its main thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the daemon decides what Ctrl-C means
    faulthandler.enable()
    # What a task prints must not get between the lines that the daemon logs on its standard output.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if sys.argv[2] == "bound":
        _die_with_parent()
    connection: Connection[Reply, Request] = Connection(int(sys.argv[1]))
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    runner: TaskRunner | None = None
    while True:
        request = requests.get()
        try:
            if isinstance(request, Start):
                runner = _start(request)
                reply: Reply = Started()
            elif runner is None:
                raise ConfigurationError("training process: expected a request to start first")
            else:
                reply = _answer(runner, request)
        except TaskFailed as error:
            reply = Refusal("TaskFailed", str(error))
        except FedproofError as error:
            reply = Refusal("ConfigurationError", str(error))
        send_message(connection, reply)


def _receive(connection: Connection[Reply, Request], requests: queue.SimpleQueue[Request]) -> None:
    """Queue what arrives. A thread of its own, so that the daemon's end is noticed while a task trains."""
    while True:
        try:
            requests.put(receive_message(connection))
        except (EOFError, OSError):
            os._exit(0)


def _start(request: Start) -> TaskRunner:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"training process: expected torch (in a clone of fedproof: pip install '.[node]'): {error}"
        ) from error
    from fedproof.tasks.runner import TaskRunner

    torch.set_num_threads(request.threads)
    return TaskRunner(load_task(request.reference, request.settings), seed=request.seed)


def _answer(runner: TaskRunner, request: Describe | Train | Evaluate) -> Reply:
    match request:
        case Describe():
            return Description(runner.layout, runner.genesis)
        case Train(flat, plan, round):
            return runner.train(flat, plan, round=round)
        case Evaluate(flat):
            return runner.evaluate(flat)


def _die_with_parent() -> None:
    """Have Linux kill this process with its parent, even while the task's C code holds Python's lock.

    Linux ties this to the parent's *thread*: if any but the main one started us, we would die too early.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
