"""What a chain is asked about one transaction, and how it is handed over."""

from __future__ import annotations

from typing import Any, cast

from eth_typing import ChecksumAddress
from web3 import Web3
from web3.exceptions import TransactionNotFound, Web3Exception
from web3.types import BlockIdentifier, TxReceipt

from fedproof.errors import LedgerError
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.signer import Signed

# JSON-RPC has no codes for these; the phrases are those of geth, reth, anvil, Nethermind, Besu and Erigon.
_SAME_TRANSACTION = ("already known", "alreadyknown", "already imported", "known transaction")
_NONCE_TAKEN = ("nonce too low", "nonce is too low", "oldnonce", "replacement transaction underpriced")


def hand_over(endpoint: Endpoint, signed: Signed, *, what: str) -> bool:
    """Return whether the chain has a transaction now; False when another one has taken its nonce.

    Args:
        endpoint: every one of several is given it, so that none can keep it to itself.
        signed: the transaction.
        what: its purpose, for messages.

    Raises:
        LedgerUnreachable: no answer; it may have arrived all the same.
        LedgerError: refused.
    """

    def request(web3: Web3) -> None:
        try:
            web3.eth.send_raw_transaction(signed.raw)
        except Web3Exception as error:
            # An attempt whose answer was lost may have arrived all the same; then a repetition is refused.
            if not any(phrase in str(error).lower() for phrase in _SAME_TRANSACTION):
                raise

    try:
        endpoint.broadcast(what, request)
    except LedgerError as error:
        if any(phrase in str(error).lower() for phrase in _NONCE_TAKEN):
            return is_known(endpoint, signed.hash)
        raise
    return True


def is_known(endpoint: Endpoint, transaction_hash: bytes) -> bool:
    """Return whether a transaction is in the pool or in a block.

    Raises:
        LedgerError: as `Endpoint.ask`.
    """

    def request() -> bool:
        try:
            endpoint.web3.eth.get_transaction(cast("Any", transaction_hash))
        except TransactionNotFound:
            return False
        return True

    return endpoint.ask("eth_getTransactionByHash", request)


def count_transactions(endpoint: Endpoint, sender: ChecksumAddress, block: BlockIdentifier) -> int:
    """Return the first nonce of an account that is free after a block, or after the pool ("pending").

    An endpoint that lies cannot raise it alone: the account's transactions would wait for those in between.

    Raises:
        LedgerError: as `Endpoint.ask`.
    """

    def request(member: Endpoint) -> int:
        eth = member.web3.eth
        return member.ask("eth_getTransactionCount", lambda: eth.get_transaction_count(sender, block))

    return as_int64(endpoint.reach("eth_getTransactionCount", request), "eth_getTransactionCount")


def find_receipt(web3: Web3, transaction_hash: bytes) -> TxReceipt | None:
    """Return a transaction's receipt, or None while it is in no block; to be called within `Endpoint.ask`."""
    try:
        receipt = web3.eth.get_transaction_receipt(cast("Any", transaction_hash))
    except TransactionNotFound:
        return None
    if bytes(receipt["transactionHash"]) != transaction_hash or receipt["status"] not in (0, 1):
        raise ValueError("a receipt of another transaction")
    as_int64(receipt["blockNumber"], "block")
    return receipt


def as_int64(number: object, what: str) -> int:
    """Return a number that an endpoint answered, if it is one that a file can hold.

    Raises:
        LedgerError: it is not.
    """
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 63:
        raise LedgerError(f"{what}: expected a number from 0 to 2^63 - 1, got another answer")
    return number
