"""A chain over HTTP, an aggregator, and a node's folder: what the commands need to run for real."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from eth_account import Account
from eth_account.signers.local import LocalAccount

from fedproof.devchain.backend import DevChain
from fedproof.devchain.journal import Genesis
from fedproof.devchain.server import DevChainServer
from fedproof.digests import Address, as_address
from fedproof.keys.tls import certificate_digest
from fedproof.keys.wallet import create_wallet
from fedproof.keys.wrapping import WrappingKey
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import deploy_federation
from fedproof.ledger.events import MemberStatus
from fedproof.model import compute_model_digest
from fedproof.policy import ModelPolicy, Policy
from fedproof.training import describe_task
from fedproof.wire import aggregation_pb2 as wire
from tests.node.aggregator import RunningAggregator, make_tls, open_aggregator
from tests.node.world import make_policy

PASSWORD = "a password for tests"
TOY = "tests.node.toy_task:Toy"


@dataclass
class Site:
    """A chain over HTTP, an aggregator, and one node's folder whose keys open quickly."""

    folder: Path
    chain: DevChain
    server: DevChainServer
    aggregator: RunningAggregator
    admin: Ledger
    operator: Ledger
    policy: Policy
    node: LocalAccount

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def address(self) -> Address:
        return as_address(self.node.address, "node")

    def write_config(self, **changes: str | int) -> None:
        document: dict[str, object] = {
            "name": "node",
            "state_dir": "state",
            "policy": "policy.toml",
            "wrapping_key": "wrapping.key",
            "poll_interval_s": 0.05,
            "task": {"reference": TOY},
            "chain": {"address_book": "book.json", "keystore": "wallet.json"},
            "aggregator": {"target": self.aggregator.target, "attempts": 1},
            "tls": {"ca": "authority/ca.crt", "certificate": "node/tls.crt", "key": "node/tls.key"},
        }
        for key, value in changes.items():
            table, _, name = key.partition("__")
            section = document[table]
            assert isinstance(section, dict)
            section[name] = value
        self.config.write_text(tomlkit.dumps(document))

    def register_and_admit(self) -> None:
        """Let the node in, whichever test comes first."""
        self.write_config()
        key = WrappingKey.load(self.folder / "wrapping.key", PASSWORD)
        certificate = certificate_digest(self.folder / "node" / "tls.crt")
        status = self.admin.member(self.address).status
        if status is MemberStatus.NONE:
            self.connect(self.node).register(key.digest, certificate)
        if status is not MemberStatus.ADMITTED:
            self.admin.admit(self.address)
        if self.admin.policy_version() == 0:
            self.admin.adopt_policy(self.policy)

    def connect(self, account: LocalAccount) -> Ledger:
        """Return the ledger as an account sees it."""
        return Ledger.connect(self.server.url, self.admin.contract, account=account)


@contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    """Serve a chain with the contract, and prepare everything that a node's folder needs."""
    admin, operator = Account.create(), Account.create()
    chain = DevChain(Genesis(chain_id=31337, timestamp=int(time.time())))
    node = create_wallet(folder / "wallet.json", PASSWORD, iterations=2)
    for account in (admin, operator, node):
        chain.mine(balances={as_address(account.address, "account"): 10**20})
    key = WrappingKey.generate()
    key.save(folder / "wrapping.key", PASSWORD, iterations=2)
    layout, genesis = describe_task(TOY, {}, seed=7)
    model = ModelPolicy(
        architecture=layout.digest,
        parameters=layout.parameters,
        genesis=compute_model_digest(layout.digest, genesis),
        seed=7,
    )
    base, _, _ = make_policy(4)
    policy = Policy(name="site", model=model, codec=base.codec, rounds=base.rounds, training=base.training)
    (folder / "policy.toml").write_text(policy.dump_toml())
    aggregator = open_aggregator(folder)
    make_tls(folder, "node", authority=folder / "authority")
    with DevChainServer(chain, port=0, block_time_s=0) as server:
        book = deploy_federation(
            server.url,
            admin,
            aggregator=as_address(operator.address, "operator"),
            output=folder / "book.json",
        )
        ledger = Ledger.connect(server.url, book.contract, account=admin)
        aggregator.servicer.federation = wire.GetFederationResponse(
            chain_id=31337, contract=book.contract, policy_digest=policy.digest
        )
        connect = Ledger.connect(server.url, book.contract, account=operator)
        yield Site(folder, chain, server, aggregator, ledger, connect, policy, node)
    aggregator.stop()
