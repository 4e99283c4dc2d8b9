"""What this node says of a round on the ledger, in its own name: an attestation, or an objection."""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from fedproof.digests import Address, Digest
from fedproof.errors import BadLeaf, LedgerError, Reverted, WrongSum
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import Subject
from fedproof.ledger.rounds import RoundRecord


class Witness:
    """Sends a node's transactions about results; for all threads.

    Every method raises LedgerError for what has to be tried again.
    """

    def __init__(self, *, node: Address, ledger: Ledger, log: FilteringBoundLogger) -> None:
        self._node = node
        self._ledger = ledger
        self._log = log

    def has_attested(self, record: RoundRecord) -> bool:
        """Return whether the ledger holds this node's attestation, also in blocks that do not count yet."""
        if self._node in record.attestations:
            return True
        member = self._ledger.member(self._node)
        return member.last_round == record.number and member.has_attested

    def attest(self, number: int, model: Digest) -> bool:
        """Attest a model by a transaction; return whether it was not refused."""
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
            return False
        self._log.info("attested", round=number, gas=receipt.gas_used)
        return True

    def object_to(self, record: RoundRecord, error: Exception) -> bool:
        """Dispute what was wrong with a round's sum or batch, if it can be disputed; as `dispute`."""
        match error:
            case WrongSum():
                return self.dispute(record, Subject.CHUNK, error.index, reason=str(error))
            case BadLeaf():
                return self.dispute(record, Subject.COMMITMENT, error.index, reason=str(error))
        return True

    def dispute(self, record: RoundRecord, subject: Subject, index: int, *, reason: str) -> bool:
        """Object on the ledger, where that is still possible; return whether it was not refused."""
        number = record.number
        self._log.error("error", message=f"disputing {subject.name.lower()} {index}: {reason}", round=number)
        if record.phase.is_over or self._node not in record.cohort:
            return True
        try:
            receipt = self._ledger.dispute(number, subject, index)
        except Reverted as error:
            # Somebody else was faster, the round is over meanwhile, or an endpoint lags.
            self._log.error("error", message=f"round {number}: not disputed: {error}")
            return False
        self._log.info("disputed", round=number, gas=receipt.gas_used)
        return True
