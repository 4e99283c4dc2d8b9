"""The training process: what it answers, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fedproof.errors import ConfigurationError, TaskFailed, WorkerDied
from fedproof.policy import TrainingPlan
from fedproof.training import TrainingWorker, describe_task, make_child_environment

PLAN = TrainingPlan(epochs=2, batch_size=16, learning_rate=0.05, momentum=0.9, weight_decay=0.0)
BREAST_CANCER = "fedproof.tasks.breast_cancer:BreastCancer"
DEADLINE_S = 30.0

ODD = '''
"""A task that does in training what a setting says."""
import ctypes, sys, time
import torch
from fedproof.task import EvaluationResult, TrainResult

class Odd:
    def __init__(self, *, what="train", marker=""):
        self.what, self.marker = what, marker

    def build_model(self):
        model = torch.nn.Linear(2, 1)
        model.weight.requires_grad_(self.what != "thaw")
        return model

    def train(self, model, plan, *, round):
        print("printed by the task")
        if self.marker:
            open(self.marker, "w").close()
        match self.what:
            case "raise":
                raise KeyError("no such column: age")
            case "thaw":
                model.weight.data.add_(1)
            case "segfault":
                ctypes.string_at(0)
            case "exit":
                sys.exit(3)
            case "hang":
                time.sleep(1000)
            case "hang with Python's lock":
                ctypes.PyDLL(None).sleep(1000)
            case "threads":
                return TrainResult(examples=torch.get_num_threads(), loss=0.0)
        return TrainResult(examples=1, loss=0.0)

    def evaluate(self, model):
        return EvaluationResult(examples=1, loss=0.0, accuracy=1.0)
'''


@pytest.fixture(autouse=True)
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the odd task importable, here and hence in the training process."""
    (tmp_path / "odd.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture(scope="module")
def worker() -> Iterator[TrainingWorker]:
    """Return a worker with a healthy task."""
    with TrainingWorker(BREAST_CANCER, {"hospital": 2}, seed=7) as worker:
        yield worker


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not yet collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the deadline has passed"
        time.sleep(0.02)


def test_describe_returns_the_genesis_model(worker: TrainingWorker) -> None:
    """Layout and first model come from the task; another process with the same seed builds the same."""
    layout, genesis = worker.describe()
    assert layout.parameters == genesis.size == 530
    other_layout, other = describe_task(BREAST_CANCER, {"hospital": 0}, seed=7)
    assert other_layout.digest == layout.digest
    assert np.array_equal(other, genesis)


def test_train_and_evaluate(worker: TrainingWorker) -> None:
    """Training makes a better model of the genesis model, the same each time."""
    _, genesis = worker.describe()
    outcome = worker.train(genesis, PLAN, 1)
    assert outcome.examples == 59
    assert outcome.flat.dtype == np.float32
    assert worker.evaluate(outcome.flat).accuracy > worker.evaluate(genesis).accuracy
    assert np.array_equal(worker.train(genesis, PLAN, 1).flat, outcome.flat)


def test_refused_vector_leaves_the_worker_usable(worker: TrainingWorker) -> None:
    """A vector of another model is refused, and the next request is answered."""
    with pytest.raises(ConfigurationError, match=r"expected a float32 vector of shape \[530\]"):
        worker.train(np.zeros(3, np.float32), PLAN, 1)
    assert worker.evaluate(worker.describe()[1]).examples == 171


def test_worker_survives_ctrl_c(worker: TrainingWorker) -> None:
    """The interrupt that a terminal sends does not end the training process."""
    _, genesis = worker.describe()
    os.kill(worker.pid, signal.SIGINT)
    assert worker.evaluate(genesis).examples == 171
    assert os.getpgid(worker.pid) != os.getpgid(0)


def test_threads_share_a_worker(worker: TrainingWorker) -> None:
    """Requests of several threads each get their own answer."""
    _, genesis = worker.describe()
    expected = {round: worker.train(genesis, PLAN, round).flat for round in (1, 2, 3)}
    came: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda r=round: came.update({r: worker.train(genesis, PLAN, r).flat}))  # type: ignore[misc]
        for round in expected
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(came[round], expected[round]) for round in expected)


def test_wrong_settings_are_a_configuration_error() -> None:
    """What is wrong with the task arrives from the training process as it would be said here."""
    with pytest.raises(ConfigurationError, match=r"^\[task\.settings\] of odd:Odd: .* \(unknown: hospitl\)$"):
        describe_task("odd:Odd", {"hospitl": 0}, seed=1)


