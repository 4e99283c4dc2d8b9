"""The daemon as a process: how it ends, and that it ends whole."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.node.site import PASSWORD, Site

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
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "admitted":
                break
        yield process
    finally:
        process.kill()
        process.communicate()


def find_children(pid: int) -> list[int]:
    return [int(part) for part in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_daemon_ends_with_its_training_process(site: Site, number: signal.Signals, status: int) -> None:
    """SIGTERM ends it with 0, Ctrl-C with 130, and neither leaves the training process behind."""
    with running_node(site) as process:
        (child,) = find_children(process.pid)
        handle = os.pidfd_open(child)
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == status
        ended, _, _ = select.select([handle], [], [], DEADLINE_S)
        os.close(handle)
        assert ended
