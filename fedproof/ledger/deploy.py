"""Deployment: one contract for one federation, and the address book that tells everybody where it is."""

from __future__ import annotations

import json
from pathlib import Path

from eth_abi.abi import encode
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from fedproof.config import AddressBook, load_address_book
from fedproof.digests import Address, as_address, checksum_address
from fedproof.errors import ConfigurationError, LedgerError
from fedproof.files import replace_file
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.client import Ledger
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.outbox import Outbox
from fedproof.ledger.sending import SendingRules
from fedproof.ledger.signer import KeystoreSigner

__all__ = ["AddressBook", "deploy_federation", "load_address_book", "save_address_book"]


def deploy_federation(
    rpc_url: str, account: LocalAccount, *, aggregator: Address, output: Path, admin: Address | None = None
) -> AddressBook:
    """Deploy the Federation contract and write its address book, unless that has been done already.

    Where `output` exists, nothing is deployed: the code at its address is compared with the artifact, and the
    book is returned as it is.

    Args:
        rpc_url: an ``http://`` or ``https://`` address.
        account: who signs and pays.
        aggregator: who drives the rounds.
        output: where the address book is, or will be.
        admin: who admits nodes and sets policies; `account` by default.

    Raises:
        ConfigurationError: `output` is another federation's address book.
        LedgerUnreachable: the endpoint does not answer.
        WrongContract: the code at the address book's address is not the Federation contract's.
        LedgerError: the chain did not take the transaction.
    """
    return deploy_through(
        Endpoint.connect(rpc_url), account, aggregator=aggregator, output=output, admin=admin
    )


def deploy_through(
    endpoint: Endpoint,
    account: LocalAccount,
    *,
    aggregator: Address,
    output: Path,
    admin: Address | None = None,
    predecessor: Address | None = None,
    outbox: Path | None = None,
) -> AddressBook:
    """Do what `deploy_federation` does, through an endpoint that is there already.

    Args:
        endpoint: the chain.
        account: who signs and pays.
        aggregator: who drives the rounds.
        output: where the address book is, or will be.
        admin: who admits nodes and sets policies; `account` by default.
        predecessor: a retired ledger of the same chain, whose head model is this one's first.
        outbox: the account's outbox file; without one, a crash forgets what was under way.
    """
    deployer = as_address(account.address, "account")
    wanted = {"chain_id": endpoint.chain_id, "admin": admin or deployer, "aggregator": aggregator}
    if output.exists():
        book = load_address_book(output)
        for key, value in wanted.items():
            if (found := getattr(book, key)) != value:
                raise ConfigurationError(
                    f"{output}: {key}: expected {_spell(value)} as asked for, got {_spell(found)}: it is "
                    "another federation's address book; choose another file to deploy a new one"
                )
        came_from = Ledger(endpoint, book.contract).predecessor()
        if came_from != (predecessor or bytes(20)):
            raise ConfigurationError(
                f"{output}: predecessor: expected {_spell(predecessor or bytes(20))} as asked for, got "
                f"{_spell(came_from)}: it is the address book of {_spell(book.contract)}; "
                "choose another file to deploy a new one"
            )
        return book

    data = describe_deployment(admin=admin or deployer, aggregator=aggregator, predecessor=predecessor)
    # A crash after this line leaves a contract that no address book names. The next attempt finds it by its
    # key in the outbox; without a file, it deploys another.
    receipt = Outbox(endpoint, KeystoreSigner(account), SendingRules(path=outbox)).send(
        {"data": data},
        what=f"deployment by {account.address}",
        key=f"deployment for {output.absolute()}, {keccak(hexstr=data).hex()}",
    )
    created = receipt["contractAddress"]
    if created is None:
        raise LedgerError(f"{endpoint.url}: expected the new contract's address in the receipt, got none")
    book = AddressBook(
        chain_id=endpoint.chain_id,
        contract=as_address(created, "receipt"),
        rpc_url=endpoint.url,
        admin=admin or deployer,
        aggregator=aggregator,
        block=receipt["blockNumber"],
    )
    Ledger(endpoint, book.contract)
    save_address_book(output, book)
    return book


def describe_deployment(*, admin: Address, aggregator: Address, predecessor: Address | None) -> str:
    """Return the data of the transaction that deploys the contract, in hexadecimal."""
    parameters = encode(["address"] * 3, [admin, aggregator, predecessor or bytes(20)])
    return "0x" + (load_artifact().bytecode + parameters).hex()


def save_address_book(path: Path, book: AddressBook) -> None:
    """Write an address book as JSON; a crash leaves the old file or the new one."""
    replace_file(path, [(json.dumps(book.model_dump(mode="json"), indent=2) + "\n").encode()])


def _spell(value: object) -> str:
    return checksum_address(Address(value)) if isinstance(value, bytes) else str(value)
