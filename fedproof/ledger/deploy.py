"""Deployment: one contract for one federation, and the address book that tells everybody where it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from eth_abi.abi import encode
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from web3 import Web3
from web3.utils.address import get_create_address

from fedproof.config import AddressBook, load_address_book
from fedproof.digests import Address, Digest, as_address, checksum_address
from fedproof.errors import ConfigurationError, WrongContract
from fedproof.files import replace_file
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.client import Ledger
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.events import AGGREGATOR_ROLE, DEFAULT_ADMIN_ROLE, ROLE_NAMES, Event, RoleGranted
from fedproof.ledger.history import History
from fedproof.ledger.outbox import Outbox
from fedproof.ledger.sending import SendingRules
from fedproof.ledger.signer import KeystoreSigner
from fedproof.ledger.url import hide_secrets

__all__ = ["AddressBook", "deploy_federation", "load_address_book", "save_address_book"]


def deploy_federation(
    rpc_url: str, account: LocalAccount, *, aggregator: Address, output: Path, admin: Address | None = None
) -> AddressBook:
    """Deploy the Federation contract and write its address book, unless that has been done already.

    Where `output` exists, nothing is deployed: the contract at its address is examined, and the book is
    returned as it is.

    Args:
        rpc_url: an ``http://`` or ``https://`` address.
        account: who signs and pays.
        aggregator: who drives the rounds.
        output: where the address book is, or will be.
        admin: who admits nodes and sets policies; `account` by default.

    Raises:
        ConfigurationError: `output` is another federation's address book.
        LedgerUnreachable: the endpoint does not answer.
        WrongContract: the contract at the book's address is not what `account` deploys for these parties.
        HistoryBroken: the endpoint left an event out or altered one, or the contract is older than the book.
        LedgerError: the chain did not take the transaction.
    """
    return deploy_through(
        Endpoint.connect(rpc_url),
        account,
        aggregator=aggregator,
        output=output,
        admin=admin,
        public_url=find_public([rpc_url]),
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
    public_url: str | None = None,
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
        public_url: the endpoint that the address book names to everybody, if any.
    """
    admin = admin or as_address(account.address, "account")
    data = describe_deployment(admin=admin, aggregator=aggregator, predecessor=predecessor)
    if output.exists():
        book = load_address_book(output)
        wanted: dict[str, int | Address] = {
            "chain_id": endpoint.chain_id,
            "admin": admin,
            "aggregator": aggregator,
        }
        for key, value in wanted.items():
            _compare(output, key, value, getattr(book, key))
        came_from = Ledger(endpoint, book.contract).predecessor()
        _compare(output, "predecessor", predecessor or Address(bytes(20)), came_from)
        verify_deployment(endpoint, book, data)
        return book

    # A crash after this line leaves a contract that no address book names. The next attempt finds it by its
    # key in the outbox; without a file, it deploys another.
    sender = Outbox(endpoint, KeystoreSigner(account), SendingRules(path=outbox))
    receipt = sender.send(
        {"data": data},
        what=f"deployment by {account.address}",
        key=f"deployment for {output.absolute()}, {keccak(hexstr=data).hex()}",
    )
    nonces = {version.signed.hash: each.nonce for each in sender.sendings() for version in each.versions}
    book = AddressBook(
        chain_id=endpoint.chain_id,
        # Not the receipt's, which may name a contract of somebody else with the same code.
        contract=_find_created(account.address, nonces[Digest(bytes(receipt["transactionHash"]))]),
        rpc_url=public_url,
        admin=admin,
        aggregator=aggregator,
        block=receipt["blockNumber"],
    )
    verify_deployment(endpoint, book, data)
    save_address_book(output, book)
    return book


def describe_deployment(*, admin: Address, aggregator: Address, predecessor: Address | None) -> str:
    """Return the data of the transaction that deploys the contract, in hexadecimal."""
    parameters = encode(["address"] * 3, [admin, aggregator, predecessor or bytes(20)])
    return "0x" + (load_artifact().bytecode + parameters).hex()


