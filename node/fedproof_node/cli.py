"""`fedproof node`: make a node's folder, register it, run it, leave."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from fedproof.digests import ZERO_DIGEST, Digest, checksum_address
from fedproof.errors import ConfigurationError
from fedproof.keys.wallet import read_password
from fedproof.logs import configure_logs

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from fedproof.keys.wrapping import WrappingKey
    from fedproof.ledger.client import Ledger
    from fedproof_node.config import NodeConfig

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="A participant's node: init, then register, then run; approve the policy, and leave one day.",
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[Path, typer.Option("--config", help="The node's configuration file.")]
PasswordOption = Annotated[
    Path | None,
    typer.Option(help="File with the password on its first line; $FEDPROOF_PASSWORD without it."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Send nothing: say what it would cost, or why it would be refused.")
]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="New folder for configuration, keys and state.")],
    *,
    name: Annotated[str, typer.Option(help="What logs call this node.")],
    task: Annotated[str, typer.Option(help="Model and data, as package.module:Class.")],
    task_setting: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="What the task's constructor takes; VALUE as JSON, or text."),
    ] = None,
    target: Annotated[str, typer.Option(help="The aggregator's host:port.")],
    policy: Annotated[Path, typer.Option(help="The federation's policy document.")] = Path("policy.toml"),
    address_book: Annotated[Path | None, typer.Option(help="What `fedproof deploy` wrote.")] = None,
    contract: Annotated[
        str | None, typer.Option(help="The contract's address, without an address book.")
    ] = None,
    rpc_url: Annotated[
        str | None, typer.Option(help="The chain's endpoint; the address book's without it.")
    ] = None,
    authority: Annotated[
        Path | None,
        typer.Option(help="Certificate authority's folder, to issue this node's certificate from."),
    ] = None,
    codec_processes: Annotated[
        int, typer.Option(min=0, help="Processes that encrypt and decrypt; 0: one for each core.")
    ] = 0,
    password_file: PasswordOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a node's folder: node.toml, a wallet, a wrapping key and, from an authority, a TLS certificate.

    Prints the node's address, which the operator admits and which needs some of the chain's currency.
    """
    from fedproof_node.folder import CONFIG_NAME, NodePlan, make_node_folder

    plan = NodePlan(
        name=name,
        task=task,
        task_settings=dict(_parse_setting(text) for text in task_setting or []),
        policy=policy,
        target=target,
        rpc_url=rpc_url,
        contract=contract,
        address_book=address_book,
        authority=authority,
        password_file=password_file,
        codec_processes=codec_processes,
    )
    address = checksum_address(make_node_folder(folder, plan, password=read_password(password_file)))
    if as_json:
        typer.echo(json.dumps({"address": address, "config": str(folder / CONFIG_NAME)}))
        return
    typer.echo(f"{name}: {address}")
    typer.echo(f"configuration: {folder / CONFIG_NAME}")
    if authority is None:
        typer.echo(f"put ca.crt, tls.crt and tls.key of the federation's authority into {folder}")


@app.command()
def register(
    config: ConfigOption,
    password_file: PasswordOption = None,
    metadata: Annotated[
        Path | None,
        typer.Option(help="A document about this node, whose SHA-256 goes on the ledger; salt it."),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Apply on the ledger with this node's keys. The operator admits it then.

    An admitted node that has replaced its wrapping key or certificate names the new ones by this command. Ask
    the operator for a new epoch then, which is the first that the new key opens.
    """
    from fedproof.files import read_whole
    from fedproof_node.enrolment import register_node

    digest = ZERO_DIGEST
    if metadata is not None:
        digest = Digest(hashlib.sha256(read_whole(metadata, "a document about this node")).digest())
    loaded, ledger, wrapping_key, log = _connect(config, password_file, dry_run=dry_run)
    register_node(loaded, ledger, wrapping_key=wrapping_key, metadata=digest, log=log)


@app.command()
def approve(
    config: ConfigOption, password_file: PasswordOption = None, dry_run: DryRunOption = False
) -> None:
    """Say on the ledger that this node agrees to the policy: model, training plan, clips, privacy."""
    from fedproof_node.enrolment import approve_policy

    loaded, ledger, _, log = _connect(config, password_file, dry_run=dry_run)
    approve_policy(loaded, ledger, log=log)


@app.command()
def leave(config: ConfigOption, password_file: PasswordOption = None, dry_run: DryRunOption = False) -> None:
    """Take part no longer, from the next round on. Registering again is possible."""
    from fedproof_node.enrolment import leave_federation

    _, ledger, _, log = _connect(config, password_file, dry_run=dry_run)
    leave_federation(ledger, log=log)


@app.command()
def run(
    config: ConfigOption,
    password_file: PasswordOption = None,
    until_round: Annotated[
        int | None, typer.Option(min=1, help="End once this round has ended; exit_after_round without it.")
    ] = None,
) -> None:
    """Take part in the federation's rounds until stopped. A restart goes on where this one ended."""
    from fedproof_node.config import load_node_config
    from fedproof_node.service import run_node

    loaded = load_node_config(config)
    password = read_password(password_file or loaded.chain.password_file)
    signal.signal(signal.SIGTERM, _terminate)
    run_node(
        loaded,
        password=password,
        until_round=until_round or loaded.exit_after_round,
        log=configure_logs("node", loaded.name),
    )


def _connect(
    config: Path, password_file: Path | None, *, dry_run: bool
) -> tuple[NodeConfig, Ledger, WrappingKey, FilteringBoundLogger]:
    """Return what a command about this node's standing works with; a rehearsal sends nothing."""
    from fedproof.ledger.connection import open_ledger, open_rehearsal
    from fedproof_node.config import load_node_config
    from fedproof_node.service import load_keys

    loaded = load_node_config(config)
    password = read_password(password_file or loaded.chain.password_file)
    signer, wrapping_key = load_keys(loaded, password)
    log = configure_logs("node", loaded.name)
    if dry_run:
        log.info("rehearsal", message="nothing is sent; the gas is an estimate")
        return loaded, open_rehearsal(loaded.chain, signer), wrapping_key, log
    return loaded, open_ledger(loaded.chain, signer, state_dir=loaded.state_dir), wrapping_key, log


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    # Leaves by way of every `finally`, which ends the training process. The journal needs no goodbye.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(0)


def _parse_setting(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals):
        raise ConfigurationError(f"--task-setting: expected KEY=VALUE, got {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
