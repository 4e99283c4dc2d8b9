"""An anvil that a test breaks, and a proxy before it that stalls, fails, lags and lies."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
from eth_utils import keccak

from fedproof.ledger.history import History
from tests.foundry import run_anvil

Answer = dict[str, Any]
Twist = Callable[[Answer, Callable[..., Answer]], Answer | None]


@contextmanager
def running_anvil(folder: Path, *options: str) -> Iterator[Anvil]:
    """Start a chain of our own."""
    with run_anvil(folder, *options) as url:
        anvil = Anvil(url)
        try:
            yield anvil
        finally:
            anvil.close()


class Anvil:
    """A running anvil.

    Attributes:
        url: where it answers.
    """

    def __init__(self, url: str) -> None:
        """Wait until it answers."""
        self.url = url
        self._session = requests.Session()
        deadline = time.monotonic() + 20
        while True:
            try:
                self.request("eth_chainId")
                return
            except requests.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def request(self, method: str, *parameters: object) -> Any:
        """Return a method's result."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        answer = self._session.post(self.url, json=body, timeout=20).json()
        if "error" in answer:
            raise ValueError(f"{method}: {answer['error']}")
        return answer["result"]

    def fund(self, *addresses: str) -> None:
        """Give accounts a hundred ether each."""
        for address in addresses:
            self.request("anvil_setBalance", address, hex(100 * 10**18))

    def mine(self, blocks: int = 1) -> None:
        """Mine blocks at once."""
        self.request("anvil_mine", hex(blocks))

    @contextmanager
    def mining_by_hand(self) -> Iterator[None]:
        """Mine only when asked to, until the context ends."""
        self.request("evm_setAutomine", False)
        try:
            yield
        finally:
            self.request("evm_setAutomine", True)

    def pool(self) -> list[str]:
        """Return the hashes of the transactions that wait for a block."""
        content = self.request("txpool_content")
        return [
            transaction["hash"]
            for senders in (content["pending"], content["queued"])
            for transactions in senders.values()
            for transaction in transactions.values()
        ]


class Proxy:
    """An HTTP proxy before an endpoint.

    Attributes:
        twist: what happens to a request: it gets the request and a function that asks the endpoint, and
            returns the answer; None answers 503.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._local = threading.local()
        self.twist: Twist = honest
        self.requests: list[str] = []
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, request: Answer) -> Answer | None:
        """Return the endpoint's answer, twisted."""
        self.requests.append(request["method"])

        def ask(other: Answer = request) -> Answer:
            if not hasattr(self._local, "session"):
                self._local.session = requests.Session()
            return self._local.session.post(self._upstream, json=other, timeout=20).json()

        return self.twist(request, ask)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def proxied(upstream: str) -> Iterator[Proxy]:
    """Yield a proxy that is honest until a test twists it."""
    proxy = Proxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()


def honest(_request: Answer, ask: Callable[..., Answer]) -> Answer | None:
    """Pass everything on."""
    return ask()


def fail(_request: Answer, _ask: Callable[..., Answer]) -> Answer | None:
    """Answer 503 to everything."""
    return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.proxy.answer(request)
        body = b"unavailable" if answer is None else json.dumps(answer).encode()
        self.send_response(503 if answer is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that went away
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def until(is_so: Callable[[], object], *, timeout_s: float = 20.0) -> None:
    """Return once it is so; fail after a while."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def stall(_request: Answer, _ask: Callable[..., Answer]) -> Answer | None:
    """Answer 503, a while after everybody has given up waiting."""
    threading.Event().wait(1.0)
    return None


def lie_in_logs(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
    """Leave the last event out."""
    answer = ask()
    if request["method"] == "eth_getLogs" and answer.get("result"):
        answer["result"].pop()
    return answer


def lie_in_hash(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
    """Answer each call, such as the one for the history's hash, with another last byte."""
    answer = ask()
    if request["method"] == "eth_call" and len(answer.get("result", "")) >= 66:
        answer["result"] = answer["result"][:-2] + f"{int(answer['result'][-2:], 16) ^ 1:02x}"
    return answer


def lie_in_nonce(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
    """Claim three transactions that an account did not send."""
    answer = ask()
    if request["method"] == "eth_getTransactionCount":
        answer["result"] = hex(int(answer["result"], 16) + 3)
    return answer


def make_liar_in_receipts(status: int) -> Twist:
    """Return a twist that keeps transactions to itself, and invents their receipts."""

    def invent(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        method, parameters = request["method"], request["params"]
        answer = {"jsonrpc": "2.0", "id": request["id"]}
        if method == "eth_sendRawTransaction":
            return {**answer, "result": "0x" + keccak(hexstr=parameters[0]).hex()}
        if method == "eth_getTransactionByHash":
            return {**answer, "result": {"hash": parameters[0], "blockNumber": None}}
        if method == "eth_getTransactionReceipt":
            return {**answer, "result": _make_receipt(parameters[0], status=status)}
        return ask()

    return invent


def _make_receipt(transaction_hash: str, *, status: int) -> Answer:
    return {
        "transactionHash": transaction_hash,
        "transactionIndex": "0x0",
        "blockHash": "0x" + "11" * 32,
        "blockNumber": "0x1",  # which is final
        "status": hex(status),
        "gasUsed": "0x5208",
        "cumulativeGasUsed": "0x5208",
        "effectiveGasPrice": "0x1",
        "contractAddress": None,
        "logs": [],
        "logsBloom": "0x" + "00" * 256,
        "from": "0x" + "11" * 20,
        "to": "0x" + "22" * 20,
        "type": "0x2",
    }


def make_liar_in_fees(*, base_fee: int, tip: int) -> Twist:
    """Return a twist that names these fees, in wei."""

    def misname(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        answer = ask()
        if request["method"] == "eth_getBlockByNumber" and answer.get("result"):
            answer["result"]["baseFeePerGas"] = hex(base_fee)
        if request["method"] == "eth_maxPriorityFeePerGas":
            answer["result"] = hex(tip)
        return answer

    return misname


def make_stale(head: int) -> Twist:
    """Return a twist that knows no block after one."""

    def be_stale(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        method, parameters = request["method"], request["params"]
        answer = {"jsonrpc": "2.0", "id": request["id"]}
        if method == "eth_blockNumber":
            return {**answer, "result": hex(head)}
        if method == "eth_estimateGas":
            return ask({**request, "params": [parameters[0], hex(head)]})
        if method == "eth_getBlockByNumber":
            if parameters[0] in ("latest", "pending"):
                return ask({**request, "params": [hex(head), *parameters[1:]]})
            if int(parameters[0], 16) > head:
                return {**answer, "result": None}
        if (
            method in ("eth_call", "eth_getCode")
            and parameters[1] != "latest"
            and int(parameters[1], 16) > head
        ):
            return {**answer, "error": {"code": -32000, "message": "header not found"}}
        if method == "eth_getTransactionReceipt":
            found = ask()
            if found["result"] and int(found["result"]["blockNumber"], 16) > head:
                return {**answer, "result": None}
            return found
        if method == "eth_getLogs" and int(parameters[0]["toBlock"], 16) > head:
            if int(parameters[0]["fromBlock"], 16) > head:
                return {**answer, "result": []}  # as real ones do
            parameters[0]["toBlock"] = hex(head)
        return ask()

    return be_stale


def facts(history: History) -> dict[str, Any]:
    """Return all that a history holds, to compare it with another one."""
    own = {key: value for key, value in vars(history).items() if key != "_hash"}
    return {**own, "history_hash": history.history_hash}
