"""`fedproof audit`: query the ledger's history, and recompute what it claims."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from fedproof_auditor.evidence import Progress
    from fedproof_auditor.report import Report
    from fedproof_auditor.run import Target

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""Query a federation's history, and recompute what it claims. No key is needed, and none is used.

    Both commands take a run's folder, or the chain and the store separately.
    """,
)

RunFolder = Annotated[
    Path | None, typer.Option("--run", help="A run's folder, with its run.json.", metavar="DIR")
]
RpcUrl = Annotated[
    str | None, typer.Option("--rpc-url", help="The chain's endpoint; by default the run's.", metavar="URL")
]
Contract = Annotated[
    str | None,
    typer.Option("--contract", help="The federation's contract; by default the run's.", metavar="ADDRESS"),
]
FromBlock = Annotated[
    int | None,
    typer.Option(
        "--from-block", help="Where the contract was deployed: saves reading what is before.", min=0
    ),
]
AtBlock = Annotated[int | None, typer.Option("--block", help="Audit as of this block.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@app.command()
def history(
    *,
    run: RunFolder = None,
    rpc_url: RpcUrl = None,
    contract: Contract = None,
    from_block: FromBlock = None,
    round_number: Annotated[int | None, typer.Option("--round", help="Only this round.", min=1)] = None,
    node: Annotated[
        str | None, typer.Option("--node", help="Only what is about this node.", metavar="NAME|ADDRESS")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="Only these kinds of event, separated by commas.", metavar="KIND,..."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show what happened, event by event, with the gas that each transaction used.

    Nothing is verified here: `fedproof audit verify` does that.

    Example: `fedproof audit history --run runs/mine --round 3 --kind UpdateCommitted,ModelAttested`
    """
    from functools import cache

    from fedproof.ledger.client import Ledger
    from fedproof_auditor.chain import open_chain
    from fedproof_auditor.evidence import fetch_gas
    from fedproof_auditor.history_view import Filter, as_document, as_row, parse_kinds, select_lines

    target = _find_target(run, rpc_url=rpc_url, contract=contract, from_block=from_block)
    selection = Filter(
        round=round_number,
        node=None if node is None else target.find_node(node),
        kinds=parse_kinds(kind),
    )
    with open_chain(target) as (endpoint, note):
        if note:
            typer.echo(f"note: {note}", err=True)
        ledger = Ledger(endpoint, target.contract)
        lines = select_lines(
            ledger.events(target.from_block, ledger.block_number()),
            selection,
            time_of=cache(lambda number: ledger.block(number).timestamp),
            gas_of=cache(lambda transaction_hash: fetch_gas(endpoint, transaction_hash)),
        )
        if json:
            for line in lines:
                typer.echo(json_module.dumps(as_document(line, target.names)))
        else:
            _print_table([as_row(line, target.names) for line in lines])


@app.command()
def verify(
    *,
    run: RunFolder = None,
    rpc_url: RpcUrl = None,
    contract: Contract = None,
    store: Annotated[
        Path | None,
        typer.Option("--store", help="The stored ciphertexts; by default the run's.", metavar="DIR"),
    ] = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option("--policy", help="A policy document; may be repeated.", metavar="FILE"),
    ] = None,
    rounds: Annotated[
        str | None,
        typer.Option(
            "--rounds",
            help="Look at the stored evidence of these rounds only; the ledger is always checked as a whole.",
            metavar="A-B",
        ),
    ] = None,
    from_block: FromBlock = None,
    block: AtBlock = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", help="Processes that add up ciphertexts.", show_default="one a core", min=1),
    ] = None,
    json: Json = False,
) -> None:
    """Check, in twelve numbered steps, that what the ledger and the store say is true.

    Ends with status 0 only if every check holds, with 1 if one does not, and with 2 if the audit could not be
    made. Evidence that is missing is a failure. The first mismatch is named: round, node, field, chunk.

    Examples:

    fedproof audit verify --run runs/mine

    fedproof audit verify --rpc-url https://rpc.example --contract 0x5FbD...0aa3 --store store
    """
    from rich.console import Console

    from fedproof_auditor.audit import run_audit
    from fedproof_auditor.chain import open_chain
    from fedproof_auditor.report import as_document
    from fedproof_auditor.selection import parse_rounds

    target = _find_target(run, rpc_url=rpc_url, contract=contract, from_block=from_block)
    if store is not None:
        target = replace(target, store=store)
    if policy:
        target = replace(target, policies=tuple(policy))
    selection = parse_rounds(rounds)
    with open_chain(target) as (endpoint, note), _show_progress(Console(stderr=True)) as progress:
        report = run_audit(
            target,
            endpoint,
            note=note,
            at_block=block,
            selection=selection,
            jobs=jobs or 0,
            progress=progress,
        )
    if json:
        typer.echo(json_module.dumps(as_document(report)))
    else:
        _print_report(report)
    raise typer.Exit(0 if report.holds else 1)


def _find_target(
    run: Path | None, *, rpc_url: str | None, contract: str | None, from_block: int | None
) -> Target:
    from fedproof.digests import as_address
    from fedproof.errors import ConfigurationError
    from fedproof_auditor.run import Target, load_run

    address = None if contract is None else as_address(contract, "--contract")
    if run is not None:
        target = load_run(run)
        if rpc_url is not None:
            # Somebody who names an endpoint wants that one, and not the journal in its place.
            target = replace(target, rpc_url=rpc_url, journal=None)
        if address is not None:
            target = replace(target, contract=address)
    elif rpc_url is None or address is None:
        raise ConfigurationError(
            "expected --run DIR, or --rpc-url URL and --contract ADDRESS, got "
            + ("neither" if rpc_url is None and address is None else "one of the latter two")
        )
    else:
        target = Target(rpc_url=rpc_url, contract=address)
    return target if from_block is None else replace(target, from_block=from_block)


@contextmanager
def _show_progress(console: Console) -> Iterator[Progress]:
    """Yield what shows a progress bar on a terminal, and nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    if not console.is_terminal:
        yield lambda _what, _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


def _print_table(rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    headings = ("block", "time (UTC)", "kind", "round", "node", "facts", "gas")
    console = Console()
    if not console.is_terminal:
        for row in rows:
            typer.echo("  ".join(cell for cell in row if cell))
        return
    table = Table(*headings)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _print_report(report: Report) -> None:
    from rich.console import Console

    from fedproof_auditor.report import describe

    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        "✓✗".encode(console.encoding)
        tick, cross = "✓", "✗"
    except UnicodeEncodeError:
        tick, cross = "+", "x"
    for line, style in describe(report, tick=tick, cross=cross):
        console.print(line, style=style or None)
