"""Federations of real processes: their plan, what they log, and killing one of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from web3.types import RPCEndpoint

from fedproof.ledger.endpoint import Endpoint
from fedproof.local import Event, LocalFederation, LocalPlan

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


def pass_time(federation: LocalFederation, seconds: int) -> None:
    """Put the chain's time forward: a slow machine then misses no deadline, and nobody waits for one."""
    provider = Endpoint.connect(federation.rpc_url).web3.provider
    for method, parameters in (("evm_increaseTime", [seconds]), ("evm_mine", [])):
        answer = provider.make_request(RPCEndpoint(method), parameters)
        assert "error" not in answer, answer


def of_kind(events: list[Event], kind: str) -> list[Event]:
    """Return the events of one kind."""
    return [event for event in events if event["event"] == kind]


def audit(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Return how `fedproof audit verify` ended."""
    command = [sys.executable, "-m", "fedproof", "audit", "verify", "--run", str(folder), "--json", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def kill_at_each(federation: LocalFederation, victim: str, moments: Iterable[tuple[int, str]]) -> list[Event]:
    """Kill the victim at each event of a round, and start it again; return the events until then."""
    events: list[Event] = []
    for number, moment in moments:
        events += follow(
            federation,
            lambda event, number=number, moment=moment: (  # type: ignore[misc]
                event["process"] == victim and event["event"] == moment and event["round"] == number
            ),
        )
        workers = children(federation.pid(victim))
        assert victim == "aggregator" or workers, "a node trains in a child process"
        federation.kill(victim)
        await_end(workers)
        if victim == "aggregator":
            federation.start_aggregator()
        else:
            federation.start_node(victim)
    return events


def await_end(pids: list[int], *, deadline_s: float = 10) -> None:
    """Wait until none of the processes is alive."""
    deadline = time.monotonic() + deadline_s
    while alive := [pid for pid in pids if not _has_ended(pid)]:
        assert time.monotonic() < deadline, f"still alive: {alive}"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    raw = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(part) for part in raw.split()]


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
