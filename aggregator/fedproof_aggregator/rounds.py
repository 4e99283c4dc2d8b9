"""The transactions that take a round from one phase to the next.

Nothing is remembered between steps but how long something has lasted: each step is chosen from the ledger and
the journal, and each transaction is one that the contract takes once.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Final

from structlog.typing import FilteringBoundLogger

from fedproof.digests import Address, checksum_address
from fedproof.errors import PeerError, Reverted
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import LEAF_TOO, ExclusionReason, FailureReason, OnChainPolicy, Phase
from fedproof.ledger.rounds import RoundRecord
from fedproof.store import ObjectStore
from fedproof_aggregator.chainclock import ChainClock
from fedproof_aggregator.config import AggregatorConfig
from fedproof_aggregator.journal import Journal
from fedproof_aggregator.keyrelay import KeyRelay
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
    find_favourite,
)
from fedproof_aggregator.summation import Summation
from fedproof_aggregator.terms import Terms, TermsShelf
from fedproof_aggregator.view import LedgerView

# What a finalisation may be refused with for its signatures: the contract says so, or nothing at all.
_SIGNATURE_REFUSALS: Final = ("InvalidSignature", "Revert", "Panic")
_MOST_REFUSALS: Final = 3  # each may have been mined, and paid for


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


class Rounds:
    """Takes rounds from their opening to their end."""

    def __init__(
        self, config: AggregatorConfig, parts: Parts, *, clock: ChainClock, logger: FilteringBoundLogger
    ) -> None:
        self._config = config
        self._parts = parts
        self._clock = clock
        self._logger = logger
        self._since: dict[str, float] = {}
        self._unusable: set[tuple[int, Address]] = set()
        self._refusals: Counter[int] = Counter()
        current = parts.view.current_round()
        self._reported = current.number if current is not None and current.phase.is_over else 0

    def advance(self, record: RoundRecord, now: float) -> bool:
        """Take the step that a round under way needs at a time of the chain; return whether one was taken.

        Raises:
            FedproofError: it could not be taken.
        """
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
        anchor_spare_s = 0.0
        if policy.batching and record.batch is None:
            # The contract goes by the next block's time, whichever blocks count for us.
            anchor_spare_s = record.deadline - policy.attest_window - self._clock.fetch_newest_time()
        step = choose_seal(
            record,
            commitments,
            standings,
            batched=[signed.node for signed in statements.find_batch(record)],
            policy=policy,
            max_contributors=terms.policy.codec.max_contributors,
            seconds_overdue=overdue_s,
            grace_s=self._config.seal_grace_s,
            anchor_spare_s=anchor_spare_s,
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
        signed = {
            node: each
            for node, each in statements.find_attestations(record).items()
            if (record.number, node) not in self._unusable
        }
        _, count = find_favourite(collect_models(record, signed))
        has_quorum = count >= policy.attestation_quorum
        quorum_s = self._seconds_since(f"quorum {record.number}") if has_quorum else 0.0
        choose = partial(
            choose_finalise,
            record,
            signed,
            policy=policy,
            seconds_overdue=overdue_s,
            is_grace_over=quorum_s >= self._config.attest_grace_s,
            most_signatures=self._config.most_signatures,
        )
        step = choose()
        if isinstance(step, Propose):
            step = choose(contracts=statements.find_contracts(record, step.model, step.attestations))
        if isinstance(step, Propose | Finalise):
            others = {
                checksum_address(node): it.hex() for node, (it, _) in signed.items() if it != step.model
            }
            if others:  # the journal keeps their signatures
                self._logger.warning("attestations_differ", round=record.number, nodes=others)
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
                    if error.name == "DeadlineNotReached":
                        return False  # as for the seal
                    if error.name not in _SIGNATURE_REFUSALS:
                        raise  # the ledger has gone on
                    return self._leave_out(record, step, error)
                count = len(signatures) + len(record.attestations)
                if record.proposal is not None:
                    count = record.proposal.count
                self._report_finalised(record.number, model, count, gas=receipt.gas_used)
                return True
            case Fail():
                return self._fail(record, step)
            case _:
                return False

    def _leave_out(self, record: RoundRecord, step: Finalise, error: Reverted) -> bool:
        """Go on without signatures that the contract does not take, a bounded number of times.

        A node that is a contract (EIP-1271) may have changed its mind. It may also say yes when it is asked,
        and no when the transaction is mined and paid for: then nobody can tell which one it was.

        Raises:
            Reverted: no contract signed, and no signature is named: it was refused for something else.
        """
        nodes = self._parts.statements.find_contracts(record, step.model, step.attestations)
        if error.name == "InvalidSignature" and not self._refusals[record.number]:
            nodes = {Address(bytes(error.arguments["node"]))}  # type: ignore[call-overload]
        elif error.name != "InvalidSignature" and not nodes:
            raise error
        self._refusals[record.number] += 1
        if self._refusals[record.number] == _MOST_REFUSALS:
            message = f"expected the contract to take the result, it refused {_MOST_REFUSALS} times: {error}"
            return self._fail(record, Fail(FailureReason.ABANDONED, message))
        self._unusable.update((record.number, node) for node in nodes)
        names = [checksum_address(node) for node in sorted(nodes)]
        self._logger.warning("signatures_left_out", round=record.number, nodes=names, message=str(error))
        return False  # what the next one is refused for may pass meanwhile

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

    def report_end(self, record: RoundRecord) -> None:
        """Log how a round ended that this aggregator did not end itself."""
        if record.number <= self._reported:
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

    def _seconds_since(self, what: str) -> float:
        """Return how long ago this was asked first."""
        now = time.monotonic()
        return now - self._since.setdefault(what, now)


def _name_failure(code: int | None) -> str:
    try:
        return FailureReason(code or 0).name
    except ValueError:
        return f"code {code}"
