"""What this node makes of a round's result: its attestation, by signature or by transaction.

If the aggregator is malicious, then at most a round fails: what it does not pass on, this node says on the
ledger.
"""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from fedproof.digests import Digest
from fedproof.errors import (
    DigestMismatch,
    MissingObject,
    NetworkError,
    PeerError,
    TaskFailed,
    WorkerDied,
)
from fedproof.ledger.events import Phase
from fedproof.ledger.history import History
from fedproof.ledger.rounds import RoundRecord
from fedproof_node.batches import Batches
from fedproof_node.journal import Journal, Stage
from fedproof_node.membership import Membership
from fedproof_node.models import ModelShelf
from fedproof_node.trainer import Trainer
from fedproof_node.witness import Witness


class Attester:
    """Vouches for what this node has derived.

    Every method raises NetworkError or LedgerError for what has to be tried again.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        journal: Journal,
        models: ModelShelf,
        batches: Batches,
        witness: Witness,
        trainer: Trainer,
        log: FilteringBoundLogger,
    ) -> None:
        self._membership = membership
        self._journal = journal
        self._models = models
        self._batches = batches
        self._witness = witness
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
            self._witness.attest(record.number, model)

    def _vouch(self, record: RoundRecord, model: Digest) -> None:
        """Hand a signed attestation over, or say on the ledger that the result is another."""
        number = record.number
        if record.phase is not Phase.AGGREGATED:
            decided = record.result if record.proposal is None else record.proposal.model_digest
            if decided != model:
                self._witness.attest(number, model)
            return
        self._log.info("phase", round=number, phase="attesting")
        try:
            self._batches.send_attestation(record, model)
        except (PeerError, NetworkError) as error:
            if isinstance(error, NetworkError) and not self._batches.is_late(record):
                raise
            self._log.error("error", message=f"the signed attestation was not taken: {error}", round=number)
            self._witness.attest(number, model)
            return
        self._log.info("attested", round=number, gas=0)

    def _report(self, number: int, model: Digest) -> None:
        try:
            result = self._trainer.evaluate(self._models.load(model).flat)
        except (TaskFailed, WorkerDied) as error:
            self._log.error("error", message=f"round {number}: the new model could not be evaluated: {error}")
            return
        self._log.info("applied", round=number, model=model, accuracy=result.accuracy, loss=result.loss)


def _is_newest(record: RoundRecord, history: History) -> bool:
    return history.current_round is not None and history.current_round.number == record.number
