"""The codec beside CKKS as others use it: bytes, time and memory, every system in one run.

    python benchmarks/codec.py                               both models, all systems (about ten minutes)
    python benchmarks/codec.py --params 1000000 --repeat 1   a first look
    python benchmarks/codec.py --params 11200000 --json      one JSON object a line for machines

The systems are ours, by number of bits; NVFlare's own classes with the settings that it provisions; and
TenSEAL's CKKS with the same settings and nothing around it, in our TenSEAL. Every measurement is a process of
its own, pinned to one core but for the rows of two processes. The systems take turns, as often as --repeat
says, and a figure is the median. NVFlare lives in a virtual environment of its own, which the first run makes
(a download of 100 MB); --nvflare names another one.

Microseconds per parameter are seconds per million parameters, and bytes per parameter are their megabytes.
Ours: client is quantising, packing, encrypting, framing and hashing; aggregator is hashing, checking, loading
and adding, for each contributor; decrypt is checking, decrypting, unpacking and applying the mean. Writing
out the sum stands beside it, once for all contributors.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codec_table import print_tables
from measure import choose_width, count_parameters, resnet18_shapes
from peer_environment import ensure_environment, find_cache

HERE = Path(__file__).parent
NVFLARE = ("nvflare==2.9.0", "tenseal==0.3.15")
MODELS = (1_000_000, 11_200_000)
# So many different updates make up a sum; contributors take turns at sending them.
UPDATES = 2
ROLE_TIMEOUT_S = 900

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class System:
    """One line of the table.

    Attributes:
        name: what the table calls it.
        script: what its processes run, below this folder.
        interpreter: what runs it.
        bits: size of a quantised value; 0 where there is none.
        processes: worker processes; 0 for none.
    """

    name: str
    script: str
    interpreter: str = sys.executable
    bits: int = 0
    processes: int = 0


def main() -> None:
    """Measure all systems and print what they came to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=int, nargs="+", default=list(MODELS),
                        help="sizes of ResNet-18; the nearest one with its proportions is taken")  # fmt: skip
    parser.add_argument("--contributors", type=int, default=10)
    parser.add_argument("--bits", type=int, nargs="+", default=[15, 12, 8])
    parser.add_argument("--repeat", type=int, default=3, help="turns of each system")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall",
                        help="cpu: processor time, for a busy machine; one process only")  # fmt: skip
    parser.add_argument("--crowd", type=int, default=100,
                        help="contributors for the aggregator's memory; 0: not measured")  # fmt: skip
    parser.add_argument("--no-peer", action="store_true", help="without NVFlare and TenSEAL's CKKS")
    parser.add_argument("--nvflare", type=Path, metavar="FOLDER",
                        default=os.environ.get("FEDPROOF_BENCH_NVFLARE") or find_cache("nvflare-2.9.0"),
                        help="NVFlare's virtual environment (default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print rows for machines")
    arguments = parser.parse_args()
    systems = _choose_systems(arguments)
    for parameters in arguments.params:
        width = choose_width(parameters)
        rows = _measure_all(systems, width, arguments)
        crowd = (
            _measure_crowd(width, arguments)
            if arguments.crowd and parameters == max(arguments.params)
            else None
        )
        if arguments.json:
            for row in (*rows, *filter(None, (crowd,))):
                print(json.dumps(row), flush=True)
        else:
            print_tables(rows, crowd)


def _choose_systems(arguments: argparse.Namespace) -> list[System]:
    ours = "codec_fedproof.py"
    systems = [System("fedproof", ours, bits=bits) for bits in arguments.bits]
    if arguments.clock == "wall":
        bits = arguments.bits[0]
        systems += [System("fedproof", ours, bits=bits, processes=count) for count in (1, 2)]
    if not arguments.no_peer:
        interpreter = ensure_environment(arguments.nvflare, NVFLARE)
        systems.append(System("nvflare", "peers/nvflare_he.py", str(interpreter)))
        systems.append(System("tenseal-ckks", "peers/tenseal_ckks.py"))
    return systems


def _measure_all(systems: Sequence[System], width: int, arguments: argparse.Namespace) -> list[Row]:
    turns: defaultdict[System, list[Row]] = defaultdict(list)
    for turn in range(arguments.repeat):
        for system in systems:
            with tempfile.TemporaryDirectory() as folder:
                turns[system].append(_measure(system, width, Path(folder), turn, arguments))
    return [_merge(system, rows) for system, rows in turns.items()]


