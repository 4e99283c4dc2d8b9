"""The client on a chain that is not ours: Foundry's anvil, over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account import Account
from web3.types import RPCEndpoint

from fedproof.digests import as_address
from fedproof.errors import LedgerError, Reverted
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import deploy_federation
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.events import ExclusionReason, Phase
from fedproof.ledger.history import History
from fedproof.policy import CodecPolicy, ModelPolicy, Policy, RoundPolicy, TrainingPlan
from tests.chain import make_account, make_digest
from tests.foundry import run_anvil

ADMIN, AGGREGATOR = make_account(1), make_account(2)
NODES = sorted((make_account(number) for number in (3, 4, 5)), key=lambda account: account.address.lower())
ONE_ETHER = 10**18
POLICY = Policy(
    name="anvil",
    model=ModelPolicy(
        architecture=make_digest("layout"), parameters=10, genesis=make_digest("genesis"), seed=1
    ),
    codec=CodecPolicy(
        bits=15, max_contributors=4, clip=0.25, clip_margin=0.0, keep_one_in=1, error_feedback=False
    ),
    rounds=RoundPolicy(
        min_contributors=2,
        attestation_quorum=2,
        max_examples=500,
        commit_window_s=600,
        aggregate_window_s=600,
        attest_window_s=600,
    ),
    training=TrainingPlan(epochs=1, batch_size=8, learning_rate=0.1, momentum=0.0, weight_decay=0.0),
)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An anvil of our own, on a free port, with money for our accounts."""
    with run_anvil(tmp_path_factory.mktemp("anvil"), "--chain-id", "31415") as url:
        endpoint = Endpoint.connect(url, attempts=8)
        assert endpoint.ask("eth_chainId", lambda: endpoint.web3.eth.chain_id) == 31415
        for account in (ADMIN, AGGREGATOR, *NODES):
            request(endpoint, "anvil_setBalance", account.address, hex(ONE_ETHER))
        yield endpoint


def request(endpoint: Endpoint, method: str, *params: object) -> None:
    """Make one of anvil's own requests."""
    endpoint.web3.manager.request_blocking(RPCEndpoint(method), list(params))


def test_a_federation_lives_on_anvil(endpoint: Endpoint, tmp_path: Path) -> None:
    """Deployment, a round, refusals and the history work on anvil as they do in memory."""
    book = deploy_federation(
        endpoint.url,
        ADMIN,
        aggregator=as_address(AGGREGATOR.address, "aggregator"),
        output=tmp_path / "address-book.json",
    )
    admin, aggregator, *nodes = (
        Ledger.connect(endpoint.url, book.contract, account=account)
        for account in (ADMIN, AGGREGATOR, *NODES)
    )
    for node in nodes:
        node.register(make_digest("wrapping"), make_digest("certificate"))
        admin.admit(node.address)
    admin.adopt_policy(POLICY)
    admin.request_epoch(nodes[0].address)
    membership = admin.state().membership
    nodes[0].publish_epoch(1, make_digest("context"), make_digest("keys"), membership=membership)

    aggregator.open_round(1)
    receipts = [node.commit(1, make_digest(node.address), 100) for node in nodes[:2]]
    assert max(receipt.gas_used for receipt in receipts) <= 40_000
    with pytest.raises(Reverted) as twice:
        nodes[0].commit(1, make_digest("again"), 100)
    assert twice.value.name == "AlreadyCommitted"
    assert twice.value.arguments == {"round": 1, "node": nodes[0].address}

    deadline = admin.round().deadline
    request(endpoint, "evm_setNextBlockTimestamp", deadline + 5)
    request(endpoint, "evm_mine")
    with pytest.raises(Reverted) as late:
        nodes[2].commit(1, make_digest("late"), 100)
    assert late.value.name == "DeadlinePassed"
    assert late.value.arguments["deadline"] == deadline

    with pytest.raises(Reverted, match="QuorumNotReached"):
        aggregator.seal(1, {nodes[0].address: 0, nodes[1].address: ExclusionReason.NOT_UPLOADED})
    aggregator.seal(1, {node.address: 0 for node in nodes[:2]})
    aggregator.publish_aggregate(1, make_digest("sum"))
    for node in nodes[:2]:
        node.attest(1, make_digest("model"))
    assert (admin.round().phase, admin.head_model()) == (Phase.FINALISED, make_digest("model"))

    history = History(from_block=book.block)
    admin.catch_up(history)
    assert history.history_hash == admin.history_hash()
    assert history.rounds[1].result == make_digest("model")


def test_two_outboxes_share_a_key(endpoint: Endpoint, tmp_path: Path) -> None:
    """Without an outbox in common, each call is mined once, or the error says who took its nonces."""
    book = deploy_federation(
        endpoint.url,
        ADMIN,
        aggregator=as_address(AGGREGATOR.address, "aggregator"),
        output=tmp_path / "address-book.json",
    )
    failures: list[LedgerError] = []

    def apply_often(name: str) -> None:
        ledger = Ledger.connect(endpoint.url, book.contract, account=NODES[0])
        for attempt in range(8):
            try:
                ledger.register(make_digest((name, attempt)), make_digest(name))
            except LedgerError as error:
                failures.append(error)

    threads = [threading.Thread(target=apply_often, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("another process sends with the same key" in str(failure) for failure in failures)
    ledger = Ledger.connect(endpoint.url, book.contract)
    mined = len(ledger.events(book.block + 1, ledger.block_number()))
    assert mined == 16 - len(failures) >= 8


def test_an_empty_account_is_named(endpoint: Endpoint, tmp_path: Path) -> None:
    """Without money for gas the message names the account and says why."""
    poor = Account.create("no money")
    with pytest.raises(LedgerError, match=rf"deployment by {poor.address}: .*(?i:insufficient funds)"):
        deploy_federation(
            endpoint.url,
            poor,
            aggregator=as_address(AGGREGATOR.address, "aggregator"),
            output=tmp_path / "address-book.json",
        )
