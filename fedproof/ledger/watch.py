"""The watch over what was sent: whether it is in a block that counts, and what to do while it is not.

Each sending is judged by the finality of the process that prepared it, whoever looks: another process, with
another finality, ends nobody's watch.
"""

from __future__ import annotations

import time
from typing import cast

import structlog
from eth_typing import ChecksumAddress
from structlog.typing import FilteringBoundLogger
from web3.types import TxParams, TxReceipt

from fedproof.digests import checksum_address
from fedproof.errors import LedgerError, LedgerUnreachable, TransactionRefused
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.fees import Ceilings, raise_fees, suggest_fees
from fedproof.ledger.finality import Finality, find_final_number, find_final_tag
from fedproof.ledger.outbox_file import OutboxFile
from fedproof.ledger.sending import Sending, SendingRules, SendingState
from fedproof.ledger.signer import Signer
from fedproof.ledger.transactions import (
    count_having,
    count_transactions,
    estimate_gas,
    find_receipt,
    hand_over,
    is_spent,
)

# Each costs the gas of a transfer, and pools keep few that wait for an earlier one.
_MOST_FILLED = 16
_NO_BLOCK = -1
_EVERY_BLOCK = 1 << 63
_ON_ITS_WAY = (SendingState.PREPARED, SendingState.PENDING)
_SEEN = (SendingState.MINED, SendingState.FINAL)
_OVER = (SendingState.FINAL, SendingState.REVERTED)


