"""What sending fewer bytes costs in accuracy: every compression option of the policy, on Fashion-MNIST.

    python benchmarks/compression.py                                  the table, as Markdown
    python benchmarks/compression.py --options "float32,8 bits" --rounds 5 --json

Federated averaging in one process: nodes train as in `fedproof.baselines`, and their updates go through the
product's quantisation, clips, selection and residuals. Where the product adds ciphertexts, the integers
themselves are added up. That is what encryption computes, exactly: the codec's tests prove that a decrypted
sum is the sum of the integers.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedproof.baselines import apply_weighted_mean
from fedproof.codec.parameters import CodecParameters
from fedproof.codec.quantise import apply_mean, compute_residual, quantise
from fedproof.codec.scaling import Scaling, compute_next_clips
from fedproof.codec.selection import Selection, compute_selection_seed
from fedproof.commands.codec import compute_update_bytes
from fedproof.digests import Address
from fedproof.model import Model, ModelLayout, save_model
from fedproof.policy import TrainingPlan
from fedproof.tasks.fashion_mnist import FashionMnist
from fedproof.tasks.messages import TrainOutcome
from fedproof.tasks.runner import TaskRunner

# As in benchmarks/end_to_end.py.
NODES = 10
ROUNDS = 20
MODEL_PARAMETERS = 105_866
MAX_CONTRIBUTORS = 16
MAX_EXAMPLES = 10_000
MODEL_SEED = 7
PLAN = TrainingPlan(epochs=1, batch_size=32, learning_rate=0.03, momentum=0.9, weight_decay=0.0)

PUBLIC_IMAGES = 6000
PRETRAINING = replace(PLAN, epochs=3)
LAST = 3  # rounds that the steadier figure is a mean over


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    Attributes:
        bits: of a value; 0 averages float32.
        clip: as in the policy, and so are the next three.
        clip_margin: 0 keeps the clip as it is.
        keep_one_in: 1 sends every value.
        error_feedback: whether what stays unsent is added to the next update.
        pretrained: start from the pre-trained model, and take the public images from the nodes.
        adapter_rank: of the adapters that train alone; 0 trains the whole model.
    """

    bits: int = 0
    clip: float = 1.0
    clip_margin: float = 0.0
    keep_one_in: int = 1
    error_feedback: bool = False
    pretrained: bool = False
    adapter_rank: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """How a run stood after a round: accuracy on the test images, and the share of sent values clipped."""

    accuracy: float
    clipped: float


FLOAT32 = Option()
PRETRAINED = Option(pretrained=True)
ADAPTIVE = Option(bits=15, clip_margin=12.0)
FIXED = Option(bits=15, clip=0.25)
OPTIONS = {
    "float32": FLOAT32,
    "24 bits": replace(ADAPTIVE, bits=24),
    "15 bits": ADAPTIVE,
    "12 bits": replace(ADAPTIVE, bits=12),
    "8 bits": replace(ADAPTIVE, bits=8),
    "15 bits, clips fixed at 0.25": FIXED,
    "8 bits, clips fixed at 0.25": replace(FIXED, bits=8),
    "8 bits, clips fixed at 1": replace(FIXED, bits=8, clip=1.0),
    "8 bits, clips fixed at 4": replace(FIXED, bits=8, clip=4.0),
    "8 bits, clips from 4": replace(ADAPTIVE, bits=8, clip=4.0),
    "8 bits, feedback": replace(ADAPTIVE, bits=8, error_feedback=True),
    "15 bits, one in 2": replace(ADAPTIVE, keep_one_in=2),
    "15 bits, one in 2, feedback": replace(ADAPTIVE, keep_one_in=2, error_feedback=True),
    "15 bits, one in 4": replace(ADAPTIVE, keep_one_in=4),
    "15 bits, one in 4, feedback": replace(ADAPTIVE, keep_one_in=4, error_feedback=True),
    "15 bits, one in 8": replace(ADAPTIVE, keep_one_in=8),
    "15 bits, one in 8, feedback": replace(ADAPTIVE, keep_one_in=8, error_feedback=True),
    "8 bits, one in 4, feedback": replace(ADAPTIVE, bits=8, keep_one_in=4, error_feedback=True),
    "pre-trained: float32": PRETRAINED,
    "pre-trained: 15 bits": replace(ADAPTIVE, pretrained=True),
    "pre-trained: adapters of rank 8, float32": replace(PRETRAINED, adapter_rank=8),
    "pre-trained: adapters of rank 8, 15 bits": replace(ADAPTIVE, pretrained=True, adapter_rank=8),
    "pre-trained: adapters of rank 8, 8 bits": replace(ADAPTIVE, bits=8, pretrained=True, adapter_rank=8),
    "pre-trained: adapters of rank 4, 15 bits": replace(ADAPTIVE, pretrained=True, adapter_rank=4),
}


