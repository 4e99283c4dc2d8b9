"""The daemon as a process: how it ends, and that it ends whole."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedproof.digests import Digest
from fedproof.ledger.history import History
from fedproof.manifest import compute_header_root
from tests.ledger.anvil import until
from tests.node.site import PASSWORD, Site, open_site

DEADLINE_S = 60.0


@contextmanager
def running_node(site: Site) -> Iterator[subprocess.Popen[str]]:
    """Start a node, wait until it takes part, and make sure that it has ended afterwards."""
    site.register_and_admit()
    process = subprocess.Popen(
        [sys.executable, "-m", "fedproof", "node", "run", "--config", str(site.config)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FEDPROOF_PASSWORD": PASSWORD, "PYTHONUNBUFFERED": "1"},
        process_group=0,
    )
    try:
        await_event(process, "admitted")
        yield process
    finally:
        process.kill()
        process.communicate()


def await_event(process: subprocess.Popen[str], event: str, phase: str | None = None) -> None:
    """Read the log up to an event."""
    assert process.stdout is not None
    for line in process.stdout:
        entry = json.loads(line)
        if (entry["event"], entry.get("phase")) == (event, phase):
            return
    raise AssertionError(f"ended before {event}")


def find_descendants(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(part) for task in tasks for part in task.read_text().split()]
    return children + [each for child in children for each in find_descendants(child)]


def read_history(site: Site) -> History:
    history = History(from_block=0)
    site.admin.catch_up(history)
    return history


@contextmanager
def watched(pids: list[int]) -> Iterator[None]:
    """Check that processes which are alive now have ended at the end."""
    handles = [os.pidfd_open(pid) for pid in pids]
    yield
    for handle in handles:
        ended, _, _ = select.select([handle], [], [], DEADLINE_S)
        assert ended
        os.close(handle)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_daemon_ends_with_its_training_process(site: Site, number: signal.Signals, status: int) -> None:
    """SIGTERM ends it with 0, Ctrl-C with 130, and neither leaves the training process behind."""
    with running_node(site) as process:
        children = find_descendants(process.pid)
        assert children
        with watched(children):
            process.send_signal(number)
            assert process.wait(DEADLINE_S) == status


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_interruption_while_encrypting(tmp_path: Path) -> None:
    """Stopped amid encrypting, a node leaves no process behind, and its next start does it all."""
    with open_site(tmp_path, task="tests.node.toy_task:Midsize") as site:
        site.register_and_admit()
        site.begin_epoch()
        site.operator.open_round(1)
        spool = tmp_path / "state" / "rounds" / "1" / "update"
        with running_node(site) as process:
            await_event(process, "phase", "encrypting")
            until(
                lambda: (spool / "000001.chunk").exists() or process.poll() is not None, timeout_s=DEADLINE_S
            )
            assert process.poll() is None
            children = find_descendants(process.pid)
            with watched(children):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
                assert process.wait(DEADLINE_S) == 130
            assert len(children) > 2, "training, forking, encrypting"
            assert not (spool / "header").exists()
            shutil.rmtree(spool)
        with running_node(site) as process:
            await_event(process, "uploaded")
        (commitment,) = read_history(site).rounds[1].commitments.values()
        header = site.aggregator.servicer.headers[1, site.address]
        leaves = [Digest(raw) for raw in header.chunk_digests]
        assert compute_header_root(header.manifest, leaves) == commitment.update_root


def read_memory_mib(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_update_takes_little_memory(tmp_path: Path) -> None:
    """From the trained model to the last chunk's receipt, the daemon takes that model and 16 MiB."""
    model_mib = 4 * 9_000_000 / (1 << 20)
    with open_site(tmp_path, task="tests.node.toy_task:Large") as site:
        site.register_and_admit()
        site.begin_epoch()
        with running_node(site) as process:
            before = read_memory_mib(process.pid, "VmRSS")
            site.operator.open_round(1)
            await_event(process, "phase", "encrypting")
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak starts anew
            await_event(process, "uploaded")
            assert read_memory_mib(process.pid, "VmHWM") - before < model_mib + 16
