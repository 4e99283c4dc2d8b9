"""Retries, fees, nonces, and what a caller learns when a chain does not do as asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

import pytest

from fedproof.errors import ConfigurationError, LedgerError, LedgerUnreachable, Reverted
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.events import FailureReason, Phase
from tests.chain import Federation, make_account, make_digest

KEYS = (make_digest("wrapping"), make_digest("certificate"))


class NotAChain(BaseHTTPRequestHandler):
    """A web server at the address of a chain."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web_server() -> Iterator[str]:
    """The address of a server that answers, but not as a chain does."""
    with HTTPServer(("127.0.0.1", 0), NotAChain) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_outage_is_bridged(federation: Federation) -> None:
    """One attempt fewer than all may fail."""
    federation.chain.provider.outages = 2
    assert federation.admin.round().number == 0


def test_an_outage_that_lasts_is_reported(federation: Federation) -> None:
    """After all attempts the message names the endpoint, the request, the attempts and the last error."""
    federation.chain.provider.outages = 3
    with pytest.raises(
        LedgerUnreachable, match=r"memory: expected an answer to currentRound, .* 3 attempts .*refused"
    ):
        federation.admin.round()
    assert federation.admin.round().number == 0


def test_nobody_listens() -> None:
    """An address without a chain is named in the message."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        endpoint = Endpoint.connect(url, attempts=2)
        with pytest.raises(LedgerUnreachable, match=f"{url}: expected an answer .* in 2 attempts"):
            endpoint.ask("eth_chainId", lambda: endpoint.web3.eth.chain_id)


def test_something_else_answers(web_server: str) -> None:
    """A server that speaks no JSON-RPC is no chain."""
    endpoint = Endpoint.connect(web_server, attempts=1)
    with pytest.raises(LedgerUnreachable, match=web_server):
        endpoint.ask("eth_chainId", lambda: endpoint.web3.eth.chain_id)


class Quoting(BaseHTTPRequestHandler):
    """A chain whose newest block says whether the request had a password and was JSON."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = (self.headers["Authorization"], self.headers["Content-Type"])
        is_right = headers == ("Basic bWU6c2VjcmV0", "application/json")
        answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": hex(is_right)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    log_message = NotAChain.log_message


def test_password_in_the_address_is_sent() -> None:
    """Each request carries what the address says, on a connection that is kept."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Quoting) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        endpoint = Endpoint.connect(f"http://me:secret@127.0.0.1:{server.server_port}", attempts=1)
        try:
            for _ in range(2):
                assert endpoint.ask("eth_blockNumber", lambda: endpoint.web3.eth.block_number) == 1
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("url", ["127.0.0.1:8545", "ws://127.0.0.1:8545", ""])
def test_other_addresses_are_refused(url: str) -> None:
    """Only HTTP addresses are spoken to."""
    with pytest.raises(ConfigurationError, match="expected an http:// or https:// address"):
        Endpoint.connect(url)


def test_a_lost_answer_sends_nothing_twice(federation: Federation) -> None:
    """A transaction whose answer got lost is recognised when its repetition is refused."""
    federation.chain.provider.lost_answers.append("eth_sendRawTransaction")
    receipt = federation.outsider.register(*KEYS)
    assert len(receipt.events) == 1
    assert federation.chain.provider.requests.count("eth_sendRawTransaction") == 2
    events = federation.admin.events(receipt.block_number, federation.admin.block_number())
    assert events == list(receipt.events)


def test_a_taken_nonce_is_replaced(federation: Federation) -> None:
    """Where another process took the nonce in between, the next one is used."""
    rival = federation.connect(make_account(7))
    own = federation.connect(make_account(7))
    federation.chain.provider.interrupts["eth_sendRawTransaction"] = lambda: rival.register(*KEYS)
    receipt = own.register(KEYS[1], KEYS[0])
    assert federation.admin.block_number() == receipt.block_number
    assert federation.chain.provider.requests.count("eth_sendRawTransaction") == 3


def test_a_refusal_after_the_estimate_is_explained(federation: Federation) -> None:
    """A transaction that reverts when it is mined raises the custom error all the same."""
    federation.aggregator.open_round(1)
    federation.chain.provider.interrupts["eth_sendRawTransaction"] = lambda: federation.aggregator.fail(
        1, FailureReason.ABANDONED
    )
    with pytest.raises(Reverted, match=r"commit by 0x\w+: the contract refused: WrongPhase") as caught:
        federation.commit(0)
    assert caught.value.arguments == {"round": 1, "actual": Phase.FAILED}


def test_a_transaction_that_is_not_mined_is_reported(federation: Federation) -> None:
    """Waiting ends, and the message names the transaction."""
    federation.chain.provider.is_idle = True
    with pytest.raises(LedgerError, match=r"register .* expected transaction 0x\w{64} to be mined within"):
        federation.outsider.register(*KEYS)


def test_fees_without_a_tip_method(federation: Federation) -> None:
    """A chain that does not suggest tips gets a usual one."""
    federation.chain.provider.missing.add("eth_maxPriorityFeePerGas")
    receipt = federation.outsider.register(*KEYS)
    sent = federation.chain.web3.eth.get_transaction(receipt.transaction_hash)
    assert sent["maxPriorityFeePerGas"] == 10**9


def test_other_errors_are_passed_on(federation: Federation) -> None:
    """What an endpoint says is in the message, with the endpoint's name and the request's."""
    federation.chain.provider.missing.add("eth_getCode")
    with pytest.raises(LedgerError, match="memory: eth_getCode: the method eth_getCode does not exist"):
        federation.connect(make_account(1))
