"""The process that codec workers come from can be there before the first of them is wanted."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from fedproof.codec import nursery
from fedproof.errors import WorkerDied


@pytest.mark.skipif(not nursery.FORKS, reason="workers are forked on Linux only")
def test_prepared_process_is_the_one_that_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing starts one process, once, and the next worker comes from it."""
    monkeypatch.setattr(nursery, "_server", None)
    nursery.prepare()
    server = nursery._server
    assert server is not None
    nursery.prepare()
    child = nursery.start_worker()
    assert nursery._server is server
    child.close()
    server.close()


@pytest.mark.skipif(not nursery.FORKS, reason="workers are forked on Linux only")
def test_a_failed_fork_costs_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a process to spare, one worker does not start; the others live, and the next one starts."""
    script = (
        "import os, sys, fedproof.codec.worker as worker\n"
        "fork, calls = os.fork, iter('yny')\n"
        "def fork_sometimes():\n"
        "    if next(calls) == 'n': raise BlockingIOError(11, 'no process')\n"
        "    return fork()\n"
        "os.fork = fork_sometimes\n"
        "worker.main()"
    )

    def launch(connection: socket.socket, role: str) -> subprocess.Popen[bytes]:
        descriptor = connection.fileno()
        command = [sys.executable, "-c", script, str(descriptor), role]
        return subprocess.Popen(command, pass_fds=[descriptor])

    monkeypatch.setattr(nursery, "_server", None)
    monkeypatch.setattr(nursery, "_launch", launch)
    first = nursery.start_worker()
    server = nursery._server
    assert server is not None
    with pytest.raises(WorkerDied, match="expected the system to fork one more process"):
        nursery.start_worker()
    second = nursery.start_worker()
    assert nursery._server is server
    for child in (first, second):
        child.connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            child.connection.recv(1)
        child.close()
    server.close()


def test_worker_imports_no_more_than_it_needs() -> None:
    """What a worker imports takes a quarter of a second; Ethereum's libraries would double that."""
    script = "import fedproof.codec.worker, sys; print('eth_utils' in sys.modules, 'pydantic' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "False False\n"
