"""Flower's rounds without training, in plaintext. Runs where flwr is installed.

python flower_round.py --path grpc        its server and clients over gRPC (deprecated, and still there)
python flower_round.py --path superlink   SuperLink and SuperNodes, as it is deployed today
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flwr  # type: ignore[import-not-found]  # in the peer's environment, not in ours
from flower_app import IdleClient, TimedFedAvg
from flwr.client import start_client  # type: ignore[import-not-found]
from flwr.server import ServerConfig, start_server  # type: ignore[import-not-found]
from measure import find_descendants, peak_memory_mb

HERE = Path(__file__).parent
START_S = 10.0
TIMEOUT_S = 900.0
APP = """
[project]
name = "idle"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "benchmark"
[tool.flwr.app.components]
serverapp = "flower_app:server"
clientapp = "flower_app:client"
[tool.flwr.app.config]
nodes = {nodes}
width = {width}
rounds = {rounds}
report = "{report}"
"""
CONFIG = """
[superlink]
default = "here"
[superlink.here]
address = "{address}"
insecure = true
"""


def main() -> None:
    """Print what the rounds took, or be one of the clients."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--path", choices=["grpc", "superlink"], default="grpc")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--client-of", metavar="HOST:PORT", help="be a client of this server")
    arguments = parser.parse_args()
    if arguments.client_of:
        start_client(server_address=arguments.client_of, client=IdleClient().to_client())
        return
    run = _run_grpc if arguments.path == "grpc" else _run_superlink
    figures = run(arguments.nodes, arguments.width, arguments.rounds)
    print(json.dumps({"path": arguments.path, "version": flwr.__version__, **figures}))


def _run_grpc(nodes: int, width: int, rounds: int) -> dict[str, Any]:
    address = f"127.0.0.1:{_free_port()}"
    strategy = TimedFedAvg(nodes, width)
    with _processes([[sys.executable, __file__, "--client-of", address]] * nodes, Path(os.devnull)):
        start_server(server_address=address, config=ServerConfig(num_rounds=rounds), strategy=strategy)
    return {"rounds_s": strategy.rounds_s, "server_peak_mb": peak_memory_mb(os.getpid())}


def _run_superlink(nodes: int, width: int, rounds: int) -> dict[str, Any]:
    binaries = Path(sys.executable).parent
    port, peak_mb = str(_free_port()), 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["FLWR_HOME"] = str(folder / "home")
        os.environ["PATH"] = os.pathsep.join((str(binaries), os.environ["PATH"]))  # they start each other
        (folder / "home").mkdir()
        (folder / "home" / "config.toml").write_text(CONFIG.format(address=f"127.0.0.1:{port}"))
        report = folder / "report.json"
        app = folder / "app"
        app.mkdir()
        for source in (HERE / "flower_app.py", HERE.parent / "measure.py"):
            shutil.copy(source, app)
        (app / "pyproject.toml").write_text(
            APP.format(nodes=nodes, width=width, rounds=rounds, report=report)
        )
        superlink = [str(binaries / "flower-superlink"), "--insecure", "--port", port]
        superlink += ["--disable-runtime-dependency-installation"]
        supernode = [str(binaries / "flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{port}"]
        supernodes = [[*supernode, "--port", str(_free_port())] for _ in range(nodes)]
        with _processes([superlink], folder / "superlink.log") as (server,):
            time.sleep(START_S)
            with _processes(supernodes, folder / "supernodes.log"):
                subprocess.run(
                    [str(binaries / "flwr"), "run", str(app), "here"],
                    check=True,
                    timeout=TIMEOUT_S,
                    stdout=sys.stderr,
                )
                deadline = time.monotonic() + TIMEOUT_S
                while not report.exists():
                    if time.monotonic() > deadline:
                        raise SystemExit((folder / "superlink.log").read_text()[-3000:])
                    family = (server.pid, *find_descendants(server.pid)[server.pid])
                    peak_mb = max(peak_mb, sum(map(peak_memory_mb, family)))
                    time.sleep(0.5)
        return {"rounds_s": json.loads(report.read_text()), "server_peak_mb": peak_mb}


@contextmanager
def _processes(commands: list[list[str]], log: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run the commands beside the block, and end them after it."""
    with log.open("ab") as file:
        running = [subprocess.Popen(command, stdout=file, stderr=file) for command in commands]
    try:
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(timeout=60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
