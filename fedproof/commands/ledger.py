"""`fedproof ledger`: what stands on the ledger, and whether its chain can be relied on."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedproof.commands import overdue
from fedproof.commands.facts import collect_facts, print_facts
from fedproof.commands.options import (
    ATTEMPTS,
    DEFAULT_BOOK,
    AddressBookFile,
    Json,
    RpcUrl,
    count_majority,
)
from fedproof.commands.output import report

if TYPE_CHECKING:
    from fedproof.config import AddressBook
    from fedproof.ledger.client import Ledger
    from fedproof.ledger.endpoint import Endpoint
    from fedproof.ledger.finality import Finality
    from fedproof.ledger.history import History

app = typer.Typer(
    no_args_is_help=True,
    help="""See where a federation stands, and whether its chain can be relied on.

    `fail`, `finalise` and `seal` end what its aggregator has left undone; the others send nothing.
    """,
)


@app.command()
def show(
    *,
    at_block: Annotated[
        int | None,
        typer.Option(
            help="As of this block, for questions about the past.", show_default="newest", metavar="NUMBER"
        ),
    ] = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    json: Json = False,
) -> None:
    """Show where the federation stands or stood, replayed from its events and checked by the running hash.

    Example: `fedproof ledger show --address-book address-book.json --at-block 1200`
    """
    book, ledger = _connect(address_book, rpc_url)
    facts = collect_facts(ledger, _replay(book, ledger, at_block))
    if json:
        typer.echo(json_module.dumps(facts))
    else:
        print_facts(facts)


@app.command()
def doctor(
    *,
    wallet: Annotated[
        list[str] | None,
        typer.Option(help="Accounts whose balance to look at, too.", metavar="ADDRESS"),
    ] = None,
    finality: Annotated[
        str,
        typer.Option(help="`finality` of the daemons: latest, finalized or a number of blocks."),
    ] = "latest",
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    json: Json = False,
) -> None:
    """Check the chain: its number, the contract's code, the history, balances, clock, finality and windows.

    Ends with status 1 when something is wrong; each finding says what to do about it.

    Example: `fedproof ledger doctor --rpc-url https://rpc.example.org --finality finalized`
    """
    from fedproof.digests import as_address
    from fedproof.ledger.doctor import examine

    wallets = [as_address(each, "--wallet") for each in wallet or ()]
    counting = _parse_finality(finality)
    book, endpoint = _open(address_book, rpc_url)
    findings = list(examine(book, endpoint, wallets, finality=counting))
    for finding in findings:
        if json:
            report(asdict(finding) | ({"advice": ""} if finding.is_fine else {}), as_json=True)
            continue
        typer.echo(f"{'ok' if finding.is_fine else 'BAD':<5}{finding.check:<12}{finding.found}")
        if not finding.is_fine:
            typer.echo(f"{'':<17}{finding.advice}")
    if not all(finding.is_fine for finding in findings):
        raise typer.Exit(1)


@app.command()
def outbox(
    path: Annotated[
        Path, typer.Argument(help="A daemon's state/outbox.sqlite, or the one beside a keystore.")
    ],
    *,
    json: Json = False,
) -> None:
    """List what an account has sent, or is about to: prepared, pending, mined, final, reverted or superseded.

    Example: `fedproof ledger outbox node/state/outbox.sqlite`
    """
    from fedproof.ledger.outbox_file import read_outbox

    for sending in read_outbox(path):
        facts: dict[str, object] = {
            "number": sending.number,
            "state": str(sending.state),
            "what": sending.what,
            "nonce": sending.nonce,
            "block": sending.block,
            "transaction": sending.versions[0].signed.hash,
            "versions": len(sending.versions),
        }
        if json:
            report(facts, as_json=True)
        else:
            typer.echo(
                f"{sending.state:<11} nonce {sending.nonce:<6} "
                f"{'block ' + str(sending.block) if sending.block is not None else 'not mined':<14} "
                f"{sending.what}  0x{sending.versions[0].signed.hash.hex()}"
            )


@app.command()
def receipt(
    path: Annotated[Path, typer.Argument(help="A receipt, as a node keeps it below state/receipts.")],
    *,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    json: Json = False,
) -> None:
    """Verify that a node's signed commitment stands in an anchored batch: here, and by the contract itself.

    Example: `fedproof ledger receipt node/state/receipts/7.json`
    """
    from fedproof.ledger.receipts import load_receipt

    book, ledger = _connect(address_book, rpc_url)
    found = load_receipt(path)
    record = _replay(book, ledger, None).rounds.get(found.round)
    found.verify(record, ledger=ledger)
    report(
        {"round": found.round, "index": found.index, "of": found.size, "root": found.root, "verified": True},
        as_json=json,
    )


for command in (overdue.fail, overdue.finalise, overdue.seal):
    app.command()(command)


def _parse_finality(text: str) -> Finality:
    from fedproof.errors import ConfigurationError

    match text:
        case "latest" | "finalized":
            return text
        case _ if text.isascii() and text.isdecimal():
            return int(text)
    raise ConfigurationError(f"--finality: expected latest, finalized or a number of blocks, got {text!r}")


def _connect(address_book: Path, rpc_url: list[str] | None) -> tuple[AddressBook, Ledger]:
    from fedproof.ledger.client import Ledger

    book, endpoint = _open(address_book, rpc_url)
    return book, Ledger(endpoint, book.contract, chain_id=book.chain_id)


def _open(address_book: Path, rpc_url: list[str] | None) -> tuple[AddressBook, Endpoint]:
    from fedproof.config import load_address_book
    from fedproof.ledger.endpoints import connect_endpoints
    from fedproof.logs import log_aside

    log_aside()
    book = load_address_book(address_book)
    urls = rpc_url or [book.need_rpc_url()]
    return book, connect_endpoints(urls, agreement=count_majority(urls), attempts=ATTEMPTS)


def _replay(book: AddressBook, ledger: Ledger, at_block: int | None) -> History:
    from fedproof.errors import ConfigurationError

    if at_block is not None and at_block < book.block:
        raise ConfigurationError(
            f"--at-block: expected {book.block}, the block of the contract's deployment, or a later one, "
            f"got {at_block}"
        )
    # The contract cannot have spoken before it was deployed.
    return ledger.replay(from_block=book.block, to_block=at_block)
