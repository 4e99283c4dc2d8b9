"""What this node says of a round on the ledger, in its own name: an attestation, an objection, or its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from structlog.typing import FilteringBoundLogger

from fedproof.digests import Address, Digest
from fedproof.errors import BadLeaf, LedgerError, Reverted, WrongSum
from fedproof.ledger.client import Ledger, Receipt
from fedproof.ledger.events import FailureReason, Phase, Subject
from fedproof.ledger.rounds import RoundRecord

# What an aggregator that is gone has left undone in each phase.
_OVERDUE: Final = {
    Phase.OPEN: FailureReason.ABANDONED,
    Phase.SEALED: FailureReason.NO_AGGREGATE,
    Phase.AGGREGATED: FailureReason.NO_QUORUM,
    Phase.PROPOSED: FailureReason.ABANDONED,
}


class Witness:
    """Sends a node's transactions about results; for all threads.

    Every method raises LedgerError for what has to be tried again.
    """

    def __init__(self, *, node: Address, ledger: Ledger, log: FilteringBoundLogger) -> None:
        self._node = node
        self._ledger = ledger
        self._log = log
        # By round.
        self._wrong_sums: dict[int, WrongSum] = {}

    def has_attested(self, record: RoundRecord) -> bool:
        """Return whether the ledger holds this node's attestation, also in blocks that do not count yet."""
        if self._node in record.attestations:
            return True
        member = self._ledger.member(self._node)
        return member.last_round == record.number and member.has_attested

    def attest(self, number: int, model: Digest) -> None:
        """Attest a model by a transaction, where that is still possible."""
        self._log.info("phase", round=number, phase="attesting")
        try:
            receipt = self._ledger.attest(number, model)
        except Reverted as error:
            if error.name == "AlreadyAttested":
                # Mined since we looked; the next look at the ledger compares the digests.
                raise LedgerError(
                    f"round {number}: an attestation of this node is on its way: {error}"
                ) from error
            # Too late, or suspended meanwhile: the model is right all the same.
            self._log.error("error", message=f"round {number}: not attested: {error}")
            return
        self._log.info("attested", round=number, gas=receipt.gas_used)

    def object_to(self, record: RoundRecord, error: Exception) -> None:
        """Dispute what was wrong with a round's sum or batch, if it can be disputed; as `dispute`."""
        match error:
            case WrongSum():
                self._wrong_sums[record.number] = error
                self.insist(record)
            case BadLeaf():
                self.dispute(record, Subject.COMMITMENT, error.index, reason=str(error))

    def insist(self, record: RoundRecord) -> bool:
        """Dispute, as above, the chunk that this process found to be wrong; return whether there is one."""
        error = self._wrong_sums.get(record.number)
        if error is not None:
            self.dispute(record, Subject.CHUNK, error.index, reason=str(error))
        return error is not None

    def dispute(self, record: RoundRecord, subject: Subject, index: int, *, reason: str) -> None:
        """Object on the ledger, where that is still possible.

        An endpoint may lie about what became of it: only the round's end shows that it was heard.
        """
        number = record.number
        self._log.error("error", message=f"disputing {subject.name.lower()} {index}: {reason}", round=number)
        if record.phase.is_over or self._node not in record.cohort:
            return
        try:
            receipt = self._ledger.dispute(number, subject, index)
        except Reverted as error:
            # Somebody else was faster, the round is over meanwhile, or an endpoint lags.
            self._log.error("error", message=f"round {number}: not disputed: {error}")
            return
        self._log.info("disputed", round=number, gas=receipt.gas_used)

    def fail(self, record: RoundRecord) -> None:
        """Give up a round that is overdue for everybody."""
        self._end(record, lambda: self._ledger.fail(record.number, _OVERDUE[record.phase]))

    def finalise(self, record: RoundRecord, model: Digest) -> None:
        """Make the proposed model the head, which nobody objected to in time."""
        self._end(record, lambda: self._ledger.finalise(record.number, model))

    def _end(self, record: RoundRecord, send: Callable[[], Receipt]) -> None:
        number = record.number
        self._log.warning(
            "overdue", round=number, message=f"it is {record.phase.name.lower()}, and nobody ends it"
        )
        try:
            receipt = send()
        except Reverted as error:
            # Somebody else was faster.
            self._log.error("error", message=f"round {number}: not ended: {error}")
            return
        self._log.info("ended", round=number, gas=receipt.gas_used)