def test_task_that_raises_fails_with_its_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The traceback names the user's line, the worker lives, and what the task prints goes to stderr."""
    with TrainingWorker("odd:Odd", {"what": "raise"}, seed=1) as worker:
        _, flat = worker.describe()
        with pytest.raises(TaskFailed) as caught:
            worker.train(flat, PLAN, 1)
        assert worker.evaluate(flat).accuracy == 1.0
    assert "train raised:" in str(caught.value)
    assert 'raise KeyError("no such column: age")' in str(caught.value)
    output = capfd.readouterr()
    assert output.out == ""
    assert "printed by the task" in output.err


def test_training_that_changes_a_frozen_tensor_is_refused() -> None:
    """A task that trains what it froze itself is told which tensor, and the worker lives."""
    with TrainingWorker("odd:Odd", {"what": "thaw"}, seed=1) as worker:
        layout, flat = worker.describe()
        assert (layout.parameters, flat.size) == (1, 1)
        with pytest.raises(
            ConfigurationError, match=r"frozen tensor 'weight': .* training must not change it"
        ):
            worker.train(flat, PLAN, 1)
        assert worker.evaluate(flat).accuracy == 1.0


@pytest.mark.parametrize(
    ("what", "end"),
    [
        ("segfault", "was ended by signal 11, Segmentation fault, while training in round 4"),
        ("exit", "ended with exit status 3 while training in round 4"),
    ],
)
def test_dead_worker_says_how_it_ended(what: str, end: str) -> None:
    """Crashed or gone: the message says which and what was lost, and so does any later request's."""
    with TrainingWorker("odd:Odd", {"what": what}, seed=1) as worker:
        _, flat = worker.describe()
        for attempt in (end, end):
            with pytest.raises(WorkerDied, match=attempt):
                worker.train(flat, PLAN, 4)


def test_request_that_takes_too_long_is_ended() -> None:
    """A timeout ends the process and says what took too long."""
    with TrainingWorker("odd:Odd", {"what": "hang"}, seed=1, timeout_s=DEADLINE_S) as worker:
        _, flat = worker.describe()
        worker.timeout_s = 0.2
        with pytest.raises(TaskFailed, match=r"expected training in round 1 to end within 0\.2 s"):
            worker.train(flat, PLAN, 1)
        await_true(lambda: not is_alive(worker.pid))


def test_close_interrupts_training(tmp_path: Path) -> None:
    """Closing from another thread ends a training that hangs, at once; the waiting thread hears of it."""
    marker = tmp_path / "training"
    worker = TrainingWorker("odd:Odd", {"what": "hang", "marker": str(marker)}, seed=1)
    _, flat = worker.describe()
    caught: list[BaseException] = []

    def train() -> None:
        try:
            worker.train(flat, PLAN, 1)
        except WorkerDied as error:
            caught.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    await_true(marker.exists)
    worker.close()
    thread.join(DEADLINE_S)
    assert "was closed while training in round 1" in str(caught[0])
    assert not is_alive(worker.pid)
    worker.close()
    with pytest.raises(WorkerDied, match="was closed before evaluating"):
        worker.evaluate(flat)


DAEMON = """
import sys, threading
from fedproof.policy import TrainingPlan
from fedproof.training import TrainingWorker

def start():
    global worker
    worker = TrainingWorker("odd:Odd", {"what": sys.argv[1], "marker": sys.argv[2]}, seed=1)

if sys.argv[3] == "main thread":
    start()
else:
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
_, flat = worker.describe()
assert "torch" not in sys.modules
print(worker.pid, flush=True)
worker.train(flat, TrainingPlan(epochs=1, batch_size=1, learning_rate=0.1, momentum=0.0, weight_decay=0.0), 1)
"""


@pytest.mark.parametrize(
    ("what", "thread"),
    [
        ("hang", "main thread"),
        ("hang", "another thread, which has ended"),
        pytest.param(
            "hang with Python's lock",
            "main thread",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's"),
        ),
    ],
)
def test_worker_dies_with_its_daemon(tmp_path: Path, what: str, thread: str) -> None:
    """After kill -9 of a daemon no training process is left, and until then it lives."""
    marker = tmp_path / "training"
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, what, str(marker), thread],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path), os.getcwd()]),
        },
    )
    with daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        await_true(marker.exists)
        assert is_alive(pid)
        daemon.kill()
        daemon.wait()
        await_true(lambda: not is_alive(pid))


def test_threads_are_limited() -> None:
    """torch computes with as many threads as the worker was given."""
    with TrainingWorker("odd:Odd", {"what": "threads"}, seed=1, threads=2) as worker:
        assert worker.train(worker.describe()[1], PLAN, 1).examples == 2


def test_a_task_does_not_see_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the process that runs a user's task lacks the password of the node's keys."""
    monkeypatch.setenv("FEDPROOF_PASSWORD", "correct horse")
    monkeypatch.setenv("FEDPROOF_DATA", "/data")
    environment = make_child_environment(1)
    assert "correct horse" not in environment.values()
    assert environment["FEDPROOF_DATA"] == "/data"
