"""A node whose own update cannot be sent says why, and the others go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedproof.local import LocalFederation

from .conftest import NODES, POLICY, follow, make_plan

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(("fault", "reason"), [("nan", "finite"), ("raise", "X-rays")])
def test_one_bad_node_does_not_stop_the_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    """With one update refused at its source, the two others finalise the round after the deadline."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    nodes = {name: {"hospital": index, "hospitals": 3} for index, name in enumerate(NODES)}
    nodes["hospital-b"]["fault"] = fault  # type: ignore[assignment]
    plan = make_plan(
        rounds=1,
        task="tests.e2e.faulty_task:FaultyTask",
        nodes=nodes,
        policy={**POLICY, "commit-window-s": "15"},
    )
    with LocalFederation(tmp_path / "run", plan) as federation:
        federation.prepare()
        federation.start()
        events = follow(federation)
    skipped = [event for event in events if event["event"] == "round_skipped"]
    assert [event["process"] for event in skipped] == ["hospital-b"]
    assert reason in skipped[0]["reason"]
    assert [event["round"] for event in events if event["event"] == "finalised"] == [1]
    applied = {event["process"]: event["model"] for event in events if event["event"] == "applied"}
    assert set(applied) == set(NODES), "the node that did not contribute still verifies, applies and attests"
    assert len(set(applied.values())) == 1
