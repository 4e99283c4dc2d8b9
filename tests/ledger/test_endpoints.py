"""Several endpoints as one: who fails, lags or lies is passed over, and named in the log."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fedproof.config import AddressBook
from fedproof.digests import as_address
from fedproof.errors import ConfigurationError, LedgerError, LedgerUnreachable, Reverted, WrongContract
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import deploy_federation
from fedproof.ledger.endpoints import Endpoints, connect_endpoints
from fedproof.ledger.finality import Follower
from fedproof.ledger.history import History
from fedproof.ledger.rehearsal import Rehearsal
from tests.chain import make_account, make_digest
from tests.ledger.anvil import (
    Answer,
    Anvil,
    Proxy,
    facts,
    fail,
    honest,
    lie_in_hash,
    lie_in_logs,
    lie_in_nonce,
    make_stale,
    proxied,
    stall,
)

ADMIN, AGGREGATOR, NODE = make_account(1), make_account(2), make_account(3)


@pytest.fixture(scope="module")
def book(anvil: Anvil, tmp_path_factory: pytest.TempPathFactory) -> AddressBook:
    """A federation of one node."""
    anvil.fund(ADMIN.address, NODE.address)
    book = deploy_federation(
        anvil.url,
        ADMIN,
        aggregator=as_address(AGGREGATOR.address, "test"),
        output=tmp_path_factory.mktemp("book") / "book.json",
    )
    Ledger.connect(anvil.url, book.contract, account=NODE).register(make_digest("a"), make_digest("b"))
    return book


@pytest.fixture
def proxies(anvil: Anvil) -> Iterator[list[Proxy]]:
    """Three endpoints of one chain."""
    with ExitStack() as stack:
        yield [stack.enter_context(proxied(anvil.url)) for _ in range(3)]


def connect(proxies: list[Proxy], book: AddressBook, *, agreement: int) -> Ledger:
    """Return the ledger through all of them; none is waited for longer than 0.3 s."""
    urls = [proxy.url for proxy in proxies]
    return Ledger.connect(urls, book.contract, agreement=agreement, timeout_s=0.3, attempts=2)


def rebuild(anvil: Anvil, book: AddressBook) -> History:
    """Return the history as the chain itself tells it."""
    return Follower(Ledger.connect(anvil.url, book.contract), from_block=book.block).refresh()


@pytest.mark.parametrize("twist", [fail, stall])
@pytest.mark.parametrize("agreement", [1, 2])
def test_an_endpoint_that_fails_is_passed_over(
    proxies: list[Proxy], book: AddressBook, *, twist: object, agreement: int
) -> None:
    """Another one answers; the one that failed is named, and not asked again soon."""
    ledger = connect(proxies, book, agreement=agreement)
    proxies[0].twist = twist  # type: ignore[assignment]
    with capture_logs() as logs:
        assert ledger.key_maker() == bytes(20)
        history = Follower(ledger, from_block=book.block).refresh()
    assert len(history.members) == 1
    assert [(log["event"], log["endpoint"]) for log in logs] == [("endpoint_silent", proxies[0].url)]
    asked = len(proxies[0].requests)
    ledger.block(book.block)
    assert len(proxies[0].requests) == asked


def test_all_fail(proxies: list[Proxy], book: AddressBook) -> None:
    """Where nobody answers, the message names everybody."""
    ledger = connect(proxies, book, agreement=2)
    for proxy in proxies:
        proxy.twist = fail
    with pytest.raises(LedgerUnreachable, match=re.escape(proxies[2].url)):
        ledger.key_maker()
    with pytest.raises(LedgerUnreachable, match=rf"expected 2 of 3 endpoints .*{proxies[2].url}: .*503"):
        ledger.block(book.block)
    for proxy in proxies:
        proxy.twist = honest
    assert ledger.key_maker() == bytes(20)


def test_a_liar_is_outvoted(anvil: Anvil, proxies: list[Proxy], book: AddressBook) -> None:
    """Two of three agree on the history's hash; the third is named with what it says."""
    ledger = connect(proxies, book, agreement=2)
    proxies[0].twist = lie_in_hash
    with capture_logs() as logs:
        history = Follower(ledger, from_block=book.block).refresh()
    assert facts(history) == facts(rebuild(anvil, book))
    (log,) = logs
    assert (log["event"], log["endpoint"]) == ("endpoint_disagrees", proxies[0].url)
    assert "historyHash: it says" in log["reason"]


