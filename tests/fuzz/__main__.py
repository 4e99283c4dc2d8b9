"""`python -m tests.fuzz`: every target, two at a time. `python -m tests.fuzz TARGET [libFuzzer's flags]`: one."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.fuzz.registry import CORPUS, FOUND, TARGETS

# Generous: the slowest honest input takes a tenth of a second, and a worker's SEAL a few hundred MiB.
_LIMITS = ("-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1")


def main() -> int:
    """Run one target, or all."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris has no build for this system; `make test` still replays every kept input")
        return 0
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        fuzz(sys.argv[1], sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=20, help="for each target")
    arguments = parser.parse_args()
    import tests.fuzz.targets  # noqa: F401 - fills the registry

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda name: _run(name, arguments.seconds), TARGETS))
    broken = [name for name, is_good in zip(TARGETS, results, strict=True) if not is_good]
    if broken:
        print(f"BROKEN: {', '.join(broken)}; {_WHAT_TO_DO}")
    return len(broken)


_WHAT_TO_DO = (
    f"the input lies in {FOUND.name}/<target>/. Try it again: python -m tests.fuzz TARGET FILE. Mend the parser, "
    f"then keep the input as {CORPUS.name}/<target>/<what it is>, which every test run tries again."
)


def fuzz(name: str, flags: list[str]) -> None:
    """Fuzz one target in this process, until libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["fedproof", "fedproof_aggregator", "fedproof_node"]):
        from tests.fuzz.targets import TARGETS as targets
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    chosen = targets[name]
    is_replay = any(not flag.startswith("-") for flag in flags)
    folders = [] if is_replay else [str(found), str(CORPUS / name)]
    defaults = [f"-max_len={chosen.max_bytes}", f"-artifact_prefix={found}/", *_LIMITS]
    atheris.Setup([sys.argv[0], *folders, *defaults, *flags], chosen.run)
    atheris.Fuzz()


def _run(name: str, seconds: int) -> bool:
    """Fuzz a target in a process of its own for so long, print how it went, and return whether it held."""
    began = time.monotonic()
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "tests.fuzz", name, f"-max_total_time={seconds}"],
        capture_output=True,
        text=True,
        check=False,
    )
    report = result.stdout + result.stderr
    runs = re.findall(r"stat::number_of_executed_units:\s*(\d+)", report)
    covered = re.findall(r"cov: (\d+)", report)
    took = time.monotonic() - began
    print(
        f"{name:20} {'ok' if not result.returncode else 'BROKEN':7}"
        f"{int(runs[-1]) if runs else 0:9,} inputs {covered[-1] if covered else '?':>6} edges {took:6.1f} s",
        flush=True,
    )
    if result.returncode:
        print("\n".join(report.splitlines()[-60:]), flush=True)
    return result.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
