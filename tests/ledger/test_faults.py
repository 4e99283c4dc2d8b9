"""Commitments on a chain that reorganises, drops and lies: after healing, it is as if it had not.

Each run draws its faults from a seed. Normally there are a few; `FEDPROOF_FAULT_RUNS=500` makes a campaign.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from fedproof.config import AddressBook
from fedproof.digests import as_address
from fedproof.errors import LedgerError
from fedproof.ledger.client import Ledger, Receipt
from fedproof.ledger.deploy import deploy_federation
from fedproof.ledger.events import UpdateCommitted
from fedproof.ledger.finality import Follower
from fedproof.ledger.sending import SendingRules
from tests.chain import make_account, make_digest
from tests.ledger.anvil import (
    Anvil,
    Proxy,
    Twist,
    facts,
    fail,
    honest,
    lie_in_hash,
    lie_in_logs,
    lie_in_nonce,
    make_liar_in_fees,
    make_liar_in_receipts,
    make_stale,
    proxied,
    running_anvil,
    stall,
    until,
)
from tests.ledger.test_client import POLICY

RUNS = int(os.environ.get("FEDPROOF_FAULT_RUNS", "3"))
STEPS = 14
ADMIN, AGGREGATOR = make_account(1), make_account(2)
NODES = [make_account(number) for number in (3, 4, 5, 6)]
# A day: each block takes a second of the chain's time.
PATIENT = replace(POLICY, rounds=replace(POLICY.rounds, attestation_quorum=3, commit_window_s=86_400))


@pytest.fixture
def anvil(tmp_path: Path) -> Iterator[Anvil]:
    """A chain of our own."""
    with running_anvil(tmp_path) as anvil:
        anvil.fund(*(account.address for account in (ADMIN, AGGREGATOR, *NODES)))
        yield anvil


class World:
    """A federation with an open round, whose nodes reach it through three endpoints that can be broken."""

    def __init__(self, anvil: Anvil, proxies: list[Proxy], folder: Path, *, depth: int) -> None:
        self.anvil = anvil
        self.proxies = proxies
        self.depth = depth
        self._folder = folder
        self.errors: list[str] = []
        self._is_over = threading.Event()
        self.book = open_round(anvil, folder)
        self._set_up = self.count_sent()
        anvil.mine(depth)  # no reorganisation takes the round itself away
        self.follower = Follower(self.connect(), from_block=self.book.block)

    def connect(self, node: int | None = None) -> Ledger:
        """Return the ledger through all endpoints, as a node's new process would open it."""
        rules = SendingRules(
            path=self._folder / f"node-{node}.sqlite", finality=self.depth, replace_after_s=0.3
        )
        return Ledger.connect(
            [proxy.url for proxy in self.proxies],
            self.book.contract,
            account=None if node is None else NODES[node],
            rules=rules,
            agreement=2,
            timeout_s=0.6,
            attempts=2,
            receipt_timeout_s=2.0,
        )

    def commit(self, node: int) -> Receipt:
        """Commit as a daemon does that restarts after each error: with a new process, and the same call."""
        while not self._is_over.is_set():
            try:
                return self.connect(node).commit(1, make_digest(f"update {node}"), 100)
            except LedgerError as error:
                self.errors.append(str(error))
        raise TimeoutError(f"node {node}: the last errors were " + "\n".join(self.errors[-5:]))

    def count_sent(self) -> list[int]:
        """Return how many transactions each node has on the chain."""
        counts = [self.anvil.request("eth_getTransactionCount", node.address, "latest") for node in NODES]
        return [int(number, 16) for number in counts]

    def count_due(self) -> list[int]:
        """Return how many each node should have there: a commitment more, and what filled a nonce."""
        sent = [self.connect(node).outbox.sendings() for node in range(len(NODES))]
        fillers = [sum(each.what.startswith("fill nonce") for each in sendings) for sendings in sent]
        return [number + 1 + filled for number, filled in zip(self._set_up, fillers, strict=True)]

    def tips(self) -> list[int]:
        """Return what the nodes' transactions, of whatever type, paid for gas beyond the base fee."""
        nodes = {node.address.lower() for node in NODES}
        head = int(self.anvil.request("eth_blockNumber"), 16)
        blocks = [self.anvil.request("eth_getBlockByNumber", hex(number), True) for number in range(head + 1)]
        return [
            int(transaction["gasPrice"], 16) - int(block["baseFeePerGas"], 16)
            for block in blocks
            for transaction in block["transactions"]
            if transaction["from"] in nodes
        ]

    def twists(self) -> list[Twist]:
        """Return what may be wrong with an endpoint."""
        head = int(self.anvil.request("eth_blockNumber"), 16)
        return [
            make_liar_in_receipts(0),
            make_liar_in_receipts(1),
            make_liar_in_fees(base_fee=10**9, tip=450 * 10**9),
            make_liar_in_fees(base_fee=0, tip=0),
            make_stale(head),
            make_stale(self.book.block),
            lie_in_logs,
            lie_in_hash,
            lie_in_nonce,
            stall,
            fail,
        ]

    def break_something(self, rng: random.Random) -> None:
        """Do one of the things that happen to a chain and to those who serve it."""
        anvil = self.anvil
        match rng.randrange(8):
            case 0:
                anvil.request("anvil_reorg", rng.randint(1, self.depth), [])
            case 1:
                anvil.request("anvil_dropAllTransactions")
            case 2:
                anvil.request("anvil_setNextBlockBaseFeePerGas", hex(rng.randint(1, 20) * 10**9))
            case 3:
                anvil.request("evm_setAutomine", rng.random() < 0.5)
            case 4:
                self.proxies[rng.randrange(3)].twist = honest
            case 5:
                # Two of three have to agree: no more than one fails at a time.
                for proxy in self.proxies:
                    proxy.twist = honest
                self.proxies[rng.randrange(3)].twist = rng.choice(self.twists())
            case _:
                anvil.mine(rng.randint(1, 3))

    def heal(self, waiting: list[Future[Receipt]]) -> None:
        """Serve the truth again, and let blocks come until everybody has their receipt."""
        for proxy in self.proxies:
            proxy.twist = honest
        self.anvil.request("evm_setAutomine", True)

        def all_done() -> bool:
            self.anvil.request("anvil_setNextBlockBaseFeePerGas", hex(10**9))
            self.anvil.mine()
            return not futures.wait(waiting, timeout=0.05).not_done

        try:
            until(all_done, timeout_s=60.0)
        except AssertionError as error:
            self._is_over.set()
            raise AssertionError("\n".join(self.errors[-8:])) from error


