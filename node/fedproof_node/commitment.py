"""How this node binds itself to its update: by a signature, where there is batching, or by a transaction."""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from fedproof.digests import Address, Digest
from fedproof.errors import LedgerError, PeerError, Reverted, UpdateRefused
from fedproof.ledger.client import Ledger
from fedproof.ledger.rounds import RoundRecord
from fedproof_node.batches import Batches


class Committer:
    """Commits to one root in a round, in either way, however often it is asked to.

    Every method raises UpdateRefused for what ends this node's part in the round, and NetworkError or
    LedgerError for what has to be tried again.
    """

    def __init__(self, *, node: Address, ledger: Ledger, batches: Batches, log: FilteringBoundLogger) -> None:
        self._node = node
        self._ledger = ledger
        self._batches = batches
        self._log = log

    def commit(self, record: RoundRecord, root: Digest, *, examples: int) -> None:
        """Commit by a signature where it can still be anchored, or by a transaction."""
        if not self._sign(record, root, examples=examples):
            self.send(record, root, examples=examples)

    def send(self, record: RoundRecord, root: Digest, *, examples: int) -> None:
        """Commit by a transaction, unless the ledger holds it."""
        number = record.number
        self._log.info("phase", round=number, phase="committing")
        existing = record.commitments.get(self._node)
        if existing is not None:
            if existing.update_root != root:
                raise UpdateRefused(
                    f"round {number}: expected this node's commitment to be {root.hex()}, the ledger holds "
                    f"{existing.update_root.hex()}: another daemon signs with the same key"
                )
            return
        self.check_deadline(record)
        try:
            receipt = self._ledger.commit(number, root, examples)
        except Reverted as error:
            # The round's terms are looked at before the examples, and do not change. Whatever else an
            # endpoint says that lags, a later block may heal; if none does, the deadline ends it.
            if error.name == "ExamplesOutOfRange":
                raise UpdateRefused(str(error)) from error
            # Also if mined since we looked: the next look at the ledger compares the roots.
            raise LedgerError(f"round {number}: not committed yet: {error}") from error
        self._log.info("committed", round=number, gas=receipt.gas_used, transaction=receipt.transaction_hash)

    def show(self, record: RoundRecord, root: Digest, *, examples: int) -> None:
        """Commit by a transaction, too, what was only signed."""
        if self._batches.is_used and self._ledger.member(self._node).last_round != record.number:
            self.send(record, root, examples=examples)

    def check_deadline(self, record: RoundRecord) -> None:
        """Return while the ledger takes commitments."""
        time_now = self._ledger.latest_block().timestamp
        if time_now > record.deadline:
            raise UpdateRefused(
                f"round {record.number}: the deadline for commitments, {record.deadline}, has passed: "
                f"the newest block's time is {time_now}"
            )

    def is_left_out(self, record: RoundRecord) -> bool:
        """Return whether an open round cannot count this node unless it commits by a transaction."""
        return self._batches.is_left_out(record)

    def must_claim(self, record: RoundRecord) -> bool:
        """Return whether an uploaded update does not count unless this node commits by a transaction."""
        if not self._batches.is_used or not self.is_left_out(record):
            return False
        # A transaction that is mined, but not yet final, is none to repeat.
        return self._ledger.member(self._node).last_round != record.number

    def _sign(self, record: RoundRecord, root: Digest, *, examples: int) -> bool:
        """Hand a signed commitment over; False where it has to be a transaction."""
        number = record.number
        if self._node in record.commitments or not self._batches.takes_commitments(record):
            return False
        self._log.info("phase", round=number, phase="committing")
        try:
            self._batches.send_commitment(record, root, examples=examples)
        except PeerError as error:
            self._log.error("error", message=f"the signed commitment was not taken: {error}", round=number)
            return False
        self._log.info("committed", round=number, gas=0)
        return True
