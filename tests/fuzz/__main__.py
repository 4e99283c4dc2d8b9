"""`python -m tests.fuzz`: every target, two at a time. `python -m tests.fuzz TARGET [flag or file ...]`: one.

Flags are libFuzzer's, such as `-max_total_time=60` (seconds); files are inputs to try again.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.fuzz.registry import CORPUS, FOUND

# An honest input takes a tenth of a second at the most. atheris keeps every array that the code it watches
# compares, so a long run over chunks takes more memory than the code does.
_LIMITS = ("-timeout=10", "-rss_limit_mb=4096", "-print_final_stats=1")
_WATCHED = ["fedproof", "fedproof_aggregator", "fedproof_node", "eth_keyfile"]
_WHAT_TO_DO = f"""
Inputs that broke something lie in {FOUND}/<target>/.
  try one again:  python -m tests.fuzz <target> <file>
  once mended:    keep it as {CORPUS}/<target>/<what it is>, which every test run tries again"""


def main() -> int:
    """Run one target, or all."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris has no build for this Python or system; the tests still try every kept input")
        return 1 if os.environ.get("CI") else 0
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        return fuzz(sys.argv[1], sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="for each target; 20 unless told")
    return fuzz_all(parser.parse_args().seconds)


def fuzz(name: str, flags: list[str]) -> int:
    """Fuzz one target in this process, which libFuzzer ends; return only if there is no such target."""
    import atheris

    with atheris.instrument_imports(include=_WATCHED):
        from tests.fuzz.targets import all_targets, find_target

        target = find_target(name)
    if target is None:
        print(f"expected one of: {', '.join(all_targets())}; got {name}")
        return 2
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    is_replay = any(not flag.startswith("-") for flag in flags)
    folders = [] if is_replay else [str(found), str(CORPUS / name)]
    defaults = [f"-max_len={target.max_bytes}", f"-artifact_prefix={found}/", *_LIMITS]
    atheris.Setup([sys.argv[0], *folders, *defaults, *flags], target.run)
    atheris.Fuzz()
    return 0


def fuzz_all(seconds: int) -> int:
    """Fuzz every target for so long, and return how many broke."""
    from tests.fuzz.targets import all_targets

    with ThreadPoolExecutor(2) as pool:
        are_good = list(pool.map(lambda name: _fuzz_apart(name, seconds), all_targets()))
    if not all(are_good):
        print(_WHAT_TO_DO)
    return are_good.count(False)


def _fuzz_apart(name: str, seconds: int) -> bool:
    """Fuzz a target in a process of its own, print how it went, and return whether it held."""
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, f"-max_total_time={seconds}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    inputs = re.findall(r"stat::number_of_executed_units:\s*(\d+)", result.stdout)
    edges = re.findall(r"cov: (\d+)", result.stdout)
    is_good = result.returncode == 0 and bool(inputs)
    print(
        f"{name:20} {'held' if is_good else 'BROKE':5} {int(inputs[-1]) if inputs else 0:9,} inputs "
        f"{edges[-1] if edges else '?':>5} edges {time.monotonic() - began:6.1f} s",
        flush=True,
    )
    if not is_good:
        print("\n".join(result.stdout.splitlines()[-60:]), flush=True)
    return is_good


if __name__ == "__main__":
    sys.exit(main())
