"""A federation of real processes trains, survives and is audited."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from fedproof.ledger.events import RoundFinalised
from fedproof.local import Event, LocalFederation

from .conftest import NODES, FinishedRun, audit, follow, make_plan, of_kind

pytestmark = pytest.mark.e2e


def test_every_round_is_finalised_by_all_nodes(finished_run: FinishedRun) -> None:
    """Each round ends finalised, with three contributors and three equal attestations."""
    events = finished_run.events
    assert [event["round"] for event in of_kind(events, "finalised")] == [1, 2]
    assert all(len(event["contributors"]) == 3 for event in of_kind(events, "sealed"))
    for number in (1, 2):
        models = {event["model"] for event in of_kind(events, "applied") if event["round"] == number}
        assert len(models) == 1


def test_every_role_is_its_own_process(finished_run: FinishedRun) -> None:
    """Chain, aggregator and nodes have five different process numbers."""
    federation = finished_run.federation
    assert len({federation.pid(name) for name in ("devchain", "aggregator", *NODES)}) == 5


def test_training_improves_the_model(finished_run: FinishedRun) -> None:
    """Two rounds bring the held-out accuracy above nine in ten."""
    events = finished_run.events
    last = [event for event in of_kind(events, "applied") if event["round"] == 2]
    assert len(last) == 3
    assert all(event["accuracy"] > 0.9 for event in last)


def test_audit_proves_the_run(finished_run: FinishedRun) -> None:
    """The audit of an honest run ends with status 0."""
    federation = finished_run.federation
    report = audit(federation.folder)
    assert report.returncode == 0, report.stdout + report.stderr


def test_audit_names_the_round_node_and_chunk_of_a_flipped_byte(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    """One flipped byte in a copy of the evidence is refused, and named."""
    federation = finished_run.federation
    store = tmp_path / "store"
    shutil.copytree(federation.folder / "aggregator" / "store", store)
    objects = sorted(path for path in (store / "objects").rglob("*") if path.is_file())
    victim = min(objects, key=lambda path: path.stat().st_size)  # an update's chunk; a sum's is twice as long
    data = bytearray(victim.read_bytes())
    data[1000] ^= 0x10
    victim.chmod(0o644)
    victim.write_bytes(data)
    report = audit(federation.folder, "--store", str(store))
    assert report.returncode == 1
    failure = json.loads(report.stdout)["first_failure"]
    assert failure["round"] in (1, 2)
    assert failure["node"] in NODES
    assert failure["chunk"] == 0


def test_a_killed_node_resumes(tmp_path: Path) -> None:
    """A node killed with SIGKILL after each step of a round still contributes, and leaves no worker."""
    victim = "hospital-b"
    moments = ("trained", "encrypted", "committed", "uploaded", "verified", "applied")
    with LocalFederation(tmp_path / "run", make_plan(rounds=len(moments))) as federation:
        federation.prepare()
        federation.start()
        events = kill_at_each(federation, victim, moments)
        assert all(len(event["contributors"]) == 3 for event in of_kind(events, "sealed"))
        assert {event["round"] for event in of_kind(events, "applied") if event["process"] == victim} == set(
            range(1, 7)
        )
        assert audit(federation.folder).returncode == 0


def test_a_killed_aggregator_resumes(tmp_path: Path) -> None:
    """An aggregator killed with SIGKILL after each step of a round finishes that round after its restart."""
    moments = ("round_opened", "upload_complete", "sealed", "aggregated")
    with LocalFederation(tmp_path / "run", make_plan(rounds=len(moments))) as federation:
        federation.prepare()
        federation.start()
        kill_at_each(federation, "aggregator", moments)
        report = audit(federation.folder)
        assert report.returncode == 0, report.stdout
        assert {event.round for event in _finalised(federation)} == set(range(1, len(moments) + 1))


def kill_at_each(federation: LocalFederation, victim: str, moments: tuple[str, ...]) -> list[Event]:
    """Kill the victim at the first moment in round 1, the second in round 2, ...; return all events."""
    events: list[Event] = []
    for number, moment in enumerate(moments, start=1):
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
    return events + follow(federation)


def _finalised(federation: LocalFederation) -> list[RoundFinalised]:
    ledger = federation.admin_ledger()
    return [event for event in ledger.events(0, ledger.block_number()) if isinstance(event, RoundFinalised)]


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
