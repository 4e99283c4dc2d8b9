"""Tests of codec workers that die, hang, lie or are left behind: with real processes and real signals."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedproof.codec import Codec, CodecParameters, SecretKey, nursery, worker_process
from fedproof.codec.cipher import UpdateEncryptor
from fedproof.codec.messages import LARGEST_BODY, Kind, receive_message, send_message
from fedproof.codec.nursery import Child
from fedproof.codec.worker import MEMORY_BYTES, SUM_BYTES, Worker, _answer_all
from fedproof.codec.worker_process import WorkerProcess
from fedproof.codec.workers import CodecWorkers, Piece
from fedproof.errors import ConfigurationError, DeadlyRequest, WorkerDied
from fedproof.keys.wallet import PASSWORD_VARIABLE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

SCRIPT = """
import sys
import numpy as np
from fedproof.codec import CodecParameters, SecretKey
from fedproof.codec.workers import CodecWorkers, Piece

piece = Piece(np.zeros(9, dtype=np.float32), ((9, 1.0),), bytes(32))
parameters = CodecParameters.plan(bits=15, max_contributors=16)
workers = CodecWorkers(parameters, processes=2, secret_key=SecretKey.generate())
pieces = workers.encode([piece] * 9, weight=1.0)
chunk = next(pieces).chunk
for index in range(2):
    workers.add(index, chunk, whose="node 1")
print(*(worker.pid for worker in workers._workers), flush=True)
"""


@pytest.fixture
def workers(parameters: CodecParameters, secret_key: SecretKey) -> Iterator[CodecWorkers]:
    """A single process, which has begun."""
    with CodecWorkers(parameters, processes=1, secret_key=secret_key) as started:
        started.drop(0)
        yield started


@pytest.fixture(scope="module")
def chunks(codec: Codec, encryptor: UpdateEncryptor) -> list[bytes]:
    size = codec.parameters.values_per_chunk
    return [codec.encrypt_chunk(np.full(size, number), encryptor) for number in range(3)]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system where workers are not forked."""
    monkeypatch.setattr(nursery, "FORKS", False)


def be_impatient_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a worker that gives no answer replaced at once, and its successor given time."""

    def start_patiently() -> Child:
        monkeypatch.undo()
        return nursery.start_worker()

    monkeypatch.setattr(worker_process, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(worker_process, "start_worker", start_patiently)


def find_pid(workers: CodecWorkers) -> int:
    pid = workers._workers[0].pid
    assert pid is not None
    return pid


def wait_for_end(pid: int) -> None:
    """Wait until the process has ended, and nothing is left of it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 60)[0]
    finally:
        os.close(descriptor)


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Return a thread that works, and where its result or error goes."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(work())
        except WorkerDied as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


@pytest.mark.parametrize("kind", ["sum", "encode", "decode"])
def test_a_request_whose_process_is_killed_is_made_again(
    workers: CodecWorkers, codec: Codec, chunks: list[bytes], kind: str
) -> None:
    """A process that is killed over a request is replaced, and the caller sees nothing but the answer."""
    length = codec.parameters.values_per_chunk
    total = codec.sum_chunks(chunks)
    piece = Piece(np.zeros(9, dtype=np.float32), ((9, 1.0),), bytes(32))

    def work() -> object:
        if kind == "sum":
            return workers.sum_chunks((f"node {number}", chunk) for number, chunk in enumerate(chunks))
        if kind == "decode":
            (sums,) = workers.decode([total], contributors=3, length=length)
            return sums.tolist()
        return len(list(workers.encode([piece], weight=1.0)))

    first = find_pid(workers)
    os.kill(first, signal.SIGSTOP)  # so that it is killed before it can answer
    thread, outcome = in_thread(work)
    os.kill(first, signal.SIGKILL)
    thread.join()
    assert outcome == [{"sum": total, "decode": [3] * length, "encode": 1}[kind]]
    assert find_pid(workers) != first


def test_a_request_that_always_kills_is_given_up(workers: CodecWorkers) -> None:
    """A piece whose clips are not as many as its values crashes each worker: two die of it, no more."""
    piece = Piece(np.zeros(9, dtype=np.float32), ((3, 1.0), (4, 0.5)), bytes(32))
    with pytest.raises(WorkerDied, match=r"^codec worker: died twice while encrypting chunk 0$"):
        list(workers.encode([piece], weight=1.0))
    whole = Piece(np.zeros(9, dtype=np.float32), ((9, 1.0),), bytes(32))
    assert len(list(workers.encode([whole], weight=1.0))) == 1


