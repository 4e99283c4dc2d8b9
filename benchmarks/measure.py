"""What every measured process shares: the model's shapes, its update, one core, a clock, and its memory.

Imports NumPy and the standard library alone, since peers run this in virtual environments of their own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
Float32Vector = npt.NDArray[np.float32]

# Updates are normal with this deviation. A dozen million draws do not reach CLIP, so nothing is clipped.
DEVIATION = 0.01
CLIP = 0.08
CLASSES = 10
_WIDEST = 128


@dataclass(frozen=True, slots=True)
class Job:
    """What one measured process is to do.

    Attributes:
        folder: where the processes of one repetition leave keys and payloads for each other.
        width: channels of ResNet-18's first block; 64 in He et al. 2016.
        contributors: how many updates the sum has.
        seeds: draw the different updates; contributor i sends the one of seed i modulo their number.
        bits: size of a quantised value; 0 where the system knows none.
        processes: worker processes; 0 for none.
    """

    folder: Path
    width: int
    contributors: int
    seeds: tuple[int, ...]
    bits: int = 0
    processes: int = 0

    @property
    def shapes(self) -> list[Shape]:
        """The model's tensors."""
        return resnet18_shapes(self.width)

    @property
    def parameters(self) -> int:
        """The model's size."""
        return count_parameters(self.shapes)

    @property
    def payloads(self) -> tuple[Path, ...]:
        """The file of each contributor's update."""
        return tuple(self.payload(self.seeds[i % len(self.seeds)]) for i in range(self.contributors))

    @property
    def total(self) -> Path:
        """The file of the encrypted sum or mean."""
        return self.folder / "total"

    def payload(self, seed: int) -> Path:
        """The file of the update of a seed."""
        return self.folder / f"update-{seed}"

    def plain_mean(self) -> npt.NDArray[np.float64]:
        """Return the mean of the contributors' updates, of shape (d,)."""
        mean = np.zeros(self.parameters)
        for i, seed in enumerate(self.seeds):
            share = len(range(i, self.contributors, len(self.seeds))) / self.contributors
            mean += share * make_update(self.parameters, seed)
        return mean


@dataclass(slots=True)
class Stopwatch:
    """Seconds by part: of the wall clock, and of processor time, that of other processes excluded."""

    wall_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time that the block takes to a part's."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s[part] = self.wall_s.get(part, 0.0) + time.perf_counter() - wall
        self.cpu_s[part] = self.cpu_s.get(part, 0.0) + time.process_time() - cpu


Role = Callable[[Job, Stopwatch], Mapping[str, float]]


def run_role(roles: Mapping[str, Role]) -> None:
    """Run the role that the command line names, and print its figures as one line of JSON.

    The figures are those that the role returns, its times, and its memory: the peak, and what of it was there
    once everything was imported.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=list(roles))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--contributors", type=int, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--bits", type=int, default=0)
    parser.add_argument("--processes", type=int, default=0)
    arguments = vars(parser.parse_args())
    role = roles[arguments.pop("role")]
    job = Job(**{**arguments, "seeds": tuple(arguments["seeds"])})
    pin_to_cores(max(job.processes, 1))
    imported_mb = peak_memory_mb(os.getpid())
    watch = Stopwatch()
    figures = dict(role(job, watch))
    # A role with workers has measured them, while they were alive.
    figures.setdefault("peak_mb", peak_memory_mb(os.getpid()))
    print(json.dumps({**figures, "imported_mb": imported_mb, "wall_s": watch.wall_s, "cpu_s": watch.cpu_s}))


def resnet18_shapes(width: int) -> list[Shape]:
    """Return ResNet-18's trainable tensors for 32 x 32 images, in order.

    He et al. 2016 (arXiv:1512.03385) with a 3 x 3 stem: 11,173,962 parameters at width 64, 988,257 at 19.
    """
    shapes: list[Shape] = [(width, 3, 3, 3), (width,), (width,)]
    before = width
    for stage in range(4):
        channels = width << stage
        for _ in range(2):
            shapes += [(channels, before, 3, 3), (channels,), (channels,)]
            shapes += [(channels, channels, 3, 3), (channels,), (channels,)]
            if before != channels:
                shapes += [(channels, before, 1, 1), (channels,), (channels,)]
            before = channels
    return [*shapes, (CLASSES, before), (CLASSES,)]


def count_parameters(shapes: Sequence[Shape]) -> int:
    """Return how many values tensors of these shapes have."""
    return sum(math.prod(shape) for shape in shapes)


def choose_width(parameters: int) -> int:
    """Return the width whose ResNet-18 comes nearest to that many parameters."""
    return min(range(1, _WIDEST), key=lambda w: abs(count_parameters(resnet18_shapes(w)) - parameters))


def make_update(parameters: int, seed: int) -> Float32Vector:
    """Return an update, of shape (d,)."""
    update = np.random.default_rng(seed).standard_normal(parameters, dtype=np.float32)
    update *= np.float32(DEVIATION)
    return update


def split_tensors(flat: Float32Vector, shapes: Sequence[Shape]) -> dict[str, Float32Vector]:
    """Return a flat vector's tensors, by name, as arrays of their own."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    pieces = np.split(flat, ends[:-1])
    return {
        f"tensor{i}": piece.reshape(shape).copy()
        for i, (piece, shape) in enumerate(zip(pieces, shapes, strict=True))
    }


def compute_error(decoded: Mapping[str, Sequence[float]], job: Job) -> float:
    """Return the largest difference between decoded tensors and the plain mean."""
    flat = np.concatenate([np.asarray(decoded[f"tensor{i}"]) for i in range(len(job.shapes))])
    return float(np.abs(flat - job.plain_mean()).max())


def pin_to_cores(count: int) -> None:
    """Keep this process, and all that it starts, on the last so many cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])


def peak_memory_mb(pid: int) -> float:
    """Return the largest resident set that a process has had, in MB; 0 where there is no /proc."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    lines = status.read_text().splitlines()
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


def find_descendants(*roots: int) -> dict[int, list[int]]:
    """Return for each process those that it started, and those that they started; none without /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold spaces.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
        children.setdefault(parent, []).append(int(stat.parent.name))
    found: dict[int, list[int]] = {}
    for root in roots:
        wave = found[root] = list(children.get(root, ()))
        while wave:
            wave = [child for parent in wave for child in children.get(parent, ())]
            found[root] += wave
    return found