def _merge(system: System, rows: Sequence[Row]) -> Row:
    """Return the medians of a system's turns."""
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return {
        "system": system.name,
        "bits": system.bits or None,
        "processes": system.processes,
        "turns": len(rows),
        **medians,
    }


def _measure(system: System, width: int, folder: Path, turn: int, arguments: argparse.Namespace) -> Row:
    """Return what one turn of a system came to: keys, updates, sum, and the sum decrypted."""
    parameters = count_parameters(resnet18_shapes(width))
    seeds = range(turn * UPDATES, (turn + 1) * UPDATES)
    count = arguments.contributors

    def run(role: str, *some: int) -> Row:
        return _run(system, role, folder, width=width, contributors=count, seeds=some or tuple(seeds))

    def us(figures: Mapping[str, Any], *parts: str) -> float:
        clock = figures[f"{arguments.clock}_s"]
        return sum(float(clock[part]) for part in parts) / parameters * 1e6

    run("keys")
    clients = [run("client", seed) for seed in seeds]
    server = run("server")
    decrypt = run("decrypt")
    encrypting = [part for part in ("encrypt", "serialise") if part in clients[0]["wall_s"]]
    roles = {"client": clients[0], "aggregator": server, "decrypt": decrypt}
    return {
        "parameters": parameters,
        "contributors": count,
        "bytes_per_param": statistics.median(client["bytes"] for client in clients) / parameters,
        "sum_bytes_per_param": server["bytes"] / parameters,
        "client_us_per_param": statistics.median(us(client, *encrypting) for client in clients),
        "aggregator_us_per_param": us(server, "add") / count,
        "publish_us_per_param": us(server, "publish"),
        "aggregator_all_us_per_param": us(server, "add", "publish") / count,
        "decrypt_us_per_param": us(decrypt, "decrypt"),
        "error": decrypt["error"],
        "peak_rss_mb": max(figures["peak_mb"] for figures in roles.values()),
        **{f"{role}_peak_mb": figures["peak_mb"] for role, figures in roles.items()},
        "imported_mb": server["imported_mb"],
    }


def _measure_crowd(width: int, arguments: argparse.Namespace) -> Row:
    """Return the memory of an aggregator of many contributors, of all its processes together."""
    system = System("fedproof", "codec_fedproof.py", bits=arguments.bits[0], processes=2)
    with tempfile.TemporaryDirectory() as folder:

        def run(role: str, *seeds: int) -> Row:
            crowd = arguments.crowd
            return _run(system, role, Path(folder), width=width, contributors=crowd, seeds=seeds)

        seeds = tuple(range(UPDATES))
        run("keys", *seeds)
        for seed in seeds:
            run("client", seed)
        server = run("server", *seeds)
        run("decrypt", *seeds)
    return {
        "system": "fedproof",
        "bits": system.bits,
        "processes": system.processes,
        "parameters": count_parameters(resnet18_shapes(width)),
        "contributors": arguments.crowd,
        "peak_rss_mb": server["peak_mb"],
        "imported_mb": server["imported_mb"],
    }


def _run(
    system: System, role: str, folder: Path, *, width: int, contributors: int, seeds: Sequence[int]
) -> Row:
    """Return the figures of one process.

    Raises:
        SystemExit: it failed, or its mean is not the plain one.
    """
    command = [system.interpreter, str(HERE / system.script), role, "--folder", str(folder)]
    command += ["--width", str(width), "--contributors", str(contributors), "--seeds", *map(str, seeds)]
    command += ["--bits", str(system.bits), "--processes", str(system.processes)]
    settings = {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # As our daemons run their codec: glibc keeps freed buffers. It does the others no harm.
        "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
        "PYTHONPATH": str(HERE),
    }
    if system.interpreter == sys.executable:
        settings["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=ROLE_TIMEOUT_S, check=False,
        env={**os.environ, **settings},
    )  # fmt: skip
    if finished.returncode != 0:
        raise SystemExit(
            f"{system.name}, {role}: ended with {finished.returncode}\n{finished.stderr[-3000:]}"
        )
    # Libraries print lines of their own before.
    figures: Row = json.loads(finished.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
