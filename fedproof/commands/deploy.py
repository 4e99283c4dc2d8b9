"""`fedproof deploy`: put a federation's contract on a chain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedproof.commands.options import (
    ATTEMPTS,
    DEFAULT_BOOK,
    DEFAULT_RPC_URL,
    Json,
    Keystore,
    PasswordFile,
    count_majority,
)
from fedproof.commands.output import report


def deploy(
    *,
    keystore: Keystore,
    aggregator: Annotated[str, typer.Option(help="Who drives the rounds.", metavar="ADDRESS")],
    rpc_url: Annotated[
        list[str] | None,
        typer.Option(
            help="The chain's endpoint. Given several times, more than half have to agree.",
            show_default=DEFAULT_RPC_URL,
        ),
    ] = None,
    admin: Annotated[
        str | None,
        typer.Option(
            help="Who admits nodes and sets policies.", metavar="ADDRESS", show_default="the signer"
        ),
    ] = None,
    predecessor: Annotated[
        str | None,
        typer.Option(
            help="A retired contract of the same chain, whose head model this one goes on from.",
            metavar="ADDRESS",
            show_default="none",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing: say what it would cost.")] = False,
    password_file: PasswordFile = None,
    output: Annotated[Path, typer.Option(help="The address book to write.")] = DEFAULT_BOOK,
    json: Json = False,
) -> None:
    """Deploy the Federation contract and write the address book that everybody else needs.

    May be run again: where the address book exists, nothing is deployed, and the contract at its address is
    examined: its code, its history, and who deployed it for whom. A run that was interrupted goes on with the
    transaction that it sent. The book names the first endpoint without user, path and query, if any: it is
    for everybody, and these may hold a password or a key.

    Example: `fedproof deploy --keystore admin.json --password-file admin.password --aggregator 0x7099...79C8`
    """
    from fedproof.commands.writing import find_outbox
    from fedproof.digests import as_address
    from fedproof.keys.wallet import load_wallet, read_password
    from fedproof.ledger.deploy import deploy_through, describe_deployment, find_public
    from fedproof.ledger.endpoints import connect_endpoints
    from fedproof.ledger.transactions import estimate_gas
    from fedproof.logs import log_aside

    log_aside()
    urls = rpc_url or [DEFAULT_RPC_URL]
    endpoint = connect_endpoints(urls, agreement=count_majority(urls), attempts=ATTEMPTS)
    account = load_wallet(keystore, read_password(password_file))
    parties: dict[str, Any] = {
        "aggregator": as_address(aggregator, "--aggregator"),
        "admin": as_address(admin or account.address, "--admin"),
        "predecessor": None if predecessor is None else as_address(predecessor, "--predecessor"),
    }
    if dry_run:
        call: Any = {"from": account.address, "data": describe_deployment(**parties)}
        gas = estimate_gas(endpoint, call, what="deployment")
        report({"dry_run": True, "gas": gas}, as_json=json)
        return
    outbox = find_outbox(keystore, endpoint.chain_id)
    book = deploy_through(
        endpoint, account, output=output, outbox=outbox, public_url=find_public(urls), **parties
    )
    if book.rpc_url is None:
        typer.echo("the address book names no endpoint: each participant names one, as rpc_url", err=True)
    report({**book.model_dump(mode="json"), "address_book": output}, as_json=json)
