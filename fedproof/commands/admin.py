"""`fedproof admin`: what the operator decides, each as a transaction that everybody can see."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedproof.commands.options import DEFAULT_BOOK, AddressBookFile, Json, Keystore, PasswordFile, RpcUrl
from fedproof.commands.output import report
from fedproof.commands.writing import DryRun, connect, show

if TYPE_CHECKING:
    from fedproof.digests import Digest
    from fedproof.ledger.client import Ledger, Receipt

app = typer.Typer(
    no_args_is_help=True,
    help="""Admit and suspend nodes, adopt a policy, ask for a new key, hand over roles.

    A new federation needs, in this order: every node's `fedproof node register`, `admin admit`,
    `admin policy`, and `admin epoch`. `fedproof ledger show` says where it stands.

    With `--dry-run`, a command asks the chain what the transaction would do and cost, and sends nothing.
    """,
)

Nodes = Annotated[list[str], typer.Argument(help="The nodes' addresses.", metavar="ADDRESS...")]


class Role(StrEnum):
    """Who may do what: `admin` decides about members, policies and keys; `aggregator` drives the rounds."""

    ADMIN = "admin"
    AGGREGATOR = "aggregator"


@app.command()
def admit(
    node: Nodes,
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Admit nodes that have registered, or were suspended. They take part from the next round on.

    Ask for a new epoch afterwards: no round opens before its key is wrapped for the new members.
    May be run again: who is admitted is passed over.

    Example: `fedproof admin admit 0x7099...79C8 --keystore admin.json`
    """
    from fedproof.digests import as_address
    from fedproof.errors import LedgerError
    from fedproof.ledger.events import MemberStatus

    addresses = [as_address(each, "ADDRESS") for each in node]
    ledger = connect(address_book, rpc_url, keystore=keystore, password_file=password_file, dry_run=dry_run)
    for text, address in zip(node, addresses, strict=True):
        status = ledger.member(address).status
        if status is MemberStatus.NONE:
            raise LedgerError(f"{text}: expected a node that has registered, got one that has not")
        facts = _once(status is MemberStatus.ADMITTED, partial(ledger.admit, address))
        report({"admitted": text, **facts}, as_json=json)


