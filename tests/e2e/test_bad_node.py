"""A node whose own update cannot be sent says why, and the others go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from fedproof.local import Event, LocalFederation

from .conftest import NODES, POLICY, audit, follow, make_plan, of_kind, pass_time

pytestmark = pytest.mark.e2e

COMMIT_WINDOW_S = 900


def test_one_bad_node_does_not_stop_the_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN in round 1 and a task that raises in round 2 cost one contribution each, and nothing else.

    Afterwards the run is audited from its folder alone: its processes have ended, the chain's too.
    """
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    nodes: dict[str, dict[str, object]] = {
        name: {"hospital": i, "hospitals": 3} for i, name in enumerate(NODES)
    }
    nodes["hospital-b"]["faulty"] = True
    plan = make_plan(
        rounds=2,
        task="tests.e2e.faulty_task:FaultyTask",
        nodes=nodes,
        policy={**POLICY, "commit-window-s": str(COMMIT_WINDOW_S)},
    )
    with LocalFederation(tmp_path / "run", plan) as federation:
        federation.prepare()
        federation.start()
        events = []
        for _ in range(2):
            # All that will come has come, so the round may close.
            events += follow_each(federation, {"round_skipped": 1, "upload_complete": 2})
            pass_time(federation, COMMIT_WINDOW_S)
        events += follow(federation)
    skipped = of_kind(events, "round_skipped")
    assert [(event["process"], event["round"]) for event in skipped] == [("hospital-b", 1), ("hospital-b", 2)]
    assert "finite" in skipped[0]["reason"]
    assert "X-rays" in skipped[1]["reason"]
    assert [event["round"] for event in of_kind(events, "finalised")] == [1, 2]
    assert [len(event["contributors"]) for event in of_kind(events, "sealed")] == [2, 2]
    models = {(event["round"], event["process"]): event["model"] for event in of_kind(events, "applied")}
    for number in (1, 2):
        # The node that did not contribute verifies, applies and attests all the same.
        assert len({models[number, name] for name in NODES}) == 1
    report = audit(federation.folder)
    assert report.returncode == 0, report.stdout + report.stderr


def follow_each(federation: LocalFederation, counts: Mapping[str, int]) -> list[Event]:
    """Return the events up to where each of these kinds has come as often as said."""
    left = Counter(counts)

    def is_last(event: Event) -> bool:
        left[event["event"]] -= 1
        return all(left[kind] <= 0 for kind in counts)

    return follow(federation, is_last)