def verify_deployment(endpoint: Endpoint, book: AddressBook, data: str) -> None:
    """Return if an address book's contract is what a deployment made, and nobody else's.

    1. The code at the address is the artifact's.
    2. Its events begin in the book's block, and add up to the running hash.
    3. The first of them give the roles to the book's admin and aggregator: else another one began.
    4. Their transaction created the contract, with the data that is sent for these parties: other data may
       leave the same code and events behind, and in the storage whatever its author likes.

    Args:
        endpoint: the chain.
        book: where the contract is, and since when.
        data: as `describe_deployment` returns it.

    Raises:
        WrongContract: 1, 3 or 4 is not so.
        HistoryBroken: 2 is not so.
        LedgerError: no answer, or none that enough endpoints agree on.
    """
    ledger = Ledger(endpoint, book.contract)  # 1
    where = f"{checksum_address(book.contract)} at {endpoint.url}"
    first = ledger.events(book.block, book.block)  # 2
    history = History(from_block=book.block)
    history.extend(first, to_block=book.block)
    last = max(book.block, ledger.block_number())
    ledger.catch_up(history, to_block=last)
    # It has looked at nothing, where no block follows the first.
    history.verify(ledger.history_hash(at_block=last))
    verify_parties(book, first, where=where)  # 3
    transaction = first[0].transaction_hash  # 4

    def request(web3: Web3) -> tuple[Address, bytes]:
        found = web3.eth.get_transaction(cast("Any", transaction))
        return _find_created(found["from"], found["nonce"]), bytes(found["input"])

    if endpoint.agree("eth_getTransactionByHash", request) != (book.contract, bytes.fromhex(data[2:])):
        raise WrongContract(
            f"{where}: expected transaction 0x{transaction.hex()} to create it with this version's code for "
            "these parties, got another one: somebody else deployed it, in a way of their own"
        )


def verify_parties(book: AddressBook, first: Sequence[Event], *, where: str) -> None:
    """Return if a contract gave its roles to an address book's admin and aggregator, before anything else.

    Args:
        book: names the parties.
        first: the contract's events in the book's block, of a history that adds up from there.
        where: the contract, for messages.

    Raises:
        WrongContract: to others.
    """
    given = [(each.role, each.account) for each in first[:2] if isinstance(each, RoleGranted)]
    wanted = [(DEFAULT_ADMIN_ROLE, book.admin), (AGGREGATOR_ROLE, book.aggregator)]
    if given != wanted:
        raise WrongContract(
            f"{where}: expected its first events, in block {book.block}, to name {_spell_roles(wanted)}, "
            f"got {_spell_roles(given)}: it is another federation's, or the block is another one"
        )


def save_address_book(path: Path, book: AddressBook) -> None:
    """Write an address book as JSON; a crash leaves the old file or the new one."""
    replace_file(path, [(json.dumps(book.model_dump(mode="json"), indent=2) + "\n").encode()])


def find_public(urls: Sequence[str]) -> str | None:
    """Return the first URL that is a scheme, a host and a port alone: the rest may be a password or a key."""
    return next((url for url in urls if url.rstrip("/").lower() == hide_secrets(url)), None)


def _compare(output: Path, key: str, wanted: int | Address, found: int | Address) -> None:
    if found != wanted:
        raise ConfigurationError(
            f"{output}: {key}: expected {_spell(wanted)} as asked for, got {_spell(found)}: it is another "
            "federation's address book; choose another file to deploy a new one"
        )


def _find_created(sender: str, nonce: int) -> Address:
    """Return where a transaction puts the contract that it creates."""
    return as_address(get_create_address(cast("Any", sender), cast("Any", nonce)), "created contract")


def _spell(value: int | Address) -> str:
    return checksum_address(value) if isinstance(value, bytes) else str(value)


def _spell_roles(roles: Sequence[tuple[Digest, Address]]) -> str:
    return (
        ", ".join(f"{checksum_address(account)} as {ROLE_NAMES.get(role, '?')}" for role, account in roles)
        or "nobody"
    )
