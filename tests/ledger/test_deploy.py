"""Deploying once, and noticing when the address book is not what it should be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount

from fedproof.config import AddressBook
from fedproof.digests import Address, as_address, checksum_address
from fedproof.errors import ConfigurationError, HistoryBroken, LedgerUnreachable, WrongContract
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import (
    deploy_federation,
    deploy_through,
    describe_deployment,
    find_public,
    load_address_book,
    save_address_book,
)
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.events import AGGREGATOR_ROLE, DEFAULT_ADMIN_ROLE, RoleGranted
from fedproof.ledger.outbox import Outbox
from fedproof.ledger.signer import KeystoreSigner
from tests.chain import MemoryChain, make_account
from tests.ledger.anvil import Answer, Anvil, Proxy, Twist, honest, proxied

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
    assert (book.chain_id, book.rpc_url) == (ledger.chain_id, None)
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


# An endpoint that lies, and contracts of others


@pytest.fixture
def proxy(anvil: Anvil) -> Iterator[Proxy]:
    """An endpoint, honest until a test twists it."""
    with proxied(anvil.url) as proxy:
        yield proxy


@pytest.fixture
def planted(anvil: Anvil, wallet: LocalAccount, tmp_path: Path) -> AddressBook:
    """The operator's address book, had it named another one's contract, where the operator is admin, too."""
    other = make_account(5)
    anvil.fund(other.address)
    book = deploy_federation(anvil.url, other, aggregator=AGGREGATOR, output=tmp_path / "planted.json")
    operator = as_address(wallet.address, "operator")
    Ledger.connect(anvil.url, book.contract, account=other).grant_role(DEFAULT_ADMIN_ROLE, operator)
    return book.model_copy(update={"admin": operator})


def lie_in_receipts(**changes: object) -> Twist:
    """Return a twist that alters the receipt of a deployment."""

    def twist(request: Answer, ask: Callable[..., Answer]) -> Answer:
        answer = ask()
        if request["method"] == "eth_getTransactionReceipt" and answer["result"]:
            answer["result"].update(changes)
        return answer

    return twist


def test_a_receipt_names_no_contract(
    wallet: LocalAccount, proxy: Proxy, planted: AddressBook, tmp_path: Path
) -> None:
    """The contract is where the signed transaction puts it, whatever a lying endpoint's receipt says."""
    proxy.twist = lie_in_receipts(contractAddress=checksum_address(planted.contract))
    output = tmp_path / "book.json"
    book = deploy_federation(proxy.url, wallet, aggregator=AGGREGATOR, output=output)
    assert book.contract != planted.contract
    granted = Ledger.connect(proxy.url, book.contract).replay(from_block=book.block).roles
    assert granted == {DEFAULT_ADMIN_ROLE: {book.admin}, AGGREGATOR_ROLE: {AGGREGATOR}}


def test_a_false_block_is_noticed(anvil: Anvil, wallet: LocalAccount, proxy: Proxy, tmp_path: Path) -> None:
    """No book is written while the events are not in the receipt's block; trying again deploys no other."""
    block = int(anvil.request("eth_blockNumber"), 16) + 1
    output, outbox = tmp_path / "book.json", tmp_path / "outbox.sqlite"

    def deploy() -> AddressBook:
        endpoint = Endpoint.connect(proxy.url, attempts=2)
        return deploy_through(endpoint, wallet, aggregator=AGGREGATOR, output=output, outbox=outbox)

    proxy.twist = lie_in_receipts(blockNumber=hex(block - 1))
    with pytest.raises(WrongContract, match=f"first events, in block {block - 1}, to name .*, got nobody"):
        deploy()
    assert not output.exists()
    proxy.twist = honest
    assert deploy().block == block
    assert anvil.request("eth_getTransactionCount", wallet.address, "latest") == "0x1"


def test_a_book_whose_block_is_too_late_is_refused(
    anvil: Anvil, wallet: LocalAccount, tmp_path: Path
) -> None:
    """From there on the events do not add up."""
    output = tmp_path / "book.json"
    book = deploy_federation(anvil.url, wallet, aggregator=AGGREGATOR, output=output)
    save_address_book(output, book.model_copy(update={"block": book.block + 1}))
    anvil.mine(2)
    with pytest.raises(HistoryBroken, match="at least one is missing"):
        deploy_federation(anvil.url, wallet, aggregator=AGGREGATOR, output=output)


