"""A chain in memory that a test can edit: its clock, its outages, and its state by snapshots.

It is the development chain, asked in this process and not over HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils import keccak
from requests.exceptions import ConnectionError as NoConnection
from web3 import Web3
from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from fedproof.devchain.backend import DevChain
from fedproof.devchain.journal import Genesis
from fedproof.devchain.methods import Methods
from fedproof.devchain.rpc import Rpc
from fedproof.digests import Address, Digest, as_address
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.client import Ledger
from fedproof.ledger.endpoint import Endpoint, make_web3
from fedproof.ledger.outbox import Outbox
from fedproof.ledger.signer import KeystoreSigner

COMMIT_WINDOW_S = 600
AGGREGATE_WINDOW_S = 300
ATTEST_WINDOW_S = 200
MAX_EXAMPLES = 10_000
GENEROUS_GAS = 8_000_000
CHAIN_ID = 131277322940537  # which the fuzzer's kept inputs name
FORTUNE = 10**24
ZERO_ADDRESS = Address(bytes(20))
ABI = load_artifact().abi


def make_digest(label: object) -> Digest:
    """Return a digest that is the same for the same label."""
    return Digest(keccak(text=str(label)))


def make_account(number: int) -> LocalAccount:
    """Return one of the ten accounts that a chain in memory has given money to, from 1."""
    return Account.from_key(number.to_bytes(32))


class MemoryProvider(JSONBaseProvider):
    """The development chain in this process, behind the interface of a node.

    Attributes:
        outages: how many of the next requests get no answer.
        lost_answers: methods whose next request is carried out, but whose answer does not arrive.
        interrupts: what happens, once, just before a method's next request is carried out.
        missing: methods that this node does not have.
        is_idle: whether it takes transactions and mines none.
        requests: every method that was asked for.
    """

    def __init__(self, chain: DevChain) -> None:
        super().__init__()
        self._rpc = Rpc(Methods(chain))
        self.calm()

    def calm(self) -> None:
        """Answer everything again."""
        self.outages = 0
        self.lost_answers: list[str] = []
        self.interrupts: dict[str, Callable[[], object]] = {}
        self.missing: set[str] = set()
        self.is_idle = False
        self.requests: list[str] = []

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        self.requests.append(method)
        if self.outages > 0:
            self.outages -= 1
            raise NoConnection("connection refused")
        if method in self.missing:
            error = {"code": -32601, "message": f"the method {method} does not exist"}
            return {"id": 1, "jsonrpc": "2.0", "error": error}  # type: ignore[typeddict-item]
        if method in self.interrupts:
            self.interrupts.pop(method)()
        if self.is_idle and method == "eth_sendRawTransaction":
            return {"id": 1, "jsonrpc": "2.0", "result": Web3.keccak(hexstr=params[0]).to_0x_hex()}
        response = self._estimate(params) if method == "eth_estimateGas" else self._ask(method, params)
        if method in self.lost_answers:
            self.lost_answers.remove(method)
            raise NoConnection("connection reset")
        return response

    def _estimate(self, params: Any) -> RPCResponse:
        """Call once and answer plenty; the search for the exact amount takes several runs."""
        response = self._ask(RPCEndpoint("eth_call"), [params[0], "pending"])
        return response if "error" in response else {**response, "result": hex(GENEROUS_GAS)}

    def _ask(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        return self.decode_rpc_response(self._rpc.answer(self.encode_rpc_request(method, params)))


class MemoryChain:
    """One chain. Everybody who connects through it sees the same state."""

    def __init__(self) -> None:
        # No time passes but for a second with each block, and when a test says so.
        self._now = int(time.time())
        self._chain = DevChain(Genesis(CHAIN_ID, self._now), clock=lambda: self._now)
        self._chain.mine(balances={_address(make_account(number)): FORTUNE for number in range(1, 11)})
        self.provider = MemoryProvider(self._chain)
        self.web3 = make_web3(self.provider)
        self.endpoint = self.connect()

    def connect(self) -> Endpoint:
        """Return a connection of one's own, as another process would have it."""
        return Endpoint(self.web3, url="memory", attempts=3, backoff_s=0.0, receipt_timeout_s=0.2)

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        """Undo, on leaving, whatever happened since entering."""
        number, now = self._chain.head.number, self._now
        self.provider.calm()
        try:
            yield
        finally:
            self.provider.calm()
            self._chain.revert(number)
            self._now = now

    def mine(self, blocks: int = 1) -> None:
        """Mine blocks without transactions."""
        for _ in range(blocks):
            self._chain.mine()

    def travel_to(self, timestamp: int) -> None:
        """Mine a block if that takes one, so that the next one has this Unix time."""
        self._now = timestamp - 1
        if self._chain.head.header.timestamp < self._now:
            self._chain.mine()


