"""What a chain is asked about one transaction, and how it is handed over."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from typing import Any, cast

from eth_typing import ChecksumAddress
from web3 import Web3
from web3.exceptions import TransactionNotFound, Web3Exception
from web3.types import BlockIdentifier, TxParams, TxReceipt

from fedproof.errors import LedgerError, LedgerUnreachable, Reverted, TransactionRefused
from fedproof.ledger.answers import as_hash, as_int64
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.reverts import decode_revert
from fedproof.ledger.sending import SendingState
from fedproof.ledger.signer import Signed

# JSON-RPC has no codes for these; the phrases are those of geth, reth, anvil, Nethermind, Besu and Erigon.
_SAME_TRANSACTION = re.compile(r"already ?known|already imported|\bknown transaction", re.IGNORECASE)
_NONCE_TAKEN = re.compile(
    r"nonce (is )?too low|old ?nonce|replacement ?(transaction underpriced|not ?allowed)", re.IGNORECASE
)
# Said before a transaction is kept or passed on. What is not among them, such as a load balancer's "request
# timed out" or "internal error", may come after that.
_REFUSED = re.compile(
    _NONCE_TAKEN.pattern + r"|insufficient ?(funds|balance|gas)|enough funds|exceeds (account )?balance"
    r"|underpriced|less than (block )?base fee|fee ?cap|fee ?too ?low|gas price (too low|below)|priority fee"
    r"|exceeds the configured cap|intrinsic gas|gas ?limit|nonce (is )?too high|nonce ?gap|nonce ?too ?far"
    r"|pool (is )?full|account limit|oversized|initcode|transaction type|invalid (sender|signature|chain)"
    r"|wrong ?chain|sender not|not authorized|sender ?is ?contract",
    re.IGNORECASE,
)
_AGREED_OF_RECEIPTS = ("transactionHash", "blockHash", "blockNumber", "status", "gasUsed")
_AGREED_OF_LOGS = ("address", "topics", "data", "blockNumber", "transactionHash", "logIndex")


def estimate_gas(endpoint: Endpoint, params: TxParams, *, what: str) -> int:
    """Return how much gas a transaction needs.

    Raises:
        Reverted: as many endpoints as have to agree say that the contract refuses.
        LedgerError: fewer say about the same, up to twice as much; or as `Endpoint.poll`.
    """

    def request(member: Endpoint) -> int:
        return as_int64(member.ask(what, lambda: member.web3.eth.estimate_gas(params)), "gas")

    answers = endpoint.poll(what, request)
    gas = statistics.median_high(answers)
    # With too little it runs out of gas, and with too much nobody ever takes it, nor those of later nonces.
    if sum(each <= 2 * gas and gas <= 2 * each for each in answers) < endpoint.agreement:
        raise LedgerError(
            f"{endpoint.url}: {what}: expected {endpoint.agreement} endpoints to name about the same gas, "
            f"got {', '.join(map(str, answers))}"
        )
    return gas


def explain_revert(endpoint: Endpoint, params: TxParams, receipt: TxReceipt, *, what: str) -> Reverted:
    """Return why a transaction reverted: asked again as a call, the contract says so.

    Args:
        endpoint: who is asked.
        params: the transaction's sender, recipient and data.
        receipt: the transaction's.
        what: its purpose, for messages.

    Raises:
        LedgerError: as `Endpoint.poll`.
    """
    block = receipt["blockNumber"]
    try:
        endpoint.poll(what, lambda member: member.ask(what, lambda: member.web3.eth.call(params, block)))
    except Reverted as error:
        return error
    # Where it passes after all, something mined after it in its block changed the answer, or its gas ran out.
    where = f"{endpoint.url}: {what} (transaction {receipt['transactionHash'].to_0x_hex()})"
    return decode_revert(b"", what=where)


def hand_over(endpoint: Endpoint, signed: Signed, *, what: str) -> SendingState:
    """Return what became of a transaction: pending, prepared while too few endpoints have it, or superseded.

    Args:
        endpoint: every one of several is given it, so that none can keep it to itself.
        signed: the transaction.
        what: its purpose, for messages.

    Raises:
        LedgerUnreachable: no answer; it may have arrived all the same.
        TransactionRefused: every endpoint refuses it, and none has it.
        LedgerError: an answer that is neither; it may have arrived all the same.
    """
    refusing: set[Web3] = set()

    def request(web3: Web3) -> None:
        refusing.discard(web3)
        try:
            web3.eth.send_raw_transaction(signed.raw)
        except Web3Exception as error:
            # An attempt whose answer was lost may have arrived all the same; then a repetition is refused.
            if _SAME_TRANSACTION.search(str(error)):
                return
            if _REFUSED.search(str(error)):
                refusing.add(web3)
            raise

    try:
        having = endpoint.broadcast(what, request)
    except LedgerUnreachable:
        raise
    except LedgerError as error:
        having = count_having(endpoint, signed.hash)
        if not having:
            if len(refusing) < endpoint.members:
                raise LedgerError(f"{error}; it may have arrived all the same") from error
            if _NONCE_TAKEN.search(str(error)):
                return SendingState.SUPERSEDED
            raise TransactionRefused(str(error)) from error
    return SendingState.PENDING if having >= endpoint.agreement else SendingState.PREPARED


def count_having(endpoint: Endpoint, transaction_hash: bytes) -> int:
    """Return how many endpoints say that a transaction is in their pool or in a block.

    Raises:
        LedgerError: as `Endpoint.poll`.
    """

    def is_there(web3: Web3) -> bool:
        try:
            web3.eth.get_transaction(cast("Any", transaction_hash))
        except TransactionNotFound:
            return False
        return True

    what = "eth_getTransactionByHash"
    return sum(endpoint.poll(what, lambda member: member.ask(what, lambda: is_there(member.web3))))


def count_transactions(endpoint: Endpoint, sender: ChecksumAddress, block: BlockIdentifier) -> int:
    """Return the first nonce of an account that is free after a block, or after the pool ("pending").

    An endpoint that lies cannot raise it alone: the account's transactions would wait for those in between.

    Raises:
        LedgerError: as `Endpoint.ask`.
    """

    def request(member: Endpoint) -> int:
        eth = member.web3.eth
        return member.ask("eth_getTransactionCount", lambda: eth.get_transaction_count(sender, block))

    return endpoint.reach("eth_getTransactionCount", request)


def is_spent(
    endpoint: Endpoint,
    sender: ChecksumAddress,
    nonce: int,
    *,
    but_for: Sequence[bytes],
    block: BlockIdentifier,
) -> bool:
    """Return whether another transaction has a nonce, as of a block.

    Args:
        endpoint: of several, as many as have to agree have to say the same.
        sender: whose nonce.
        nonce: which one.
        but_for: the hashes of the transactions that are not another one.
        block: as of which.

    Raises:
        LedgerError: as `Endpoint.agree`.
    """

    def request(web3: Web3) -> bool:
        # In this order: had one of ours been counted, its receipt would be there.
        count = web3.eth.get_transaction_count(sender, block)
        return count > nonce and not any(find_receipt(web3, each) for each in but_for)

    return endpoint.agree("eth_getTransactionCount", request)


def find_receipt(web3: Web3, transaction_hash: bytes) -> TxReceipt | None:
    """Return a transaction's receipt, or None while it is in no block; for `Endpoint.confirm`.

    It holds only what a chain's nodes cannot but agree on; the rest depends on who made the node.
    """
    try:
        receipt = web3.eth.get_transaction_receipt(cast("Any", transaction_hash))
    except TransactionNotFound:
        return None
    if bytes(receipt["transactionHash"]) != transaction_hash or as_int64(receipt["status"], "status") > 1:
        raise ValueError("a receipt of another transaction")
    as_hash(receipt["blockHash"], "block")
    numbers: list[object] = [receipt["blockNumber"], receipt["gasUsed"]]
    numbers += [log[key] for log in receipt["logs"] for key in ("blockNumber", "logIndex")]
    for number in numbers:
        as_int64(number, "receipt")
    agreed: dict[str, Any] = {key: receipt[key] for key in _AGREED_OF_RECEIPTS}  # type: ignore[literal-required]
    # Of a transaction that creates no contract it is null, left out, or whatever an endpoint makes of that.
    agreed["contractAddress"] = None if receipt.get("to") else receipt.get("contractAddress")
    agreed["logs"] = [{key: log[key] for key in _AGREED_OF_LOGS} for log in receipt["logs"]]  # type: ignore[literal-required]
    return cast("TxReceipt", agreed)
