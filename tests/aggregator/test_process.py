"""The process: what it refuses to start with, and that it ends when it is told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import tomlkit
from eth_account import Account
from fedproof_aggregator.config import AggregatorConfig
from fedproof_aggregator.process import locked, run_aggregator

from fedproof.config import load_config
from fedproof.devchain.backend import DevChain
from fedproof.devchain.journal import Genesis
from fedproof.devchain.server import DevChainServer
from fedproof.digests import as_address
from fedproof.errors import ConfigurationError, LedgerUnreachable, PolicyMismatch, WrongContract
from fedproof.keys.tls import issue_certificate, make_authority
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import deploy_federation
from tests.aggregator.federation import POLICY

# The development chain's first two accounts, which everybody knows.
ADMIN = Account.from_key("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
AGGREGATOR = Account.from_key("0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d")
PASSWORD = "a password for a test"


class Site:
    """A folder as an operator has it, on a development chain of its own."""

    def __init__(self, folder: Path, rpc_url: str) -> None:
        self.folder = folder
        self.rpc_url = rpc_url
        self.path = folder / "aggregator.toml"
        for name, account in (("wallet.json", AGGREGATOR), ("admin.json", ADMIN)):
            keystore = Account.encrypt(account.key, PASSWORD, kdf="pbkdf2", iterations=1)
            (folder / name).write_text(json.dumps(keystore))
        (folder / "password").write_text(PASSWORD + "\n")
        make_authority(folder / "authority", "authority")
        issue_certificate(folder, folder / "authority", "aggregator", hosts=["localhost"])
        (folder / "policy.toml").write_text(POLICY.dump_toml())
        self.book = deploy_federation(
            rpc_url,
            ADMIN,
            aggregator=as_address(AGGREGATOR.address, "aggregator"),
            output=folder / "address-book.json",
        )
        self.document: dict[str, Any] = {
            "name": "a",
            "state_dir": "state",
            "policy": "policy.toml",
            "listen": "localhost:0",
            "rounds": 2,
            "chain": {
                "address_book": "address-book.json",
                "keystore": "wallet.json",
                "password_file": "password",
            },
            "tls": {"ca": "authority/ca.crt", "certificate": "tls.crt", "key": "tls.key"},
        }
        self.write()

    def write(self, **chain: object) -> None:
        """Write the configuration, with other entries in its table [chain] where asked."""
        document = {**self.document, "chain": {**self.document["chain"], **chain}}
        self.path.write_text(tomlkit.dumps(document))

    def run(self) -> None:
        """Run the aggregator in this process, as far as it comes."""
        run_aggregator(load_config(self.path, AggregatorConfig), logger=structlog.get_logger())


@pytest.fixture(scope="module")
def devchain() -> Iterator[str]:
    """A chain of this module's own, over HTTP."""
    chain = DevChain(Genesis(chain_id=31337, timestamp=int(time.time()) - 3600))
    with DevChainServer(chain, port=0, block_time_s=0) as server:
        yield server.url


@pytest.fixture
def site(devchain: str, tmp_path: Path) -> Site:
    return Site(tmp_path, devchain)


def test_another_policy_than_the_ledgers_is_refused(site: Site) -> None:
    """The message names the file and both digests, before anything is served."""
    admin = Ledger.connect(site.rpc_url, site.book.contract, account=ADMIN)
    admin.adopt_policy(POLICY)
    path = site.folder / "policy.toml"
    path.write_text(POLICY.dump_toml().replace("three nodes", "three other nodes"))
    with pytest.raises(PolicyMismatch) as caught:
        site.run()
    assert str(path) in str(caught.value)
    assert f"digest 0x{POLICY.digest.hex()}, got one of digest 0x" in str(caught.value)
    assert not (site.folder / "state" / "store").exists()


def test_another_account_than_the_aggregators_is_refused(site: Site) -> None:
    """The wrong keystore is found out at the start, not at the first round."""
    site.write(keystore="admin.json")
    with pytest.raises(ConfigurationError) as caught:
        site.run()
    assert "admin.json: expected an account that holds the aggregator's role" in str(caught.value)
    assert str(caught.value).endswith(f", got {ADMIN.address}")


def test_a_wrong_password_is_refused(site: Site) -> None:
    """The keystore is named."""
    (site.folder / "password").write_text("another\n")
    with pytest.raises(ConfigurationError, match=r"wallet\.json: expected the password that"):
        site.run()


def test_an_address_without_the_contract_is_refused(site: Site) -> None:
    """A contract address without code says so."""
    del site.document["chain"]["address_book"]
    site.write(contract="0x" + "11" * 20, rpc_url=site.rpc_url)
    with pytest.raises(WrongContract):
        site.run()


def test_a_chain_that_is_not_there_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After bounded attempts the message says what was tried."""
    site.write(rpc_url="http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with pytest.raises(LedgerUnreachable, match=r"127\.0\.0\.1:9.*in \d+ attempts"):
        site.run()


def test_a_second_aggregator_on_the_same_state_is_refused(site: Site) -> None:
    """One state folder, one process."""
    with (
        locked(site.folder / "state"),
        pytest.raises(ConfigurationError, match="expected a state folder that nobody uses"),
    ):
        site.run()
    with locked(site.folder / "state"):
        pass


class Running:
    """`fedproof aggregator run` as its own process, and what it logs."""

    def __init__(self, site: Site) -> None:
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fedproof", "aggregator", "run", "--config", str(site.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def wait_for(self, kind: str) -> dict[str, Any]:
        """Return the first event of a kind."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == kind:
                return self.events[-1]
        raise AssertionError(f"no {kind} among {self.events}; {self.process.stderr.read()}")  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(site: Site, number: signal.Signals) -> None:
    """It serves, says what it waits for, and after SIGTERM or Ctrl-C it exits with status 0."""
    running = Running(site)
    killer = threading.Timer(60, running.process.kill)
    killer.start()
    try:
        assert running.wait_for("serving")["address"].startswith("localhost:")
        reason = running.wait_for("waiting")["reason"]
        assert reason == f"no policy is adopted; this aggregator's has the digest 0x{POLICY.digest.hex()}"
        running.process.send_signal(number)
        rest, errors = running.process.communicate()
    finally:
        killer.cancel()
        running.process.kill()
    assert (running.process.returncode, errors) == (0, "")
    assert json.loads(rest.splitlines()[-1])["event"] == "stopped"
    assert all({"time", "role", "name"} <= event.keys() for event in running.events)
