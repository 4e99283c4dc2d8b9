"""Flower's rounds without training: its server and clients over gRPC, in plaintext. Runs where flwr is.

    python flower_round.py --nodes 10 --width 64 --rounds 4

`start_server` and `start_client` are Flower's older path; it calls them deprecated and still has them.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

import flwr  # type: ignore[import-not-found]  # in the peer's environment, not in ours
import numpy as np
from flwr.client import NumPyClient, start_client  # type: ignore[import-not-found]
from flwr.server import ServerConfig, start_server  # type: ignore[import-not-found]
from flwr.server.strategy import FedAvg  # type: ignore[import-not-found]
from measure import peak_memory_mb, resnet18_shapes

CHANGE = 1e-3
EXAMPLES = 100


class TimedFedAvg(FedAvg):  # type: ignore[misc]  # flwr is not there for mypy
    """FedAvg that notes how long a round takes: from the choice of clients to the new model."""

    def __init__(self, nodes: int, width: int) -> None:
        zeros = [np.zeros(shape, dtype=np.float32) for shape in resnet18_shapes(width)]
        super().__init__(
            fraction_evaluate=0.0,
            min_fit_clients=nodes,
            min_available_clients=nodes,
            initial_parameters=flwr.common.ndarrays_to_parameters(zeros),
        )
        self.rounds_s: list[float] = []
        self._started = 0.0

    def configure_fit(self, *arguments: Any, **named: Any) -> Any:
        """Begin a round."""
        chosen = super().configure_fit(*arguments, **named)
        self._started = time.monotonic()
        return chosen

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """End a round."""
        if failures:
            raise RuntimeError(f"round {server_round}: expected no failures, got {failures}")
        aggregated = super().aggregate_fit(server_round, results, failures)
        self.rounds_s.append(time.monotonic() - self._started)
        return aggregated


class IdleClient(NumPyClient):  # type: ignore[misc]  # flwr is not there for mypy
    """Adds a constant to each tensor."""

    def fit(self, parameters: list[Any], config: Any) -> Any:
        """Return the changed tensors."""
        return [tensor + np.float32(CHANGE) for tensor in parameters], EXAMPLES, {}


def main() -> None:
    """Be the server, which starts the clients and prints what the rounds took, or a client."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--client-of", metavar="HOST:PORT", help="be a client of this server")
    arguments = parser.parse_args()
    if arguments.client_of:
        start_client(server_address=arguments.client_of, client=IdleClient().to_client())
        print(peak_memory_mb(os.getpid()))
        return
    address = f"127.0.0.1:{_free_port()}"
    command = [sys.executable, __file__, "--client-of", address]
    clients = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(arguments.nodes)
    ]
    strategy = TimedFedAvg(arguments.nodes, arguments.width)
    start_server(server_address=address, config=ServerConfig(num_rounds=arguments.rounds), strategy=strategy)
    outputs = [client.communicate()[0] for client in clients]
    row = {
        "rounds_s": strategy.rounds_s,
        "server_peak_mb": peak_memory_mb(os.getpid()),
        "client_peak_mb": max(float(output.splitlines()[-1]) for output in outputs),
        "version": flwr.__version__,
    }
    print(json.dumps(row))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
