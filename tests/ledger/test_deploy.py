"""Deploying once, and noticing when the address book is not what it should be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedproof.config import AddressBook
from fedproof.digests import Address, as_address
from fedproof.errors import ConfigurationError, LedgerUnreachable, WrongContract
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import deploy_federation, deploy_through, load_address_book, save_address_book
from fedproof.ledger.events import AGGREGATOR_ROLE, DEFAULT_ADMIN_ROLE
from tests.chain import MemoryChain, make_account

ADMIN = make_account(1)
AGGREGATOR = as_address(make_account(2).address, "aggregator")


@pytest.fixture(scope="module")
def chain() -> MemoryChain:
    """A chain without contracts."""
    return MemoryChain()


@pytest.fixture(scope="module")
def first(chain: MemoryChain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The address book of a first deployment."""
    output = tmp_path_factory.mktemp("deployment") / "new" / "address-book.json"
    deploy_through(chain.endpoint, ADMIN, aggregator=AGGREGATOR, output=output)
    return output


def test_deployment_gives_the_roles(chain: MemoryChain, first: Path) -> None:
    """The deployer is the admin, the named account the aggregator, and the book says so."""
    book = load_address_book(first)
    ledger = Ledger(chain.endpoint, book.contract)
    assert ledger.has_role(DEFAULT_ADMIN_ROLE, book.admin)
    assert ledger.has_role(AGGREGATOR_ROLE, AGGREGATOR)
    assert (book.admin, book.aggregator) == (as_address(ADMIN.address, "admin"), AGGREGATOR)
    assert (book.chain_id, book.rpc_url) == (ledger.chain_id, "memory")
    assert len(ledger.events(book.block, book.block)) == 2


def test_another_admin_can_be_named(chain: MemoryChain, tmp_path: Path) -> None:
    """Who pays for the deployment need not be the admin."""
    admin = as_address(make_account(3).address, "admin")
    output = tmp_path / "book.json"
    book = deploy_through(chain.endpoint, ADMIN, aggregator=AGGREGATOR, output=output, admin=admin)
    ledger = Ledger(chain.endpoint, book.contract)
    assert book.admin == admin
    assert ledger.has_role(DEFAULT_ADMIN_ROLE, admin)
    assert not ledger.has_role(DEFAULT_ADMIN_ROLE, as_address(ADMIN.address, "deployer"))


def test_deployment_happens_once(chain: MemoryChain, first: Path) -> None:
    """The second time nothing is sent, and the book is the same."""
    before, block = first.read_bytes(), chain.web3.eth.block_number
    book = deploy_through(chain.endpoint, ADMIN, aggregator=AGGREGATOR, output=first)
    assert book == load_address_book(first)
    assert (first.read_bytes(), chain.web3.eth.block_number) == (before, block)


def test_a_book_of_another_federation_is_kept(chain: MemoryChain, first: Path) -> None:
    """With another aggregator than the book's, nothing is deployed and nothing overwritten."""
    before = first.read_bytes()
    with pytest.raises(ConfigurationError, match=r"address-book.json: aggregator: expected 0x.*, got 0x"):
        deploy_through(
            chain.endpoint, ADMIN, aggregator=as_address(make_account(4).address, "x"), output=first
        )
    with pytest.raises(ConfigurationError, match=r"address-book.json: admin: expected 0x"):
        deploy_through(chain.endpoint, make_account(4), aggregator=AGGREGATOR, output=first)
    assert first.read_bytes() == before


def test_a_book_of_another_chain_is_kept(chain: MemoryChain, first: Path, tmp_path: Path) -> None:
    """A book that was written for another chain is not taken for this one's."""
    output = tmp_path / "book.json"
    save_address_book(output, load_address_book(first).model_copy(update={"chain_id": 1}))
    with pytest.raises(ConfigurationError, match=r"book.json: chain_id: expected \d+ as asked for, got 1"):
        deploy_through(chain.endpoint, ADMIN, aggregator=AGGREGATOR, output=output)


def test_other_code_at_the_books_address_is_noticed(chain: MemoryChain, first: Path, tmp_path: Path) -> None:
    """A book whose address holds no contract, such as after the chain was reset, is refused."""
    output = tmp_path / "book.json"
    elsewhere = Address(bytes(19) + b"\x42")
    save_address_book(output, load_address_book(first).model_copy(update={"contract": elsewhere}))
    with pytest.raises(WrongContract, match="no contract is there"):
        deploy_through(chain.endpoint, ADMIN, aggregator=AGGREGATOR, output=output)


def test_address_books_come_back_as_they_went(first: Path, tmp_path: Path) -> None:
    """A book that is saved and loaded is the same, and it is JSON with checksum addresses."""
    book = load_address_book(first)
    save_address_book(tmp_path / "book.json", book)
    assert load_address_book(tmp_path / "book.json") == book
    document = json.loads((tmp_path / "book.json").read_text())
    assert list(document) == list(AddressBook.model_fields)
    assert document["admin"] == ADMIN.address


def test_without_a_chain_no_book_is_written(tmp_path: Path) -> None:
    """Where no chain answers, no address book claims a contract."""
    output = tmp_path / "book.json"
    chain = MemoryChain()
    chain.provider.outages = 10**6
    with pytest.raises(LedgerUnreachable):
        deploy_through(chain.endpoint, ADMIN, aggregator=AGGREGATOR, output=output)
    with pytest.raises(ConfigurationError, match="rpc_url"):
        deploy_federation("chain.example", ADMIN, aggregator=AGGREGATOR, output=output)
    assert not output.exists()
