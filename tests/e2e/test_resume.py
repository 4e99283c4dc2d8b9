"""Daemons killed with SIGKILL go on where they were."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from fedproof.ledger.events import RoundFinalised
from fedproof.local import Event, LocalFederation

from .conftest import audit, follow, make_plan, of_kind

pytestmark = pytest.mark.e2e


def test_killed_daemons_resume(tmp_path: Path) -> None:
    """The aggregator and a node, killed with SIGKILL in the midst of a round, finish it all the same."""
    victim = "hospital-b"
    with LocalFederation(tmp_path / "run", make_plan(rounds=2)) as federation:
        federation.prepare()
        federation.start()
        # In this order: while the aggregator is down, a node cannot run ahead of the test.
        events = kill_at_each(federation, "aggregator", [(1, "upload_complete"), (1, "aggregated")])
        events += kill_at_each(federation, victim, [(2, "trained"), (2, "committed"), (2, "verified")])
        events += follow(federation)
        ledger = federation.admin_ledger()
        finalised = [
            event for event in ledger.events(0, ledger.block_number()) if isinstance(event, RoundFinalised)
        ]
        assert [event.round for event in finalised] == [1, 2]
        assert all(len(event["contributors"]) == 3 for event in of_kind(events, "sealed"))
        applied = [event for event in of_kind(events, "applied") if event["process"] == victim]
        assert {event["round"] for event in applied} == {1, 2}
        report = audit(federation.folder)
        assert report.returncode == 0, report.stdout


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