def test_a_book_with_another_ones_contract_is_refused(
    anvil: Anvil, wallet: LocalAccount, planted: AddressBook, tmp_path: Path
) -> None:
    """Also where the contract's code is right, and the operator was given a role in it later."""
    output = tmp_path / "book.json"
    save_address_book(output, planted)
    ledger = Ledger.connect(anvil.url, planted.contract)
    assert ledger.has_role(DEFAULT_ADMIN_ROLE, planted.admin)
    message = f"to name {wallet.address} as admin, .*, got {make_account(5).address} as admin"
    with pytest.raises(WrongContract, match=message):
        deploy_federation(anvil.url, wallet, aggregator=AGGREGATOR, output=output)


def test_a_contract_made_by_other_means_is_refused(
    anvil: Anvil, wallet: LocalAccount, tmp_path: Path
) -> None:
    """Right code and right events are not enough: what else made them might have left more in the storage."""
    operator = as_address(wallet.address, "operator")
    data = bytes.fromhex(describe_deployment(admin=operator, aggregator=AGGREGATOR, predecessor=None)[2:])
    # A contract whose constructor creates the federation's, by all that follows it in the transaction.
    size = len(data).to_bytes(2).hex()
    maker = f"0x61{size}6016600039" + f"61{size}60006000f0" + "601457fe5b00" + data.hex()
    other = make_account(5)
    anvil.fund(other.address)
    endpoint = Endpoint.connect(anvil.url)
    block = Outbox(endpoint, KeystoreSigner(other)).send({"data": maker}, what="other means")["blockNumber"]
    (log, _) = anvil.request("eth_getLogs", {"fromBlock": hex(block), "toBlock": hex(block)})
    contract = as_address(log["address"], "log")
    admin, aggregator = Ledger(endpoint, contract).events(block, block)
    assert isinstance(admin, RoleGranted)
    assert isinstance(aggregator, RoleGranted)
    assert (admin.account, aggregator.account) == (operator, AGGREGATOR)

    book = AddressBook(
        chain_id=endpoint.chain_id, contract=contract, admin=operator, aggregator=AGGREGATOR, block=block
    )
    save_address_book(tmp_path / "book.json", book)
    with pytest.raises(WrongContract, match="somebody else deployed it"):
        deploy_federation(anvil.url, wallet, aggregator=AGGREGATOR, output=tmp_path / "book.json")


def test_roles_may_change_hands(anvil: Anvil, wallet: LocalAccount, tmp_path: Path) -> None:
    """What counts is who had them first: a federation that was handed over is still the book's."""
    output = tmp_path / "book.json"
    book = deploy_federation(anvil.url, wallet, aggregator=AGGREGATOR, output=output)
    ledger = Ledger.connect(anvil.url, book.contract, account=wallet)
    ledger.grant_role(DEFAULT_ADMIN_ROLE, AGGREGATOR)
    ledger.renounce_role(DEFAULT_ADMIN_ROLE)
    assert deploy_federation(anvil.url, wallet, aggregator=AGGREGATOR, output=output) == book


# What everybody may read


@pytest.mark.parametrize(
    ("urls", "public"),
    [
        (["http://127.0.0.1:8545"], "http://127.0.0.1:8545"),
        (["https://RPC.example/"], "https://RPC.example/"),
        (["http://[::1]:8545"], "http://[::1]:8545"),
        (["https://user:word@rpc.example"], None),
        (["https://user@rpc.example"], None),
        (["https://rpc.example/v3/0123abcd"], None),
        (["https://rpc.example?key=0123abcd"], None),
        (["https://rpc.example/#0123abcd"], None),
        (["https://rpc.example/v3/0123abcd", "https://second.example"], "https://second.example"),
    ],
)
def test_what_may_be_a_secret_is_not_for_everybody(urls: list[str], public: str | None) -> None:
    """Only an endpoint that is a scheme, a host and a port is named to everybody."""
    assert find_public(urls) == public


def test_passwords_stay_out_of_the_address_book(proxy: Proxy, wallet: LocalAccount, tmp_path: Path) -> None:
    """An endpoint with a password and a key serves, and the book that everybody gets does not name it."""
    output = tmp_path / "book.json"
    url = proxy.url.replace("http://", "http://user:hunter2@") + "/v3/0123abcd"
    book = deploy_federation(url, wallet, aggregator=AGGREGATOR, output=output)
    assert book.rpc_url is None
    assert load_address_book(output) == book
    assert not [secret for secret in ("user", "hunter2", "0123abcd") if secret in output.read_text()]
    with pytest.raises(ConfigurationError, match=r"rpc_url: .* the address book names none; name your own"):
        book.need_rpc_url()
