"""The demo: three hospitals train a model together on an embedded chain, and an audit proves what happened.

Every role is a process of its own: the chain, the aggregator, three nodes and their training workers. Then
the evidence is audited, and audited once more after a single byte of a copy has been flipped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from fedproof.anvil import run_anvil
from fedproof.errors import FedproofError
from fedproof.local import Event, LocalFederation, LocalPlan
from fedproof.run_summary import RunSummary

HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
TASK = "fedproof.tasks.breast_cancer:BreastCancer"
POLICY: Mapping[str, str] = {
    "name": "breast cancer demo",
    "bits": "15",
    "max-contributors": "8",
    "min-contributors": "2",
    "attestation-quorum": "2",
    "epochs": "4",
    "batch-size": "16",
    "learning-rate": "0.02",
}
# Signed statements in batches: nodes have so long to object, on the chain's clock, before a round goes on.
BATCHING: Mapping[str, str | bool] = {"batching": True, "commit-window-s": "120", "attest-window-s": "8"}
POLL_S = 0.1
# As whoever reads it can type it, with or without the environment's folder on the PATH.
FEDPROOF = os.path.relpath(Path(sys.executable).with_name("fedproof"))


def main() -> int:
    """Run the demo; the exit status is 0 only if training, audit and refusal all went as they should."""
    arguments = _parse_arguments()
    console = Console(stderr=arguments.json)
    folder = arguments.run_dir or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    started = time.monotonic()
    try:
        with ExitStack() as stack:
            rpc_url = arguments.rpc_url
            if arguments.chain == "anvil":
                rpc_url = stack.enter_context(run_anvil("--block-time", "1"))
            plan = LocalPlan(
                task=TASK,
                nodes={name: {"hospital": index, "hospitals": 3} for index, name in enumerate(HOSPITALS)},
                rounds=arguments.rounds,
                policy={**POLICY, **BATCHING} if arguments.batching else POLICY,
                rpc_url=rpc_url,
                # So few attestations would be checked on the chain one by one.
                aggregator={"most_signatures": 0} if arguments.batching else {},
            )
            federation = stack.enter_context(LocalFederation(folder, plan))
            console.print(
                f"[bold]fedproof demo[/]: {len(HOSPITALS)} hospitals, {arguments.rounds} rounds; "
                f"everything lies under {folder}"
            )
            with console.status("starting the chain, deploying the contract, admitting the nodes"):
                federation.prepare()
            console.print(f"contract {federation.contract} on {federation.rpc_url}")
            baselines = _start_baselines(folder / "policy.toml", arguments.rounds)
            federation.start()
            summary = _watch(federation, console)
            results = {"run": str(folder), **summary.as_dict(), "baselines": _finish(baselines)}
            _show_results(console, summary, results["baselines"])
            results["audit"] = _audit(console, folder, "the audit", as_json=arguments.json)
            results["tampered"] = _audit_tampered(console, folder, as_json=arguments.json)
    except KeyboardInterrupt:
        console.print("stopped; every process has been ended")
        return 130
    except FedproofError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        return 2
    results["seconds"] = round(time.monotonic() - started, 1)
    (folder / "summary.json").write_text(json.dumps(results, indent=2) + "\n")
    holds = results["audit"]["exit_status"] == 0 and results["tampered"]["exit_status"] == 1
    console.print(f"\ndone in {results['seconds']} s")
    if arguments.chain != "anvil":  # which has ended with its chain
        command = f"{FEDPROOF} audit history --run {folder}"
        console.print(f"look again with: {command}", highlight=False, soft_wrap=True)
    if arguments.json:
        print(json.dumps(results))
    return 0 if holds and _finalised(summary) == arguments.rounds else 1


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of training (default: 5)")
    parser.add_argument(
        "--run-dir", type=Path, help="new folder for everything the run makes (default: runs/demo-<time>)"
    )
    parser.add_argument(
        "--chain",
        choices=("devchain", "anvil"),
        default="devchain",
        help="which chain to start: our own on eth-tester, or Foundry's anvil (default: devchain)",
    )
    parser.add_argument(
        "--batching",
        action="store_true",
        help="nodes sign, and the aggregator anchors and proposes batches, instead of a transaction for each",
    )
    parser.add_argument(
        "--rpc-url", help="a development chain that runs already, such as anvil (default: our own)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one machine-readable summary; progress goes to stderr"
    )
    return parser.parse_args()


def _watch(federation: LocalFederation, console: Console) -> RunSummary:
    summary = RunSummary()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=8) as live:
            for event in _follow(federation):
                summary.add(event)
                live.update(_render(summary))
    else:
        for event in _follow(federation):
            summary.add(event)
            if line := _plain_line(event):
                console.print(line, highlight=False, soft_wrap=True)
    return summary


def _follow(federation: LocalFederation) -> Iterable[Event]:
    while True:
        done = federation.is_done()
        yield from federation.events()
        if done:
            federation.check_alive()
            return
        federation.check_alive()
        time.sleep(POLL_S)


def _render(summary: RunSummary) -> Group:
    nodes = Table(title="nodes", title_justify="left", expand=False)
    for column in ("node", "round", "phase", "sent", "loss", "accuracy", "gas"):
        nodes.add_column(column, justify="left" if column in ("node", "phase") else "right", min_width=8)
    for name, row in sorted(summary.nodes.items()):
        nodes.add_row(
            name, str(row.round), row.phase, f"{row.bytes_sent:,}", _figure(row.loss, "{:.4f}"),
            _figure(row.accuracy, "{:.1%}"), f"{row.gas:,}",
        )  # fmt: skip
    return Group(nodes, _rounds_table(summary))


def _rounds_table(summary: RunSummary) -> Table:
    rounds = Table(title="rounds", title_justify="left")
    for column in ("round", "state", "contributors", "loss", "accuracy", "gas"):
        rounds.add_column(column, justify="left" if column == "state" else "right")
    for number, row in sorted(summary.rounds.items()):
        rounds.add_row(
            str(number), row.state, str(row.contributors or ""), _figure(_mean(row.loss.values()), "{:.4f}"),
            _figure(_mean(row.accuracy.values()), "{:.1%}"), f"{row.gas:,}",
        )  # fmt: skip
    return rounds


# What a line says of each event; the other events go to the logs only.
PHRASES: Mapping[str, str] = {
    "round_opened": "opened the round, gas {gas:,}",
    "trained": "trained on {examples} examples, loss {loss:.4f}",
    "committed": "committed, gas {gas:,}",
    "uploaded": "sent {bytes_sent:,} bytes, encrypted",
    "sealed": "sealed the contributors, gas {gas:,}",
    "aggregated": "published the encrypted sum, gas {gas:,}",
    "verified": "verified {chunks} of {of} chunks of the sum",
    "applied": "applied it: loss {loss:.4f}, accuracy {accuracy:.1%}",
    "attested": "attested the new model, gas {gas:,}",
    "finalised": "finalised with {attestations} equal attestations, gas {gas:,}",
    "round_failed": "gave the round up: {reason}",
    "round_skipped": "skipped the round: {reason}",
    "error": "error: {message}",
}


def _plain_line(event: Event) -> str | None:
    phrase = PHRASES.get(event["event"])
    if phrase is None:
        return None
    number = f"round {event['round']}" if "round" in event else ""
    return f"{number:<8} {event['process']:<11} {phrase.format_map(event)}"


def _show_results(console: Console, summary: RunSummary, baselines: Mapping[str, Any]) -> None:
    console.print()
    if not console.is_terminal:
        console.print(_rounds_table(summary))
    accuracy = Table(title="accuracy on the same held-out patients", title_justify="left")
    accuracy.add_column("trained")
    accuracy.add_column("accuracy", justify="right")
    accuracy.add_row("[bold]together, with fedproof", f"[bold]{summary.final_accuracy():.1%}")
    accuracy.add_row("centrally, all data in one place", f"{baselines['centralised']:.1%}")
    for name, value in baselines["local"].items():
        accuracy.add_row(f"alone: {name}", f"{value:.1%}")
    console.print(accuracy)
    sent = Table(title="sent by each node, encrypted", title_justify="left")
    sent.add_column("node")
    sent.add_column("bytes", justify="right")
    sent.add_column("gas", justify="right")
    for name, row in sorted(summary.nodes.items()):
        sent.add_row(name, f"{row.bytes_sent:,}", f"{row.gas:,}")
    console.print(sent)


def _start_baselines(policy: Path, rounds: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "fedproof.baselines",
        "--task",
        TASK,
        "--policy",
        str(policy),
        "--rounds",
        str(rounds),
    ]
    for name, index in zip(HOSPITALS, range(3), strict=True):
        command += ["--node", f"{name}:" + json.dumps({"hospital": index, "hospitals": 3})]
    command += ["--centralised", json.dumps({"hospital": "all", "hospitals": 3})]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate()
    if process.returncode != 0:
        raise FedproofError(f"the baselines ended with status {process.returncode}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def _audit(console: Console, folder: Path, title: str, *options: str, as_json: bool) -> dict[str, Any]:
    command = ["audit", "verify", "--run", str(folder), *options]
    console.print(f"\n[bold]{title}[/]: {FEDPROOF} {' '.join(command)}", highlight=False, soft_wrap=True)
    if as_json:
        report = _fedproof(*command, "--json", capture=True)
        return {"exit_status": report.returncode, "report": json.loads(report.stdout)}
    console.file.flush()
    return {"exit_status": _fedproof(*command, capture=False).returncode}


def _fedproof(*arguments: str, capture: bool) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedproof", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE if capture else None, text=True, check=False)


def _audit_tampered(console: Console, folder: Path, *, as_json: bool) -> dict[str, Any]:
    """Flip one bit of one stored ciphertext in a copy of the evidence, and audit the copy."""
    copy = folder / "tampered-store"
    shutil.copytree(folder / "aggregator" / "store", copy)
    # A chunk of an update: it is about half as long as a chunk of a sum, which has both polynomials.
    victim = min((path for path in (copy / "objects").rglob("*") if path.is_file()), key=_size_and_name)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(data)
    return _audit(console, folder, "one flipped bit in a copy", "--store", str(copy), as_json=as_json)


def _size_and_name(path: Path) -> tuple[int, str]:
    return path.stat().st_size, path.name


def _finalised(summary: RunSummary) -> int:
    return sum(row.state == "finalised" for row in summary.rounds.values())


def _figure(value: float | None, pattern: str) -> str:
    return "" if value is None else pattern.format(value)


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


if __name__ == "__main__":
    sys.exit(main())
