"""The node's loop: look at the ledger, do the next thing, look again.

Nothing is kept between two looks but the journal and what is derived from the ledger, so a restart is a loop
that begins anew. One act a turn: whatever happens meanwhile on the ledger is seen before the next act.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from structlog.typing import FilteringBoundLogger

from fedproof.digests import Address, Digest
from fedproof.errors import (
    LedgerError,
    NetworkError,
    PeerError,
    PolicyMismatch,
    UpdateRefused,
)
from fedproof.ledger.events import Phase
from fedproof.ledger.history import History
from fedproof.ledger.rounds import RoundRecord
from fedproof_node.attestation import Attester
from fedproof_node.conclusion import Concluder, describe_divergence
from fedproof_node.contribution import Contributor
from fedproof_node.epoch import KeyRing, NoKeyForUs
from fedproof_node.journal import Journal, Stage
from fedproof_node.models import ModelShelf
from fedproof_node.progress import Step, next_step
from fedproof_node.watch import LedgerWatch
from fedproof_node.watchtower import Watchtower
from fedproof_node.witness import Witness

_LONGEST_PAUSE_S = 30.0
_MOST_DOUBLINGS = 16
_NOT_IN_COHORT = "this node was not admitted when the round was opened"

# What `resumed` and the phase after an act say, in the words of the log's readers.
_PHASES = {
    Stage.STARTED: "waiting",
    Stage.ENCRYPTED: "committing",
    Stage.COMMITTED: "uploading",
    Stage.UPLOADED: "awaiting_aggregate",
    Stage.SKIPPED: "awaiting_aggregate",
    Stage.REFUSED: "waiting",
    Stage.APPLIED: "attesting",
    Stage.ATTESTED: "attesting",
    Stage.FINISHED: "done",
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop drives.

    Attributes:
        genesis: the first model, which is never pruned.
        keep_models: how many rounds' models stay besides.
    """

    node: Address
    watch: LedgerWatch
    journal: Journal
    models: ModelShelf
    keys: KeyRing
    contributor: Contributor
    concluder: Concluder
    attester: Attester
    witness: Witness
    watchtower: Watchtower
    genesis: Digest
    keep_models: int
    log: FilteringBoundLogger


