"""The aggregator's loop: look at the ledger, take the step that it calls for, look again.

Nothing is remembered between steps but how long something has lasted. A crash anywhere is followed by the
same look at the same ledger; each transaction is one that the contract takes once.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from fedproof.digests import checksum_address
from fedproof.errors import (
    ConfigurationError,
    FedproofError,
    PeerError,
    Reverted,
)
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import LEAF_TOO, ExclusionReason, FailureReason, OnChainPolicy, Phase
from fedproof.ledger.rounds import RoundRecord
from fedproof.policy import Policy
from fedproof.store import ObjectStore
from fedproof_aggregator.chainclock import ChainClock
from fedproof_aggregator.config import AggregatorConfig
from fedproof_aggregator.journal import Journal
from fedproof_aggregator.keyrelay import KeyRelay
from fedproof_aggregator.opening import explain_waiting
from fedproof_aggregator.statements import Statements
from fedproof_aggregator.steps import (
    Anchor,
    Fail,
    Finalise,
    Propose,
    Seal,
    choose_finalise,
    choose_seal,
    collect_models,
)
from fedproof_aggregator.summation import Summation
from fedproof_aggregator.terms import Terms, TermsShelf
from fedproof_aggregator.view import LedgerView

_LONGEST_PAUSE_S = 15.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with.

    Attributes:
        ledger: signs as the aggregator.
        view: what was read of it.
        store: chunks and headers.
        journal: how far uploads have come.
        shelf: the policies' terms.
        statements: what nodes have signed.
        key_relay: knows which epochs' keys are here.
        summation: adds up what comes.
    """

    ledger: Ledger
    view: LedgerView
    store: ObjectStore
    journal: Journal
    shelf: TermsShelf
    statements: Statements
    key_relay: KeyRelay
    summation: Summation


