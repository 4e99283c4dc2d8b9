"""Who signs: a key in this process, or a signer elsewhere that is asked over HTTP and checked.

If a remote signer is malicious, then at most it refuses to sign, or signs things of its own with its key:
what comes back here is used only if it is what was asked for, under the right key.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import requests
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError
from hexbytes import HexBytes
from rlp.exceptions import RLPException
from urllib3.exceptions import HTTPError

from fedproof.digests import Address, Digest, as_address, checksum_address
from fedproof.errors import ConfigurationError, FedproofError, LedgerError
from fedproof.ledger.answers import quote
from fedproof.ledger.url import hide_secrets

# In the words of Web3Signer, of most nodes, and of Clef.
_TRANSACTION_METHODS = ("eth_signTransaction", "account_signTransaction")
_TYPED_DATA_METHODS = ("eth_signTypedData", "eth_signTypedData_v4", "account_signTypedData")
_QUANTITIES = ("nonce", "gas", "value", "chainId", "maxFeePerGas", "maxPriorityFeePerGas")
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0  # of secp256k1
_OTHER_FORM = (
    AttributeError,
    BadSignature,
    LookupError,
    OverflowError,
    RecursionError,
    RLPException,
    TypeError,
    ValidationError,
    ValueError,
)
_NO_ANSWER = (requests.RequestException, HTTPError, TimeoutError)
_MOST_ANSWER_BYTES = 1 << 20  # several times the largest transaction that pools take, in hexadecimal


class Signed(NamedTuple):
    """A transaction that may be sent, and the hash that it will have."""

    raw: bytes
    hash: Digest


class Signer(Protocol):
    """Signs as one account."""

    @property
    def address(self) -> Address:
        """The account."""

    def sign_transaction(self, transaction: Mapping[str, Any]) -> Signed:
        """Return a transaction, signed.

        Args:
            transaction: JSON-RPC's fields, with numbers as integers; `to` is absent for a new contract.

        Raises:
            LedgerError: the signer does not answer, refuses, or signs something else.
        """

    def sign_typed_data(self, message: Mapping[str, Any]) -> bytes:
        """Return the 65 bytes r, s, v of a signature over EIP-712 typed data.

        Args:
            message: types, primaryType, domain and message, as EIP-712's JSON has them.

        Raises:
            LedgerError: as `sign_transaction`.
        """


class KeystoreSigner:
    """Signs with a key that this process holds."""

    def __init__(self, account: LocalAccount) -> None:
        self._account = account
        self.address: Address = as_address(account.address, "account")

    def sign_transaction(self, transaction: Mapping[str, Any]) -> Signed:
        """Return a transaction, signed."""
        signed = self._account.sign_transaction(dict(transaction))
        return Signed(bytes(signed.raw_transaction), Digest(bytes(signed.hash)))

    def sign_typed_data(self, message: Mapping[str, Any]) -> bytes:
        """Return the 65 bytes r, s, v of a signature over EIP-712 typed data."""
        return bytes(self._account.sign_typed_data(full_message=dict(message)).signature)


class RemoteSigner:
    """Asks a signer over HTTP: Web3Signer, Clef, or a node that holds keys."""

    def __init__(self, url: str, address: Address, *, timeout_s: float = 30.0) -> None:
        """Name the signer; nothing is sent yet.

        Args:
            url: an ``http://`` or ``https://`` address that speaks JSON-RPC.
            address: the account to sign as.
            timeout_s: for one signature, whatever the signer does; the outbox is locked meanwhile.

        Raises:
            ConfigurationError: another kind of address.
        """
        self._shown = hide_secrets(url)
        if not self._shown.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"signer_url: expected an http:// or https:// address, got {self._shown}"
            )
        self.address = address
        self._url = url
        self._timeout_s = timeout_s
        self._known: dict[Sequence[str], str] = {}

    def sign_transaction(self, transaction: Mapping[str, Any]) -> Signed:
        """Return a transaction, signed, after these checks.

        1. It is the transaction that was asked for, byte by byte, apart from its signature.
        2. The signature is this account's.

        Raises:
            LedgerError: the signer does not answer or refuses, or a check fails.
        """
        asked = {key: hex(value) if key in _QUANTITIES else value for key, value in transaction.items()}
        request = {**asked, "from": checksum_address(self.address)}
        answer = self._ask(_TRANSACTION_METHODS, [request])
        try:
            raw = HexBytes(answer["raw"] if isinstance(answer, dict) else answer)
            found = TypedTransaction.from_bytes(raw).as_dict()
            signature = {key: found[key] for key in ("v", "r", "s")}
            expected = TypedTransaction.from_dict({**transaction, "type": 2, **signature}).encode()
            signatory = as_address(Account.recover_transaction(raw), "signature")
        except (FedproofError, *_OTHER_FORM) as error:
            raise self._refuse("the signed transaction", error) from error
        if bytes(raw) != bytes(expected):  # 1
            raise LedgerError(f"{self._shown}: expected the transaction that was asked for, got another one")
        self._verify_signatory(signatory)  # 2
        return Signed(bytes(raw), Digest(keccak(raw)))

    def sign_typed_data(self, message: Mapping[str, Any]) -> bytes:
        """Return the 65 bytes r, s, v of a signature over EIP-712 typed data, after these checks.

        1. It has the one form that contracts take: s in the lower half, v = 27 or 28.
        2. The signature is this account's, over this message.

        Raises:
            LedgerError: the signer does not answer or refuses, or a check fails.
        """
        answer = self._ask(_TYPED_DATA_METHODS, [checksum_address(self.address), _spell(message)])
        try:
            signature = bytes(HexBytes(answer))
            if len(signature) != 65 or signature[64] not in (0, 1, 27, 28):  # 1
                raise ValueError(f"{len(signature)} bytes that do not end in 27 or 28")
            if int.from_bytes(signature[32:64]) > _HALF_ORDER:
                raise ValueError("an s in the upper half")
            signature = signature[:64] + bytes([27 + (signature[64] - 27) % 27])
            signable = encode_typed_data(full_message=dict(message))
            signatory = as_address(Account.recover_message(signable, signature=signature), "signature")
        except (FedproofError, *_OTHER_FORM) as error:
            raise self._refuse("a signature of 65 bytes", error) from error
        self._verify_signatory(signatory)  # 2
        return signature

    def _verify_signatory(self, found: Address) -> None:
        if found != self.address:
            raise LedgerError(
                f"{self._shown}: expected a signature of {checksum_address(self.address)}, "
                f"got one of {checksum_address(found)}"
            )

    def _ask(self, methods: Sequence[str], parameters: list[object]) -> Any:
        """Return the result of the first of the methods that the signer answers."""
        deadline = time.monotonic() + self._timeout_s
        refusals = []
        for method in [self._known[methods]] if methods in self._known else methods:
            try:
                answer = self._post(method, parameters, deadline)
                if "result" in answer and answer.get("error") is None:
                    self._known[methods] = method
                    return answer["result"]
                refusals.append(f"{method}: {quote(answer['error']['message'])}")
            except _NO_ANSWER as error:
                # Not its words, which quote the whole address.
                raise LedgerError(
                    f"{self._shown}: expected an answer to {method} within {self._timeout_s:g} s, got none "
                    f"({type(error).__name__}); is the signer running?"
                ) from None
            except _OTHER_FORM as error:
                raise self._refuse(f"JSON-RPC's answer to {method}", error) from error
        raise LedgerError(f"{self._shown}: expected a signature, the signer refuses: {'; '.join(refusals)}")

    def _post(self, method: str, parameters: list[object], deadline: float) -> Any:
        """Return what the signer answers until then."""
        body: Any = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        answer: Future[Any] = Future()

        def ask() -> None:
            try:
                with requests.post(
                    self._url,
                    json=body,
                    headers={"Accept-Encoding": "identity"},
                    timeout=self._timeout_s,
                    stream=True,
                ) as response:
                    raw = response.raw.read(_MOST_ANSWER_BYTES + 1)
                if len(raw) > _MOST_ANSWER_BYTES:
                    raise ValueError(f"more than {_MOST_ANSWER_BYTES} bytes")
                answer.set_result(json.loads(raw))
            except (*_NO_ANSWER, *_OTHER_FORM) as error:
                answer.set_exception(error)

        # The timeout above is for each pause: a signer that says a little at a time would hold us for ever.
        # The thread that it holds in our place waits for no lock, and ends with the process.
        threading.Thread(target=ask, daemon=True).start()
        return answer.result(timeout=max(0.0, deadline - time.monotonic()))

    def _refuse(self, expected: str, error: Exception) -> LedgerError:
        came = f"{type(error).__name__}: {quote(error)}"
        return LedgerError(f"{self._shown}: expected {expected}, got something else: {came}")


def _spell(value: object) -> object:
    """Return typed data as JSON has it: bytes as hex."""
    match value:
        case bytes():
            return "0x" + value.hex()
        case Mapping():
            return {key: _spell(each) for key, each in value.items()}
        case list() | tuple():
            return [_spell(each) for each in value]
    return value
