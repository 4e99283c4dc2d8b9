"""What the commands send outlives them: an outbox beside the keystore, and several endpoints."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import FunctionType

import pytest
import requests
from eth_utils import keccak
from typer.testing import CliRunner

from fedproof.cli import app
from fedproof.errors import ConfigurationError, LedgerError, LedgerUnreachable
from fedproof.ledger.client import Ledger
from fedproof.ledger.endpoints import connect_endpoints
from fedproof.ledger.sending import SendingState
from tests.ledger.anvil import Answer, Proxy, fail, honest, make_liar_in_fees, make_liar_in_receipts, proxied
from tests.office import Office, chain, office, password, run, run_json, write_policy

__all__ = ["chain", "office", "password"]  # fixtures


@pytest.fixture
def proxies(office: Office) -> Iterator[list[Proxy]]:
    """Three endpoints of the chain."""
    with ExitStack() as stack:
        yield [stack.enter_context(proxied(office.url)) for _ in range(3)]


def lose(method: str, *, arrives: bool) -> object:
    """Return a twist that loses a method's answer, or its request as well."""

    def twist(request: Answer, ask: object) -> Answer | None:
        if request["method"] != method:
            return ask()  # type: ignore[operator, no-any-return]
        if arrives:
            ask()  # type: ignore[operator]
        return None

    return twist


def count(office: Office) -> int:
    """Return how many transactions of the operator are mined."""
    parameters = [office.admin.address, "latest"]
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_getTransactionCount", "params": parameters}
    return int(requests.post(office.url, json=request, timeout=10).json()["result"], 16)


def sent(office: Office) -> list[dict[str, object]]:
    """Return what lies in the outbox beside the operator's keystore."""
    path = office.folder / "admin.json.outbox-31337.sqlite"
    return [json.loads(line) for line in run("ledger", "outbox", path, "--json").splitlines()]


@pytest.mark.parametrize("arrives", [False, True])
def test_a_crash_loses_no_transaction(office: Office, proxies: list[Proxy], *, arrives: bool) -> None:
    """What one command could not send, or did not hear of, the next one of the account sends first."""
    office.deploy()
    office.register()
    proxies[0].twist = lose("eth_sendRawTransaction", arrives=arrives)  # type: ignore[assignment]
    with pytest.raises(LedgerUnreachable):
        run("admin", "admit", office.node.address, *office.located, "--rpc-url", proxies[0].url)
    assert [each["state"] for each in sent(office)] == [SendingState.FINAL, SendingState.PREPARED]
    run("admin", "suspend", office.node.address, *office.located)
    shown = run_json("ledger", "show", "--address-book", office.book)
    assert shown["members"][0]["status"] == "suspended"
    run("admin", "admit", office.node.address, *office.located)
    assert [each["state"] for each in sent(office)] == [SendingState.FINAL] * 4
    assert [each["nonce"] for each in sent(office)] == [0, 1, 2, 3]


def be_impatient(monkeypatch: pytest.MonkeyPatch, connect: FunctionType) -> None:
    """Let commands wait half a second for a transaction."""
    monkeypatch.setitem(connect.__kwdefaults__, "receipt_timeout_s", 0.5)  # type: ignore[arg-type]


