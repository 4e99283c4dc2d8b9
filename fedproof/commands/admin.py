"""`fedproof admin`: what the operator decides, each as a transaction that everybody can see."""

from __future__ import annotations

import json as json_module
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedproof.commands.options import (
    ATTEMPTS,
    DEFAULT_BOOK,
    AddressBookFile,
    Json,
    Keystore,
    PasswordFile,
    RpcUrl,
)
from fedproof.commands.output import report

if TYPE_CHECKING:
    from fedproof.ledger.client import Ledger, Receipt

app = typer.Typer(
    no_args_is_help=True,
    help="""Admit and suspend nodes, adopt a policy, ask for a new key, and see where the federation stands.

    A new federation needs, in this order: every node's `fedproof node register`, `admin admit`,
    `admin policy`, and `admin epoch`.
    """,
)

Nodes = Annotated[list[str], typer.Argument(help="The nodes' addresses.", metavar="ADDRESS...")]


@app.command()
def admit(
    node: Nodes,
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    json: Json = False,
) -> None:
    """Admit nodes that have registered, or were suspended. They take part from the next round on.

    Example: `fedproof admin admit 0x7099...79C8 --keystore admin.json`
    """
    from fedproof.digests import as_address

    addresses = [as_address(each, "ADDRESS") for each in node]
    ledger = _connect(address_book, rpc_url, keystore=keystore, password_file=password_file)
    for text, address in zip(node, addresses, strict=True):
        report({"admitted": text, **_show(ledger.admit(address))}, as_json=json)


@app.command()
def suspend(
    node: Nodes,
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    json: Json = False,
) -> None:
    """Suspend nodes. What they committed stands; they cannot commit or attest again.

    Ask for a new epoch afterwards: a suspended node still knows the key of the last one.

    Example: `fedproof admin suspend 0x7099...79C8 --keystore admin.json`
    """
    from fedproof.digests import as_address

    addresses = [as_address(each, "ADDRESS") for each in node]
    ledger = _connect(address_book, rpc_url, keystore=keystore, password_file=password_file)
    for text, address in zip(node, addresses, strict=True):
        report({"suspended": text, **_show(ledger.suspend(address))}, as_json=json)


@app.command()
def policy(
    path: Annotated[Path, typer.Argument(help="The policy, as `fedproof policy new` writes it.")],
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    json: Json = False,
) -> None:
    """Adopt a policy for the rounds to come. An open round keeps its own.

    May be run again: a policy that is in force is not adopted twice.

    Example: `fedproof admin policy policy.toml --keystore admin.json`
    """
    from fedproof.policy import Policy

    document = Policy.load(path)
    ledger = _connect(address_book, rpc_url, keystore=keystore, password_file=password_file)
    facts: dict[str, object] = {"policy": document.digest}
    if ledger.policy().digest != document.digest:
        facts |= _show(ledger.adopt_policy(document))
    report({**facts, "version": ledger.policy_version()}, as_json=json)


@app.command()
def epoch(
    *,
    key_maker: Annotated[str, typer.Option(help="The admitted node that makes the key.", metavar="ADDRESS")],
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    json: Json = False,
) -> None:
    """Ask a node to make the next epoch's secret key, and to wrap it for every admitted node.

    Example: `fedproof admin epoch --key-maker 0x7099...79C8 --keystore admin.json`
    """
    from fedproof.digests import as_address

    maker = as_address(key_maker, "--key-maker")
    ledger = _connect(address_book, rpc_url, keystore=keystore, password_file=password_file)
    receipt = ledger.request_epoch(maker)
    report({"epoch": ledger.current_epoch() + 1, "key_maker": key_maker, **_show(receipt)}, as_json=json)


@app.command()
def status(address_book: AddressBookFile = DEFAULT_BOOK, rpc_url: RpcUrl = None, json: Json = False) -> None:
    """Show where the federation stands, replayed from its events and checked against the running hash.

    Example: `fedproof admin status --address-book address-book.json`
    """
    facts = _collect_status(address_book, rpc_url)
    if json:
        typer.echo(json_module.dumps(facts))
    else:
        _print_status(facts)


