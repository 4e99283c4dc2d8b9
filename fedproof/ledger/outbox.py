"""Transactions on their way: written down before they are sent, and sent until they are mined for good.

A call that has a key is sent once, however often and by however many processes it is asked for: the second
time, the transaction of the first is awaited, or sent again if the chain has lost it.

If fewer endpoints than have to agree are malicious, then at most they stall it. A transaction goes to all
until enough say that they have it, and is mined or reverted once enough say so. A call gets a second nonce
only after all refuse its first transaction, or enough say that the nonce is another's for good.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import structlog
from structlog.typing import FilteringBoundLogger
from web3.types import TxParams, TxReceipt

from fedproof.errors import LedgerError, LedgerUnreachable, TransactionRefused
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.fees import suggest_fees
from fedproof.ledger.outbox_file import OutboxFile
from fedproof.ledger.sending import Sending, SendingRules, SendingState
from fedproof.ledger.signer import Signer
from fedproof.ledger.transactions import count_transactions, estimate_gas, explain_revert
from fedproof.ledger.watch import Watch

_NONCE_ATTEMPTS = 4
_FIRST_POLL_S = 0.05
_LAST_POLL_S = 0.5
_URGENT = (SendingState.PREPARED, SendingState.MINED)


class Outbox:
    """One wallet's transactions on one chain; for all threads.

    Attributes:
        signer: whose they are.
        is_durable: whether it outlives this process.
    """

    def __init__(self, endpoint: Endpoint, signer: Signer, rules: SendingRules | None = None) -> None:
        """Open the outbox.

        Raises:
            ConfigurationError: the file is no outbox, or that of another wallet or chain.
            LedgerUnreachable: the endpoint does not answer.
        """
        rules = rules or SendingRules()
        self.signer = signer
        self.is_durable = rules.path is not None
        self._endpoint = endpoint
        self._rules = rules
        self._file = OutboxFile(
            rules.path, chain_id=endpoint.chain_id, wallet=signer.address, finality=rules.finality
        )
        self._watch = Watch(endpoint, signer, rules, self._file)
        self._log: FilteringBoundLogger = structlog.get_logger()
        self._tended_at = -1
        self._nudge_at: dict[int, float] = {}

    def sendings(self) -> list[Sending]:
        """Return everything that was sent or is to be, oldest first, as far as it is known."""
        return self._file.all()

    def send(self, call: Mapping[str, Any], *, what: str, key: str | None = None) -> TxReceipt:
        """Sign a transaction, send it, and return its receipt once finality covers its block.

        Args:
            call: ``data``, and ``to`` unless it creates a contract.
            what: its purpose, for messages.
            key: a name for the call. Asked for again, the same transaction is returned, or awaited; only
                after one that reverted, another is sent. Without a key, each call is one of its own.

        Raises:
            Reverted: the contract refused, before or after it was sent.
            LedgerUnreachable: no answer after all attempts.
            LedgerError: not accepted, dearer than the ceiling, or not final in time: then it is on its way.
        """
        key = key or f"{what}, {secrets.token_hex(16)}"
        for _ in range(_NONCE_ATTEMPTS):
            sending = self._file.find(key)
            is_new = sending is None
            if sending is None:
                # A crash before this line leaves nothing; within it, a signed transaction or nothing.
                sending = self._prepare(key, call, what=what)
                # A crash before this line leaves it prepared: the same key, or the next look, sends it.
                if not self._offer_first(sending):
                    continue
            receipt = self._await_receipt(sending, is_new=is_new)
            if receipt is not None:
                return self._judge(sending, receipt)
        raise LedgerError(
            f"{self._endpoint.url}: {what}: expected a free nonce for {self._watch.sender}, got "
            f"'nonce too low' {_NONCE_ATTEMPTS} times: another process sends with the same key"
        )

    def tend(self, final_block: int) -> None:
        """Look after what was sent: note what is final, and send again what the chain has lost.

        Args:
            final_block: number of the newest block that finality covers.
        """
        for sending in self._file.unsettled():
            if sending.state is SendingState.MINED and final_block == self._tended_at:
                continue
            try:
                self._tend(sending, final_block)
            except LedgerError as error:
                # Whoever asks for it again hears of it; what the others need must not wait.
                self._log.error("error", message=f"{sending.what}, still {sending.state}: {error}")
        self._tended_at = final_block

    def settle(self, announce: Callable[[Sending], object]) -> None:
        """Return once everything is in a block that counts here; what was not sent yet is sent.

        Args:
            announce: is told of each sending before it is waited for.

        Raises:
            LedgerUnreachable: no answer for as long as a transaction may take.
            LedgerError: a transaction is not final in time.
        """
        for sending in self._file.unsettled():
            announce(sending)
            self._await_receipt(sending, is_new=False)

    def _tend(self, sending: Sending, final_block: int) -> None:
        is_urgent = sending.state in _URGENT
        sending, receipt = self._watch.look(sending, final_block)
        if receipt is not None:
            return
        if is_urgent or time.monotonic() >= self._nudge_at.setdefault(sending.number, self._later()):
            self._nudge_at[sending.number] = self._later()
            self._watch.nudge(sending)

    def _later(self) -> float:
        return time.monotonic() + self._rules.replace_after_s

    # From a call to a pending transaction

    def _prepare(self, key: str, call: Mapping[str, Any], *, what: str) -> Sending:
        params = cast("TxParams", {**call, "from": self._watch.sender})
        gas = estimate_gas(self._endpoint, params, what=what)
        fees = suggest_fees(self._endpoint, ceilings=self._watch.ceilings)
        mark = self._file.mark()
        floor = count_transactions(self._endpoint, self._watch.sender, "pending")
        # What is mined in between may make it dearer, such as being the first to touch a slot.
        whole = {**call, "value": 0, "chainId": self._endpoint.chain_id, "gas": gas + gas // 4}
        sending = self._file.prepare(
            key, whole, what=what, fees=fees, floor=floor, mark=mark, sign=self.signer.sign_transaction
        )
        if sending.nonce > floor:
            # Those in between are on their way, or were never sent, or the chain has lost them.
            for other in self._file.unsettled():
                if floor <= other.nonce < sending.nonce:
                    self._watch.offer_again(other)
        return sending

    def _offer_first(self, sending: Sending) -> bool:
        """Hand a new transaction over; False when its nonce has been taken by another one."""
        try:
            state = self._watch.offer(sending)
        except TransactionRefused:
            self._file.note(sending, SendingState.SUPERSEDED)
            raise
        if state is SendingState.SUPERSEDED:
            # A crash before this line: it is refused again, and superseded when the other one is final.
            self._file.note(sending, SendingState.SUPERSEDED)
        return state is not SendingState.SUPERSEDED

    # From a pending transaction to a receipt

    def _await_receipt(self, sending: Sending, *, is_new: bool) -> TxReceipt | None:
        """Return the receipt once there is one, or None when another transaction has the nonce for good."""
        started = time.monotonic()
        nudge_at = self._later() if is_new else started
        pause_s = _FIRST_POLL_S
        while True:
            sending = self._file.load(sending.number)  # other processes look after it, too
            is_urgent = sending.state in _URGENT
            silence = None
            try:
                # Before the receipt: in between, the chain may drop the block and grow.
                final_block = self._watch.find_final_block(sending, self._rules.finality)
                sending, receipt = self._watch.look(sending, final_block)
                if receipt is not None and receipt["blockNumber"] <= final_block:
                    return receipt
                if receipt is None and (is_urgent or time.monotonic() >= nudge_at):
                    sending = self._watch.nudge(sending)
                    nudge_at = self._later()
            except LedgerUnreachable as error:
                silence = error  # no news: it is on its way all the same
            if sending.state is SendingState.SUPERSEDED:
                return None
            timeout_s = self._endpoint.receipt_timeout_s
            if time.monotonic() > started + timeout_s:
                if silence is not None:
                    raise silence
                wanted = "final" if sending.block is not None else "mined"
                raise LedgerError(
                    f"{self._endpoint.url}: {sending.what}: expected transaction "
                    f"0x{sending.versions[0].signed.hash.hex()} to be {wanted} within {timeout_s:.0f} s, "
                    f"it was not: it is {sending.state}"
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_POLL_S)

    def _judge(self, sending: Sending, receipt: TxReceipt) -> TxReceipt:
        """Return a receipt of a transaction that the contract took."""
        if receipt["status"] == 1:
            return receipt
        call = {key: value for key, value in sending.call.items() if key in ("to", "data")}
        params = cast("TxParams", {**call, "from": self._watch.sender})
        raise explain_revert(self._endpoint, params, receipt, what=sending.what)
