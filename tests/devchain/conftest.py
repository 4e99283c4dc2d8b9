"""Chains that a test can edit, over real HTTP: time is what the test says, and no block comes by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from fedproof.devchain.backend import DevChain
from fedproof.devchain.journal import Genesis
from fedproof.devchain.server import DevChainServer

START = 1_800_000_000
GENESIS = Genesis(chain_id=31337, timestamp=START)
# The first two accounts of the mnemonic "test test ... junk", as anvil and hardhat print them.
KEYS = (
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
)


@dataclass
class World:
    """One chain behind HTTP."""

    chain: DevChain
    server: DevChainServer
    clock: list[float]
    session: requests.Session = field(default_factory=requests.Session)
    account: LocalAccount = field(default_factory=lambda: Account.from_key(KEYS[0]))

    def post(self, body: bytes, **headers: str) -> requests.Response:
        """Send raw bytes."""
        return self.session.post(self.server.url, data=body, headers=headers, timeout=10)

    def ask(self, method: str, *parameters: object) -> dict[str, Any]:
        """Return the whole response to a request."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        response = self.session.post(self.server.url, json=request, timeout=10)
        answer: dict[str, Any] = response.json()
        return answer

    def get(self, method: str, *parameters: object) -> Any:
        """Return the result of a request."""
        answer = self.ask(method, *parameters)
        assert "error" not in answer, answer
        return answer["result"]

    def refuse(self, method: str, *parameters: object) -> dict[str, Any]:
        """Return the error that a request is answered with."""
        answer = self.ask(method, *parameters)
        assert "result" not in answer, answer
        error: dict[str, Any] = answer["error"]
        return error

    def sign(self, to: str | None = None, *, account: LocalAccount | None = None, **fields: Any) -> str:
        """Return a signed transaction, which pays enough and has the next nonce unless told otherwise."""
        account = account or self.account
        transaction = {
            "chainId": 31337,
            "gas": 1_000_000,
            "maxFeePerGas": 3 * 10**9,
            "maxPriorityFeePerGas": 10**9,
            "value": 0,
            "data": "0x",
            **fields,
        }
        if to is not None:
            transaction["to"] = to_checksum_address(to)
        if "nonce" not in transaction:
            transaction["nonce"] = int(self.get("eth_getTransactionCount", account.address, "pending"), 16)
        return "0x" + account.sign_transaction(transaction).raw_transaction.hex().removeprefix("0x")

    def send(self, to: str | None = None, **fields: Any) -> dict[str, Any]:
        """Send a transaction and return its receipt."""
        transaction_hash = self.get("eth_sendRawTransaction", self.sign(to, **fields))
        receipt: dict[str, Any] = self.get("eth_getTransactionReceipt", transaction_hash)
        return receipt

    def deploy(self, runtime: str) -> str:
        """Deploy bytecode, up to 255 bytes of it, and return its address."""
        size = len(runtime) // 2
        # PUSH1 size, PUSH1 10, PUSH0, CODECOPY, PUSH1 size, PUSH0, RETURN
        receipt = self.send(data=f"0x60{size:02x}600a5f3960{size:02x}5ff3{runtime}")
        assert receipt["status"] == "0x1"
        address: str = receipt["contractAddress"]
        return address

    def close(self) -> None:
        """Stop serving."""
        self.session.close()
        self.server.close()


@pytest.fixture
def clock() -> list[float]:
    """The time that the chain sees, in a cell."""
    return [float(START)]


@pytest.fixture
def world(clock: list[float]) -> Iterator[World]:
    """A new chain, whose clock stands still until a test moves it."""
    chain = DevChain(GENESIS, clock=lambda: clock[0])
    world = World(chain, DevChainServer(chain, port=0, block_time_s=0), clock)
    yield world
    world.close()