def main() -> None:
    """Run the options and print their table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--options", help="names as in the table, separated by semicolons (default: all)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="fewer rounds, for a first look")
    parser.add_argument("--seeds", type=int, default=1, help="repeat with so many seeds, and average")
    parser.add_argument("--json", action="store_true", help="print rows for machines, each when it is done")
    arguments = parser.parse_args()
    names = [name.strip() for name in arguments.options.split(";")] if arguments.options else list(OPTIONS)
    if unknown := set(names) - set(OPTIONS):
        parser.error(f"--options: expected names out of {'; '.join(OPTIONS)}, got {'; '.join(unknown)}")
    torch.set_num_threads(1)
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            rows[name] = measure(
                OPTIONS[name], rounds=arguments.rounds, seeds=arguments.seeds, folder=Path(scratch)
            )
            line = json.dumps({"option": name, **rows[name]})
            print(line, file=sys.stdout if arguments.json else sys.stderr, flush=True)
    if not arguments.json:
        print(as_markdown(rows))


def measure(option: Option, *, rounds: int, seeds: int, folder: Path) -> dict[str, Any]:
    """Return an option's row: means over the seeds.

    Args:
        option: what travels, and how.
        rounds: of each run.
        seeds: how many runs. A seed draws the first model, the order of examples, and the rounding; the
            images are split among the nodes as in the end-to-end benchmark.
        folder: where pre-trained models are, and are put when they are not.
    """
    runs = []
    for seed in range(seeds):
        runners = [TaskRunner(task, seed=MODEL_SEED + seed) for task in build_tasks(option, seed, folder)]
        runs.append(list(run(option, runners, rounds=rounds, seed=seed)))
    return {
        "bits": option.bits or 32,
        "values": math.ceil(runners[0].layout.parameters / option.keep_one_in),
        "update_bytes": compute_bytes(option, runners[0].layout.parameters),
        "accuracy": statistics.mean(rounds[-1].accuracy for rounds in runs),
        "accuracy_last_rounds": statistics.mean(each.accuracy for rounds in runs for each in rounds[-LAST:]),
        "clipped": statistics.mean(each.clipped for rounds in runs for each in rounds),
        "accuracy_by_round": [[each.accuracy for each in rounds] for rounds in runs],
    }


def run(option: Option, runners: Sequence[TaskRunner], *, rounds: int, seed: int) -> Iterator[Round]:
    """Yield the rounds of one federation."""
    layout = runners[0].layout
    model = Model(runners[0].genesis, (option.clip,) * len(layout.group_sizes))
    residuals = [np.zeros_like(model.flat) for _ in runners]
    rng = np.random.default_rng(seed)
    for round in range(1, rounds + 1):
        outcomes = [
            runner.train(model.flat + residual, PLAN, round=round)
            for runner, residual in zip(runners, residuals, strict=True)
        ]
        clipped = 0.0
        if option.bits:
            model, clipped = average_compressed(
                option, layout, model, outcomes, residuals=residuals, rng=rng, round=round
            )
        else:
            deltas = [outcome.flat - model.flat for outcome in outcomes]
            weights = [min(outcome.examples, MAX_EXAMPLES) for outcome in outcomes]
            model = replace(model, flat=apply_weighted_mean(model.flat, deltas, weights))
        yield Round(runners[0].evaluate(model.flat).accuracy, clipped)


def average_compressed(
    option: Option,
    layout: ModelLayout,
    base: Model,
    outcomes: Sequence[TrainOutcome],
    *,
    residuals: Sequence[NDArray[np.float32]],
    rng: np.random.Generator,
    round: int,
) -> tuple[Model, float]:
    """Return the next model, and the share of the sent values that were clipped.

    Args:
        option: what travels, and how.
        layout: the model's.
        base: what the updates are the differences to.
        outcomes: what each node trained.
        residuals: each node's; with error feedback they become what this round leaves unsent.
        rng: draws the rounding.
        round: draws, with the base model, the selection.
    """
    limit = CodecParameters.plan(bits=option.bits, max_contributors=MAX_CONTRIBUTORS).limit
    scaling = Scaling(limit, MAX_EXAMPLES, layout.group_sizes, base.clips)
    digest = base.compute_digest(layout.digest)
    seed = compute_selection_seed(chain_id=1, contract=Address(bytes(20)), round=round, base_model=digest)
    selection = Selection(layout.parameters, option.keep_one_in, seed)
    positions = selection.positions(0, selection.length)
    clips = scaling.clips_at(positions)
    sums = np.zeros(selection.length, dtype=np.int64)
    clipped = []
    for outcome, residual in zip(outcomes, residuals, strict=True):
        delta = outcome.flat - base.flat
        sent = delta[positions]
        weight = scaling.compute_weight(outcome.examples)
        values = quantise(sent, clips, limit=limit, weight=weight, rng=rng)
        sums += values  # the product adds ciphertexts
        clipped.append(float(np.mean(np.abs(sent) > clips)))
        if option.error_feedback:
            residual[:] = delta
            residual[positions] = compute_residual(sent, values, clips, limit=limit, weight=weight)
    total_examples = sum(min(outcome.examples, MAX_EXAMPLES) for outcome in outcomes)
    flat = base.flat.copy()
    flat[positions] = apply_mean(
        flat[positions],
        sums,
        clips,
        limit=limit,
        max_examples=MAX_EXAMPLES,
        total_examples=total_examples,
    )
    next_clips = compute_next_clips(
        scaling,
        scaling.measure(sums, positions),
        contributors=len(outcomes),
        total_examples=total_examples,
        clip_margin=option.clip_margin,
        clip_max=option.clip,
    )
    return Model(flat, next_clips), statistics.mean(clipped)


def build_tasks(option: Option, seed: int, folder: Path) -> list[FashionMnist]:
    """Return the nodes' tasks."""
    common: dict[str, Any] = {"nodes": NODES, "split": "dirichlet", "alpha": 0.5, "seed": seed}
    if option.pretrained:
        path = folder / f"pretrained-{seed}.model"
        if not path.exists():
            pretrain(path, seed=seed)
        common |= {"public": PUBLIC_IMAGES, "pretrained": str(path), "adapter_rank": option.adapter_rank}
    return [FashionMnist(node=node, **common) for node in range(NODES)]


