"""Signers: a key of our own, and one that is asked over HTTP and not believed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from eth_account import Account
from eth_account.messages import encode_typed_data

from fedproof.digests import Address, as_address, checksum_address
from fedproof.errors import ConfigurationError, LedgerError
from fedproof.ledger import database
from fedproof.ledger.signer import KeystoreSigner, RemoteSigner
from tests.chain import make_account, make_digest
from tests.ledger.anvil import Anvil

OURS, OTHER = make_account(1), make_account(2)
TRANSACTION = {
    "to": OTHER.address,
    "data": "0x1234",
    "value": 0,
    "chainId": 31337,
    "nonce": 7,
    "gas": 50_000,
    "maxFeePerGas": 3 * 10**9,
    "maxPriorityFeePerGas": 10**9,
}
CREATION = {key: value for key, value in TRANSACTION.items() if key != "to"}
MESSAGE = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "chainId", "type": "uint256"}],
        "Commitment": [
            {"name": "round", "type": "uint64"},
            {"name": "node", "type": "address"},
            {"name": "root", "type": "bytes32"},
        ],
    },
    "primaryType": "Commitment",
    "domain": {"name": "test", "chainId": 31337},
    "message": {"round": 3, "node": OTHER.address, "root": make_digest("root")},
}


class Liar(BaseHTTPRequestHandler):
    """A signer that signs as its test tells it to, in Clef's words."""

    protocol_version = "HTTP/1.1"
    answers: dict[str, Any]

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"error": {"code": -32601, "message": "no such method"}}
        if request["method"] in self.answers:
            answer = {"result": self.answers[request["method"]]}
        body = json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Dripper(BaseHTTPRequestHandler):
    """A signer that says a byte at a time, of its headers or of its answer, and never ends."""

    protocol_version = "HTTP/1.1"
    said: bytes
    is_over: threading.Event

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.wfile.write(self.said)
        with suppress(ConnectionError):
            while not self.is_over.wait(0.02):
                self.wfile.write(b" ")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def liar() -> Iterator[tuple[RemoteSigner, dict[str, Any]]]:
    """A remote signer, and what it answers to each method."""
    handler = type("Handler", (Liar,), {"answers": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        signer = RemoteSigner(f"http://127.0.0.1:{server.server_port}", as_address(OURS.address, "test"))
        yield signer, handler.answers
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("transaction", [TRANSACTION, CREATION])
def test_a_real_signer_signs_transactions(anvil: Anvil, transaction: dict[str, Any]) -> None:
    """What anvil signs passes the checks, and is what a key in this process would sign."""
    account = as_address(anvil.request("eth_accounts")[0], "anvil")
    signed = RemoteSigner(anvil.url, account).sign_transaction(transaction)
    assert as_address(Account.recover_transaction(signed.raw), "test") == account
    key = Account.from_key("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
    assert KeystoreSigner(key).sign_transaction(transaction) == signed


def test_a_real_signer_signs_typed_data(anvil: Anvil) -> None:
    """What anvil signs passes the checks, and is what a key in this process would sign."""
    account = as_address(anvil.request("eth_accounts")[0], "anvil")
    key = Account.from_key("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
    signature = RemoteSigner(anvil.url, account).sign_typed_data(MESSAGE)
    assert signature == KeystoreSigner(key).sign_typed_data(MESSAGE)
    assert len(signature) == 65


def test_an_account_that_the_signer_does_not_hold_is_refused(anvil: Anvil) -> None:
    """The message says what the signer said."""
    signer = RemoteSigner(anvil.url, as_address(OURS.address, "test"))
    with pytest.raises(LedgerError, match=r"the signer refuses: eth_signTransaction: .*"):
        signer.sign_transaction(TRANSACTION)


def test_clef_is_understood(liar: tuple[RemoteSigner, dict[str, Any]]) -> None:
    """Clef's methods and its way to answer work as well."""
    signer, answers = liar
    raw = KeystoreSigner(OURS).sign_transaction(TRANSACTION).raw
    answers["account_signTransaction"] = {"raw": "0x" + raw.hex(), "tx": {}}
    answers["account_signTypedData"] = "0x" + KeystoreSigner(OURS).sign_typed_data(MESSAGE).hex()
    for _ in range(2):
        assert signer.sign_transaction(TRANSACTION).raw == raw
        signature = signer.sign_typed_data(MESSAGE)
    signable = encode_typed_data(full_message=MESSAGE)
    assert Account.recover_message(signable, signature=signature) == OURS.address


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": 8},
        {"to": checksum_address(Address(b"\x09" * 20))},
        {"data": "0x1235"},
        {"value": 1},
        {"maxFeePerGas": 10**12},
        {"gas": 50_001},
        {"chainId": 1},
        {"accessList": [{"address": OTHER.address, "storageKeys": []}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_transaction_is_refused(
    liar: tuple[RemoteSigner, dict[str, Any]], change: dict[str, Any]
) -> None:
    """A transaction that differs in one field from what was asked for is not used."""
    signer, answers = liar
    raw = KeystoreSigner(OURS).sign_transaction({**TRANSACTION, **change}).raw
    answers["eth_signTransaction"] = "0x" + raw.hex()
    with pytest.raises(LedgerError, match="expected the transaction that was asked for, got another one"):
        signer.sign_transaction(TRANSACTION)


def test_another_key_is_refused(liar: tuple[RemoteSigner, dict[str, Any]]) -> None:
    """Both signatures are checked against the account."""
    signer, answers = liar
    answers["eth_signTransaction"] = "0x" + KeystoreSigner(OTHER).sign_transaction(TRANSACTION).raw.hex()
    answers["eth_signTypedData"] = "0x" + KeystoreSigner(OTHER).sign_typed_data(MESSAGE).hex()
    expected = f"expected a signature of {OURS.address}, got one of {OTHER.address}"
    with pytest.raises(LedgerError, match=expected):
        signer.sign_transaction(TRANSACTION)
    with pytest.raises(LedgerError, match=expected):
        signer.sign_typed_data(MESSAGE)


@pytest.mark.parametrize(
    "answer", ["", "0x", "zz", "0x02", "0x02c0", 5, None, [], {}, {"raw": 7}, "0x" + "00" * 65]
)
def test_malformed_answers_are_refused(liar: tuple[RemoteSigner, dict[str, Any]], answer: object) -> None:
    """Whatever comes back that is no signature is a LedgerError."""
    signer, answers = liar
    answers["eth_signTransaction"] = answers["eth_signTypedData"] = answer
    with pytest.raises(LedgerError):
        signer.sign_transaction(TRANSACTION)
    with pytest.raises(LedgerError):
        signer.sign_typed_data(MESSAGE)


def test_a_signature_has_one_form(liar: tuple[RemoteSigner, dict[str, Any]]) -> None:
    """v may come as 0 or 1 and leaves as 27 or 28; the other s, which contracts refuse, is refused."""
    signer, answers = liar
    signature = KeystoreSigner(OURS).sign_typed_data(MESSAGE)
    answers["eth_signTypedData"] = "0x" + (signature[:64] + bytes([signature[64] - 27])).hex()
    assert signer.sign_typed_data(MESSAGE) == signature
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    other_s = (order - int.from_bytes(signature[32:64])).to_bytes(32)
    answers["eth_signTypedData"] = "0x" + (signature[:32] + other_s + bytes([55 - signature[64]])).hex()
    with pytest.raises(LedgerError, match="upper half"):
        signer.sign_typed_data(MESSAGE)


def test_a_signer_that_is_away_is_named() -> None:
    """The message says which address does not answer; another kind of address is refused at once."""
    with pytest.raises(LedgerError, match=r"http://127.0.0.1:1: expected an answer .* is the signer running"):
        RemoteSigner("http://127.0.0.1:1", as_address(OURS.address, "test")).sign_transaction(TRANSACTION)
    with pytest.raises(ConfigurationError, match="signer_url"):
        RemoteSigner("127.0.0.1:1", as_address(OURS.address, "test"))


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 200 OK\r\nX:", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"]
)
def test_a_slow_signer_has_a_deadline(said: bytes) -> None:
    """One signature takes no longer than its time-out, though every pause is shorter."""
    is_over = threading.Event()
    handler = type("Handler", (Dripper,), {"said": said, "is_over": is_over})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        signer = RemoteSigner(url, as_address(OURS.address, "test"), timeout_s=0.3)
        started = time.monotonic()
        with pytest.raises(
            LedgerError, match=r"within 0.3 s, got none \(TimeoutError\); is the signer running"
        ):
            signer.sign_transaction(TRANSACTION)
        assert time.monotonic() - started < 1.0
        is_over.set()
        server.shutdown()
        thread.join()


def test_a_signer_holds_the_outbox_for_less_than_others_wait() -> None:
    """By default a signature's deadline ends well before the wait for the file that is locked meanwhile."""
    timeout_s = RemoteSigner.__init__.__kwdefaults__["timeout_s"]
    assert timeout_s * 2 <= database._LOCK_WAIT_S


def test_an_answer_has_a_size(liar: tuple[RemoteSigner, dict[str, Any]]) -> None:
    """What is longer than any signed transaction is refused unread."""
    signer, answers = liar
    answers["eth_signTransaction"] = "0x" + "00" * (1 << 20)
    with pytest.raises(LedgerError, match="got something else: ValueError: more than 1048576 bytes"):
        signer.sign_transaction(TRANSACTION)


def test_no_message_holds_a_password(liar: tuple[RemoteSigner, dict[str, Any]]) -> None:
    """Of the signer's address, messages name scheme, host and port."""
    signer, _ = liar
    address = signer._url.removeprefix("http://")
    for place in (address, "127.0.0.1:1"):
        with pytest.raises(LedgerError) as refused:
            RemoteSigner(f"http://me:secret@{place}/secret?key=secret", signer.address).sign_typed_data(
                MESSAGE
            )
        assert f"http://{place}: " in str(refused.value)
        assert "secret" not in str(refused.value)
    with pytest.raises(ConfigurationError) as misspelled:
        RemoteSigner("ftp://me:secret@127.0.0.1/secret", signer.address)
    assert "secret" not in str(misspelled.value)


def test_anvil_is_reached(anvil: Anvil) -> None:
    """The fixture's chain answers JSON-RPC over plain HTTP."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
    assert requests.post(anvil.url, json=body, timeout=5).json()["result"] == hex(31337)
