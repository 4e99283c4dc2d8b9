"""Test the contracts with Foundry's forge.

    check     unit tests, bounded invariants, gas figures, coverage
    gas       write the gas figures anew
    campaign  the invariants, over as many calls as asked for
    slither   static analysis
    forge     any other command of forge: forge test --match-test admit -vvvv

All compile as ``compile_contracts.py`` does. What they write is below ``contracts/out`` and
``contracts/cache``, and the gas figures in ``contracts/snapshots``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from compile_contracts import ARTIFACTS, CONTRACTS, REPOSITORY, find_compiler

TOOLS = CONTRACTS / "node_modules" / ".bin"
OUT = CONTRACTS / "out"
CACHE = CONTRACTS / "cache"
SNAPSHOTS = CONTRACTS / "snapshots"
SLITHER = REPOSITORY / ".venv-slither" / "bin" / "slither"

GAS_TESTS = "test/Gas*.t.sol"
INVARIANT_TESTS = "test/*Invariants.t.sol"
INVARIANTS = "^invariant_"
CAMPAIGN_CALLS = 10_000_000
CAMPAIGN_DEPTH = 500
# forge says: [PASS] invariant_name() (runs: 64, calls: 6400, reverts: 0)
PASSED = re.compile(r"\[PASS\] (invariant_\w+)\(\) \(runs: \d+, calls: (\d+), reverts: 0\)")


class Forge:
    """forge in ``contracts``, with the compiler that the artifacts are made with."""

    def __init__(self) -> None:
        path = shutil.which("forge", path=TOOLS) or shutil.which("forge")
        if path is None:
            print("forge is absent: neither below contracts/node_modules (make tools) nor on PATH")
            raise SystemExit(1 if os.environ.get("CI") else 0)
        self.path = path
        self.environment = {
            **os.environ,
            "FOUNDRY_SOLC": str(find_compiler()),
            "HOME": str(CACHE / "home"),  # or it would leave a folder in the user's
        }

    def run(self, *arguments: str, log: Path | None = None, **settings: object) -> str:
        """Run forge in sight, and return what it printed.

        Args:
            arguments: its command line.
            log: where to write what it prints, as it comes.
            settings: go before those of ``foundry.toml``.

        Raises:
            SystemExit: it failed; it has said why.
        """
        said: list[str] = []
        overrides = {f"FOUNDRY_{name.upper()}": str(value) for name, value in settings.items()}
        command = [self.path, *arguments]
        with (
            open(log or os.devnull, "w", encoding="utf-8") as kept,
            subprocess.Popen(
                command, cwd=CONTRACTS, env=self.environment | overrides, stdout=subprocess.PIPE, text=True
            ) as process,
        ):
            for line in process.stdout or ():
                print(line, end="", flush=True)
                kept.write(line)
                said.append(line)
        if process.returncode != 0:
            raise SystemExit(f"forge {arguments[0]}: status {process.returncode}")
        return "".join(said)


def check() -> None:
    """Run all that has to pass before a change lands.

    Raises:
        SystemExit: something did not.
    """
    forge = Forge()
    forge.run("build")
    check_bytecode()
    forge.run("test", "--no-match-path", GAS_TESTS)
    check_gas(measure_gas(forge))
    check_coverage(forge)


def check_bytecode() -> None:
    """Compare what forge has built with the committed artifacts.

    Raises:
        SystemExit: they differ, so the tests and the gas figures would be of another contract.
    """
    for path in sorted(ARTIFACTS.glob("*.json")):
        built = json.loads((OUT / path.with_suffix(".sol").name / path.name).read_text(encoding="utf-8"))
        if built["bytecode"]["object"] != json.loads(path.read_text(encoding="utf-8"))["bytecode"]:
            raise SystemExit(f"{path.relative_to(REPOSITORY)}: not what forge builds; run make generate")


def measure_gas(forge: Forge) -> dict[str, dict[str, int]]:
    """Return the gas figures by group and name.

    With --isolate, forge executes each call as a transaction, and the figure is that of the receipt. Without,
    what an earlier call has touched would be warm, and neither the 21,000 nor the calldata would count.
    """
    measured = CACHE / "snapshots"
    shutil.rmtree(measured, ignore_errors=True)
    options = ("--isolate", "--gas-snapshot-emit=true", "--match-path", GAS_TESTS)
    forge.run("test", *options, snapshots=measured)
    return load_gas(measured)


def load_gas(folder: Path) -> dict[str, dict[str, int]]:
    """Return the gas figures of forge's files."""
    return {
        path.stem: {name: int(gas) for name, gas in json.loads(path.read_text(encoding="utf-8")).items()}
        for path in sorted(folder.glob("*.json"))
    }


def check_gas(measured: dict[str, dict[str, int]]) -> None:
    """Compare gas figures with the committed ones.

    forge's own comparison passes over what was added or removed.

    Raises:
        SystemExit: one differs, is missing or is left over.
    """
    committed = load_gas(SNAPSHOTS)
    drifted = []
    for group in sorted(measured.keys() | committed.keys()):
        now, before = measured.get(group, {}), committed.get(group, {})
        drifted += [
            f"  {group}: {name}: expected {before.get(name, 'none')}, measured {now.get(name, 'none')}"
            for name in sorted(now.keys() | before.keys())
            if now.get(name) != before.get(name)
        ]
    if drifted:
        raise SystemExit("\n".join(["the gas has changed; if that is meant, run make gas:", *drifted]))