def pretrain(path: Path, *, seed: int) -> None:
    """Write a model that was trained on images that no node has."""
    runner = TaskRunner(FashionMnist(node="public", public=PUBLIC_IMAGES, seed=seed), seed=MODEL_SEED + seed)
    trained = runner.train(runner.genesis, PRETRAINING, round=1)
    accuracy = runner.evaluate(trained.flat).accuracy
    print(f"pre-trained on {PUBLIC_IMAGES} public images: accuracy {accuracy:.4f}", file=sys.stderr)
    save_model(path, runner.layout, Model(trained.flat, (1.0,) * len(runner.layout.group_sizes)))


def compute_bytes(option: Option, parameters: int) -> int:
    """Return the bytes of an update's chunks, or of the float32 values."""
    if not option.bits:
        return 4 * parameters
    codec = CodecParameters.plan(bits=option.bits, max_contributors=MAX_CONTRIBUTORS)
    return compute_update_bytes(codec, math.ceil(parameters / option.keep_one_in))


def as_markdown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table. Differences are to the float32 run with the same start, in points."""
    lines = [
        "| option | bits | bytes a parameter | update, KB | accuracy | mean of the last three rounds | "
        "to float32, points | clipped |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        plain = rows.get("pre-trained: float32" if OPTIONS[name].pretrained else "float32")
        steady = row["accuracy_last_rounds"]
        difference = "" if plain is None else f"{100 * (steady - plain['accuracy_last_rounds']):+.2f}"
        lines.append(
            f"| {name} | {row['bits']} | {row['update_bytes'] / MODEL_PARAMETERS:.2f} | "
            f"{row['update_bytes'] / 1000:.0f} | {row['accuracy']:.2%} | {steady:.2%} | {difference} | "
            f"{row['clipped']:.1e} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
