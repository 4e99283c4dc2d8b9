"""An operator's desk at a development chain, and the command line as somebody in front of it uses it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from eth_account.signers.local import LocalAccount
from typer.testing import CliRunner

from fedproof.cli import app
from fedproof.devchain.backend import DevChain
from fedproof.devchain.journal import Genesis
from fedproof.devchain.server import DevChainServer
from fedproof.digests import Digest, as_address
from fedproof.keys.wallet import create_wallet
from fedproof.ledger.client import Ledger
from fedproof.policy import Policy

PASSWORD = "correct horse"


def run(*arguments: object) -> str:
    """Run a command in this process and return what it printed; what it refuses is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def run_json(*arguments: object) -> dict[str, Any]:
    """Run a command with --json and return the object that it printed."""
    document: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return document


class Office:
    """An operator's desk: wallets with ether, and a folder."""

    def __init__(self, folder: Path, password: Path, server: DevChainServer) -> None:
        self.folder = folder
        self.url = server.url
        self.admin, self.node = (self._make_wallet(name, server) for name in ("admin", "node"))
        self.book = folder / "address-book.json"
        self.signed = ("--keystore", folder / "admin.json", "--password-file", password)
        self.located = (*self.signed, "--address-book", self.book)

    def _make_wallet(self, name: str, server: DevChainServer) -> LocalAccount:
        account = create_wallet(self.folder / f"{name}.json", PASSWORD, iterations=2)
        request = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "anvil_setBalance",
            "params": [account.address, hex(10**18)],
        }
        assert requests.post(server.url, json=request, timeout=10).json()["result"] is None
        return account

    def deploy(self, *options: object) -> dict[str, Any]:
        """Deploy, or find what is deployed."""
        where = ("--rpc-url", self.url, "--output", self.book)
        return run_json("deploy", *self.signed, *where, "--aggregator", self.admin.address, *options)

    def register(self) -> Ledger:
        """Let the node apply, and return its ledger."""
        contract = as_address(json.loads(self.book.read_text())["contract"], "contract")
        ledger = Ledger.connect(self.url, contract, account=self.node)
        ledger.register(Digest(b"\x01" * 32), Digest(b"\x02" * 32))
        return ledger


@pytest.fixture
def password(tmp_path: Path) -> Path:
    """A file with a password."""
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


@pytest.fixture
def chain() -> Iterator[DevChainServer]:
    """A development chain that mines only what it is sent."""
    with DevChainServer(DevChain(Genesis(31337, int(time.time()))), port=0, block_time_s=0) as server:
        yield server


@pytest.fixture
def office(tmp_path: Path, password: Path, chain: DevChainServer) -> Office:
    """A desk at a new chain."""
    return Office(tmp_path, password, chain)


def write_policy(path: Path, **changes: int) -> Policy:
    """Write a policy that needs no model to be built."""
    document = f"""
        name = "test"
        model = {{ architecture = "0x{"ab" * 32}", parameters = 10, genesis = "0x{"cd" * 32}", seed = 7 }}
        [codec]
        bits = 15
        max_contributors = 16
        clip = 0.25
        clip_margin = 0.0
        keep_one_in = 1
        error_feedback = false
        [rounds]
        min_contributors = 2
        attestation_quorum = 2
        max_examples = {changes.get("max_examples", 1000)}
        commit_window_s = 60
        aggregate_window_s = 60
        attest_window_s = 60
        [training]
        epochs = 1
        batch_size = 32
        learning_rate = 0.05
        momentum = 0.9
        weight_decay = 0.0
    """
    path.write_text(document)
    return Policy.load(path)