@app.command()
def suspend(
    node: Nodes,
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Suspend nodes, from the next round on: one that is under way keeps its cohort.

    Ask for a new epoch afterwards: a suspended node still knows the key of the last one.
    May be run again: who is suspended is passed over.

    Example: `fedproof admin suspend 0x7099...79C8 --keystore admin.json`
    """
    from fedproof.digests import as_address
    from fedproof.ledger.events import MemberStatus

    addresses = [as_address(each, "ADDRESS") for each in node]
    ledger = connect(address_book, rpc_url, keystore=keystore, password_file=password_file, dry_run=dry_run)
    for text, address in zip(node, addresses, strict=True):
        is_done = ledger.member(address).status is MemberStatus.SUSPENDED
        facts = _once(is_done, partial(ledger.suspend, address))
        report({"suspended": text, **facts}, as_json=json)


@app.command()
def policy(
    path: Annotated[Path, typer.Argument(help="The policy, as `fedproof policy new` writes it.")],
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Adopt a policy for the rounds to come. An open round keeps its own.

    May be run again: a policy that is in force is not adopted twice.

    Example: `fedproof admin policy policy.toml --keystore admin.json`
    """
    from fedproof.policy import Policy

    document = Policy.load(path)
    ledger = connect(address_book, rpc_url, keystore=keystore, password_file=password_file, dry_run=dry_run)
    is_done = ledger.policy_digest() == document.digest
    version = ledger.state().policy_version + (not is_done)
    facts = _once(is_done, partial(ledger.adopt_policy, document))
    report({"policy": document.digest, **facts, "version": version}, as_json=json)


@app.command()
def epoch(
    *,
    key_maker: Annotated[str, typer.Option(help="The admitted node that makes the key.", metavar="ADDRESS")],
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Ask a node to make the next epoch's secret key, and to wrap it for every admitted node.

    May be run again: a node that has been asked and has not answered yet is not asked twice.

    Example: `fedproof admin epoch --key-maker 0x7099...79C8 --keystore admin.json`
    """
    from fedproof.digests import as_address

    maker = as_address(key_maker, "--key-maker")
    ledger = connect(address_book, rpc_url, keystore=keystore, password_file=password_file, dry_run=dry_run)
    facts = _once(ledger.key_maker() == maker, partial(ledger.request_epoch, maker))
    report({"epoch": ledger.state().epoch + 1, "key_maker": key_maker, **facts}, as_json=json)


@app.command()
def grant(
    role: Annotated[Role, typer.Argument(help="Which role.")],
    account: Annotated[str, typer.Argument(help="Who gets it; for `admin`, a multisig wallet is wise.")],
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Give a role to an account. To hand a role over, grant it, see it work, and `renounce` one's own.

    May be run again: what the account has is not granted twice.

    Example: `fedproof admin grant admin 0x7099...79C8 --keystore admin.json`
    """
    from fedproof.digests import as_address

    address = as_address(account, "ACCOUNT")
    ledger = connect(address_book, rpc_url, keystore=keystore, password_file=password_file, dry_run=dry_run)
    which = _find_role(role)
    facts = _once(ledger.has_role(which, address), partial(ledger.grant_role, which, address))
    report({"granted": role, "account": account, **facts}, as_json=json)


@app.command()
def revoke(
    role: Annotated[Role, typer.Argument(help="Which role.")],
    account: Annotated[str, typer.Argument(help="Who loses it.")],
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Take a role from an account. For one that does not have it, nothing is sent; the answer says who has.

    Example: `fedproof admin revoke aggregator 0x7099...79C8 --keystore admin.json`
    """
    from fedproof.digests import as_address

    address = as_address(account, "ACCOUNT")
    ledger = connect(address_book, rpc_url, keystore=keystore, password_file=password_file, dry_run=dry_run)
    which = _find_role(role)
    if ledger.has_role(which, address):
        facts = show(ledger.revoke_role(which, address))
    else:
        facts = {"already": True, "held_by": _find_holders(ledger, address_book, which)}
    report({"revoked": role, "account": account, **facts}, as_json=json)


@app.command()
def renounce(
    role: Annotated[Role, typer.Argument(help="Which role of one's own.")],
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Give up one's own role, for good. Without any admin nobody joins, and the policy stays for ever.

    Without the role, nothing is sent, and the answer says who has it.

    Example: `fedproof admin renounce admin --keystore admin.json`
    """
    from fedproof.digests import checksum_address

    ledger = connect(address_book, rpc_url, keystore=keystore, password_file=password_file, dry_run=dry_run)
    which = _find_role(role)
    if ledger.has_role(which, ledger.address):
        facts = show(ledger.renounce_role(which))
    else:
        facts = {"already": True, "held_by": _find_holders(ledger, address_book, which)}
    report({"renounced": role, "account": checksum_address(ledger.address), **facts}, as_json=json)


@app.command()
def release(
    file: Annotated[Path, typer.Argument(help="The file in which the head model leaves the federation.")],
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Put the SHA-256 of a released checkpoint on the ledger, beside the head model's digest.

    Example: `fedproof admin release model.safetensors --keystore admin.json`
    """
    from fedproof.digests import Digest
    from fedproof.files import read_whole

    digest = Digest(hashlib.sha256(read_whole(file, "the released file")).digest())
    ledger = connect(address_book, rpc_url, keystore=keystore, password_file=password_file, dry_run=dry_run)
    facts = {"file": file, "digest": digest, "head_model": ledger.head_model()}
    report({**facts, **show(ledger.release_checkpoint(digest))}, as_json=json)


@app.command()
def retire(
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """End this ledger for good, between two rounds. `fedproof deploy --predecessor` goes on from its head.

    Example: `fedproof admin retire --keystore admin.json --dry-run`
    """
    ledger = connect(address_book, rpc_url, keystore=keystore, password_file=password_file, dry_run=dry_run)
    report({"head_model": ledger.head_model(), **show(ledger.retire())}, as_json=json)


def _once(is_done: bool, send: Callable[[], Receipt]) -> dict[str, object]:
    """Return what to print of a transaction that is sent unless it would change nothing."""
    return {"already": True} if is_done else show(send())


def _find_holders(ledger: Ledger, address_book: Path, role: Digest) -> list[str]:
    from fedproof.config import load_address_book
    from fedproof.digests import checksum_address

    history = ledger.replay(from_block=load_address_book(address_book).block)
    holders = history.roles.get(role, frozenset())
    return [checksum_address(account) for account in sorted(holders)]


def _find_role(role: Role) -> Digest:
    from fedproof.ledger.events import AGGREGATOR_ROLE, DEFAULT_ADMIN_ROLE

    return DEFAULT_ADMIN_ROLE if role is Role.ADMIN else AGGREGATOR_ROLE