class Watch:
    """Looks after one wallet's transactions, and writes down what it sees."""

    def __init__(self, endpoint: Endpoint, signer: Signer, rules: SendingRules, file: OutboxFile) -> None:
        self.ceilings = Ceilings(int(rules.max_fee_gwei * 10**9), int(rules.max_tip_gwei * 10**9))
        self.sender = cast("ChecksumAddress", checksum_address(signer.address))
        self._endpoint = endpoint
        self._signer = signer
        self._rules = rules
        self._file = file
        self._log: FilteringBoundLogger = structlog.get_logger()

    # Where it is

    def find_final_block(self, sending: Sending, finality: Finality) -> int:
        """Return the newest block's number that counts, if that matters to a sending as it stands now."""
        if finality in ("latest", 0):
            return _EVERY_BLOCK
        # Where nobody has seen it in a block yet, that is found out first.
        return _NO_BLOCK if sending.state in _ON_ITS_WAY else find_final_number(self._endpoint, finality)

    def look(self, sending: Sending, final_block: int) -> tuple[Sending, TxReceipt | None]:
        """Return a sending as it stands now, and its receipt if there is one.

        Args:
            sending: as it stood.
            final_block: what `find_final_block` said of it, under our own finality. It was asked before the
                receipt is: in between, the chain may drop the block and grow.
        """
        if sending.finality != self._rules.finality:
            final_block = self.find_final_block(sending, sending.finality)
        for version in sending.versions:
            receipt = self._endpoint.confirm(
                "eth_getTransactionReceipt",
                lambda web3, version=version: find_receipt(web3, version.signed.hash),  # type: ignore[misc]
            )
            if receipt is not None:
                return self._note_mined(sending, receipt, final_block), receipt
        if sending.state in _SEEN:
            self._log.warning("transaction_unmined", what=sending.what, block=sending.block)
            # A crash before this line: the next look finds the same.
            sending = self._file.revive(sending)
        return sending, None

    def _note_mined(self, sending: Sending, receipt: TxReceipt, final_block: int) -> Sending:
        block = int(receipt["blockNumber"])
        # One that reverted is watched as well: another block may hold it where it passes.
        state = SendingState.MINED
        if block <= final_block or sending.state in _OVER:
            state = SendingState.FINAL if receipt["status"] == 1 else SendingState.REVERTED
        if (sending.state, sending.block) == (state, block):
            return sending
        # A crash before this line: the receipt is still there.
        return self._file.note(sending, state, block=block)

    # What to do about it

    def offer(self, sending: Sending) -> SendingState:
        """Hand over the newest version that is not refused, and return what became of it.

        Raises:
            LedgerUnreachable: no answer; it may have arrived all the same.
            TransactionRefused: every endpoint refuses every version, and none has one.
            LedgerError: an answer that is neither; it may have arrived all the same.
        """
        for version in sending.versions:
            try:
                state = hand_over(self._endpoint, version.signed, what=sending.what)
            except TransactionRefused as error:
                refusal = error  # such as fees beyond the wallet: an earlier version may still be mined
                continue
            if state is not SendingState.SUPERSEDED:
                # A crash before this line leaves it prepared: it is offered again, which changes nothing.
                self._file.note_offered(sending, state)
            return state
        raise refusal

    def offer_again(self, sending: Sending) -> bool:
        """Hand over what is on the disk already; False when every endpoint refuses it, and none has it."""
        try:
            self.offer(sending)
        except LedgerUnreachable:
            raise
        except LedgerError as error:
            self._log.warning("transaction_refused", what=sending.what, message=str(error))
            return not isinstance(error, TransactionRefused)
        return True

    def nudge(self, sending: Sending) -> Sending:
        """Do what a transaction that stays unmined calls for, and return it as it is then."""
        count = count_transactions(self._endpoint, self.sender, "latest")
        # Only now: a version of another process was on the disk before it could be counted.
        sending = self._file.load(sending.number)
        if sending.state is SendingState.SUPERSEDED:
            return sending
        if count > sending.nonce:
            hashes = [version.signed.hash for version in sending.versions]
            tag = find_final_tag(self._endpoint, sending.finality)
            if not is_spent(self._endpoint, self.sender, sending.nonce, but_for=hashes, block=tag):
                return sending  # mined a moment ago, or the other one's block may still go
            self._log.warning("nonce_taken", what=sending.what, nonce=sending.nonce)
            # A crash before this line: the next look finds the same.
            return self._file.note(sending, SendingState.SUPERSEDED)
        newest = sending.versions[0]
        is_here = sending.state is SendingState.PREPARED
        if not is_here and count_having(self._endpoint, newest.signed.hash) < self._endpoint.agreement:
            self._log.warning("transaction_sent_again", what=sending.what, transaction=newest.signed.hash)
            # A crash before this line: the next look finds the same.
            self._file.note_offered(sending, SendingState.PREPARED)
            is_here = True
        is_refused = False
        if is_here:
            is_refused = not self.offer_again(sending)
            sending = self._file.load(sending.number)
            if sending.state is not SendingState.PREPARED:
                return sending
        # Signed in the future, by a clock that was ahead, it may have waited for any time.
        if 0 <= time.time() - newest.made < self._rules.replace_after_s or self._clear_way(sending):
            return self._file.load(sending.number)
        return self._replace(sending, is_refused=is_refused)

    def _replace(self, sending: Sending, *, is_refused: bool) -> Sending:
        """Raise the fees of a transaction, and return it as it is then.

        Args:
            sending: what stays unmined.
            is_refused: whether every endpoint refuses it as it is.
        """
        newest = sending.versions[0]
        where = f"{self._endpoint.url}: {sending.what}: still {sending.state} as 0x{newest.signed.hash.hex()}"
        suggested = suggest_fees(self._endpoint, ceilings=self.ceilings)
        if is_refused and suggested["maxFeePerGas"] <= newest.fees["maxFeePerGas"]:
            return sending  # not for being cheap: for too little money, say, of which it would only need more
        fees = raise_fees(newest.fees, suggested, ceilings=self.ceilings, where=where)
        sending = self._file.replace(sending, fees, sign=self._signer.sign_transaction)
        self._log.info("transaction_replaced", what=sending.what, fees=dict(fees))
        # A crash before this line: the version is on the disk, and is offered before the others.
        self.offer_again(sending)
        return self._file.load(sending.number)

    def _clear_way(self, sending: Sending) -> bool:
        """Return whether the chain misses nonces before a sending's, after it was given what has them.

        Raises:
            LedgerError: there are too many.
        """
        first = count_transactions(self._endpoint, self.sender, "pending")
        holders = self._file.find_holders(first, sending.nonce)
        if sending.nonce - first - len(holders) > _MOST_FILLED:
            raise LedgerError(
                f"{self._endpoint.url}: {sending.what}: expected at most {_MOST_FILLED} nonces of "
                f"{self.sender} that nobody has, from the next, {first}, to {sending.nonce}, got more: "
                "send what is missing"
            )
        for nonce in range(first, sending.nonce):
            other = holders.get(nonce) or self._fill(nonce)
            # One that was final goes on if its block is gone.
            other, receipt = self.look(other, self.find_final_block(other, self._rules.finality))
            if receipt is None:
                self.offer_again(other)
        return first < sending.nonce

    def _fill(self, nonce: int) -> Sending:
        """Write down a transfer of nothing to ourselves, for a nonce that nobody has."""
        # A process that died, a foreign transaction that the pools dropped, or an endpoint that lied left it.
        what = f"fill nonce {nonce} by {self.sender}"
        call = {"to": self.sender, "data": "0x", "value": 0}
        gas = estimate_gas(self._endpoint, cast("TxParams", {**call, "from": self.sender}), what=what)
        call = {**call, "chainId": self._endpoint.chain_id, "gas": gas}
        fees = suggest_fees(self._endpoint, ceilings=self.ceilings)
        self._log.warning("nonce_filled", nonce=nonce)
        return self._file.fill(nonce, call, what=what, fees=fees, sign=self._signer.sign_transaction)
