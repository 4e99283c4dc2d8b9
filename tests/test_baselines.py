"""What a federation is compared with."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from fedproof.baselines import apply_weighted_mean, run_plain_fedavg
from fedproof.policy import CodecPolicy, ModelPolicy, Policy, RoundPolicy, TrainingPlan
from fedproof.task import EvaluationResult, TrainResult

PLAN = TrainingPlan(epochs=2, batch_size=16, learning_rate=0.02, momentum=0.9, weight_decay=0.0)


@dataclass
class Step:
    """Adds a fixed step to each weight."""

    step: float
    examples: int

    def build_model(self) -> torch.nn.Module:
        return torch.nn.Linear(1, 1)

    def train(self, model: torch.nn.Module, plan: TrainingPlan, *, round: int) -> TrainResult:
        with torch.no_grad():
            for values in model.parameters():
                values.add_(self.step)
        return TrainResult(self.examples, loss=0.0)

    def evaluate(self, model: torch.nn.Module) -> EvaluationResult:
        weight = model.weight.item()  # type: ignore[operator, union-attr]
        return EvaluationResult(examples=1, loss=weight, accuracy=0.5)


def policy() -> Policy:
    return Policy(
        name="baselines",
        model=ModelPolicy(architecture=bytes(32), parameters=530, genesis=bytes(32), seed=7),  # type: ignore[arg-type]
        codec=CodecPolicy(
            bits=15, max_contributors=8, clip=0.5, clip_margin=0.0, keep_one_in=1, error_feedback=False
        ),
        rounds=RoundPolicy(
            min_contributors=2,
            attestation_quorum=2,
            max_examples=10_000,
            commit_window_s=60,
            aggregate_window_s=60,
            attest_window_s=60,
        ),
        training=PLAN,
    )


def run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "policy.toml").write_text(policy().dump_toml())
    command = [sys.executable, "-m", "fedproof.baselines", "--policy", str(tmp_path / "policy.toml")]
    command += ["--task", "fedproof.tasks.breast_cancer:BreastCancer", "--rounds", "2", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("max_examples", "mean"),
    [(100, (1.0 * 30 + 4.0 * 90) / 120), (90, (1.0 * 30 + 4.0 * 90) / 120), (30, 2.5), (60, 3.0)],
)
def test_fedavg_weighs_by_capped_examples(max_examples: int, mean: float) -> None:
    """A participant weighs as many examples as it has, up to the policy's cap."""
    rounds = list(
        run_plain_fedavg([Step(1.0, 30), Step(4.0, 90)], PLAN, rounds=2, seed=7, max_examples=max_examples)
    )
    assert rounds[1].loss - rounds[0].loss == pytest.approx(mean, rel=1e-6)
    assert rounds[0].delta_quantiles == pytest.approx([4.0] * 5, rel=1e-6)


def test_mean_is_rounded_once() -> None:
    """The sum is taken in float64: small deltas do not vanish beside large ones of the opposite sign."""
    deltas = [np.array([value], dtype=np.float32) for value in (1e8, 0.25, -1e8)]
    mean = apply_weighted_mean(np.zeros(1, np.float32), deltas, [1, 1, 1])
    assert mean.dtype == np.float32
    assert mean[0] == np.float32(0.25 / 3)


def test_command_prints_each_baseline(tmp_path: Path) -> None:
    """One line of JSON has centralised, federated and local accuracy, and all of their rounds."""
    done = run(
        tmp_path,
        *("--node", 'big:{"hospital": 0}', "--node", 'small:{"hospital": 2}'),
        *("--centralised", '{"hospital": "all"}', "--plain-fedavg", "--progress"),
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert list(result) == ["centralised", "plain_fedavg", "local", "rounds"]
    assert set(result["local"]) == {"big", "small"}
    assert set(result["rounds"]) == {"centralised", "plain_fedavg", "local big", "local small"}
    assert result["plain_fedavg"] == [each["accuracy"] for each in result["rounds"]["plain_fedavg"]]
    assert len(result["plain_fedavg"]) == 2
    assert result["centralised"] > 0.9
    assert len(done.stderr.splitlines()) == 4 * 2


def test_command_leaves_out_what_is_not_asked_for(tmp_path: Path) -> None:
    """Without --centralised, --plain-fedavg and with --no-local there is nothing to train."""
    done = run(tmp_path, "--node", "a:{}", "--no-local")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"local": {}, "rounds": {}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--node", "big"), "--node: expected NAME:{settings as JSON}, got 'big'"),
        (("--node", "big:{hospital: 0}"), "--node big: expected settings as JSON, got '{hospital: 0}'"),
        (("--node", "big:{}", "--centralised", "[]"), "--centralised: expected a JSON object"),
        (("--node", 'big:{"hospitl": 0}'), "[task.settings] of fedproof.tasks.breast_cancer:BreastCancer: "),
    ],
)
def test_command_says_what_is_wrong(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    """A wrong option is one line on standard error and status 2."""
    done = run(tmp_path, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
