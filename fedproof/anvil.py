"""Foundry's anvil: a chain of another make, for the demo, the tests and the benchmarks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedproof.errors import ConfigurationError

_TOOLS = Path(__file__).parents[1] / "contracts" / "node_modules" / ".bin"
_START_TIMEOUT_S = 30.0
_POLL_S = 0.05


def find_foundry_tool(name: str) -> str:
    """Return the path of anvil, cast or forge: of `make tools`, or one on the PATH.

    Raises:
        ConfigurationError: there is none.
    """
    found = shutil.which(name, path=_TOOLS) or shutil.which(name)
    if found is None:
        raise ConfigurationError(
            f"{name} is absent: neither below contracts/node_modules (npm ci --prefix contracts) nor on PATH"
        )
    return found


@contextmanager
def run_anvil(*options: str) -> Iterator[str]:
    """Run an anvil on a free port and yield its URL once it answers; it ends with the block.

    Args:
        options: more of its command line, such as ``--block-time 1``.

    Raises:
        ConfigurationError: there is none, or it does not answer.
    """
    anvil = find_foundry_tool("anvil")
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    command = [anvil, "--port", str(port), "--silent", *options]
    if "--hardfork" not in options:
        command += ["--hardfork", "cancun"]
    with (
        # It leaves state in its HOME after every run.
        tempfile.TemporaryDirectory() as home,
        subprocess.Popen(  # noqa: S603 - options are our own
            command, env={**os.environ, "HOME": home}, stdout=subprocess.DEVNULL
        ) as process,
    ):
        try:
            _await_port(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=10)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_POLL_S)
    raise ConfigurationError(f"expected anvil to answer on port {port} within {_START_TIMEOUT_S:.0f} s")
