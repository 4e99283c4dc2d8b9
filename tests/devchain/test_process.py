"""`fedproof devchain` as its users run it: a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from eth_account import Account

from tests.foundry import find_tool

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ONE = "0x" + "11" * 20


class Process:
    """A running devchain."""

    def __init__(self, *options: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "fedproof", "devchain", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.events: list[dict[str, Any]] = []
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == "serving":
                break
        else:
            raise AssertionError(self.popen.communicate()[1].decode())
        self.url: str = self.events[-1]["url"]

    def get(self, method: str, *parameters: object) -> Any:
        """Return the result of a request."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        answer = requests.post(self.url, json=request, timeout=10).json()
        assert "error" not in answer, answer
        return answer["result"]

    def send_ether(self, count: int) -> list[str]:
        """Send as many transactions and return their hashes."""
        account = Account.from_key(KEY)
        first = int(self.get("eth_getTransactionCount", account.address, "latest"), 16)
        hashes = []
        for nonce in range(first, first + count):
            signed = account.sign_transaction(
                {
                    "to": ONE,
                    "value": 1,
                    "gas": 21_000,
                    "gasPrice": 3 * 10**9,
                    "nonce": nonce,
                    "chainId": 31337,
                }
            )
            hashes.append(self.get("eth_sendRawTransaction", signed.raw_transaction.to_0x_hex()))
        return hashes

    def blocks(self) -> list[str]:
        """Return the hashes of all blocks."""
        last = int(self.get("eth_blockNumber"), 16)
        return [self.get("eth_getBlockByNumber", hex(number), False)["hash"] for number in range(last + 1)]

    def stop(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        self.popen.send_signal(number)
        self.popen.communicate(timeout=20)
        return self.popen.returncode


@contextlib.contextmanager
def running(*options: str) -> Iterator[Process]:
    """Run a devchain for as long as it is needed."""
    process = Process(*options)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.communicate()


def test_chain_survives_kill_9(tmp_path: Path) -> None:
    """After kill -9 every block that anyone saw comes back with its hash, and the chain goes on."""
    options = ("--data-dir", str(tmp_path), "--block-time", "0.02")
    with running(*options) as process:
        sent = process.send_ether(5)
        seen = process.blocks()
        assert process.stop(signal.SIGKILL) == -signal.SIGKILL
    with (tmp_path / "blocks.jsonl").open("ab") as journal:
        journal.write(b'{"number":')

    with running(*options, "--fund", ONE) as process:
        torn = [event for event in process.events if event["event"] == "journal_torn"]
        assert [event["bytes"] for event in torn] == [10]
        assert process.blocks()[: len(seen)] == seen
        for each in sent:
            assert process.get("eth_getTransactionReceipt", each)["status"] == "0x1"
        assert process.get("eth_getBalance", ONE) == hex(10_000 * 10**18)
        process.send_ether(1)
        seen = process.blocks()
        assert process.stop(signal.SIGTERM) == 0

    before = (tmp_path / "blocks.jsonl").read_bytes()
    with running("--data-dir", str(tmp_path), "--read-only") as process:
        assert process.blocks()[: len(seen)] == seen
        assert process.stop(signal.SIGINT) == 130
    assert (tmp_path / "blocks.jsonl").read_bytes() == before


def test_announces_itself(tmp_path: Path) -> None:
    """The line that says where it serves names role, address and chain, and the chain id can be chosen."""
    with running("--chain-id", "424242", "--data-dir", str(tmp_path)) as process:
        assert process.get("eth_chainId") == hex(424242)
        (event,) = process.events
    assert event["event"] == "serving"
    assert event["role"] == "devchain"
    assert event["chain_id"] == 424242
    assert event["url"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chain-id", "2", "--data-dir", "{folder}"], "error: --chain-id: expected 31337 as in {folder}"),
        (["--port", "{port}"], "error: expected a free address to listen on, got 127.0.0.1:{port}"),
        (["--read-only"], "error: --read-only: expected --data-dir with a chain to serve, got none"),
        (["--fund", "0x12"], "error: --fund: expected an address of 0x and 40 hex digits, got '0x12'"),
    ],
)
def test_refuses_to_start(tmp_path: Path, options: list[str], message: str) -> None:
    """What cannot be served ends with status 2 and one line that says what was expected and what came."""
    (tmp_path / "blocks.jsonl").write_text(
        '{"format":"fedproof.devchain.v1","chain_id":31337,"timestamp":1800000000}\n'
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        facts = {"folder": tmp_path, "port": taken.getsockname()[1]}
        command = [
            sys.executable,
            "-m",
            "fedproof",
            "devchain",
            *(option.format(**facts) for option in options),
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(message.format(**facts))
    assert result.stdout == ""


def test_cast() -> None:
    """Foundry's cast sends a transaction, reads a revert's bytes and finds its way about the chain."""
    cast = find_tool("cast")
    with running("--block-time", "0.05") as process:

        def run(*arguments: str, status: int = 0) -> str:
            environment = {**os.environ, "ETH_RPC_URL": process.url}
            result = subprocess.run(
                [cast, *arguments], capture_output=True, text=True, timeout=30, env=environment, check=False
            )
            assert result.returncode == status, result.stderr
            return result.stdout.strip() or result.stderr.strip()

        assert run("chain-id") == "31337"
        receipt = json.loads(run("send", "--json", "--private-key", KEY, "--value", "1ether", ONE))
        assert receipt["status"] == "0x1"
        assert run("balance", ONE) == str(10**18)
        assert run("receipt", receipt["transactionHash"], "gasUsed") == "21000"
        assert run("block", receipt["blockNumber"], "--field", "hash") == receipt["blockHash"]
        # Runtime code that reverts with its calldata: calldatacopy, revert.
        created = json.loads(
            run("send", "--json", "--private-key", KEY, "--create", "0x6007600a5f3960075ff3365f5f37365ffd")
        )
        refused = run("call", created["contractAddress"], "0xdeadbeef", status=1)
        assert "execution reverted" in refused
        assert "0xdeadbeef" in refused
        before = int(run("block-number"))
        deadline = time.monotonic() + 20
        while int(run("block-number")) == before:
            assert time.monotonic() < deadline
