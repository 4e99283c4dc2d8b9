"""The follower on a chain that changes its mind: it shows what counts, and what the chain says at last."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from structlog.testing import capture_logs

from fedproof.config import AddressBook
from fedproof.digests import as_address
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import deploy_federation
from fedproof.ledger.finality import MOST_STANDS, Follower
from fedproof.ledger.history import History
from fedproof.ledger.sending import SendingRules
from tests.chain import make_account, make_digest
from tests.ledger.anvil import Answer, Anvil, facts, proxied, running_anvil

ADMIN, AGGREGATOR = make_account(1), make_account(2)
# Each of them in a campaign (see test_faults.py).
DEPTHS = range(1, 33) if "FEDPROOF_FAULT_RUNS" in os.environ else [1, 2, 5, 13, 32]


@pytest.fixture(scope="module")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anvil]:
    """A chain whose blocks are final once two others follow."""
    with running_anvil(tmp_path_factory.mktemp("anvil"), "--slots-in-an-epoch", "1") as anvil:
        anvil.fund(ADMIN.address)
        yield anvil


@pytest.fixture
def book(anvil: Anvil, tmp_path_factory: pytest.TempPathFactory) -> AddressBook:
    """A federation without nodes."""
    return deploy_federation(
        anvil.url,
        ADMIN,
        aggregator=as_address(AGGREGATOR.address, "test"),
        output=tmp_path_factory.mktemp("book") / "book.json",
    )


@pytest.fixture
def ledger(anvil: Anvil, book: AddressBook) -> Ledger:
    """The federation as its admin sees it."""
    return Ledger.connect(anvil.url, book.contract, account=ADMIN)


def register(ledger: Ledger, label: object) -> None:
    """Let the admin apply with new keys."""
    ledger.register(make_digest(label), make_digest("certificate"))


def rebuild(ledger: Ledger, book: AddressBook) -> History:
    """Return the history, read from its start."""
    return Follower(ledger, from_block=book.block).refresh()


def test_blocks_count_at_a_depth(anvil: Anvil, ledger: Ledger, book: AddressBook) -> None:
    """An event counts once as many blocks follow as configured, and not a block earlier."""
    follower = Follower(ledger, from_block=book.block, finality=3)
    register(ledger, "keys")
    anvil.mine(2)
    assert follower.refresh().members == {}
    anvil.mine()
    assert list(follower.refresh().members) == [ledger.address]


def test_blocks_count_when_the_chain_says_so(anvil: Anvil, ledger: Ledger, book: AddressBook) -> None:
    """With "finalized", what the chain calls so counts."""
    follower = Follower(ledger, from_block=book.block, finality="finalized")
    register(ledger, "keys")
    block = ledger.block_number()
    while int(anvil.request("eth_getBlockByNumber", "finalized", False)["number"], 16) < block:
        assert follower.refresh().members == {}
        anvil.mine()
    assert list(follower.refresh().members) == [ledger.address]


@pytest.mark.parametrize("finality", ["latest", 5, "finalized"])
def test_a_contract_that_does_not_count_yet_has_no_history(
    anvil: Anvil, ledger: Ledger, finality: Literal["latest", "finalized"] | int
) -> None:
    """Before its block counts, nothing has happened, also for who does not know that block."""
    follower = Follower(ledger, finality=finality)
    follower.refresh()
    anvil.mine(6)
    assert follower.refresh().event_count > 0


@pytest.mark.parametrize("depth", DEPTHS)
def test_reorganisations_are_followed(anvil: Anvil, ledger: Ledger, book: AddressBook, depth: int) -> None:
    """What the chain dropped is forgotten, and the rest is neither read again nor lost."""
    register(ledger, "kept")
    anvil.mine(2)
    follower = Follower(ledger, from_block=book.block)
    follower.refresh()
    kept = follower.history
    for block in range(depth):
        if block % 3 == 0:
            register(ledger, f"dropped {block}")
        else:
            anvil.mine()
        follower.refresh()
    assert follower.history.event_count > kept.event_count
    anvil.request("anvil_reorg", depth, [])
    with capture_logs() as logs:
        follower.refresh()
    assert [log["event"] for log in logs] == ["chain_reorganised"]
    assert logs[0]["back_to"] == kept.next_block - 1
    assert facts(follower.history) == facts(rebuild(ledger, book))
    assert follower.history.history_hash == kept.history_hash
    register(ledger, "new")
    assert facts(follower.refresh()) == facts(rebuild(ledger, book))


def test_events_that_moved_are_noticed(anvil: Anvil, ledger: Ledger, book: AddressBook) -> None:
    """The same events in other blocks are another history, although their running hash is the same."""
    follower = Follower(ledger, from_block=book.block)
    register(ledger, "keys")
    before = follower.refresh()
    anvil.request("anvil_reorg", 1, [])
    register(ledger, "keys")
    after = follower.refresh()
    assert after.history_hash == before.history_hash
    assert facts(after) == facts(rebuild(ledger, book))
    assert after.next_block == before.next_block + 1


def test_what_was_read_is_bounded(anvil: Anvil, ledger: Ledger, book: AddressBook) -> None:
    """However long it runs, only so many earlier histories are kept; one that is deeper is read afresh."""
    follower = Follower(ledger, from_block=book.block)
    for number in range(MOST_STANDS + 8):
        register(ledger, number)
        follower.refresh()
    assert len(follower._stands) == MOST_STANDS
    anvil.request("anvil_reorg", MOST_STANDS + 4, [])
    with capture_logs() as logs:
        follower.refresh()
    assert logs[0]["back_to"] is None
    assert facts(follower.history) == facts(rebuild(ledger, book))


def test_quiet_blocks_keep_no_history(anvil: Anvil, ledger: Ledger, book: AddressBook) -> None:
    """A chain without events takes no memory."""
    follower = Follower(ledger, from_block=book.block)
    for _ in range(5):
        anvil.mine()
        follower.refresh()
    assert len(follower._stands) == 1


def test_a_receipt_that_was_overtaken_is_no_proof(anvil: Anvil, book: AddressBook, tmp_path: Path) -> None:
    """A block that goes while the chain grows beyond it, just after its receipt was read, was never final."""
    dropped: list[str] = []

    def overtake(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        answer = ask()
        if request["method"] == "eth_blockNumber":
            anvil.mine()
        is_receipt = request["method"] == "eth_getTransactionReceipt" and answer["result"] is not None
        if is_receipt and len(dropped) < 2:
            dropped.append(answer["result"]["blockHash"])
            depth = int(anvil.request("eth_blockNumber"), 16) - int(answer["result"]["blockNumber"], 16) + 1
            anvil.request("anvil_reorg", depth, [])
            anvil.mine(20)
        return answer

    with proxied(anvil.url) as proxy:
        proxy.twist = overtake
        rules = SendingRules(path=tmp_path / "outbox.sqlite", finality=8, replace_after_s=0.3)
        sender = Ledger.connect(proxy.url, book.contract, account=ADMIN, rules=rules)
        receipt = sender.register(make_digest("keys"), make_digest("certificate"))
    block = anvil.request("eth_getBlockByNumber", hex(receipt.block_number), False)
    assert "0x" + receipt.transaction_hash.hex() in block["transactions"]
    assert block["hash"] not in dropped
    assert len(dropped) == 2
