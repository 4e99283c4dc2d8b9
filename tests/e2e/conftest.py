"""Real processes, one federation for the tests that only look at what it did."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedproof.local import Event, LocalFederation, LocalPlan

from .relay import RecordingRelay

NODES = ("hospital-a", "hospital-b", "hospital-c")
TASK = "fedproof.tasks.breast_cancer:BreastCancer"
POLICY = {"max-contributors": "8", "min-contributors": "2", "attestation-quorum": "2", "epochs": "1"}


def make_plan(*, rounds: int, **changes: object) -> LocalPlan:
    """Return the plan of three hospitals that train on the breast-cancer data."""
    settings: dict[str, object] = {
        "task": TASK,
        "nodes": {name: {"hospital": index, "hospitals": 3} for index, name in enumerate(NODES)},
        "rounds": rounds,
        "policy": POLICY,
        **changes,
    }
    return LocalPlan(**settings)  # type: ignore[arg-type]


def follow(
    federation: LocalFederation, until: Callable[[Event], bool] | None = None, *, deadline_s: float = 120
) -> list[Event]:
    """Return the events up to the first one that `until` accepts, or to the end of the run."""
    seen: list[Event] = []
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        done = federation.is_done()
        for event in federation.events():
            seen.append(event)
            if until is not None and until(event):
                return seen
        federation.check_alive()
        if done:
            assert until is None, f"the run ended before the event came; last: {seen[-5:]}"
            return seen
        time.sleep(0.02)
    raise AssertionError(f"nothing within {deadline_s} s; last events: {seen[-5:]}")


def of_kind(events: list[Event], kind: str) -> list[Event]:
    """Return the events of one kind."""
    return [event for event in events if event["event"] == kind]


def audit(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Return how `fedproof audit verify` ended."""
    command = [sys.executable, "-m", "fedproof", "audit", "verify", "--run", str(folder), "--json", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended, its chain and its aggregator still alive."""

    federation: LocalFederation
    events: list[Event]
    relay: RecordingRelay


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    """Two rounds, with a relay between nodes and aggregator that keeps what the nodes sent."""
    folder: Path = tmp_path_factory.mktemp("run")
    with LocalFederation(folder / "finished", make_plan(rounds=2)) as federation:
        federation.issue_certificate(folder / "relay", "relay")
        relay = RecordingRelay(
            federation.listen_port, tls=folder / "relay", authority=federation.folder / "authority"
        )
        federation.target_port = relay.port
        federation.prepare()
        federation.start()
        yield FinishedRun(federation, follow(federation), relay)
        relay.stop()
