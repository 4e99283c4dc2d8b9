"""A whole federation on one machine; tests/e2e/ runs one."""

from __future__ import annotations

from fedproof.local import LocalPlan, make_policy_options


def test_plan_becomes_options_of_policy_new() -> None:
    """The first node's settings build the model, values follow their option, and a bool is a switch."""
    plan = LocalPlan(
        task="package.module:Class",
        nodes={"a": {"hospital": 0, "name": "A"}, "b": {"hospital": 1}},
        rounds=1,
        policy={"bits": "12", "error-feedback": True},
    )
    expected = [
        "--task-setting",
        "hospital=0",
        "--task-setting",
        'name="A"',
        "--bits",
        "12",
        "--error-feedback",
    ]
    assert make_policy_options(plan) == expected
    plan = LocalPlan(task=plan.task, nodes={"a": {}}, rounds=1, policy={"error-feedback": False})
    assert make_policy_options(plan) == ["--no-error-feedback"]