def _connect(
    address_book: Path, rpc_url: str | None, *, keystore: Path, password_file: Path | None
) -> Ledger:
    from fedproof.config import load_address_book
    from fedproof.keys.wallet import load_wallet, read_password
    from fedproof.ledger.client import Ledger

    book = load_address_book(address_book)
    account = load_wallet(keystore, read_password(password_file))
    return Ledger.connect(rpc_url or book.rpc_url, book.contract, account=account, attempts=ATTEMPTS)


def _show(receipt: Receipt) -> dict[str, object]:
    return {"transaction": receipt.transaction_hash, "block": receipt.block_number, "gas": receipt.gas_used}


def _collect_status(address_book: Path, rpc_url: str | None) -> dict[str, Any]:
    from fedproof.config import load_address_book
    from fedproof.digests import checksum_address
    from fedproof.ledger.client import Ledger
    from fedproof.ledger.history import History

    book = load_address_book(address_book)
    ledger = Ledger.connect(rpc_url or book.rpc_url, book.contract, attempts=ATTEMPTS)
    history = History()
    history.next_block = book.block  # the contract cannot have spoken before it was deployed
    ledger.catch_up(history)
    terms = history.policies.get(len(history.policies))
    current, key = history.current_round, history.current_epoch
    return {
        "chain_id": ledger.chain_id,
        "contract": checksum_address(ledger.contract),
        "admin": checksum_address(book.admin),
        "aggregator": checksum_address(book.aggregator),
        "block": history.next_block - 1,
        "events": history.event_count,
        "history_hash": "0x" + history.history_hash.hex(),
        "policy_version": len(history.policies),
        "policy": None if terms is None else "0x" + terms.digest.hex(),
        "head_model": "0x" + history.head_model.hex(),
        "epoch": None if key is None else key.number,
        "key_maker": None if history.key_maker is None else checksum_address(history.key_maker),
        "round": None
        if current is None
        else {
            "number": current.number,
            "phase": current.phase.name.lower(),
            "deadline": current.deadline,
            "committed": len(current.commitments),
            "contributors": len(current.contributors),
            "attested": len(current.attestations),
        },
        "members": [
            {
                "node": checksum_address(node),
                "status": member.status.name.lower(),
                "first_round": member.first_round,
                "wrapping_key_digest": "0x" + member.wrapping_key_digest.hex(),
                "certificate_digest": "0x" + member.certificate_digest.hex(),
            }
            for node, member in sorted(history.members.items())
        ],
    }


def _print_status(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    ledger = Table("", Column("", overflow="fold"), title="Federation", show_header=False)
    for key in ("contract", "chain_id", "block", "admin", "aggregator", "events", "history_hash"):
        ledger.add_row(key.replace("_", " "), str(facts[key]))
    ledger.add_row("policy", f"version {facts['policy_version']}, {facts['policy'] or 'none adopted'}")
    ledger.add_row("head model", facts["head_model"])
    ledger.add_row("epoch", _describe_epoch(facts))
    ledger.add_row("round", _describe_round(facts["round"]))
    members = Table(Column("Node", overflow="fold"), "Status", "First round", title="Members")
    for member in facts["members"]:
        members.add_row(member["node"], member["status"], str(member["first_round"] or "-"))
    console = Console()
    console.print(ledger)
    console.print(members)


def _describe_epoch(facts: dict[str, Any]) -> str:
    now = "none" if facts["epoch"] is None else str(facts["epoch"])
    return now if facts["key_maker"] is None else f"{now}; the next one awaited from {facts['key_maker']}"


def _describe_round(current: dict[str, Any] | None) -> str:
    if current is None:
        return "none opened"
    text = (
        f"{current['number']}, {current['phase']}: {current['committed']} committed, "
        f"{current['contributors']} contribute, {current['attested']} attested"
    )
    if current["deadline"]:
        text += f"; until {datetime.fromtimestamp(current['deadline'], UTC):%Y-%m-%d %H:%M:%S} UTC"
    return text