def test_too_few_agree(proxies: list[Proxy], book: AddressBook) -> None:
    """Of two that contradict each other none is believed; the message says who says what."""
    ledger = connect(proxies[:2], book, agreement=2)
    proxies[1].twist = lie_in_hash
    with pytest.raises(
        LedgerError, match=r"historyHash: expected 2 of 2 endpoints to say the same, got http"
    ):
        Follower(ledger, from_block=book.block).refresh()
    proxies[1].twist = honest
    assert len(Follower(ledger, from_block=book.block).refresh().members) == 1


@pytest.mark.parametrize("twist", [lie_in_logs, lie_in_hash])
def test_what_does_not_add_up_is_asked_of_another(
    anvil: Anvil, proxies: list[Proxy], book: AddressBook, twist: object
) -> None:
    """Also where one is enough: events and hash of one liar contradict each other, and another is asked."""
    proxies[0].twist = twist  # type: ignore[assignment]
    with capture_logs() as logs:
        history = Follower(connect(proxies, book, agreement=1), from_block=book.block).refresh()
    assert facts(history) == facts(rebuild(anvil, book))
    assert [(log["event"], log["endpoint"]) for log in logs] == [("endpoint_lies", proxies[0].url)]


@pytest.mark.parametrize("agreement", [1, 2])
def test_an_endpoint_that_lags_is_passed_over(
    anvil: Anvil, proxies: list[Proxy], book: AddressBook, agreement: int
) -> None:
    """Blocks that the others know are read, and the one that does not know them is named."""
    ledger = connect(proxies, book, agreement=agreement)
    follower = Follower(ledger, from_block=book.block)
    head = follower.refresh().next_block - 1
    proxies[0].twist = make_stale(head)
    anvil.mine(3)
    assert follower.refresh().next_block == head + 4
    anvil.mine(20)
    with capture_logs() as logs:
        assert follower.refresh().next_block == head + 24
    assert [(log["event"], log["endpoint"]) for log in logs] == [("endpoint_lags", proxies[0].url)]


def test_events_come_from_who_knows_their_blocks(
    anvil: Anvil, proxies: list[Proxy], book: AddressBook
) -> None:
    """One that lags leaves events out and gives no error; it is not believed, also where one is enough."""
    ledger = connect(proxies, book, agreement=1)
    follower = Follower(ledger, from_block=book.block)
    head = follower.refresh().next_block - 1
    proxies[0].twist = make_stale(head)
    direct = Ledger.connect(anvil.url, book.contract, account=NODE)
    direct.register(make_digest("while it lagged"), make_digest("keys"))
    assert facts(follower.refresh()) == facts(rebuild(anvil, book))


def test_a_nonce_needs_agreement(proxies: list[Proxy], book: AddressBook, tmp_path: Path) -> None:
    """One endpoint that claims transactions which were not sent does not hold up those that are."""
    urls = [proxy.url for proxy in proxies]
    proxies[0].twist = lie_in_nonce
    ledger = Ledger.connect(urls, book.contract, account=NODE, agreement=2, receipt_timeout_s=5.0)
    receipt = ledger.register(make_digest("new"), make_digest("keys"))
    assert len(receipt.events) == 1


def test_history_never_goes_back(anvil: Anvil, proxies: list[Proxy], book: AddressBook) -> None:
    """While only endpoints that lag are left, what was read stays."""
    ledger = connect(proxies, book, agreement=2)
    follower = Follower(ledger, from_block=book.block)
    anvil.mine(3)
    history = follower.refresh()
    for proxy in proxies:
        proxy.twist = make_stale(history.next_block - 3)
    assert follower.refresh() is history


