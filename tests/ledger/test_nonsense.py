"""An endpoint answers with what is no answer: of three it is outvoted, and alone it ends in our own error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from fedproof.config import AddressBook
from fedproof.digests import Digest, as_address, checksum_address
from fedproof.errors import FedproofError
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import deploy_federation
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.endpoints import connect_endpoints
from fedproof.ledger.fees import Ceilings, suggest_fees
from fedproof.ledger.finality import find_final_number
from fedproof.ledger.outbox import Outbox
from fedproof.ledger.sending import SendingRules
from fedproof.ledger.signer import KeystoreSigner
from fedproof.ledger.transactions import (
    count_having,
    count_transactions,
    estimate_gas,
    find_receipt,
    is_spent,
)
from tests.chain import make_account, make_digest
from tests.ledger.anvil import Answer, Anvil, Proxy, Twist, honest, proxied

ADMIN = make_account(1)
ADMIN_ADDRESS = as_address(ADMIN.address, "test")
SENDER: Any = checksum_address(ADMIN_ADDRESS)

NESTED: list[Any] = []
for _ in range(500):
    NESTED = [NESTED]
NONSENSE: dict[str, object] = {
    "null": None,
    "list": [],
    "object": {},
    "nan": float("nan"),
    "fraction": 1.5,
    "truth": True,
    "text": "zz",
    "negative": "-0x1",
    "endless_number": "0x" + "f" * 10_000,
    "nested": NESTED,
    "other_object": {"number": None, "hash": 5, "logs": {}, "status": True, "transactionHash": []},
}


@dataclass(frozen=True)
class World:
    """A federation on a chain, three endpoints of it, and a transaction that is mined."""

    anvil: Anvil
    proxies: list[Proxy]
    book: AddressBook
    mined: Digest

    def connect(self, proxies: list[Proxy]) -> Endpoint:
        """Return these endpoints as one; most of them have to agree."""
        urls = [proxy.url for proxy in proxies]
        return connect_endpoints(
            urls, agreement=len(urls) // 2 + 1, timeout_s=5, attempts=1, receipt_timeout_s=5
        )


@pytest.fixture(scope="module")
def world(anvil: Anvil, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Of one admin."""
    anvil.fund(ADMIN.address)
    output = tmp_path_factory.mktemp("book") / "book.json"
    book = deploy_federation(anvil.url, ADMIN, aggregator=ADMIN_ADDRESS, output=output)
    receipt = Ledger.connect(anvil.url, book.contract, account=ADMIN).register(
        make_digest("wrapping"), make_digest("certificate")
    )
    anvil.mine(5)
    with ExitStack() as stack:
        proxies = [stack.enter_context(proxied(anvil.url)) for _ in range(3)]
        yield World(anvil, proxies, book, receipt.transaction_hash)


def answer_with(nonsense: object, method: str) -> Twist:
    """Return a twist that answers a method so."""

    def twist(request: Answer, ask: Callable[..., Answer]) -> Answer:
        answer = ask()
        return (
            {"jsonrpc": "2.0", "id": request["id"], "result": nonsense}
            if request["method"] == method
            else answer
        )

    return twist


def open_ledger(endpoint: Endpoint, world: World) -> Ledger:
    """Return the federation's ledger."""
    return Ledger(endpoint, world.book.contract)


def ask_for_gas(endpoint: Endpoint, _world: World) -> int:
    """Return how much gas a call needs."""
    call: Any = {"from": SENDER, "to": SENDER, "data": "0x"}
    return estimate_gas(endpoint, call, what="test")


def ask_for_receipt(endpoint: Endpoint, world: World) -> object:
    """Return a transaction's receipt."""
    return endpoint.confirm("test", lambda web3: find_receipt(web3, world.mined))


Question = Callable[[Endpoint, World], object]
CEILINGS = Ceilings(fee=10**12, tip=10**12)
QUESTIONS: list[tuple[str, Question]] = [
    ("eth_chainId", lambda endpoint, _: endpoint.chain_id),
    ("eth_getCode", lambda endpoint, world: open_ledger(endpoint, world).contract),
    ("eth_blockNumber", lambda endpoint, _: find_final_number(endpoint, 2)),
    ("eth_getBlockByNumber", lambda endpoint, _: endpoint.height("finalized")),
    ("eth_getBlockByNumber", lambda endpoint, _: dict(suggest_fees(endpoint, ceilings=CEILINGS))),
    ("eth_getBlockByNumber", lambda endpoint, world: open_ledger(endpoint, world).latest_block()),
    ("eth_getLogs", lambda endpoint, world: open_ledger(endpoint, world).events(0, 5)),
    ("eth_call", lambda endpoint, world: open_ledger(endpoint, world).history_hash()),
    ("eth_call", lambda endpoint, world: open_ledger(endpoint, world).state()),
    ("eth_getTransactionCount", lambda endpoint, _: count_transactions(endpoint, SENDER, "pending")),
    (
        "eth_getTransactionCount",
        lambda endpoint, _: is_spent(endpoint, SENDER, 0, but_for=(), block="latest"),
    ),
    ("eth_estimateGas", ask_for_gas),
    ("eth_maxPriorityFeePerGas", lambda endpoint, _: dict(suggest_fees(endpoint, ceilings=CEILINGS))),
    ("eth_getTransactionByHash", lambda endpoint, world: count_having(endpoint, world.mined) > 0),
    ("eth_getTransactionReceipt", ask_for_receipt),
]
each_question = pytest.mark.parametrize(("method", "question"), QUESTIONS)


@each_question
def test_nonsense_of_one_of_three_is_outvoted(world: World, method: str, question: Question) -> None:
    """Whoever says it, and whatever it is: the answer is the one that the others give."""
    expected = question(world.connect(world.proxies), world)
    for place, nonsense in enumerate(NONSENSE.values()):
        liar = world.proxies[place % 3]
        liar.twist = answer_with(nonsense, method)
        assert question(world.connect(world.proxies), world) == expected
        liar.twist = honest


@each_question
def test_nonsense_of_the_only_one_is_an_error_of_ours(world: World, method: str, question: Question) -> None:
    """And what is no error is no other kind of answer than an honest one."""
    (only, *_) = world.proxies
    expected = question(world.connect([only]), world)
    for nonsense in NONSENSE.values():
        only.twist = answer_with(nonsense, method)
        with suppress(FedproofError):
            answer = question(world.connect([only]), world)
            assert answer is None or type(answer) is type(expected)  # a receipt may not be there yet
            assert "nan" not in repr(answer)
        only.twist = honest


@pytest.mark.parametrize("method", ["eth_blockNumber", "eth_getTransactionCount", "eth_sendRawTransaction"])
def test_nonsense_ends_no_sending(world: World, method: str) -> None:
    """A transaction is sent and mined, whatever one of three says."""
    for nonsense in NONSENSE.values():
        world.proxies[1].twist = answer_with(nonsense, method)
        outbox = Outbox(world.connect(world.proxies), KeystoreSigner(ADMIN), SendingRules())
        assert outbox.send({"to": SENDER, "data": "0x"}, what="test")["status"] == 1
        world.proxies[1].twist = honest
