"""What this node says of a round's result: its attestation, and its objections.

If the aggregator is malicious, then at most a round fails: what it does not pass on, this node says on the
ledger, and what it makes up, this node disputes there.
"""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from fedproof.digests import Digest
from fedproof.errors import (
    BadLeaf,
    DigestMismatch,
    LedgerError,
    MissingObject,
    NetworkError,
    PeerError,
    Reverted,
    TaskFailed,
    WorkerDied,
    WrongSum,
)
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import Phase, Subject
from fedproof.ledger.history import History
from fedproof.ledger.rounds import RoundRecord
from fedproof_node.batches import Batches
from fedproof_node.journal import Journal, Stage
from fedproof_node.membership import Membership
from fedproof_node.models import ModelShelf
from fedproof_node.trainer import Trainer


class Attester:
    """Vouches for what this node has derived, and objects to what it cannot.

    Every method raises NetworkError or LedgerError for what has to be tried again.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        ledger: Ledger,
        journal: Journal,
        models: ModelShelf,
        batches: Batches,
        trainer: Trainer,
        log: FilteringBoundLogger,
    ) -> None:
        self._membership = membership
        self._ledger = ledger
        self._journal = journal
        self._models = models
        self._batches = batches
        self._trainer = trainer
        self._log = log

    def attest(self, record: RoundRecord, history: History) -> None:
        """Attest the applied model where the ledger still takes it, and report how good the model is.

        Raises:
            PeerError: the ledger holds another attestation of this node.
        """
        number = record.number
        node = self._membership.node
        model = self._journal.entry(number).model
        if model is None:
            raise MissingObject(f"round {number}: the journal names no model that was applied")
        existing = record.attestations.get(node)
        if existing is not None and existing != model:
            raise DigestMismatch(
                f"round {number}: expected this node's attestation to be {model.hex()}, the ledger holds "
                f"{existing.hex()}: another daemon signs with the same key"
            )
        if existing is None and _is_newest(record, history) and node in record.cohort:
            self._vouch(record, model)
        self._report(number, model)
        # A crash before this line: the restart finds the attestation on the ledger and reports once more.
        self._journal.advance(number, Stage.ATTESTED)

    def contradict(self, record: RoundRecord, model: Digest, history: History) -> None:
        """Say on the ledger, where it still takes it, that this node's model is another than the result."""
        node = self._membership.node
        if _is_newest(record, history) and node in record.cohort and node not in record.attestations:
            self._send(record.number, model)

    def must_press(self, record: RoundRecord) -> bool:
        """Return whether a handed-over attestation has lain unused for half of the time there is."""
        node = self._membership.node
        if node not in record.cohort or node in record.attestations or not self._batches.is_late(record):
            return False
        # A transaction that is mined, but not yet final, is none to repeat.
        member = self._ledger.member(node)
        return member.last_round != record.number or not member.has_attested

    def press(self, record: RoundRecord) -> None:
        """Attest by a transaction what the aggregator has not made use of."""
        model = self._journal.entry(record.number).model
        if model is not None:
            self._send(record.number, model)

    def examine_proposal(self, record: RoundRecord) -> bool:
        """Object to a proposed result that is another than this node's, or rests on no signatures.

        Returns whether that is settled: a refused objection is to be made again while the result is proposed.

        Raises:
            NetworkError: the aggregator does not serve the signatures, and there is time to ask again.
        """
        number, proposal = record.number, record.proposal
        if proposal is None or self._membership.node not in record.cohort:
            return True
        model = self._journal.entry(number).model
        if model is not None and model != proposal.model_digest:
            return self._send(number, model)
        try:
            self._batches.verify_proposal(record)
        except BadLeaf as error:
            return self.dispute(record, Subject.ATTESTATION, error.index, reason=str(error))
        except (NetworkError, LedgerError) as error:
            if not self._batches.is_late(record):
                raise
            return self.dispute(record, Subject.ATTESTATION, 0, reason=f"the leaves are withheld: {error}")
        return True

    def object_to(self, record: RoundRecord, error: Exception) -> None:
        """Dispute what was wrong with a round's sum or batch, if it can be disputed."""
        match error:
            case WrongSum():
                self.dispute(record, Subject.CHUNK, error.index, reason=str(error))
            case BadLeaf():
                self.dispute(record, Subject.COMMITMENT, error.index, reason=str(error))

    def dispute(self, record: RoundRecord, subject: Subject, index: int, *, reason: str) -> bool:
        """Object on the ledger, where that is still possible; return whether it was not refused."""
        number = record.number
        self._log.error("error", message=f"disputing {subject.name.lower()} {index}: {reason}", round=number)
        if record.phase.is_over or self._membership.node not in record.cohort:
            return True
        try:
            receipt = self._ledger.dispute(number, subject, index)
        except Reverted as error:
            # Somebody else was faster, the round is over meanwhile, or an endpoint lags.
            self._log.error("error", message=f"round {number}: not disputed: {error}")
            return False
        self._log.info("disputed", round=number, gas=receipt.gas_used)
        return True

    def _vouch(self, record: RoundRecord, model: Digest) -> None:
        """Hand a signed attestation over, or say on the ledger that the result is another."""
        number = record.number
        if record.phase is not Phase.AGGREGATED:
            decided = record.result if record.proposal is None else record.proposal.model_digest
            if decided != model:
                self._send(number, model)
            return
        self._log.info("phase", round=number, phase="attesting")
        try:
            self._batches.send_attestation(record, model)
        except (PeerError, NetworkError) as error:
            if isinstance(error, NetworkError) and not self._batches.is_late(record):
                raise
            self._log.error("error", message=f"the signed attestation was not taken: {error}", round=number)
            self._send(number, model)
            return
        self._log.info("attested", round=number, gas=0)

    def _send(self, number: int, model: Digest) -> bool:
        """Attest by a transaction; return whether it was not refused."""
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

    def _report(self, number: int, model: Digest) -> None:
        try:
            result = self._trainer.evaluate(self._models.load(model).flat)
        except (TaskFailed, WorkerDied) as error:
            self._log.error("error", message=f"round {number}: the new model could not be evaluated: {error}")
            return
        self._log.info("applied", round=number, model=model, accuracy=result.accuracy, loss=result.loss)


def _is_newest(record: RoundRecord, history: History) -> bool:
    return history.current_round is not None and history.current_round.number == record.number