def write_gas() -> None:
    """Replace the committed gas figures."""
    forge = Forge()
    forge.run("build")
    check_bytecode()
    measure_gas(forge)
    shutil.rmtree(SNAPSHOTS, ignore_errors=True)
    shutil.copytree(CACHE / "snapshots", SNAPSHOTS)


def check_coverage(forge: Forge) -> None:
    """Measure which lines and branches the unit tests reach.

    forge switches the optimizer and the IR pipeline off for that, so the contracts have to compile without.
    Its option --ir-minimum keeps the pipeline, and takes lines and branches that did run for missed.

    Raises:
        SystemExit: one is not reached.
    """
    report = OUT / "lcov.info"
    forge.run(
        *("coverage", "--no-match-path", f"{{{GAS_TESTS},{INVARIANT_TESTS}}}"),
        *("--no-match-coverage", "^(test|vendor)/"),
        *("--report", "summary", "--report", "lcov", "--report-file", str(report)),
    )
    missed = list(find_missed(report.read_text(encoding="utf-8")))
    if missed:
        raise SystemExit("\n".join(["the unit tests do not reach:", *missed]))


def find_missed(lcov: str) -> Iterator[str]:
    """Yield each line and branch of an lcov report that was never reached."""
    source = ""
    for record in lcov.splitlines():
        kind, _, value = record.partition(":")
        if kind == "SF":
            source = value
        elif kind == "DA" and value.split(",")[1] == "0":
            yield f"  {source}:{value.split(',')[0]}"
        elif kind == "BRDA" and value.split(",")[3] in ("0", "-"):
            line, _, path, _ = value.split(",")
            yield f"  {source}:{line} branch {path}"


def run_campaign(calls: int, log: Path) -> None:
    """Spread calls over all invariants, and write forge's report to ``log``.

    Raises:
        SystemExit: an invariant broke, a call reverted, or fewer calls were made than asked for.
    """
    forge = Forge()
    forge.run("build")
    check_bytecode()
    listed = json.loads(forge.run("test", "--list", "--json", "--match-test", INVARIANTS))
    names = [name for contracts in listed.values() for tests in contracts.values() for name in tests]
    if not names:
        raise SystemExit(f"no test matches {INVARIANTS}")
    said = forge.run(
        # forge 1.7 does not repeat itself from a seed: what broke an invariant is in its report and cache.
        *("test", "--match-test", INVARIANTS, "--fuzz-seed", hex(secrets.randbits(64)), "--show-progress"),
        log=log,
        invariant_runs=math.ceil(calls / len(names) / CAMPAIGN_DEPTH),
        invariant_depth=CAMPAIGN_DEPTH,
    )
    made = [(int(number), name) for name, number in PASSED.findall(said)]
    total = sum(number for number, _ in made)
    summary = [*(f"{number:>12,} {name}" for number, name in made), f"{total:>12,} calls"]
    print("\n".join(summary))
    with log.open("a", encoding="utf-8") as report:
        report.write("\n".join(summary) + "\n")
    if total < calls:
        raise SystemExit(f"expected {calls:,} calls over {len(names)} invariants, made {total:,}")


def run_slither() -> None:
    """Analyse the contracts with Slither, through a build of its own, without the tests.

    Raises:
        SystemExit: Slither is absent, or found something, whatever its impact.
    """
    if not SLITHER.is_file():
        raise SystemExit(f"{SLITHER.relative_to(REPOSITORY)}: absent; run make contracts-slither")
    forge = Forge()
    out = OUT / "slither"
    shutil.rmtree(out, ignore_errors=True)
    forge.run("build", "--build-info", "--skip", "test/**", out=out, cache_path=CACHE / "slither")
    status = subprocess.run(
        [SLITHER, ".", "--ignore-compile", "--foundry-out-directory", out.relative_to(CONTRACTS)],
        cwd=CONTRACTS,
        env=forge.environment | {"PATH": os.pathsep.join([str(Path(forge.path).parent), os.environ["PATH"]])},
        check=False,
    ).returncode
    if status != 0:
        raise SystemExit("Slither found something: mend it, or say beside it why not")


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("check")
    commands.add_parser("gas")
    campaign = commands.add_parser("campaign")
    campaign.add_argument(
        "--calls", type=int, default=CAMPAIGN_CALLS, help="at least as many in all (%(default)s)"
    )
    campaign.add_argument(
        "--log", type=Path, default=CACHE / "campaign.log", help="(contracts/cache/campaign.log)"
    )
    commands.add_parser("slither")
    commands.add_parser("forge").add_argument("words", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    match arguments.command:
        case "check":
            check()
        case "gas":
            write_gas()
        case "campaign":
            run_campaign(arguments.calls, arguments.log)
        case "slither":
            run_slither()
        case "forge":
            Forge().run(*arguments.words)


if __name__ == "__main__":
    main()
