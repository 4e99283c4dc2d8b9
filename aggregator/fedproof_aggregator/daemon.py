"""The aggregator's loop: look at the ledger, take the step that it calls for, look again.

Nothing is remembered between steps but how long something has lasted. A crash anywhere is followed by the
same look at the same ledger; each transaction is one that the contract takes once.
"""

from __future__ import annotations

import sqlite3
import threading
import time

from structlog.typing import FilteringBoundLogger

from fedproof.errors import (
    ConfigurationError,
    FedproofError,
)
from fedproof.ledger.events import Phase
from fedproof.ledger.rounds import RoundRecord
from fedproof.policy import Policy
from fedproof_aggregator.chainclock import ChainClock
from fedproof_aggregator.config import AggregatorConfig
from fedproof_aggregator.opening import explain_waiting
from fedproof_aggregator.rounds import Parts, Rounds
from fedproof_aggregator.steps import (
    collect_models,
)

_LONGEST_PAUSE_S = 15.0


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
        self._rounds = Rounds(config, parts, clock=self._clock, logger=logger)
        self._finished_at = 0.0
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
                self._rounds.report_end(record)
            return self._open_next(record)
        return self._rounds.advance(record, now)

    def _open_next(self, last: RoundRecord | None) -> bool:
        number = 1 if last is None else last.number + 1
        if number > self._config.rounds:
            if not self._is_finished:
                self._is_finished, self._finished_at = True, time.monotonic()
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

    def _may_leave(self) -> bool:
        """Return whether nobody is left who may still fetch the last sum and attest, or has the time to."""
        record = self._parts.view.current_round()
        if record is None or record.phase is not Phase.FINALISED:
            return True
        attested = collect_models(record, self._parts.statements.find_attestations(record))
        if len(attested) == len(record.cohort):
            return True
        return time.monotonic() - self._finished_at >= self._config.finish_grace_s

    def _log_error(self, message: str) -> bool:
        """Log what kept a step from being taken; return that none was."""
        self._logger.error("error", message=message)
        return False
