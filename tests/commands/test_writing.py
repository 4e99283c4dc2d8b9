"""What the commands send outlives them: an outbox beside the keystore, and several endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests
from typer.testing import CliRunner

from fedproof.cli import app
from fedproof.errors import LedgerUnreachable
from fedproof.ledger.sending import SendingState
from tests.ledger.anvil import Answer, Proxy, fail, honest, make_liar_in_fees, make_liar_in_receipts, proxied
from tests.office import Office, chain, office, password, run, run_json

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


def test_several_endpoints_outvote_one(office: Office, proxies: list[Proxy]) -> None:
    """Of three that are named two have to agree, also about fees and receipts."""
    office.deploy()
    office.register()
    urls = [part for proxy in proxies for part in ("--rpc-url", proxy.url)]
    for twist in (make_liar_in_receipts(1), make_liar_in_fees(base_fee=10**9, tip=450 * 10**9)):
        proxies[0].twist = twist
        run("admin", "grant", "aggregator", office.node.address, *office.located, *urls)
    assert run("ledger", "show", "--address-book", office.book, *urls).count(office.node.address) == 2
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


def test_an_interrupted_deployment_goes_on(office: Office, proxies: list[Proxy]) -> None:
    """The second attempt writes the address book of the contract that the first one deployed."""
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