class Daemon:
    """Drives rounds until it is stopped, or the last one is over and it may exit."""

    def __init__(
        self, config: AggregatorConfig, policy: Policy, parts: Parts, *, logger: FilteringBoundLogger
    ) -> None:
        self._config = config
        self._policy = policy
        self._parts = parts
        self._logger = logger
        self._clock = ChainClock(parts.ledger, finality=config.chain.finality)
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._waiting_for = ""
        self._since: dict[str, float] = {}
        current = parts.view.current_round()
        self._reported = current.number if current is not None and current.phase.is_over else 0
        self._is_finished = False

    def stop(self) -> None:
        """Let the loop end after the step that it is taking; for signal handlers and other threads."""
        self._stopping.set()
        self._wake.set()

    def wake(self) -> None:
        """Let the loop look at once: something came that it may have waited for."""
        self._wake.set()

    def run(self) -> None:
        """Take steps until `stop`, or until the last round is over, where the configuration says so.

        Raises:
            PolicyMismatch: the ledger has adopted another policy than the configured one.
        """
        pause_s = self._config.poll_interval_s
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                is_moving = self.step()
                pause_s = self._config.poll_interval_s
            except ConfigurationError:
                raise
            except (FedproofError, OSError, sqlite3.OperationalError) as error:
                # A chain that is down, a step that somebody else took first, or a disk that is full: look
                # again, later and later.
                is_moving = self._log_error(
                    str(error) if isinstance(error, FedproofError) else f"disk: {error}"
                )
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            if self._is_finished and self._config.exit_when_finished and self._may_leave():
                return
            if not is_moving:
                self._wake.wait(pause_s)

    def step(self) -> bool:
        """Take the step that the ledger calls for now; return whether one was taken.

        Raises:
            FedproofError: it could not be taken.
        """
        # Before the view: every block up to that time is in the view then.
        now = self._clock.fetch_time()
        self._parts.view.refresh()
        record = self._parts.view.current_round()
        if record is None or record.phase.is_over:
            if record is not None:
                self._parts.summation.close(record.number)
            self._report_end(record)
            return self._open_next(record)
        policy = self._parts.view.round_policy(record)
        overdue_s = now - record.deadline
        try:
            terms = self._parts.shelf.find(policy.digest)
        except PeerError as error:
            return self._fail(
                record, Fail(FailureReason.ABANDONED, f"no document of the round's policy: {error}")
            )
        match record.phase:
            case Phase.OPEN:
                return self._seal(record, policy, terms, overdue_s)
            case Phase.SEALED:
                return self._aggregate(record, terms, overdue_s)
            case _:
                return self._finalise(record, policy, overdue_s)

    # Opening

    def _open_next(self, last: RoundRecord | None) -> bool:
        number = 1 if last is None else last.number + 1
        if number > self._config.rounds:
            if not self._is_finished:
                self._is_finished = True
                self._logger.info("finished", rounds=number - 1)
            return False
        reason = explain_waiting(
            self._parts.view, self._parts.key_relay, policy=self._policy, config=self._config
        )
        if reason is not None:
            if reason != self._waiting_for:
                self._waiting_for = reason
                self._logger.info("waiting", round=number, reason=reason)
            return False
        self._waiting_for = ""
        receipt = self._parts.ledger.open_round(number)
        self._logger.info("round_opened", round=number, gas=receipt.gas_used)
        return True

    # A round's phases

    def _seal(self, record: RoundRecord, policy: OnChainPolicy, terms: Terms, overdue_s: float) -> bool:
        statements = self._parts.statements
        try:
            commitments = statements.find_commitments(record)
        except PeerError as error:
            return self._fail(record, Fail(FailureReason.NO_AGGREGATE, str(error)))
        standings = {
            node: self._parts.journal.find_upload(record.number, node, root=commitment.update_root)
            for node, commitment in commitments.items()
        }
        step = choose_seal(
            record,
            commitments,
            standings,
            batched=[signed.node for signed in statements.find_batch(record)],
            policy=policy,
            max_contributors=terms.policy.codec.max_contributors,
            seconds_overdue=overdue_s,
            grace_s=self._config.seal_grace_s,
            anchor_margin_s=min(
                self._config.anchor_margin_s, (policy.commit_window - policy.attest_window) / 4
            ),
        )
        match step:
            case Anchor(nodes):
                root, count = statements.prepare_batch(record, nodes)
                # A crash before this line leaves leaves that no ledger names.
                receipt = self._parts.ledger.anchor_commitments(record.number, root, count)
                self._logger.info("anchored", round=record.number, count=count, gas=receipt.gas_used)
                return True
            case Seal(contributors, reasons):
                try:
                    receipt = self._parts.ledger.seal(record.number, reasons)
                except Reverted as error:
                    if error.name != "DeadlineNotReached":
                        raise
                    # Gas is estimated on the newest block, whose time the deadline has not passed yet.
                    return False
                self._logger.info(
                    "sealed",
                    round=record.number,
                    contributors=[checksum_address(node) for node in contributors],
                    excluded={
                        checksum_address(node): ExclusionReason(code % LEAF_TOO).name
                        for node, code in reasons.items()
                        if code % LEAF_TOO
                    },
                    gas=receipt.gas_used,
                )
                return True
            case Fail():
                return self._fail(record, step)
            case _:
                return False

    def _aggregate(self, record: RoundRecord, terms: Terms, overdue_s: float) -> bool:
        if overdue_s > 0:
            return self._fail(record, Fail(FailureReason.NO_AGGREGATE, "the deadline for the sum has passed"))
        started = time.monotonic()
        root = self._parts.journal.find_aggregate(record.number)
        if root is None:
            try:
                contributions = self._parts.statements.compute_contributions(record)
                root = self._parts.summation.finish(record, contributions, terms)
            except PeerError as error:
                return self._fail(record, Fail(FailureReason.NO_AGGREGATE, str(error)))
            # A crash before this line costs the time of the sum, which comes out the same.
            self._parts.journal.record_aggregate(record.number, root)
        receipt = self._parts.ledger.publish_aggregate(record.number, root)
        seconds = round(time.monotonic() - started, 3)
        self._logger.info("aggregated", round=record.number, gas=receipt.gas_used, seconds=seconds)
        return True

    def _finalise(self, record: RoundRecord, policy: OnChainPolicy, overdue_s: float) -> bool:
        statements = self._parts.statements
        signed = statements.find_attestations(record)
        has_quorum = len(collect_models(record, signed)) >= policy.attestation_quorum
        quorum_s = self._seconds_since(f"quorum {record.number}") if has_quorum else 0.0
        step = choose_finalise(
            record,
            signed,
            policy=policy,
            seconds_overdue=overdue_s,
            is_grace_over=quorum_s >= self._config.attest_grace_s,
            most_signatures=self._config.most_signatures,
        )
        match step:
            case Propose(model, attestations):
                root, count = statements.prepare_proposal(attestations)
                # A crash before this line leaves leaves that no ledger names.
                receipt = self._parts.ledger.propose_result(record.number, model, root, count)
                self._logger.info(
                    "proposed", round=record.number, model=model, count=count, gas=receipt.gas_used
                )
                return True
            case Finalise(model, attestations):
                signatures = {node: each.signature for node, each in attestations.items()}
                try:
                    receipt = self._parts.ledger.finalise(record.number, model, signatures)
                except Reverted as error:
                    if error.name != "DeadlineNotReached":
                        raise
                    return False  # as for the seal
                count = len(signatures) + len(record.attestations)
                if record.proposal is not None:
                    count = record.proposal.count
                self._report_finalised(record.number, model, count, gas=receipt.gas_used)
                return True
            case Fail():
                return self._fail(record, step)
            case _:
                return False

    def _fail(self, record: RoundRecord, step: Fail) -> bool:
        receipt = self._parts.ledger.fail(record.number, step.reason)
        self._reported = record.number
        self._logger.warning(
            "round_failed",
            round=record.number,
            reason=step.reason.name,
            message=step.message,
            gas=receipt.gas_used,
        )
        return True

    # Ends

    def _report_end(self, record: RoundRecord | None) -> None:
        """Log how a round ended that another account finalised, or failed after its deadline."""
        if record is None or record.number <= self._reported:
            return
        if record.result is not None:
            count = list(record.attestations.values()).count(record.result)
            self._report_finalised(record.number, record.result, count, gas=0)
        else:
            self._reported = record.number
            reason = _name_failure(record.failure)
            self._logger.warning("round_failed", round=record.number, reason=reason, gas=0)

    def _report_finalised(self, number: int, model: bytes, attestations: int, *, gas: int) -> None:
        self._reported = number
        self._logger.info("finalised", round=number, model=model, attestations=attestations, gas=gas)

    def _may_leave(self) -> bool:
        """Return whether nobody is left who may still fetch the last sum and attest, or has the time to."""
        record = self._parts.view.current_round()
        if record is None or record.phase is not Phase.FINALISED:
            return True
        if len(collect_models(record, self._parts.statements.find_attestations(record))) == len(
            record.cohort
        ):
            return True
        return self._seconds_since("finished") >= self._config.finish_grace_s

    def _log_error(self, message: str) -> bool:
        """Log what kept a step from being taken; return that none was."""
        self._logger.error("error", message=message)
        return False

    def _seconds_since(self, what: str) -> float:
        """Return how long ago this was asked first."""
        now = time.monotonic()
        return now - self._since.setdefault(what, now)


def _name_failure(code: int | None) -> str:
    try:
        return FailureReason(code or 0).name
    except ValueError:
        return f"code {code}"
