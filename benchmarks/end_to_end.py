"""Whole federations, measured: accuracy, bytes, gas and time, beside the same training in plain float32.

    python benchmarks/end_to_end.py                     both tables, as Markdown
    python benchmarks/end_to_end.py --only demo --json  one of them, for machines

Every process of a federation runs on this machine. The plain run is `fedproof.baselines`: the same task,
split, plan and seeds, averaged in float32 without encryption or ledger.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import peak_memory_mb

from fedproof.local import Event, LocalFederation, LocalPlan
from fedproof.policy import Policy
from fedproof.run_summary import RunSummary

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Case:
    """One benchmark: what runs, and what it must reach."""

    title: str
    plan: LocalPlan
    centralised: Mapping[str, object] | None
    targets: tuple[str, ...]


def main() -> None:
    """Run the benchmarks and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=list(CASES), help="run one benchmark (default: all)")
    parser.add_argument("--rounds", type=int, help="fewer rounds, for a first look")
    parser.add_argument("--json", action="store_true", help="print rows for machines")
    parser.add_argument("--folder", type=Path, help="keep the runs here (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name, build in CASES.items():
            if arguments.only in (None, name):
                case = build(arguments.rounds)
                row = _measure(case, (arguments.folder or Path(scratch)) / name)
                print(
                    json.dumps({"benchmark": name, **row}) if arguments.json else _as_markdown(case, row),
                    flush=True,
                )


def _demo_case(rounds: int | None) -> Case:
    return Case(
        title="Breast cancer: three hospitals, five rounds",
        plan=LocalPlan(
            task="fedproof.tasks.breast_cancer:BreastCancer",
            nodes={f"hospital-{letter}": {"hospital": i, "hospitals": 3} for i, letter in enumerate("abc")},
            rounds=rounds or 5,
            policy={
                "max-contributors": "8",
                "epochs": "4",
                "batch-size": "16",
                "learning-rate": "0.02",
            },
        ),
        centralised={"hospital": "all", "hospitals": 3},
        targets=("within 1 point of centralised",),
    )


def _fashion_case(rounds: int | None) -> Case:
    nodes = 10
    common: dict[str, object] = {"nodes": nodes, "split": "dirichlet", "alpha": 0.5}
    return Case(
        title="Fashion-MNIST CNN: ten nodes, Dirichlet 0.5, twenty rounds of one local epoch",
        plan=LocalPlan(
            task="fedproof.tasks.fashion_mnist:FashionMnist",
            nodes={f"node-{i}": {**common, "node": i} for i in range(nodes)},
            rounds=rounds or 20,
            policy={
                "max-contributors": "16",
                "min-contributors": "8",
                "attestation-quorum": "6",
                "commit-window-s": "3600",
                "learning-rate": "0.03",
            },
        ),
        centralised=None,
        targets=("at least 87 %", "within 0.5 point of plain float32"),
    )


CASES = {"demo": _demo_case, "fashion": _fashion_case}


def _measure(case: Case, folder: Path) -> dict[str, Any]:
    started = time.monotonic()
    with LocalFederation(folder, case.plan) as federation:
        federation.prepare()
        ready = time.monotonic()
        federation.start()
        events: list[Event] = []
        peak: dict[str, float] = {}
        while not federation.is_done():
            events += federation.events()
            peak = _peak_memory(federation, peak)
            federation.check_alive()
            time.sleep(POLL_S)
        events += federation.events()
        finished = time.monotonic()
        audit = subprocess.run(
            [sys.executable, "-m", "fedproof", "audit", "verify", "--run", str(folder), "--json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        audited = time.monotonic()
    summary = RunSummary()
    for event in events:
        summary.add(event)
    policy = Policy.load(folder / "policy.toml")
    uploads = [event["bytes_sent"] for event in events if event["event"] == "uploaded"]
    commits = [event["gas"] for event in events if event["event"] == "committed"]
    rounds = [row for row in summary.rounds.values() if row.state == "finalised"]
    baselines = _baselines(case, folder / "policy.toml")
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "parameters": policy.model.parameters,
        "rounds_finalised": len(rounds),
        "accuracy": summary.final_accuracy(),
        "accuracy_by_round": [statistics.mean(row.accuracy.values()) for row in rounds],
        **baselines,
        "bytes_per_parameter": statistics.median(uploads) / policy.model.parameters,
        "gas_per_commitment_max": max(commits),
        "gas_per_round_median": statistics.median(row.gas for row in rounds),
        "setup_s": ready - started,
        "training_s": finished - ready,
        "audit_s": audited - finished,
        "audit_exit_status": audit.returncode,
        "peak_memory_mb": {name: round(value) for name, value in sorted(peak.items())},
    }


def _peak_memory(federation: LocalFederation, peak: Mapping[str, float]) -> dict[str, float]:
    """Return each process's largest resident set so far, in MB; 0 where there is no /proc."""
    now = dict(peak)
    for name in ("aggregator", *federation.plan.nodes):
        now[name] = max(now.get(name, 0.0), peak_memory_mb(federation.pid(name)))
    return now


def _baselines(case: Case, policy: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "fedproof.baselines", "--task", case.plan.task, "--policy", str(policy)]
    command += ["--rounds", str(case.plan.rounds)]
    if case.centralised is not None:
        command += ["--centralised", json.dumps(case.centralised)]
    for name, settings in case.plan.nodes.items():
        command += ["--node", f"{name}:{json.dumps(settings)}"]
    command += ["--plain-fedavg", "--no-local"]
    started = time.monotonic()
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return {**result, "baselines_s": time.monotonic() - started}


def _as_markdown(case: Case, row: Mapping[str, Any]) -> str:
    plain = row["plain_fedavg"][-1]
    memory = row["peak_memory_mb"]
    largest_node = max((value for name, value in memory.items() if name != "aggregator"), default=0)
    points = 100 * (row["accuracy"] - plain)
    lines = {
        "parameters": f"{row['parameters']:,}",
        "rounds finalised": f"{row['rounds_finalised']} of {case.plan.rounds}",
        "accuracy, encrypted and on the ledger": f"{row['accuracy']:.2%}",
        "accuracy, same run in plain float32": f"{plain:.2%} (difference {points:+.2f} points)",
        **({"accuracy, centralised": f"{row['centralised']:.2%}"} if "centralised" in row else {}),
        "upload, bytes per parameter": f"{row['bytes_per_parameter']:.2f}",
        "gas per update commitment, largest": f"{row['gas_per_commitment_max']:,}",
        "gas per round, median": f"{row['gas_per_round_median']:,.0f}",
        "set-up / training / audit, s": " / ".join(
            f"{row[k]:.0f}" for k in ("setup_s", "training_s", "audit_s")
        ),
        "audit": "every check holds" if row["audit_exit_status"] == 0 else "REFUSED",
        "peak memory, aggregator / largest node, MB": f"{memory.get('aggregator', 0)} / {largest_node}",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in lines.items())
    reach = f"Must reach: {'; '.join(case.targets)}. Machine: {row['machine']}."
    return f"## {case.title}\n\n{reach}\n\n| | |\n|---|---|\n{table}\n"


if __name__ == "__main__":
    main()
