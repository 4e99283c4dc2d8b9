"""`fedproof policy`: write the document that a federation agrees on, and read one."""

from __future__ import annotations

import json as json_module
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedproof.commands.codec import compute_update_bytes
from fedproof.commands.options import Json
from fedproof.commands.output import report
from fedproof.errors import ConfigurationError

if TYPE_CHECKING:
    from fedproof.policy import Policy

app = typer.Typer(
    no_args_is_help=True, help="Write and read policies: which model, how it is trained and encoded."
)

CODEC, ROUNDS, TRAINING = "Codec", "Rounds", "Training"


@app.command()
def new(
    *,
    task: Annotated[
        str, typer.Option(help="The task that builds the model.", metavar="PACKAGE.MODULE:CLASS")
    ],
    output: Annotated[Path, typer.Option(help="The policy to write; it must not exist.")] = Path(
        "policy.toml"
    ),
    task_config: Annotated[Path | None, typer.Option(help="TOML file with the settings of the task.")] = None,
    task_setting: Annotated[
        list[str] | None,
        typer.Option(
            help="One setting of the task, as JSON or plain text; may be repeated.", metavar="KEY=VALUE"
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(help="The policy's name; by default, the task's.", show_default=False)
    ] = "",
    seed: Annotated[int, typer.Option(help="Under which every node builds the first model.")] = 7,
    bits: Annotated[int, typer.Option(help="Bits for each value of an update.", rich_help_panel=CODEC)] = 15,
    clip: Annotated[
        float,
        typer.Option(help="Largest bound of an update's every value, and the first.", rich_help_panel=CODEC),
    ] = 1.0,
    clip_margin: Annotated[
        float,
        typer.Option(
            help="A tensor's next bound: this times the root mean square of a node's changes in it, as the "
            "sum tells, at most --clip. 0: it stays at --clip.",
            rich_help_panel=CODEC,
        ),
    ] = 12.0,
    keep_one_in: Annotated[
        int,
        typer.Option(
            help="Of so many consecutive values one, drawn anew each round, travels.", rich_help_panel=CODEC
        ),
    ] = 1,
    error_feedback: Annotated[
        bool,
        typer.Option(help="Add what an update leaves unsent to the node's next one.", rich_help_panel=CODEC),
    ] = False,
    max_contributors: Annotated[
        int, typer.Option(help="Most updates that one sum may hold.", rich_help_panel=CODEC)
    ] = 16,
    min_contributors: Annotated[
        int, typer.Option(help="Fewest contributors of a round.", rich_help_panel=ROUNDS)
    ] = 2,
    attestation_quorum: Annotated[
        int, typer.Option(help="Equal attestations that finalise a round.", rich_help_panel=ROUNDS)
    ] = 2,
    max_examples: Annotated[
        int, typer.Option(help="More training examples than this do not weigh more.", rich_help_panel=ROUNDS)
    ] = 10_000,
    commit_window_s: Annotated[
        int, typer.Option(help="Seconds to train and commit.", rich_help_panel=ROUNDS)
    ] = 600,
    aggregate_window_s: Annotated[
        int, typer.Option(help="Seconds to publish the sum.", rich_help_panel=ROUNDS)
    ] = 600,
    attest_window_s: Annotated[
        int, typer.Option(help="Seconds to verify and attest.", rich_help_panel=ROUNDS)
    ] = 600,
    batching: Annotated[
        bool,
        typer.Option(
            help="Signed commitments and attestations in batches, not a transaction for each.",
            rich_help_panel=ROUNDS,
        ),
    ] = False,
    retention_days: Annotated[
        int,
        typer.Option(
            help="The aggregator deletes single updates so many days after their round, and keeps the sums. "
            "0: never.",
            rich_help_panel=ROUNDS,
        ),
    ] = 0,
    epochs: Annotated[int, typer.Option(help="Epochs of local training.", rich_help_panel=TRAINING)] = 1,
    batch_size: Annotated[int, typer.Option(help="Examples in a batch.", rich_help_panel=TRAINING)] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of plain SGD.", rich_help_panel=TRAINING)] = 0.05,
    momentum: Annotated[float, typer.Option(help="Of plain SGD.", rich_help_panel=TRAINING)] = 0.9,
    weight_decay: Annotated[float, typer.Option(help="Of plain SGD.", rich_help_panel=TRAINING)] = 0.0,
    json: Json = False,
) -> None:
    """Write a policy for a task.

    Builds the task's model once, in a process of its own, so that the policy can name its architecture and
    the digest of the first model. Needs the extra `node` (torch). Everything else can be edited in the file.

    Example: `fedproof policy new --task fedproof.tasks.breast_cancer:BreastCancer --task-setting hospital=0`
    """
    from fedproof.config import parse_document
    from fedproof.files import PUBLIC, write_new
    from fedproof.model import Model
    from fedproof.policy import Policy
    from fedproof.training import describe_task

    if output.exists():
        raise ConfigurationError(
            f"{output}: expected no file there, got an existing one; it is not overwritten"
        )
    document: dict[str, Any] = {
        "name": name or task.rpartition(":")[2],
        # Stand-ins, so that a mistake in an option is found before the model is built.
        "model": {
            "architecture": "0x" + "00" * 32,
            "parameters": 1,
            "genesis": "0x" + "00" * 32,
            "seed": seed,
        },
        "codec": {
            "bits": bits,
            "max_contributors": max_contributors,
            "clip": clip,
            "clip_margin": clip_margin,
            "keep_one_in": keep_one_in,
            "error_feedback": error_feedback,
        },
        "rounds": {
            "min_contributors": min_contributors,
            "attestation_quorum": attestation_quorum,
            "max_examples": max_examples,
            "commit_window_s": commit_window_s,
            "aggregate_window_s": aggregate_window_s,
            "attest_window_s": attest_window_s,
            "batching": batching,
        },
        "training": {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "momentum": momentum,
            "weight_decay": weight_decay,
        },
        "evidence": {"retention_days": retention_days},
    }
    parse_document(document, Policy, where="policy").codec_parameters()
    layout, genesis = describe_task(task, _read_settings(task_config, task_setting or []), seed=seed)
    document["model"] |= {
        "architecture": layout.digest,
        "parameters": layout.parameters,
        "genesis": Model(genesis, (clip,) * len(layout.group_sizes)).compute_digest(layout.digest),
    }
    policy = parse_document(document, Policy, where="policy")
    write_new(output, policy.dump_toml().encode(), mode=PUBLIC)
    report({"policy": output, **_describe(policy)}, as_json=json)


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="The policy.")] = Path("policy.toml"), json: Json = False
) -> None:
    """Check a policy and print its digest, as the ledger has it, all that it says, and what follows from it.

    Example: `fedproof policy show policy.toml`
    """
    from fedproof.policy import Policy

    report(_describe(Policy.load(path)), as_json=json)


def _describe(policy: Policy) -> dict[str, object]:
    codec, length = policy.codec_parameters(), policy.update_length
    return {
        "digest": policy.digest,
        "name": policy.name,
        **asdict(policy.model),
        **asdict(policy.codec),
        **asdict(policy.rounds),
        **asdict(policy.training),
        **asdict(policy.privacy),
        **asdict(policy.evidence),
        "codec_digest": codec.digest,
        "values_per_slot": codec.values_per_slot,
        "values_per_update": length,
        "bytes_per_update": compute_update_bytes(codec, length),
        "chunks": codec.chunk_count(length),
    }


def _read_settings(path: Path | None, pairs: list[str]) -> dict[str, object]:
    settings: dict[str, object] = {}
    if path is not None:
        from fedproof.files import read_whole

        try:
            settings |= tomllib.loads(read_whole(path, "a TOML file with a task's settings").decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: expected TOML, got: {error}") from error
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise ConfigurationError(f"--task-setting: expected KEY=VALUE, got {pair!r}")
        try:
            settings[key] = json_module.loads(text)
        except ValueError:
            settings[key] = text  # such as a path
    return settings
