"""What a federation is compared with: plain float32 FedAvg, local-only and centralised training.

    python -m fedproof.baselines --task package.module:Class --policy policy.toml --rounds 5 \\
        --node 'a:{"hospital": 0}' --node 'b:{"hospital": 1}' \\
        --centralised '{"hospital": "all"}' --plain-fedavg

Prints one line of JSON: the accuracy after the last round of each run, and all rounds under "rounds". It
trains in this very process, which needs torch.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from fedproof.errors import ConfigurationError, FedproofError
from fedproof.policy import Policy, TrainingPlan
from fedproof.task import Task, load_task

if TYPE_CHECKING:
    from fedproof.tasks.runner import TaskRunner

QUANTILES = (0.5, 0.99, 0.999, 0.9999, 1.0)


@dataclass(frozen=True, slots=True)
class BaselineRound:
    """How a run stood after a round.

    Attributes:
        accuracy: on the first participant's evaluation set.
        loss: on the same.
        seconds: training of all participants, one after the other, and averaging.
        delta_quantiles: of an update's absolute values, at `QUANTILES`, the greatest over participants. A
            policy's clip is chosen by them.
    """

    accuracy: float
    loss: float
    seconds: float
    delta_quantiles: tuple[float, ...]


def run_plain_fedavg(
    tasks: Sequence[Task], plan: TrainingPlan, *, rounds: int, seed: int, max_examples: int
) -> Iterator[BaselineRound]:
    """Yield the rounds of FedAvg in float32, without encryption or ledger.

    McMahan et al. 2017, Algorithm 1 (arXiv:1602.05629), with every participant in every round, and weights
    min(examples, max_examples). A single task makes it local-only training, or centralised training if it
    holds all the data; with the same rounds and epochs, each example is then seen as often.

    Raises:
        ConfigurationError: a task's model cannot travel; `TaskFailed` when a task's own code raised.
    """
    from fedproof.tasks.runner import TaskRunner

    runners = [TaskRunner(task, seed=seed) for task in tasks]
    flat = runners[0].genesis
    for round in range(1, rounds + 1):
        flat, deltas, seconds = _run_round(runners, flat, plan, round=round, max_examples=max_examples)
        evaluation = runners[0].evaluate(flat)
        quantiles = np.max([np.quantile(np.abs(delta), QUANTILES) for delta in deltas], axis=0)
        yield BaselineRound(evaluation.accuracy, evaluation.loss, seconds, tuple(quantiles.tolist()))


def apply_weighted_mean(
    base: NDArray[np.float32], deltas: Sequence[NDArray[np.float32]], weights: Sequence[int]
) -> NDArray[np.float32]:
    """Return the base plus the weighted mean of the deltas, summed in float64 and rounded once."""
    total = np.zeros(base.shape, dtype=np.float64)
    for delta, weight in zip(deltas, weights, strict=True):
        total += delta.astype(np.float64) * weight
    return (base + total / sum(weights)).astype(np.float32)


def main(
    *,
    task: Annotated[str, typer.Option(help="package.module:Class")],
    policy: Annotated[Path, typer.Option(help="The federation's policy: plan, seed, weight cap.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds for each run.")],
    node: Annotated[list[str], typer.Option(help="A participant: NAME:{its task's settings as JSON}.")],
    centralised: Annotated[str, typer.Option(help="Settings, as JSON, that hold all the data.")] = "",
    plain_fedavg: Annotated[
        bool, typer.Option("--plain-fedavg", help="Average the participants, too.")
    ] = False,
    local: Annotated[bool, typer.Option(help="Train each participant alone.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="Threads that torch may use.")] = 1,
    progress: Annotated[bool, typer.Option("--progress", help="Print each round on standard error.")] = False,
) -> None:
    """Train without encryption or ledger, and print how good the models are."""
    try:
        participants = dict(_parse_node(each) for each in node)
        runs: dict[str, list[Mapping[str, object]]] = {}
        if centralised:
            runs["centralised"] = [_parse_settings(centralised, "--centralised")]
        if plain_fedavg:
            runs["plain_fedavg"] = list(participants.values())
        if local:
            runs |= {f"local {name}": [settings] for name, settings in participants.items()}
        agreed = Policy.load(policy)
        _limit_threads(threads)
        results: dict[str, list[BaselineRound]] = {}
        for name, settings_of_run in runs.items():
            results[name] = []
            for result in _run(task, settings_of_run, agreed, rounds=rounds):
                results[name].append(result)
                if progress:
                    typer.echo(_describe(name, len(results[name]), result), err=True)
    except FedproofError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    typer.echo(json.dumps(_summarise(results)))


def _run(
    reference: str, settings: Sequence[Mapping[str, object]], policy: Policy, *, rounds: int
) -> Iterator[BaselineRound]:
    return run_plain_fedavg(
        [load_task(reference, each) for each in settings],
        policy.training,
        rounds=rounds,
        seed=policy.model.seed,
        max_examples=policy.rounds.max_examples,
    )


def _describe(name: str, round: int, result: BaselineRound) -> str:
    return (
        f"{name}: round {round}: accuracy {result.accuracy:.4f}, loss {result.loss:.4f}, "
        f"{result.seconds:.1f} s, largest |delta| {result.delta_quantiles[-1]:.3f}"
    )


def _run_round(
    runners: Sequence[TaskRunner],
    base: NDArray[np.float32],
    plan: TrainingPlan,
    *,
    round: int,
    max_examples: int,
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]], float]:
    """Return the new model, the participants' deltas, and the seconds it took."""
    start = time.perf_counter()
    outcomes = [runner.train(base, plan, round=round) for runner in runners]
    deltas = [outcome.flat - base for outcome in outcomes]
    weights = [min(outcome.examples, max_examples) for outcome in outcomes]
    return apply_weighted_mean(base, deltas, weights), deltas, time.perf_counter() - start


def _summarise(results: Mapping[str, Sequence[BaselineRound]]) -> dict[str, object]:
    summary: dict[str, object] = {}
    if "centralised" in results:
        summary["centralised"] = results["centralised"][-1].accuracy
    if "plain_fedavg" in results:
        summary["plain_fedavg"] = [each.accuracy for each in results["plain_fedavg"]]
    summary["local"] = {
        name.removeprefix("local "): rounds[-1].accuracy
        for name, rounds in results.items()
        if name.startswith("local ")
    }
    summary["rounds"] = {
        name: [dataclasses.asdict(each) for each in rounds] for name, rounds in results.items()
    }
    return summary


def _parse_node(option: str) -> tuple[str, Mapping[str, object]]:
    name, colon, settings = option.partition(":")
    if not (name and colon):
        raise ConfigurationError(f"--node: expected NAME:{{settings as JSON}}, got {option!r}")
    return name, _parse_settings(settings, f"--node {name}")


def _parse_settings(text: str, where: str) -> Mapping[str, object]:
    try:
        settings = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{where}: expected settings as JSON, got {text!r} ({error})") from error
    if not isinstance(settings, dict):
        raise ConfigurationError(f"{where}: expected a JSON object of settings, got {text!r}")
    return settings


def _limit_threads(threads: int) -> None:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"baselines: expected torch (in a clone of fedproof: pip install '.[node]'): {error}"
        ) from error
    torch.set_num_threads(threads)


if __name__ == "__main__":
    typer.run(main)