class SlowPool:
    """A twist: what is sent is mined when the test says so, and nobody hears of it before."""

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], Answer]] = {}

    def __call__(self, request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        if request["method"] != "eth_sendRawTransaction":
            return ask()
        raw = request["params"][0]
        self._waiting.setdefault(raw, lambda: ask(request))
        return {"jsonrpc": "2.0", "id": request["id"], "result": "0x" + keccak(hexstr=raw).hex()}

    def mine(self) -> None:
        """Mine what waits."""
        for send in self._waiting.values():
            send()


def test_an_interrupted_command_is_awaited(
    office: Office, proxies: list[Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy whose adoption is still on its way is not adopted a second time."""
    office.deploy()
    policy = write_policy(office.folder / "policy.toml")
    proxies[0].twist = pool = SlowPool()
    adopt = ("admin", "policy", office.folder / "policy.toml", *office.located, "--rpc-url", proxies[0].url)
    with monkeypatch.context() as patch:
        be_impatient(patch, Ledger.connect.__func__)  # type: ignore[attr-defined]
        with pytest.raises(LedgerError, match="to be mined within 0 s, it was not: it is pending"):
            run(*adopt)
        with pytest.raises(LedgerError, match=r"nothing new was sent: .* adoptPolicy .*ledger outbox /"):
            run(*adopt)
    mining = threading.Timer(1.0, pool.mine)
    mining.start()
    result = CliRunner().invoke(app, [str(each) for each in (*adopt, "--json")])
    mining.join()
    assert "waiting for an earlier transaction: adoptPolicy by" in result.stderr
    assert json.loads(result.stdout) == {"policy": f"0x{policy.digest.hex()}", "already": True, "version": 1}
    assert len(sent(office)) == 2


def test_several_endpoints_outvote_one(office: Office, proxies: list[Proxy]) -> None:
    """Of three that are named two have to agree, also about fees and receipts."""
    office.deploy()
    office.register()
    urls = [part for proxy in proxies for part in ("--rpc-url", proxy.url)]
    for role, twist in (
        ("aggregator", make_liar_in_receipts(1)),
        ("admin", make_liar_in_fees(base_fee=10**9, tip=450 * 10**9)),
    ):
        proxies[0].twist = twist
        run("admin", "grant", role, office.node.address, *office.located, *urls)
    assert run("ledger", "show", "--address-book", office.book, *urls).count(office.node.address) == 3
    assert [each["state"] for each in sent(office)] == [SendingState.FINAL] * 3


def test_warnings_stay_out_of_what_is_printed(office: Office, proxies: list[Proxy]) -> None:
    """An endpoint that fails is named on stderr; what a machine reads is one JSON object."""
    office.deploy()
    proxies[0].twist = fail
    urls = [part for proxy in proxies for part in ("--rpc-url", proxy.url)]
    arguments = ["ledger", "show", "--address-book", str(office.book), *urls, "--json"]
    result = CliRunner().invoke(app, arguments)
    assert json.loads(result.stdout)["events"] == 2
    assert "endpoint_silent" in result.stderr


def test_an_interrupted_deployment_goes_on(
    office: Office, proxies: list[Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt writes the address book of the contract that the first one deployed."""
    be_impatient(monkeypatch, connect_endpoints)  # type: ignore[arg-type]
    options = (*office.signed, "--output", office.book, "--aggregator", office.admin.address, "--rpc-url")
    proxies[0].twist = lose("eth_getTransactionReceipt", arrives=True)  # type: ignore[assignment]
    with pytest.raises(LedgerUnreachable):
        run("deploy", *options, proxies[0].url)
    assert not office.book.exists()
    assert count(office) == 1
    proxies[0].twist = honest
    run("deploy", *options, proxies[0].url)
    assert count(office) == 1
    assert run_json("ledger", "show", "--address-book", office.book)["events"] == 2


def test_several_endpoints_deploy(office: Office, proxies: list[Proxy]) -> None:
    """One of three that names another one's contract and block in the receipt is outvoted."""
    office.deploy()
    planted = json.loads(office.book.read_text())

    def lie(request: Answer, ask: Callable[..., Answer]) -> Answer:
        answer = ask()
        if request["method"] == "eth_getTransactionReceipt" and answer["result"]:
            answer["result"].update(contractAddress=planted["contract"], blockNumber=hex(planted["block"]))
        return answer

    proxies[0].twist = lie
    urls = [part for proxy in proxies for part in ("--rpc-url", proxy.url)]
    parties = (*office.signed, "--aggregator", office.node.address)
    assert run_json("deploy", *parties, *urls, "--dry-run")["gas"] > 1_000_000
    book = run_json("deploy", *parties, *urls, "--output", office.folder / "second.json")
    assert (book["contract"] != planted["contract"], book["block"]) == (True, planted["block"] + 1)
    assert book["rpc_url"] == proxies[0].url
    shown = run_json("ledger", "show", "--address-book", office.folder / "second.json", *urls)
    assert shown["events"] == 2


def test_an_endpoint_with_a_key_is_named_to_nobody(office: Office, proxies: list[Proxy]) -> None:
    """The operator is told so; a command without an endpoint says what to do, and with one it works."""
    arguments = ["deploy", *office.signed, "--aggregator", office.node.address, "--output", office.book]
    arguments += ["--rpc-url", f"{proxies[0].url}/v3/0123abcd"]
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0
    assert "the address book names no endpoint" in result.stderr
    assert "0123abcd" not in result.output + office.book.read_text()
    admit = ("admin", "admit", office.node.address, *office.located)
    for command in (("ledger", "show", "--address-book", office.book), admit):
        with pytest.raises(
            ConfigurationError, match=r"rpc_url: expected an endpoint .* with --rpc-url or as"
        ):
            run(*command)
    assert run_json("ledger", "show", "--address-book", office.book, "--rpc-url", office.url)["events"] == 2
