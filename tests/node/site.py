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

from fedproof.codec import SecretKey
from fedproof.devchain.backend import DevChain
from fedproof.devchain.journal import Genesis
from fedproof.devchain.server import DevChainServer
from fedproof.digests import Address, Digest, as_address
from fedproof.keys.tls import certificate_digest
from fedproof.keys.wallet import create_wallet
from fedproof.keys.wrapping import WrappingKey, wrap, wrapped_keys_root, wrapping_info
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import deploy_federation
from fedproof.ledger.events import MemberStatus
from fedproof.model import Model
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
    task: str

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
            "codec_processes": 1,
            "task": {"reference": self.task},
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
        if self.admin.state().policy_version == 0:
            self.admin.adopt_policy(self.policy)

    def begin_epoch(self) -> None:
        """Let a second member, who does nothing else, make an epoch's key and wrap it for the node."""
        peer = Account.create()
        address = as_address(peer.address, "peer")
        self.chain.mine(balances={address: 10**20})
        ledger = self.connect(peer)
        ledger.register(Digest(b"\x0a" * 32), Digest(b"\x0b" * 32))
        self.admin.admit(address)
        self.admin.request_epoch(address)
        state = self.admin.state()
        epoch = state.epoch + 1
        context = self.policy.codec_parameters().digest
        info = wrapping_info(
            chain_id=ledger.chain_id,
            contract=ledger.contract,
            epoch=epoch,
            node=self.address,
            context_digest=context,
        )
        public_key = WrappingKey.load(self.folder / "wrapping.key", PASSWORD).public_bytes
        wrapped = wrap(SecretKey.generate().reveal(), public_key, info=info)
        keys = [wire.WrappedKey(node=self.address, ciphertext=wrapped)]
        self.aggregator.servicer.wrapped[epoch] = wire.PutWrappedKeysRequest(epoch=epoch, keys=keys)
        root = wrapped_keys_root([(self.address, wrapped)])
        ledger.publish_epoch(epoch, context, root, membership=state.membership)

    def connect(self, account: LocalAccount) -> Ledger:
        """Return the ledger as an account sees it."""
        return Ledger.connect(self.server.url, self.admin.contract, account=account)


@contextmanager
def open_site(folder: Path, *, task: str = TOY) -> Iterator[Site]:
    """Serve a chain with the contract, and prepare everything that a node's folder needs."""
    admin, operator = Account.create(), Account.create()
    chain = DevChain(Genesis(chain_id=31337, timestamp=int(time.time())))
    node = create_wallet(folder / "wallet.json", PASSWORD, iterations=2)
    for account in (admin, operator, node):
        chain.mine(balances={as_address(account.address, "account"): 10**20})
    key = WrappingKey.generate()
    key.save(folder / "wrapping.key", PASSWORD, iterations=2)
    layout, flat = describe_task(task, {}, seed=7)
    base, _, _ = make_policy(4)
    genesis = Model(flat, (base.codec.clip,) * len(layout.group_sizes))
    model = ModelPolicy(
        architecture=layout.digest,
        parameters=layout.parameters,
        genesis=genesis.compute_digest(layout.digest),
        seed=7,
    )
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
        yield Site(folder, chain, server, aggregator, ledger, connect, policy, node, task)
    aggregator.stop()
