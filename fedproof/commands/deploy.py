"""`fedproof deploy`: put a federation's contract on a chain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedproof.commands.options import ATTEMPTS, DEFAULT_BOOK, DEFAULT_RPC_URL, Json, Keystore, PasswordFile
from fedproof.commands.output import report


def deploy(
    *,
    keystore: Keystore,
    aggregator: Annotated[str, typer.Option(help="Who drives the rounds.", metavar="ADDRESS")],
    rpc_url: Annotated[str, typer.Option(help="The chain's endpoint.")] = DEFAULT_RPC_URL,
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

    May be run again: where the address book exists, nothing is deployed, and the code at its address is
    compared with the artifact's. A run that was interrupted goes on with the transaction that it sent.

    Example: `fedproof deploy --keystore admin.json --password-file admin.password --aggregator 0x7099...79C8`
    """
    from fedproof.commands.writing import find_outbox
    from fedproof.digests import as_address
    from fedproof.keys.wallet import load_wallet, read_password
    from fedproof.ledger.deploy import deploy_through, describe_deployment
    from fedproof.ledger.endpoint import Endpoint
    from fedproof.logs import log_aside

    log_aside()
    endpoint = Endpoint.connect(rpc_url, attempts=ATTEMPTS)
    account = load_wallet(keystore, read_password(password_file))
    parties: dict[str, Any] = {
        "aggregator": as_address(aggregator, "--aggregator"),
        "admin": as_address(admin or account.address, "--admin"),
        "predecessor": None if predecessor is None else as_address(predecessor, "--predecessor"),
    }
    if dry_run:
        call: Any = {"from": account.address, "data": describe_deployment(**parties)}
        gas = endpoint.ask("deployment", lambda: endpoint.web3.eth.estimate_gas(call))
        report({"dry_run": True, "gas": gas}, as_json=json)
        return
    outbox = find_outbox(keystore, endpoint.chain_id)
    book = deploy_through(endpoint, account, output=output, outbox=outbox, **parties)
    report({**book.model_dump(mode="json"), "address_book": output}, as_json=json)
