"""A whole round without training: every process of a federation, gRPC, ledger and encryption, on two cores.

    python benchmarks/round.py                     ten nodes, 11.2 million parameters, 15 bits
    python benchmarks/round.py --nodes 3 --params 1000000 --rounds 2 --json
    python benchmarks/round.py --flower ~/.cache/fedproof/peers/flwr-1.42.0     Flower's rounds beside ours

A round lasts from the aggregator's `round_opened` to its `finalised`. The training process is asked as
always, and adds a constant to each tensor. Every process shares the cores of this machine; with more than
two, all are kept on two (--cores). The first round is listed and left out of the medians: caches are cold.

Flower runs afterwards on the same cores, in a virtual environment of its own that is made if absent: as many
clients, the same tensors, no training, no encryption and no TLS; over its older gRPC path (`start_server`),
and as it is deployed today (SuperLink and SuperNodes; minutes). If the index lacks a version that flwr pins,
make the environment by hand: `pip install --no-deps flwr==1.42.0`, then what it requires.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from measure import choose_width, count_parameters, find_descendants, peak_memory_mb, resnet18_shapes
from peer_environment import ensure_environment
from rich import box
from rich.console import Console
from rich.table import Table

from fedproof.local import Event, LocalFederation, LocalPlan

# Looking at every process takes time from them.
POLL_S = 0.5
TARGET_S = 12.0
FLOWER = ("flwr==1.42.0",)
ENDED = "ended"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

# What each node logs last in its part of a round, in order; the aggregator's own stand among them.
MILESTONES = (
    "trained", "encrypted", "committed", "uploaded", "sealed", "aggregated", "verified", "attesting",
    "attested", "finalised",
)  # fmt: skip


@dataclass(slots=True)
class Usage:
    """Processor time and peak memory by role, as last looked at."""

    cpu_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    peak_mb: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _by_process: dict[tuple[str, int], float] = field(default_factory=dict)

    def look(self, federation: LocalFederation) -> None:
        """Bring both up to date."""
        roots = {name: federation.pid(name) for name in ("devchain", "aggregator", *federation.plan.nodes)}
        descendants = find_descendants(*roots.values())
        for name, root in roots.items():
            role = "node" if name in federation.plan.nodes else name
            together = 0.0
            for pid in (root, *descendants[root]):
                part = role if pid == root else f"{role}: {_name_child(pid)}"
                if part.endswith(ENDED):
                    continue
                self._by_process[part, pid] = max(_cpu_s(pid), self._by_process.get((part, pid), 0.0))
                peak = peak_memory_mb(pid)
                together += peak
                self.peak_mb[part] = max(self.peak_mb[part], peak)
            self.peak_mb[f"{role}, all its processes"] = max(
                self.peak_mb[f"{role}, all its processes"], together
            )
        self.cpu_s.clear()
        for (part, _), seconds in self._by_process.items():
            self.cpu_s[part] += seconds


def main() -> None:
    """Run the federation and print where its rounds went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--params", type=int, default=11_200_000, help="ResNet-18 of about this size")
    parser.add_argument("--bits", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--cores", type=int, default=2, help="cores for all processes together")
    parser.add_argument("--policy", action="append", default=[], metavar="OPTION=VALUE",
                        help="a further option of `fedproof policy new`, such as keep-one-in=4")  # fmt: skip
    parser.add_argument("--folder", type=Path, help="keep the run here (default: a temporary folder)")
    parser.add_argument("--flower", type=Path, metavar="FOLDER", help="Flower beside it, installed there")
    parser.add_argument("--json", action="store_true", help="print one object for machines")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    with tempfile.TemporaryDirectory() as scratch:
        row = _measure(_plan(arguments), arguments.folder or Path(scratch) / "run")
    row = {"bits": arguments.bits, "cores": arguments.cores, **row}
    if arguments.flower:
        row["flower"] = [_measure_flower(arguments, path) for path in ("grpc", "superlink")]
    if arguments.json:
        print(json.dumps(row))
    else:
        _print_tables(row)


def _plan(arguments: argparse.Namespace) -> LocalPlan:
    # Every process looks for the task here.
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    nodes = arguments.nodes
    return LocalPlan(
        task="idle_task:IdleTask",
        nodes={f"node-{i}": {"node": i, "parameters": arguments.params} for i in range(nodes)},
        rounds=arguments.rounds,
        policy={
            "bits": str(arguments.bits),
            "max-contributors": str(max(nodes, 2)),
            "min-contributors": str(nodes),
            "attestation-quorum": str(nodes),
            **dict(option.split("=", 1) for option in arguments.policy),
        },
    )


def _measure(plan: LocalPlan, folder: Path) -> dict[str, Any]:
    parameters = next(iter(plan.nodes.values()))["parameters"]
    assert isinstance(parameters, int)
    events: list[Event] = []
    usage = Usage()
    cpu_at: dict[int, dict[str, float]] = {}
    with LocalFederation(folder, plan) as federation:
        federation.prepare()
        federation.start()
        while not federation.is_done():
            for event in federation.events():
                events.append(event)
                if event["event"] == "finalised":
                    usage.look(federation)
                    cpu_at[event["round"]] = dict(usage.cpu_s)
            usage.look(federation)
            federation.check_alive()
            time.sleep(POLL_S)
        events += federation.events()
    rounds = [_read_round(events, number) for number in sorted(cpu_at)]
    later = rounds[1:] or rounds
    size = count_parameters(resnet18_shapes(choose_width(parameters)))
    return {
        "nodes": len(plan.nodes),
        "parameters": size,
        "round_s": statistics.median(row["total"] for row in later),
        "rounds_s": [row["total"] for row in rounds],
        "until_last_s": {
            name: statistics.median(row[name] for row in later) for name in MILESTONES if name in later[0]
        },
        "cpu_s_per_round": _cpu_per_round(cpu_at),
        "peak_mb": {part: round(mb) for part, mb in sorted(usage.peak_mb.items())},
        "bytes_per_param": statistics.median(e["bytes_sent"] for e in events if e["event"] == "uploaded")
        / size,
    }


def _measure_flower(arguments: argparse.Namespace, path: str) -> dict[str, Any]:
    interpreter = ensure_environment(arguments.flower, FLOWER)
    here = Path(__file__).parent
    command = [str(interpreter), str(here / "peers" / "flower_round.py"), "--path", path]
    command += [
        "--nodes",
        str(arguments.nodes),
        "--width",
        str(choose_width(arguments.params)),
        "--rounds",
        str(arguments.rounds),
    ]
    one_thread = {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", "PYTHONPATH": str(here)}
    output = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
        env={**os.environ, **one_thread},
    ).stdout  # fmt: skip
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    rounds = figures["rounds_s"]
    return {**figures, "round_s": statistics.median(rounds[1:] or rounds)}


def _read_round(events: Iterable[Event], number: int) -> dict[str, float]:
    """Return when in a round, in seconds, the last process reached each milestone."""
    last: dict[str, float] = {}
    opened = 0.0
    for event in events:
        if event.get("round") != number:
            continue
        seconds = datetime.fromisoformat(event["time"]).timestamp()
        name = event["phase"] if event["event"] == "phase" else event["event"]
        if name == "round_opened":
            opened = seconds
        elif name in MILESTONES:
            last[name] = max(seconds, last.get(name, 0.0))
    return {"total": last["finalised"] - opened, **{name: at - opened for name, at in last.items()}}


def _cpu_per_round(cpu_at: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Return each role's processor time per round, over the rounds after the first."""
    first, last = min(cpu_at), max(cpu_at)
    if first == last:
        return dict(cpu_at[first])
    return {
        part: (seconds - cpu_at[first].get(part, 0.0)) / (last - first)
        for part, seconds in sorted(cpu_at[last].items())
    }


def _print_tables(row: Mapping[str, Any]) -> None:
    console = Console(width=110)
    verdict = "reached" if row["round_s"] <= TARGET_S else "missed"
    rounds = ", ".join(f"{seconds:.1f}" for seconds in row["rounds_s"])
    console.print(
        f"{row['nodes']} nodes, {row['parameters']:,} parameters, {row['bits']} bits, {row['cores']} cores: "
        f"a round takes {row['round_s']:.1f} s (at most {TARGET_S:.0f}: {verdict}); rounds: {rounds} s\n"
    )
    for flower in row.get("flower", ()):
        rounds = ", ".join(f"{seconds:.1f}" for seconds in flower["rounds_s"])
        console.print(
            f"Flower {flower['version']}, {flower['path']}, plaintext: {flower['round_s']:.1f} s; "
            f"rounds: {rounds} s; peak memory of the server: {flower['server_peak_mb']:.0f} MB\n"
        )
    path = Table("until the last is", "s", "of that, after the one before", box=box.MARKDOWN)
    before = 0.0
    for name, seconds in sorted(row["until_last_s"].items(), key=lambda item: item[1]):
        path.add_row(name, f"{seconds:.2f}", f"{seconds - before:.2f}")
        before = seconds
    console.print(path)
    roles = Table("processes", "CPU s per round", "peak memory of the largest, MB", box=box.MARKDOWN)
    for part in row["peak_mb"]:
        cpu = row["cpu_s_per_round"].get(part)
        roles.add_row(part, "" if cpu is None else f"{cpu:.2f}", str(row["peak_mb"][part]))
    console.print(roles)


def _name_child(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ENDED
    if not command:
        return ENDED
    return "training process" if "fedproof.tasks.process" in command else "codec process"


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


if __name__ == "__main__":
    main()
