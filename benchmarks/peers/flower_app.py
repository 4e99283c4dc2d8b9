"""What Flower runs: a client that adds a constant, and a strategy that notes how long rounds take."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import flwr  # type: ignore[import-not-found]  # in the peer's environment, not in ours
import numpy as np
from flwr.client import ClientApp, NumPyClient  # type: ignore[import-not-found]
from flwr.server import ServerApp, ServerAppComponents, ServerConfig  # type: ignore[import-not-found]
from flwr.server.strategy import FedAvg  # type: ignore[import-not-found]
from measure import resnet18_shapes

CHANGE = 1e-3
EXAMPLES = 100


class TimedFedAvg(FedAvg):  # type: ignore[misc]  # flwr is not there for mypy
    """FedAvg that notes how long a round takes: from the choice of clients to the new model.

    Args:
        nodes: how many clients take part in each round.
        width: of ResNet-18.
        rounds: after this many, the times are written to `report`.
        report: where; nowhere when empty.
    """

    def __init__(self, nodes: int, width: int, *, rounds: int = 0, report: str = "") -> None:
        zeros = [np.zeros(shape, dtype=np.float32) for shape in resnet18_shapes(width)]
        super().__init__(
            fraction_evaluate=0.0,
            min_fit_clients=nodes,
            min_available_clients=nodes,
            initial_parameters=flwr.common.ndarrays_to_parameters(zeros),
        )
        self.rounds_s: list[float] = []
        self._started = 0.0
        self._rounds = rounds
        self._report = report

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
        if self._report and len(self.rounds_s) == self._rounds:
            partial = Path(self._report).with_suffix(".part")
            partial.write_text(json.dumps(self.rounds_s))
            partial.rename(self._report)
        return aggregated


class IdleClient(NumPyClient):  # type: ignore[misc]  # flwr is not there for mypy
    """Adds a constant to each tensor."""

    def fit(self, parameters: list[Any], config: Any) -> Any:
        """Return the changed tensors."""
        return [tensor + np.float32(CHANGE) for tensor in parameters], EXAMPLES, {}


def _make_components(context: Any) -> Any:
    config = context.run_config
    rounds = int(config["rounds"])
    strategy = TimedFedAvg(
        int(config["nodes"]), int(config["width"]), rounds=rounds, report=str(config["report"])
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))


server = ServerApp(server_fn=_make_components)
client = ClientApp(client_fn=lambda _context: IdleClient().to_client())