def test_the_code_needs_agreement(proxies: list[Proxy], book: AddressBook) -> None:
    """A contract that only one endpoint shows is no contract."""

    def hide(request: Answer, ask: object) -> Answer | None:
        return {**ask(), "result": "0x"} if request["method"] == "eth_getCode" else ask()  # type: ignore[operator]

    for proxy in proxies[1:]:
        proxy.twist = hide
    with pytest.raises(WrongContract, match="no contract is there"):
        connect(proxies, book, agreement=2)


def test_one_endpoint_costs_nothing_more(anvil: Anvil, proxies: list[Proxy], book: AddressBook) -> None:
    """A look at one endpoint takes one request, and three where there is a new block."""
    ledger = connect(proxies[:1], book, agreement=1)
    follower = Follower(ledger, from_block=book.block)
    follower.refresh()
    proxies[0].requests.clear()
    follower.refresh()
    assert proxies[0].requests == ["eth_getBlockByNumber"]
    anvil.mine()
    follower.refresh()
    assert proxies[0].requests[1:] == ["eth_getBlockByNumber", "eth_getLogs", "eth_call"]


@pytest.mark.parametrize("gas", ["0x5208", None])
def test_a_dry_run_needs_agreement(
    anvil: Anvil, proxies: list[Proxy], book: AddressBook, gas: str | None
) -> None:
    """Neither what would pass nor what would be refused is one endpoint's to say."""

    def misjudge(request: Answer, ask: Callable[..., Answer]) -> Answer:
        if request["method"] != "eth_estimateGas":
            return ask()
        refusal = {"error": {"code": 3, "message": "execution reverted", "data": "0x"}}
        return {"jsonrpc": "2.0", "id": request["id"], **({"result": gas} if gas else refusal)}

    proxies[0].twist = misjudge
    urls = [proxy.url for proxy in proxies]
    node, admin = as_address(NODE.address, "test"), ADMIN
    rehearsal = Rehearsal.connect(urls, book.contract, account=admin, agreement=2, attempts=1)
    honest_gas = Rehearsal.connect(anvil.url, book.contract, account=admin).admit(node).gas_used
    assert rehearsal.admit(node).gas_used == honest_gas > 21_000
    outsider = Rehearsal.connect(urls, book.contract, account=make_account(9), agreement=2, attempts=1)
    with pytest.raises(Reverted, match="AccessControlUnauthorizedAccount"):
        outsider.retire()


def test_endpoints_of_one_host_are_named_by_number() -> None:
    """Since their keys are not shown, and each has its own standing."""
    urls = [f"http://127.0.0.1:1/v3/{key}" for key in ("a", "b")]
    with capture_logs() as logs, pytest.raises(LedgerUnreachable):
        connect_endpoints(urls, attempts=1).height()
    assert [log["endpoint"] for log in logs] == [f"http://127.0.0.1:1 (number {each})" for each in (1, 2)]


@pytest.mark.parametrize("spelling", ["http://127.0.0.1:1", "HTTP://127.0.0.1:1/", "http://me@127.0.0.1:1"])
def test_more_agreement_than_endpoints_is_refused(spelling: str) -> None:
    """An address that is named twice counts once, however it is spelled."""
    urls = ["http://127.0.0.1:1", spelling]
    with pytest.raises(ConfigurationError, match=r"agreement: expected 1 to 1, .* got 2"):
        connect_endpoints(urls, agreement=2)
    assert isinstance(connect_endpoints([*urls, "http://127.0.0.1:2"], agreement=2), Endpoints)


def test_transactions_go_through_whoever_answers(
    proxies: list[Proxy], book: AddressBook, tmp_path: Path
) -> None:
    """A transaction is sent and mined while two of three fail."""
    urls = [proxy.url for proxy in proxies]
    ledger = Ledger.connect(urls, book.contract, account=NODE, timeout_s=0.3, attempts=2)
    proxies[0].twist, proxies[1].twist = fail, stall
    receipt = ledger.register(make_digest("new"), make_digest("keys"))
    assert len(receipt.events) == 1
