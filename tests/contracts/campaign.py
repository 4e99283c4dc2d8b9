"""`python -m tests.contracts.campaign`: many random histories, on the contract and on the model."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from fedproof.ledger.artifact import load_artifact
from tests.contracts.differential import play_random
from tests.contracts.histories import FUNCTIONS

# Histories that a process plays before it tells: ten seconds' worth.
PER_TASK = 100


def main() -> int:
    """Play the histories; return 0 if all ended the same and every function and error was seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.contracts.campaign", description=__doc__)
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="another number plays other histories")
    parser.add_argument("--first", type=int, default=0, help="begin with this history")
    arguments = parser.parse_args()
    first, end = arguments.first, arguments.first + arguments.histories
    spans = [range(start, min(start + PER_TASK, end)) for start in range(first, end, PER_TASK)]
    tally: Counter[str] = Counter()
    started = time.monotonic()
    with ProcessPoolExecutor(arguments.processes, multiprocessing.get_context("spawn")) as pool:
        for span, found in zip(spans, pool.map(play_span, [arguments.seed] * len(spans), spans), strict=True):
            if isinstance(found, str):
                pool.shutdown(cancel_futures=True)
                print(f"the model and the contract differ: {found}", file=sys.stderr)
                return 1
            tally += found
            speed = (span.stop - first) / (time.monotonic() - started)
            progress = f"{span.stop - first:,} histories, {tally.total():,} calls"
            print(f"{progress}, {speed:.1f} histories a second", flush=True)
    return report(tally)


def play_span(seed: int, span: range) -> Counter[str] | str:
    """Play the histories of these numbers; return the tally, or what differed first."""
    tally: Counter[str] = Counter()
    for number in span:
        try:
            play_random(f"{seed}/{number}", tally)
        except AssertionError as difference:
            return f"--seed {seed} --first {number} --histories 1\n{difference}"
    return tally


def report(tally: Counter[str]) -> int:
    """Print what was seen, and return 1 if a function was never accepted or an error never seen."""
    missing = []
    for outcome, names in (("accepted", FUNCTIONS), ("refused", load_artifact().entries("error"))):
        print(f"\n{outcome}:")
        for name in sorted(names):
            seen = tally[f"{outcome} {name}"]
            print(f"{seen:>12,}  {name}")
            missing += [] if seen else [f"{outcome} {name}"]
    print(f"\nnever seen: {', '.join(missing) or 'none of these'}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
