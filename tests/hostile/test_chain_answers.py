"""Malformed answers of a chain's endpoint: each ends in a LedgerError, and none in a crash."""

from __future__ import annotations

import json
import sys

import pytest
from eth_abi.abi import encode

from fedproof.errors import LedgerError, LedgerUnreachable
from tests.fuzz.chain import QUESTIONS, connect
from tests.fuzz.registry import LONGEST_MESSAGE


def result(value: object) -> bytes:
    """Return the body of an answer."""
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": value}).encode()


def error(data: object) -> bytes:
    """Return the body of a revert."""
    details = {"code": 3, "message": "execution reverted", "data": data}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "error": details}).encode()


def failure(message: object) -> bytes:
    """Return the body of another error."""
    return json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": message}}).encode()


LOG: dict[str, object] = {
    "blockNumber": "0x1",
    "logIndex": "0x0",
    "transactionHash": "0x" + "11" * 32,
    "topics": [],
    "data": "0x",
}
ANSWERS = {
    "no_json": b"<html>hello</html>",
    "no_utf_8": b'{"jsonrpc": "2.0", "id": 1, "result": "\xff"}',
    "cut": result("0x10")[:-1],
    "list": b"[]",
    "number": b"5",
    "arrays_100000_deep": b"[" * 100_000,
    "objects_20000_deep": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "arrays_within_the_result": b'{"jsonrpc": "2.0", "id": 1, "result": '
    + b"[" * 99_000
    + b"]" * 99_000
    + b"}",
    "no_number": result("zz"),
    "negative": result("0x-5"),
    "other_list": result([1]),
    "other_object": result({"number": "x", "logs": 3}),
    "long_text": result("x" * 100_000),
    "revert_without_hex": error("0xzz"),
    "revert_of_a_number": error(5),
    "revert_of_another_contract": error("0x" + "ab" * 36),
    "long_revert_of_another_contract": error("0x" + "ab" * 100_000),
    "revert_of_endless_words": error("0x08c379a0" + encode(["string"], ["\x1b[31mok\n" * 20_000]).hex()),
    "revert_cut_short": error("0x08c379a0" + "ab" * 100_000),
    "message_for_the_terminal": failure("\x1b[31mok\n" * 20_000),
    "message_that_is_none": failure([["x"] * 100_000]),
    "event_of_another_contract": result([{**LOG, "topics": ["0x" + "ab" * 100_000]}]),
    "event_of_no_block": result([{**LOG, "blockNumber": "0x" + "f" * 100_000}]),
    "not_a_number": b'{"jsonrpc": "2.0", "id": 1, "result": NaN}',
    "infinite": b'{"jsonrpc": "2.0", "id": 1, "result": -Infinity}',
    "larger_than_any": b'{"jsonrpc": "2.0", "id": 1, "result": 1e999}',
    "nothing": result(None),
    "empty_object": result({}),
    "truth": result(value=True),
    "fraction": result(1.5),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_malformed_answer_is_a_ledger_error(name: str) -> None:
    """Whatever was asked: no other exception, no crash, and a message that fits a log's line."""
    ledger, answers = connect()
    for question in QUESTIONS:
        answers.raw = ANSWERS[name]
        with pytest.raises(LedgerError) as caught:
            question(ledger)
        assert len(str(caught.value)) <= LONGEST_MESSAGE
        assert str(caught.value).isprintable()


def test_a_number_that_cannot_be_printed_is_a_ledger_error() -> None:
    """Python prints no more than 4,300 digits."""
    ledger, answers = connect()
    answers.raw = result("0x" + "f" * 100_000)
    with pytest.raises(LedgerError, match=r"eth_blockNumber: expected a number from 0 to 2\^63 - 1"):
        ledger.block_number()


def test_what_is_no_json_is_no_answer() -> None:
    """It is asked for again, as a proxy's page may stand in a chain's way for a moment."""
    ledger, answers = connect()
    answers.raw = ANSWERS["no_json"]
    with pytest.raises(LedgerUnreachable, match="expected an answer to eth_blockNumber"):
        ledger.block_number()


def test_recursion_ends_before_the_stack_does() -> None:
    """What eth-account brings along would let C code recurse until the process dies."""
    assert sys.getrecursionlimit() <= 12 * 1024
