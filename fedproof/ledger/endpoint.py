"""A chain's JSON-RPC endpoint: bounded retries, errors translated, transactions signed locally."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar, cast

from eth_account.datastructures import SignedTransaction
from eth_account.signers.local import LocalAccount
from requests.exceptions import RequestException
from web3 import HTTPProvider, Web3
from web3.exceptions import (
    BadResponseFormat,
    ContractLogicError,
    TransactionNotFound,
    Web3Exception,
    Web3RPCError,
)
from web3.middleware import ExtraDataToPOAMiddleware
from web3.types import RPCEndpoint, TxParams, TxReceipt, Wei

from fedproof.errors import ConfigurationError, LedgerError, LedgerUnreachable
from fedproof.ledger.reverts import decode_revert

Answer = TypeVar("Answer")

# py_ecc, which comes with eth-account, lets Python recurse 100,000 deep: then an answer of nothing but
# brackets overruns the stack of the C code that parses it. py-evm, in the development chain, needs this much.
sys.setrecursionlimit(min(sys.getrecursionlimit(), 12 * 1024))

_NO_ANSWER = (RequestException, BadResponseFormat, json.JSONDecodeError)
_OTHER_FORM = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
_MOST_QUOTED = 300
_DEFAULT_TIP = Wei(10**9)
_NONCE_ATTEMPTS = 4
# JSON-RPC has no codes for these; the phrases are those of geth, reth, anvil, Nethermind, Besu and Erigon.
_SAME_TRANSACTION = ("already known", "alreadyknown", "already imported", "known transaction")
_NONCE_TAKEN = ("nonce too low", "nonce is too low", "oldnonce", "replacement transaction underpriced")
_FIRST_POLL_S = 0.05
_LAST_POLL_S = 0.5


class Endpoint:
    """A connection to one endpoint.

    Attributes:
        web3: the connection itself.
        url: what messages call it.
    """

    def __init__(
        self,
        web3: Web3,
        *,
        url: str,
        attempts: int = 6,
        backoff_s: float = 0.25,
        receipt_timeout_s: float = 120.0,
    ) -> None:
        self.web3 = web3
        self.url = url
        self._attempts = attempts
        self._backoff_s = backoff_s
        self._receipt_timeout_s = receipt_timeout_s
        # Two threads that send at once would take the same nonce.
        self._sending = threading.Lock()

    @classmethod
    def connect(
        cls, url: str, *, timeout_s: float = 10.0, attempts: int = 6, receipt_timeout_s: float = 120.0
    ) -> Endpoint:
        """Return an endpoint over HTTP; nothing is sent yet.

        Args:
            url: an ``http://`` or ``https://`` address.
            timeout_s: for one request.
            attempts: requests that are made before the endpoint counts as unreachable.
            receipt_timeout_s: how long a transaction may take until it is mined.

        Raises:
            ConfigurationError: another kind of address.
        """
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(f"rpc_url: expected an http:// or https:// address, got {url!r}")
        provider = HTTPProvider(
            url, request_kwargs={"timeout": timeout_s}, exception_retry_configuration=None
        )
        web3 = Web3(provider)
        # Proof-of-authority chains put more into a block's header than web3 takes otherwise.
        web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
        # It asks for the chain's number before each call, to compare one that our calls do not carry.
        web3.middleware_onion.remove("validation")
        return cls(web3, url=url, attempts=attempts, receipt_timeout_s=receipt_timeout_s)

    @cached_property  # it never changes, and every transaction needs it
    def chain_id(self) -> int:
        """The chain's EIP-155 number.

        Raises:
            LedgerError: as `ask`.
        """
        return self.ask("eth_chainId", lambda: self.web3.eth.chain_id)

    def ask(self, what: str, request: Callable[[], Answer]) -> Answer:
        """Return what a request answers, after as many attempts as it takes.

        Args:
            what: the request's purpose, for messages.
            request: the request; it must be safe to repeat.

        Raises:
            LedgerUnreachable: no answer after all attempts.
            Reverted: the contract refused.
            LedgerError: the endpoint answered with another error.
        """
        started = time.monotonic()
        pause_s = self._backoff_s
        for attempt in range(1, self._attempts + 1):
            try:
                with reading_answer(f"{self.url}: {what}"):
                    return request()
            except _NO_ANSWER as error:
                if attempt == self._attempts:
                    raise LedgerUnreachable(
                        f"{self.url}: expected an answer to {what}, got none in {attempt} attempts over "
                        f"{time.monotonic() - started:.1f} s (last: {str(error)[:_MOST_QUOTED]}); "
                        "is the chain running?"
                    ) from error
            except ContractLogicError as error:
                raise decode_revert(_revert_data(error), what=f"{self.url}: {what}") from error
            except Web3Exception as error:
                raise LedgerError(f"{self.url}: {what}: {_rpc_message(error)}") from error
            time.sleep(pause_s)
            pause_s *= 2
        raise LedgerUnreachable(f"{self.url}: expected at least one attempt, got {self._attempts}")

    def send(self, account: LocalAccount, call: Mapping[str, Any], *, what: str) -> TxReceipt:
        """Sign a transaction, send it, and return its receipt once it is mined.

        Args:
            account: who signs and pays.
            call: ``data``, and ``to`` unless it creates a contract.
            what: its purpose, for messages.

        Raises:
            Reverted: the contract refused, before or after it was sent.
            LedgerUnreachable: no answer after all attempts.
            LedgerError: not accepted, or not mined in time.
        """
        with self._sending:
            transaction_hash = self._submit(account, call, what=what)
        receipt = self._await_receipt(transaction_hash, what=what)
        if receipt["status"] != 1:
            # It passed when it was estimated, so something mined before it changed the answer: ask again.
            block = receipt["blockNumber"]
            params = cast("TxParams", {**call, "from": account.address})
            self.ask(what, lambda: self.web3.eth.call(params, block))
            raise decode_revert(b"", what=f"{self.url}: {what} (transaction 0x{transaction_hash.hex()})")
        return receipt

    def _submit(self, account: LocalAccount, call: Mapping[str, Any], *, what: str) -> bytes:
        """Send a transaction under the next free nonce and return its hash."""
        eth = self.web3.eth
        sender = account.address
        params = cast("TxParams", {**call, "from": sender})
        gas = self.ask(what, lambda: eth.estimate_gas(params))
        fees = self._compute_fees()
        for _ in range(_NONCE_ATTEMPTS):
            nonce = self.ask("eth_getTransactionCount", lambda: eth.get_transaction_count(sender, "pending"))
            signed = account.sign_transaction(
                {
                    **call,
                    **fees,
                    "value": 0,
                    "chainId": self.chain_id,
                    "nonce": nonce,
                    # What is mined in between may make it dearer, such as being the first to touch a slot.
                    "gas": gas + gas // 4,
                }
            )
            if self._is_accepted(signed, what=what):
                return bytes(signed.hash)
        raise LedgerError(
            f"{self.url}: {what}: expected a free nonce for {account.address}, got 'nonce too low' "
            f"{_NONCE_ATTEMPTS} times: another process sends with the same key"
        )

    def _is_accepted(self, signed: SignedTransaction, *, what: str) -> bool:
        """Hand a transaction over; False when its nonce has been taken by another one."""
        eth = self.web3.eth
        try:
            self.ask(what, lambda: eth.send_raw_transaction(signed.raw_transaction))
        except LedgerError as error:
            message = str(error).lower()
            # An attempt whose answer was lost may have arrived all the same; then a repetition is refused.
            if any(phrase in message for phrase in _SAME_TRANSACTION):
                return True
            if any(phrase in message for phrase in _NONCE_TAKEN):
                return self._is_known(signed.hash)
            raise
        return True

    def _is_known(self, transaction_hash: bytes) -> bool:
        def request() -> bool:
            try:
                self.web3.eth.get_transaction(cast("Any", transaction_hash))
            except TransactionNotFound:
                return False
            return True

        return self.ask("eth_getTransactionByHash", request)

    def _compute_fees(self) -> dict[str, Wei]:
        """Return the fee fields: EIP-1559 where the chain has a base fee, a gas price elsewhere."""
        eth = self.web3.eth
        base = self.ask("eth_getBlockByNumber", lambda: eth.get_block("latest")).get("baseFeePerGas")
        if base is None:
            return {"gasPrice": self.ask("eth_gasPrice", lambda: eth.gas_price)}

        def request() -> Wei:
            # Not by web3's own property: where the method is missing, that one warns and asks for past fees.
            try:
                tip = self.web3.manager.request_blocking(RPCEndpoint("eth_maxPriorityFeePerGas"), [])
            except Web3RPCError:
                return _DEFAULT_TIP
            return Wei(int(tip, 16) if isinstance(tip, str) else int(tip))

        tip = self.ask("eth_maxPriorityFeePerGas", request)
        # The base fee grows by an eighth a block at most: twice as much lasts for six full blocks.
        return {"maxFeePerGas": Wei(2 * base + tip), "maxPriorityFeePerGas": tip}

    def _await_receipt(self, transaction_hash: bytes, *, what: str) -> TxReceipt:
        """Return a transaction's receipt once there is one."""

        def request() -> TxReceipt | None:
            try:
                return self.web3.eth.get_transaction_receipt(cast("Any", transaction_hash))
            except TransactionNotFound:
                return None

        deadline = time.monotonic() + self._receipt_timeout_s
        pause_s = _FIRST_POLL_S
        while (receipt := self.ask("eth_getTransactionReceipt", request)) is None:
            if time.monotonic() > deadline:
                raise LedgerError(
                    f"{self.url}: {what}: expected transaction 0x{transaction_hash.hex()} to be mined within "
                    f"{self._receipt_timeout_s:.0f} s, it was not"
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_POLL_S)
        return receipt


@contextmanager
def reading_answer(where: str) -> Iterator[None]:
    """Translate what reading an answer raises when it is JSON, but not as the chain's interface has it.

    Raises:
        LedgerError: it is not.
    """
    try:
        yield
    except (Web3Exception, *_NO_ANSWER):
        raise
    except _OTHER_FORM as error:
        raise LedgerError(
            f"{where}: expected an answer as Ethereum's JSON-RPC has it, got another: "
            f"{type(error).__name__}: {str(error)[:_MOST_QUOTED]}"
        ) from error


def _revert_data(error: ContractLogicError) -> bytes:
    data = error.data
    if isinstance(data, str) and data.startswith("0x"):
        try:
            return bytes.fromhex(data[2:])
        except ValueError:
            pass
    return b""


def _rpc_message(error: Web3Exception) -> str:
    """Return what the endpoint said, without web3's rendering of the whole response."""
    response = getattr(error, "rpc_response", None) or {}
    said = response.get("error") if isinstance(response, dict) else None
    message = said["message"] if isinstance(said, dict) and "message" in said else error
    return str(message)[:_MOST_QUOTED]