def test_a_process_that_died_idle_counts_for_no_request(
    workers: CodecWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request is deadly when two processes died of it; one that was killed before does not count."""
    started: list[Child] = []

    def start_and_note() -> Child:
        started.append(nursery.start_worker())
        return started[-1]

    monkeypatch.setattr(worker_process, "start_worker", start_and_note)
    first = find_pid(workers)
    os.kill(first, signal.SIGKILL)
    wait_for_end(first)
    piece = Piece(np.zeros(9, dtype=np.float32), ((3, 1.0), (4, 0.5)), bytes(32))
    with pytest.raises(DeadlyRequest):
        list(workers.encode([piece], weight=1.0))
    assert len(started) == 2


@pytest.mark.parametrize("kind", ["running", "whole"])
def test_whose_chunk_it_was_is_named(workers: CodecWorkers, chunks: list[bytes], kind: str) -> None:
    """When every process dies, the error names whose chunk was handled; afterwards work goes on."""
    if kind == "running":
        work: Callable[[], object] = lambda: workers.add(5, chunks[0], whose="node 7")  # noqa: E731
        named = "node 7, chunk 5"
    else:
        work, named = lambda: workers.sum_chunks([("node 7", chunks[0])]), "the sum"
    first = find_pid(workers)
    os.kill(first, signal.SIGSTOP)
    thread, outcome = in_thread(work)
    killed = set()
    while thread.is_alive():
        pid = workers._workers[0].pid
        if pid is not None and pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
    assert killed >= {first}
    assert len(killed) in {2, 3}  # the first one does not count if it was killed before it was asked
    assert isinstance(outcome[0], WorkerDied)
    assert str(outcome[0]) == f"codec worker: died twice while starting, before handling {named}"
    workers.drop(5)


def test_a_process_that_hangs_is_replaced(
    workers: CodecWorkers, codec: Codec, chunks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that gives no answer in time is killed, and the request made again."""
    hanging = find_pid(workers)
    os.kill(hanging, signal.SIGSTOP)
    be_impatient_once(monkeypatch)
    assert workers.sum_chunks([("node 1", chunks[0])]) == codec.sum_chunks(chunks[:1])
    wait_for_end(hanging)


def test_a_process_that_drips_is_replaced(
    workers: CodecWorkers, codec: Codec, chunks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is for the whole reply: bytes that come one by one do not prolong it."""
    workers._workers[0].close()
    workers._workers[0]._closed = False
    ours, theirs = socket.socketpair()
    ended = threading.Event()

    def drip() -> None:
        with theirs, contextlib.suppress(OSError):
            theirs.sendall(lie(Kind.DONE, b"", size=1 << 20))
            while not ended.wait(0.01):
                theirs.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    workers._workers[0]._child = Child(ours, 2**22 + 1, None)
    be_impatient_once(monkeypatch)
    try:
        assert workers.sum_chunks([("node 1", chunks[0])]) == codec.sum_chunks(chunks[:1])
    finally:
        ended.set()
        thread.join()


def start_stranger() -> subprocess.Popen[bytes]:
    """Return a process that is no worker, and of which the nursery has only the number."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def test_a_process_that_closed_its_socket_is_killed() -> None:
    """A worker that runs on without its socket is not taken for one that has ended."""
    with start_stranger() as stranger:
        ours, theirs = socket.socketpair()
        theirs.close()
        Child(ours, stranger.pid, None, os.pidfd_open(stranger.pid)).close()
        assert stranger.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize("has_handle", [True, False])
def test_a_socket_that_stays_open_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, has_handle: bool
) -> None:
    """A worker's own child may keep the socket: the worker is killed, and whoever waits for it is woken."""
    monkeypatch.setattr(nursery, "_END_TIMEOUT_S", 0.1)
    ours, theirs = socket.socketpair()
    with start_stranger() as stranger, theirs:
        handle = os.pidfd_open(stranger.pid) if has_handle else None
        child = Child(ours, stranger.pid, None, handle)
        woken: list[bytes] = []
        thread = threading.Thread(target=lambda: woken.append(ours.recv(1)))
        thread.start()
        child.kill()
        thread.join(60)
        assert woken == [b""]
        child.close()
        child.close()
        assert stranger.wait(60) == -signal.SIGKILL


def test_closing_does_not_wait_for_a_process_that_hangs(
    parameters: CodecParameters, chunks: list[bytes]
) -> None:
    """Whoever waits for it learns that the workers were closed, and the process is gone."""
    workers = CodecWorkers(parameters, processes=1)
    workers.drop(0)
    pid = find_pid(workers)
    os.kill(pid, signal.SIGSTOP)
    thread, outcome = in_thread(lambda: workers.add(0, chunks[0], whose="node 1"))
    workers.close()
    thread.join()
    assert isinstance(outcome[0], WorkerDied)
    assert "was closed" in str(outcome[0])
    wait_for_end(pid)


def test_workers_outlive_their_fork_server(workers: CodecWorkers, codec: Codec, chunks: list[bytes]) -> None:
    """If the process that workers come from is killed, they die with it, and the next request starts both."""
    first = find_pid(workers)
    assert nursery._server is not None
    nursery._server._process.kill()
    wait_for_end(first)
    assert workers.sum_chunks([("node 1", chunks[0])]) == codec.sum_chunks(chunks[:1])


def test_memory_is_limited(workers: CodecWorkers, parameters: CodecParameters, chunks: list[bytes]) -> None:
    """A worker has a limit, which grows with the sums that it holds; beyond it, it dies and is replaced."""
    pid = find_pid(workers)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    for sums in (1, 2, 3):
        workers.add(sums, chunks[0], whose="node 1")
        assert resource.prlimit(pid, resource.RLIMIT_DATA)[0] == MEMORY_BYTES + sums * SUM_BYTES
    hard = resource.prlimit(pid, resource.RLIMIT_DATA)[1]
    resource.prlimit(pid, resource.RLIMIT_DATA, (1 << 20, hard))
    size = parameters.values_per_chunk
    piece = Piece(np.zeros(size, dtype=np.float32), ((size, 1.0),), bytes(32))
    assert len(list(workers.encode([piece], weight=1.0))) == 1
    assert find_pid(workers) != pid


def test_a_worker_needs_few_megabytes(workers: CodecWorkers, parameters: CodecParameters) -> None:
    """Encoding, adding and decoding full chunks takes less than 24 MiB beyond what the imports take."""
    assert nursery._server is not None

    def read_anonymous(pid: int) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
        return kilobytes << 10

    before = read_anonymous(nursery._server._process.pid)
    size = parameters.values_per_chunk
    piece = Piece(np.zeros(size, dtype=np.float32), ((size, 1.0),), bytes(32))
    encoded = list(workers.encode([piece] * 4, weight=1.0, wants_residual=True))
    total = workers.sum_chunks(("node", each.chunk) for each in encoded)
    list(workers.decode([total] * 4, contributors=4, length=4 * size))
    assert read_anonymous(find_pid(workers)) - before < 24 << 20


@pytest.mark.usefixtures("launched")
def test_workers_that_are_not_forked(
    parameters: CodecParameters, secret_key: SecretKey, codec: Codec, chunks: list[bytes]
) -> None:
    """Where there is no fork, a worker is a process of its own, is replaced, and leaves no zombie."""
    with CodecWorkers(parameters, processes=1, secret_key=secret_key) as workers:
        assert workers.sum_chunks([("node 1", chunks[0])]) == codec.sum_chunks(chunks[:1])
        first = find_pid(workers)
        assert resource.prlimit(first, resource.RLIMIT_DATA)[0] == MEMORY_BYTES + SUM_BYTES
        os.kill(first, signal.SIGKILL)
        assert workers.sum_chunks([("node 1", chunks[0])]) == codec.sum_chunks(chunks[:1])
        second = find_pid(workers)
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


@pytest.mark.usefixtures("launched")
def test_a_worker_does_not_get_the_password(
    parameters: CodecParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the daemon's environment a worker gets what it needs to start, and no secret."""
    monkeypatch.setenv(PASSWORD_VARIABLE, "open sesame")
    environments: list[dict[str, str]] = []
    popen: Any = subprocess.Popen

    def record(*arguments: Any, env: dict[str, str], **options: Any) -> Any:
        environments.append(env)
        return popen(*arguments, env=env, **options)

    monkeypatch.setattr(subprocess, "Popen", record)
    with CodecWorkers(parameters, processes=1) as workers:
        workers.drop(0)
    (environment,) = environments
    assert "PATH" in environment
    assert "open sesame" not in environment.values()


def test_a_worker_leaves_no_core_dump() -> None:
    """Not even to a pipe, which a limit of 0 does not stop: to the system its memory is not to be dumped."""
    get_dumpable = 3
    script = (
        "import ctypes, resource, fedproof.codec.worker as worker; worker._confine(); "
        f"print(ctypes.CDLL(None).prctl({get_dumpable}), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "0 (0, 0)\n"


def test_a_full_disk_is_a_crash_of_the_worker(
    parameters: CodecParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault of the chunk that was to be added, so the worker does not refuse that."""

    def fill_disk(*_: object) -> None:
        raise ConfigurationError("expected room")

    monkeypatch.setattr(Worker, "answer", fill_disk)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_message(ours, Kind.START, *WorkerProcess(parameters, None)._start.parts)
        send_message(ours, Kind.ADD)
        with pytest.raises(ConfigurationError, match="expected room"):
            _answer_all(theirs)
        assert receive_message(ours)[0] is Kind.DONE


def run_script(folder: Path, ending: str, *, name: str = "daemon.py") -> subprocess.Popen[str]:
    """Return a running program that has used workers. Its errors end when it and all its workers have."""
    script = folder / name
    script.write_text(SCRIPT + ending)
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_no_worker_outlives_a_killed_daemon(tmp_path: Path) -> None:
    """Neither one that waits for work nor one that hangs is left when its daemon is killed."""
    with run_script(tmp_path, "sys.stdin.read()\nimport time\ntime.sleep(600)") as daemon:
        assert daemon.stdout is not None
        assert daemon.stderr is not None
        pids = [int(pid) for pid in daemon.stdout.readline().split()]
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGSTOP)
        daemon.kill()
        assert daemon.stderr.read() == ""
        for pid in pids:
            wait_for_end(pid)


@pytest.mark.parametrize(
    ("ending", "name"), [("", "daemon.py"), ("", "daemon"), ("exit(0)", "daemon"), ("next(pieces)", "daemon")]
)
def test_a_program_ends_although_it_left_its_workers(tmp_path: Path, ending: str, name: str) -> None:
    """A script or a console script, without a guard of its main module, ends at once and says nothing."""
    with run_script(tmp_path, ending, name=name) as program:
        output, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (0, "")
    assert output.count("\n") == 1
    for pid in output.split():
        wait_for_end(int(pid))


def test_an_interrupted_program_ends_with_its_workers(tmp_path: Path) -> None:
    """Ctrl-C reaches the daemon and not its workers, which end with it."""
    with run_script(tmp_path, "sys.stdin.read()\nimport time\ntime.sleep(600)") as daemon:
        assert daemon.stdout is not None
        assert daemon.stderr is not None
        pids = [int(pid) for pid in daemon.stdout.readline().split()]
        for pid in pids:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        daemon.send_signal(signal.SIGINT)
        errors = daemon.stderr.read()
        assert "KeyboardInterrupt" in errors
        assert errors.count("Traceback") == 1
        for pid in pids:
            wait_for_end(pid)


def lie(kind: int, body: bytes, *, size: int | None = None) -> bytes:
    return bytes([kind]) + (len(body) if size is None else size).to_bytes(4, "little") + body


@pytest.mark.parametrize(
    "reply",
    [
        lie(Kind.DONE, b"", size=LARGEST_BODY + 1),
        lie(Kind.DONE, b"", size=2**32 - 1),
        lie(Kind.DONE, b"abc", size=4),
        lie(Kind.DONE, b"abc"),
        lie(Kind.ADD, b""),
        lie(255, b""),
        b"\x80\x04",
        b"",
    ],
)
def test_a_worker_that_was_taken_over_is_not_believed(
    parameters: CodecParameters, monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    """Whatever it answers, the daemon takes no memory for it, and gets an error of ours."""
    hostile: list[threading.Thread] = []

    def start_hostile() -> Child:
        ours, theirs = socket.socketpair()

        def answer() -> None:
            with theirs:
                receive_message(theirs)
                send_message(theirs, Kind.DONE)
                receive_message(theirs)
                theirs.sendall(reply)

        hostile.append(threading.Thread(target=answer))
        hostile[-1].start()
        # A process that has ended: there is none to kill.
        return Child(ours, 2**22 + 1, None)

    monkeypatch.setattr(worker_process, "start_worker", start_hostile)
    with (
        CodecWorkers(parameters, processes=1) as workers,
        pytest.raises(WorkerDied, match="died twice while handling node 1, chunk 0"),
    ):
        workers.add(0, b"chunk", whose="node 1")
    for thread in hostile:
        thread.join()
    assert len(hostile) == 2