class Daemon:
    """The loop over turns. What ends a round for this node is logged, and the next round begins as if new.

    Attributes:
        watchtower: attends to what cannot wait, while `run` runs.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.watchtower = parts.watchtower
        self._journal = parts.journal
        self._log = parts.log
        self._first_unfinished = 1
        self._second_looks: set[tuple[int, int]] = set()
        self._acts: dict[Step, Callable[[RoundRecord, History], None]] = {
            Step.CONTRIBUTE: self._contribute,
            Step.COMMIT: self._skipping(parts.contributor.commit),
            Step.UPLOAD: self._upload,
            Step.MISS: self._miss,
            Step.CONCLUDE: self._conclude,
            Step.ATTEST: self._attest,
            Step.FINISH: self._finish,
        }

    def run(self, *, poll_interval_s: float, until_round: int | None) -> None:
        """Take turns until a round has ended, or for good.

        Args:
            poll_interval_s: pause after a turn in which there was nothing to do.
            until_round: the last round to take part in.
        """
        with self.watchtower.watching():
            self._run(poll_interval_s=poll_interval_s, until_round=until_round)

    def _run(self, *, poll_interval_s: float, until_round: int | None) -> None:
        for entry in self._journal.unfinished():
            self._log.info("resumed", round=entry.round, phase=_PHASES[entry.stage])
        self._log.info("waiting", reason="for the ledger's news")
        failures = 0
        while True:
            self.watchtower.check()
            try:
                has_acted = self.turn()
                failures = 0
            except (NetworkError, LedgerError, PeerError, OSError, sqlite3.OperationalError) as error:
                # The outside world failed, after its own retries, or the disk is full. What was journalled
                # stands.
                self._log.error("error", message=str(error))
                failures = min(failures + 1, _MOST_DOUBLINGS)
                time.sleep(min(_LONGEST_PAUSE_S, poll_interval_s * 2**failures))
                continue
            if until_round is not None and self._is_over(until_round):
                return
            if not has_acted:
                time.sleep(poll_interval_s)

    def turn(self) -> bool:
        """Look at the ledger and do at most one thing; return whether there was one.

        Raises:
            NetworkError, LedgerError: it has to be tried again.
        """
        history = self._parts.watch.refresh()
        if self._parts.keys.serve(history):
            return True
        for number in range(self._first_unfinished, len(history.rounds) + 1):
            record = history.rounds[number]
            stage = self._journal.entry(number).stage
            if stage is Stage.FINISHED and number == self._first_unfinished:
                self._first_unfinished += 1
            step = next_step(record.phase, stage)
            if step is not Step.WAIT and not (step is Step.CONCLUDE and self._must_wait(record, history)):
                self._acts[step](record, history)
                return True
        return False

    def _must_wait(self, record: RoundRecord, history: History) -> bool:
        """Return whether there is nothing to do with a sum until the block that the draw depends on."""
        concluder = self._parts.concluder
        return concluder.holds_sum(record) and not concluder.is_drawable(record, history)

    def _is_over(self, number: int) -> bool:
        record = self._parts.watch.history.rounds.get(number)
        stage = self._journal.entry(number).stage
        return record is not None and record.phase.is_over and stage in (Stage.FINISHED, Stage.REFUSED)

    # Acts. UpdateRefused ends this node's part in a round, PeerError what it would have derived from it.

    def _contribute(self, record: RoundRecord, history: History) -> None:
        if self._parts.node not in record.cohort:
            self._skip(record, _NOT_IN_COHORT)
            return
        if self._look_again(record, history):
            return
        try:
            self._parts.contributor.prepare(record, history)
        except UpdateRefused as error:
            self._skip(record, str(error))

    def _skipping(self, act: Callable[[RoundRecord], None]) -> Callable[[RoundRecord, History], None]:
        """Return an act that ends this node's part in the round where it is refused."""

        def act_or_skip(record: RoundRecord, _history: History) -> None:
            try:
                act(record)
            except UpdateRefused as error:
                self._skip(record, str(error))

        return act_or_skip

    def _upload(self, record: RoundRecord, _history: History) -> None:
        try:
            self._parts.contributor.upload(record)
        except UpdateRefused as error:
            self._skip(record, str(error))
        else:
            self._log.info("phase", round=record.number, phase="awaiting_aggregate")

    def _miss(self, record: RoundRecord, _history: History) -> None:
        if self._parts.node not in record.cohort:
            self._skip(record, _NOT_IN_COHORT, is_quiet=record.phase.is_over)
            return
        try:
            self._parts.contributor.settle_sealed(record)
        except (UpdateRefused, PeerError) as error:
            self._parts.witness.object_to(record, error)
            self._skip(record, str(error))

    def _conclude(self, record: RoundRecord, history: History) -> None:
        number = record.number
        if self._parts.node not in record.cohort and (
            self._holds_result(record) or not self._parts.models.holds(record.base_model)
        ):
            # Nothing to learn from it, or no way to: a model that was brought by hand takes its place.
            self._journal.advance(number, Stage.FINISHED, reason=_NOT_IN_COHORT)
            return
        try:
            if not self._parts.concluder.holds_sum(record):
                self._parts.concluder.fetch(record, history)
                return
            was_uploaded = self._journal.entry(number).stage is Stage.UPLOADED
            self._parts.concluder.conclude(record, history)
            if was_uploaded and self._parts.node in record.excluded:
                # The aggregator acknowledged every chunk, and only this node can know that.
                reason = record.excluded[self._parts.node]
                message = (
                    f"round {number}: the aggregator acknowledged this node's whole update, and sealed "
                    f"the round without it for reason {reason}; ask its operator why"
                )
                self._log.error("error", message=message, round=number)
        except NoKeyForUs as error:
            self._journal.advance(number, Stage.FINISHED, reason=str(error))
            self._log.info("waiting", reason=str(error))
        except (PeerError, PolicyMismatch, UpdateRefused) as error:
            self._parts.witness.object_to(record, error)
            self._refuse(record, str(error))

    def _attest(self, record: RoundRecord, history: History) -> None:
        try:
            self._parts.attester.attest(record, history)
        except PeerError as error:
            self._refuse(record, str(error))

    def _finish(self, record: RoundRecord, history: History) -> None:
        number = record.number
        entry = self._journal.entry(number)
        if record.phase is Phase.FINALISED and entry.model is not None and entry.model != record.result:
            self._refuse(record, describe_divergence(record, entry.model))
            return
        # A crash among these lines repeats them, to the same end.
        self._parts.contributor.clean(record, history)
        self._parts.concluder.clean(record)
        self._prune(record, history)
        self._journal.advance(number, Stage.FINISHED)
        self._log.info("phase", round=number, phase="done")

    def _skip(self, record: RoundRecord, reason: str, *, is_quiet: bool = False) -> None:
        self._journal.advance(record.number, Stage.SKIPPED, reason=reason)
        if not is_quiet:
            self._log.warning("round_skipped", round=record.number, reason=reason)

    def _refuse(self, record: RoundRecord, reason: str) -> None:
        # The spool stays: it is the evidence.
        self._journal.advance(record.number, Stage.REFUSED, reason=reason)
        self._log.error("error", message=reason, round=record.number)

    def _look_again(self, record: RoundRecord, history: History) -> bool:
        """Reopen the refused round that this one builds on, once; return whether there was one."""
        for number in range(record.number - 1, 0, -1):
            earlier = history.rounds[number]
            if earlier.phase is not Phase.FINALISED:
                continue
            if (number, record.number) in self._second_looks or earlier.result != record.base_model:
                return False
            if self._journal.entry(number).stage is not Stage.REFUSED or self._holds_result(earlier):
                return False
            self._second_looks.add((number, record.number))
            self._parts.concluder.clean(earlier)
            self._journal.advance(number, Stage.SKIPPED)
            return True
        return False

    def _holds_result(self, record: RoundRecord) -> bool:
        return record.result is not None and self._parts.models.holds(record.result)

    def _prune(self, record: RoundRecord, history: History) -> None:
        """Remove the models of rounds long before this one. Those after it are what a node catches up to."""
        rounds = history.rounds
        after = (rounds[number].result for number in range(record.number + 1, len(rounds) + 1))
        before = (rounds[number].result for number in range(record.number, 0, -1))
        latest = islice(filter(None, before), self._parts.keep_models)
        applied = (entry.model for entry in self._journal.unfinished())
        self._parts.models.prune({*latest, *filter(None, after), *filter(None, applied), self._parts.genesis})
