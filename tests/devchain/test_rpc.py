"""JSON-RPC itself: error codes, batches, notifications."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from fedproof.devchain.methods import Methods
from fedproof.devchain.rpc import Rpc

ADDRESS = "0x" + "11" * 20


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\xff", b"[" * 100_000])
def test_parse_error(world: Any, body: bytes) -> None:
    """What is not JSON is answered with -32700 and a null id."""
    answer = world.post(body).json()
    assert (answer["id"], answer["error"]["code"]) == (None, -32700)


@pytest.mark.parametrize(
    "request_object",
    [
        7,
        None,
        "eth_chainId",
        {},
        {"jsonrpc": "2.0", "id": 3},
        {"id": 3, "method": "eth_chainId"},
        {"jsonrpc": "2.0", "id": 3, "method": 7},
        {"jsonrpc": "1.0", "id": 3, "method": "eth_chainId"},
    ],
)
def test_invalid_request(world: Any, request_object: object) -> None:
    """JSON that is not a JSON-RPC 2.0 request is answered with -32600, under its id if it has one."""
    answer = world.post(json.dumps(request_object).encode()).json()
    assert answer["error"]["code"] == -32600
    assert answer["id"] == (request_object.get("id") if isinstance(request_object, dict) else None)


def test_method_not_found(world: Any) -> None:
    """A method that is not served is answered with -32601 and named."""
    error = world.refuse("eth_sendTransaction", {})
    assert error["code"] == -32601
    assert "eth_sendTransaction" in error["message"]


@pytest.mark.parametrize(
    ("method", "parameters", "reason"),
    [
        ("eth_getBalance", [], "eth_getBalance: expected parameters: address, block; got 0"),
        ("eth_chainId", [1], "eth_chainId: expected parameters: none; got 1"),
        ("eth_getBalance", ["0x12"], "address: expected 20 bytes as 0x and two hex digits each, got '0x12'"),
        ("eth_getBalance", [ADDRESS, "newest"], "block: expected a quantity such as 0x1f, got 'newest'"),
        ("eth_getBalance", [ADDRESS, "0x"], "block: expected a quantity such as 0x1f, got '0x'"),
        ("eth_getBalance", [ADDRESS, -1], "block: expected a quantity such as 0x1f, got -1"),
        ("eth_getBalance", [ADDRESS, True], "block: expected a quantity such as 0x1f, got True"),
        ("eth_getBlockByHash", ["0x1234", False], "block hash: expected 32 bytes"),
        ("eth_getBlockByNumber", ["latest", "yes"], "full transactions: expected true or false, got 'yes'"),
        ("eth_getTransactionReceipt", [5], "transaction hash: expected 32 bytes"),
        ("eth_call", ["0x"], "transaction: expected an object, got '0x'"),
        ("eth_call", [{"data": "0x1"}], "data: expected bytes as 0x and two hex digits each, got '0x1'"),
        (
            "eth_call",
            [{"data": "0x01", "input": "0x02"}],
            "transaction: expected the same in data and in input",
        ),
        ("eth_call", [{"to": "0x" + "zz" * 20}], "to: expected 20 bytes"),
        ("eth_getLogs", [[]], "filter: expected an object, got []"),
        ("eth_getLogs", [{"topics": "0x"}], "topics: expected a list, got '0x'"),
        ("eth_getLogs", [{"topics": ["0x12"]}], "topic: expected 32 bytes"),
        ("eth_getLogs", [{"address": "0x12"}], "address: expected 20 bytes"),
        (
            "eth_getLogs",
            [{"blockHash": "0x" + "00" * 32, "toBlock": "0x1"}],
            "filter: expected either blockHash",
        ),
        ("eth_feeHistory", ["0x1", "latest", [101]], "reward percentile: expected 0 to 100, got 101"),
        ("anvil_setBalance", [ADDRESS, "0x1" + "00" * 32], "balance: expected a quantity"),
        ("eth_sendRawTransaction", ["02f8"], "transaction: expected bytes as 0x"),
    ],
)
def test_invalid_parameters(world: Any, method: str, parameters: list[object], reason: str) -> None:
    """Wrong parameters are answered with -32602, what was expected and what came."""
    world.send(ADDRESS)
    error = world.refuse(method, *parameters)
    assert error["code"] == -32602
    assert error["message"].startswith(reason)


def test_parameters_by_name_are_refused(world: Any) -> None:
    """Ethereum's methods take lists of parameters."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance", "params": {"address": ADDRESS}}
    error = world.post(json.dumps(request).encode()).json()["error"]
    assert error == {"code": -32602, "message": "eth_getBalance: expected a list of parameters, got dict"}


def test_batch(world: Any) -> None:
    """A batch is answered in one list, its failures included, its notifications left out."""
    batch = [
        {"jsonrpc": "2.0", "id": "a", "method": "eth_chainId"},
        {"jsonrpc": "2.0", "method": "evm_mine"},
        {"jsonrpc": "2.0", "id": 2, "method": "nothing"},
        5,
        {"jsonrpc": "2.0", "id": None, "method": "eth_blockNumber", "params": []},
    ]
    answers = world.post(json.dumps(batch).encode()).json()
    assert [answer["id"] for answer in answers] == ["a", 2, None, None]
    assert answers[0]["result"] == "0x7a69"
    assert [answer["error"]["code"] for answer in answers[1:3]] == [-32601, -32600]
    assert answers[3]["result"] == "0x1"


def test_batch_without_requests(world: Any) -> None:
    """An empty batch, or one of more than a thousand requests, is an invalid request."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
    assert world.post(b"[]").json()["error"]["code"] == -32600
    assert world.post(json.dumps([request] * 1001).encode()).json()["error"]["code"] == -32600
    assert len(world.post(json.dumps([request] * 1000).encode()).json()) == 1000


def test_notification(world: Any) -> None:
    """A request without an id is carried out and not answered."""
    response = world.post(b'{"jsonrpc": "2.0", "method": "evm_mine"}')
    assert (response.status_code, response.content) == (200, b"")
    assert world.get("eth_blockNumber") == "0x1"


class FaultyMethods(Methods):
    """Methods with a defect in one of them."""

    def call(self, name: str, parameters: Sequence[object]) -> object:
        """Fail as no method means to."""
        if name == "evm_mine":
            raise ZeroDivisionError("a defect")
        return super().call(name, parameters)


def test_internal_error_does_not_end_the_server(world: Any) -> None:
    """A defect in a method is answered with -32603, and the next request is answered as usual."""
    rpc = Rpc(FaultyMethods(world.chain))
    answer = json.loads(rpc.answer(b'{"jsonrpc":"2.0","id":1,"method":"evm_mine"}'))
    assert answer["error"] == {"code": -32603, "message": "internal error: ZeroDivisionError: a defect"}
    assert json.loads(rpc.answer(b'{"jsonrpc":"2.0","id":2,"method":"eth_chainId"}'))["result"] == "0x7a69"
