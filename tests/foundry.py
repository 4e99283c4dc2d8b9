"""Foundry's tools: anvil, a chain that is not ours, and cast, a client that is not ours."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "contracts" / "node_modules" / ".bin"


def find_tool(name: str) -> str:
    """Return the path of anvil or cast, or skip; in CI its absence is a failure."""
    found = shutil.which(name, path=TOOLS) or shutil.which(name)
    if found is None:
        reason = (
            f"{name} is absent: neither below contracts/node_modules (npm ci --prefix contracts) nor on PATH"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def run_anvil(home: Path, *options: str) -> Iterator[str]:
    """Run an anvil on a free port and yield its URL; it may not answer yet.

    Args:
        home: anvil leaves state in its HOME after every run: give it one that goes away.
        options: more of its command line.
    """
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    command = [find_tool("anvil"), "--port", str(port), "--silent", "--hardfork", "cancun", *options]
    environment = {**os.environ, "HOME": str(home)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=10)