class Federation:
    """A deployed contract, its admin, its aggregator and four nodes, ascending; the fourth is an outsider."""

    def __init__(self, chain: MemoryChain) -> None:
        self.chain = chain
        admin, aggregator, *nodes = (make_account(number) for number in range(1, 7))
        self.contract = deploy(chain, admin, admin=_address(admin), aggregator=_address(aggregator))
        self.admin = self.connect(admin)
        self.aggregator = self.connect(aggregator)
        self.nodes = sorted((self.connect(account) for account in nodes), key=lambda ledger: ledger.address)
        self.outsider = self.nodes[3]

    def connect(self, account: LocalAccount) -> Ledger:
        """Return the ledger as an account sees it."""
        return Ledger(self.chain.connect(), self.contract, account=account)

    def transact(self, ledger: Ledger, name: str, *arguments: Any) -> int:
        """Send what the client would not, and return the gas used."""
        account = next(make_account(n) for n in range(1, 11) if _address(make_account(n)) == ledger.address)
        contract = self.chain.web3.eth.contract(abi=ABI)
        data = contract.encode_abi(name, args=arguments)
        call = {"to": Web3.to_checksum_address(self.contract), "data": data}
        return int(Outbox(self.chain.endpoint, KeystoreSigner(account)).send(call, what=name)["gasUsed"])

    def admit_all(self) -> None:
        """Register and admit the first three nodes."""
        for index, node in enumerate(self.nodes[:3]):
            node.register(
                make_digest(f"wrapping {index}"),
                make_digest(f"certificate {index}"),
                make_digest(f"metadata {index}"),
            )
            self.admin.admit(node.address)

    def adopt_policy(self, **changes: int | bytes) -> int:
        """Adopt a policy that differs from the usual one as asked."""
        terms = {
            "digest": make_digest("policy"),
            "min_contributors": 2,
            "attestation_quorum": 2,
            "max_examples": MAX_EXAMPLES,
            "commit_window": COMMIT_WINDOW_S,
            "aggregate_window": AGGREGATE_WINDOW_S,
            "attest_window": ATTEST_WINDOW_S,
            "batching": False,
            "privacy_cost": 0,
            "privacy_budget": 0,
        }
        unknown = changes.keys() - terms.keys()
        if unknown:
            raise KeyError(f"no such terms: {unknown}")
        return self.transact(
            self.admin, "adoptPolicy", tuple({**terms, **changes}.values()), make_digest("genesis")
        )

    def publish_epoch(self, epoch: int = 1) -> None:
        """Let the first node publish an epoch."""
        self.admin.request_epoch(self.nodes[0].address)
        membership = self.admin.state().membership
        self.nodes[0].publish_epoch(epoch, make_digest("context"), make_digest("keys"), membership=membership)

    def commit(self, *indices: int, number: int = 1) -> list[Address]:
        """Let nodes commit, and return their addresses."""
        for index in indices:
            self.nodes[index].commit(number, make_digest(f"update {number} {index}"), 100 + index)
        return self.addresses(*indices)

    def addresses(self, *indices: int) -> list[Address]:
        """Return nodes' addresses."""
        return [self.nodes[index].address for index in indices]

    def pass_deadline(self, *, by_s: int = 1) -> None:
        """Let the next block be mined after the round's deadline, or by_s = 0: exactly at it."""
        self.chain.travel_to(self.admin.round().deadline + by_s)

    def run_round(self, number: int) -> Digest:
        """Take a round from its opening to its end, which the second of three attestations is."""
        self.aggregator.open_round(number)
        self.aggregator.seal(number, dict.fromkeys(self.commit(0, 1, 2, number=number), 0))
        self.aggregator.publish_aggregate(number, make_digest(f"sum {number}"))
        model = make_digest(f"model {number}")
        for node in self.nodes[:3]:
            node.attest(number, model)
        return model


def deploy(
    chain: MemoryChain,
    account: LocalAccount,
    *,
    admin: Address,
    aggregator: Address,
    predecessor: Address = ZERO_ADDRESS,
) -> Address:
    """Deploy the contract and return its address."""
    data = load_artifact().bytecode + encode(["address"] * 3, [admin, aggregator, predecessor])
    outbox = Outbox(chain.endpoint, KeystoreSigner(account))
    receipt = outbox.send({"data": "0x" + data.hex()}, what="deploy")
    return as_address(receipt["contractAddress"], "receipt")


def _address(account: LocalAccount) -> Address:
    return as_address(account.address, "account")
