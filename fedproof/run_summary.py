"""What a run did, reduced from the events its processes logged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class NodeRow:
    """Where one node stands now."""

    phase: str = "starting"
    round: int = 0
    bytes_sent: int = 0
    bytes_of_round: int = 0
    loss: float | None = None
    accuracy: float | None = None
    gas: int = 0


@dataclass(slots=True)
class RoundRow:
    """What one round came to."""

    state: str = "open"
    contributors: int = 0
    gas: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)
    loss: dict[str, float] = field(default_factory=dict)
    train_loss: dict[str, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(slots=True)
class RunSummary:
    """The nodes and rounds of a run, updated event by event."""

    nodes: dict[str, NodeRow] = field(default_factory=lambda: defaultdict(NodeRow))
    rounds: dict[int, RoundRow] = field(default_factory=lambda: defaultdict(RoundRow))

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in one event; events that say nothing about progress are passed over."""
        number = event.get("round")
        if not isinstance(number, int):
            return
        row = self.rounds[number]
        row.gas += int(event.get("gas", 0))
        if event.get("role") == "node":
            self._add_node_event(event, number, row)
        else:
            self._add_aggregator_event(event, row)

    def _add_node_event(self, event: Mapping[str, Any], number: int, row: RoundRow) -> None:
        name = str(event["process"])
        node = self.nodes[name]
        if number > node.round:
            node.round, node.bytes_of_round = number, 0
        node.gas += int(event.get("gas", 0))
        match event["event"]:
            case "phase":
                node.phase = str(event["phase"])
            case "trained":
                node.loss = row.train_loss[name] = float(event["loss"])
            case "upload_progress" | "uploaded":
                sent = int(event["bytes_sent"])
                node.bytes_sent += sent - node.bytes_of_round
                node.bytes_of_round = sent
            case "applied":
                node.accuracy = row.accuracy[name] = float(event["accuracy"])
                row.loss[name] = float(event["loss"])
            case "round_skipped":
                node.phase = f"skipped: {event['reason']}"

    @staticmethod
    def _add_aggregator_event(event: Mapping[str, Any], row: RoundRow) -> None:
        match event["event"]:
            case "sealed":
                row.state, row.contributors = "sealed", len(event["contributors"])
            case "aggregated" | "finalised":
                row.state = str(event["event"])
            case "round_failed":
                row.state, row.reason = "failed", str(event["reason"])

    def final_accuracy(self) -> float | None:
        """Return the mean over nodes of the last finalised round's accuracy on each one's evaluation set."""
        for number in sorted(self.rounds, reverse=True):
            values = list(self.rounds[number].accuracy.values())
            if values:
                return sum(values) / len(values)
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return the summary for machines."""
        return {
            "nodes": {name: asdict(row) for name, row in sorted(self.nodes.items())},
            "rounds": {number: asdict(row) for number, row in sorted(self.rounds.items())},
            "accuracy": self.final_accuracy(),
        }