@pytest.fixture
def proxies(anvil: Anvil) -> Iterator[list[Proxy]]:
    """Three endpoints of one chain."""
    with ExitStack() as stack:
        yield [stack.enter_context(proxied(anvil.url)) for _ in range(3)]


def open_round(anvil: Anvil, folder: Path) -> AddressBook:
    """Deploy a federation, admit its nodes, and open its first round."""
    book = deploy_federation(
        anvil.url,
        ADMIN,
        aggregator=as_address(AGGREGATOR.address, "test"),
        output=folder / "address-book.json",
    )
    admin, aggregator, *nodes = (
        Ledger.connect(anvil.url, book.contract, account=account) for account in (ADMIN, AGGREGATOR, *NODES)
    )
    for node in nodes:
        node.register(make_digest("wrapping"), make_digest("certificate"))
        admin.admit(node.address)
    admin.adopt_policy(PATIENT)
    admin.request_epoch(nodes[0].address)
    membership = admin.state().membership
    nodes[0].publish_epoch(1, make_digest("context"), make_digest("keys"), membership=membership)
    aggregator.open_round(1)
    return book


@pytest.mark.parametrize("seed", range(RUNS))
def test_no_commitment_is_lost_or_doubled(
    anvil: Anvil, proxies: list[Proxy], tmp_path: Path, seed: int
) -> None:
    """Every node's commitment is on the chain once, and what was followed is what the chain says."""
    rng = random.Random(seed)
    world = World(anvil, proxies, tmp_path, depth=rng.randint(1, 32))
    with ThreadPoolExecutor(len(NODES)) as pool:
        waiting = []
        # The first thing that goes wrong is another one in each run, and with the preferred endpoint.
        twists = world.twists()
        proxies[0].twist = twists[seed % len(twists)]
        for step in range(STEPS):
            if step < len(NODES):
                waiting.append(pool.submit(world.commit, step))
            world.break_something(rng)
            with suppress(LedgerError):
                world.follower.refresh()
        world.heal(waiting)

    direct = Ledger.connect(anvil.url, world.book.contract)
    truth = Follower(direct, from_block=world.book.block).refresh()
    commitments = truth.rounds[1].commitments
    assert {commitment.update_root for commitment in commitments.values()} == {
        make_digest(f"update {node}") for node in range(len(NODES))
    }
    events = direct.events(world.book.block, truth.next_block - 1)
    assert sum(isinstance(event, UpdateCommitted) for event in events) == len(NODES)
    mined = {event.transaction_hash for event in events}
    assert all(future.result().transaction_hash in mined for future in waiting)
    assert max(world.tips()) <= 50 * 10**9
    assert facts(world.follower.refresh()) == facts(truth)
    assert world.commit(0).transaction_hash == waiting[0].result().transaction_hash
    # A doubled commitment would revert, and leave no event.
    assert world.count_sent() == world.count_due()
