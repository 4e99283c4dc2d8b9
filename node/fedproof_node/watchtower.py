"""What cannot wait in the newest round: claims, objections, and attestations that are pressed home.

They have a deadline on the chain, and decide whether a batch can be believed. While the daemon trains or
transfers, the watchtower goes on looking, in a thread and over a connection of its own.

If the aggregator is malicious, then at most it fails a round: however slowly it answers, what it anchors and
proposes without proof is objected to within half of the window that there is.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from structlog.typing import FilteringBoundLogger

from fedproof.digests import Address, Digest
from fedproof.errors import BadLeaf, LedgerError, NetworkError, PeerError, UpdateRefused
from fedproof.ledger.events import Phase, Subject
from fedproof.ledger.rounds import RoundRecord
from fedproof_node.batches import Batches
from fedproof_node.commitment import Committer
from fedproof_node.journal import Journal, Stage
from fedproof_node.patience import Patience
from fedproof_node.watch import LedgerWatch
from fedproof_node.witness import Witness

# Looks within an attestation window, and how much of it one answer of the aggregator may take.
_LOOKS: Final = 32
_SHARE: Final = 1 / 8
_END_WAIT_S: Final = 5.0


def make_patience(attest_window_s: int) -> Patience:
    """Return how long a watchtower waits for the aggregator: for one short answer."""
    return Patience(attempts=1, call_s=attest_window_s * _SHARE)


class Watchtower:
    """Attends to the newest round, as far as it has its time; reads the journal, and never writes it."""

    def __init__(
        self,
        *,
        node: Address,
        attest_window_s: int,
        watch: LedgerWatch,
        journal: Journal,
        committer: Committer,
        batches: Batches,
        witness: Witness,
        log: FilteringBoundLogger,
    ) -> None:
        """Put it together; nothing is asked yet.

        Args:
            node: this node's address.
            attest_window_s: of the policy.
            watch: the ledger, shared with the daemon.
            journal: the daemon's.
            committer: asks the aggregator through `batches`.
            batches: over a connection with little patience, see `make_patience`.
            witness: sends what this node objects to.
            log: where to say what was done.
        """
        self._node = node
        self._window_s = attest_window_s
        self._watch = watch
        self._journal = journal
        self._committer = committer
        self._batches = batches
        self._witness = witness
        self._log = log
        # What needs no second look: roots by round, and rounds in which a claim was refused.
        self._examined: set[tuple[int, Digest]] = set()
        self._unclaimable: set[int] = set()
        self._failure: BaseException | None = None

    @contextmanager
    def watching(self, *, poll_interval_s: float) -> Iterator[None]:
        """Attend in a thread until the block ends."""
        over = threading.Event()
        thread = threading.Thread(
            target=self._run, args=(over, poll_interval_s), name="watchtower", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(_END_WAIT_S)

    def check(self) -> None:
        """Return if the thread has not ended by a defect, which is raised here otherwise."""
        if self._failure is not None:
            raise self._failure

    def attend(self) -> bool:
        """Look at the ledger and do what cannot wait; return whether there was something.

        Raises:
            NetworkError, LedgerError: it has to be tried again.
        """
        record = self._watch.refresh().current_round
        if record is None or self._node not in record.cohort:
            return False
        match record.phase:
            case Phase.OPEN:
                return self._claim(record)
            case Phase.SEALED:
                return self._examine_batch(record)
            case Phase.AGGREGATED:
                return self._press(record) or self._examine_batch(record)
            case Phase.PROPOSED:
                return self._examine_proposal(record) or self._examine_batch(record)
        return False

    def _run(self, over: threading.Event, poll_interval_s: float) -> None:
        pause_s = shortest_s = max(poll_interval_s, self._window_s / _LOOKS)
        try:
            while not over.is_set():
                try:
                    self.attend()
                    pause_s = shortest_s
                except (NetworkError, LedgerError, PeerError, OSError, sqlite3.OperationalError) as error:
                    if not over.is_set():
                        self._log.error("error", message=str(error))
                    pause_s = max(shortest_s, min(2 * pause_s, self._window_s * _SHARE))
                over.wait(pause_s)
        except BaseException as error:  # noqa: BLE001 (raised by `check`)
            self._failure = error

    def _claim(self, record: RoundRecord) -> bool:
        """Commit by a transaction what the aggregator left out of its batch, or never took."""
        number = record.number
        entry = self._journal.entry(number)
        match entry.stage:
            case Stage.COMMITTED | Stage.UPLOADED:
                is_due = True
            case Stage.ENCRYPTED:
                # The daemon is about to, unless the aggregator keeps it waiting.
                is_due = self._batches.is_late(record)
            case _:
                is_due = False
        if not is_due or number in self._unclaimable or not self._committer.must_claim(record):
            return False
        assert entry.update_root is not None, "set from ENCRYPTED on"
        self._log.warning(
            "left_out", round=number, message="the batch leaves this node out: it commits itself"
        )
        try:
            self._committer.send(record, entry.update_root, examples=entry.examples)
        except UpdateRefused as error:
            self._unclaimable.add(number)
            self._log.error("error", message=f"round {number}: not claimed: {error}", round=number)
        return True

    def _press(self, record: RoundRecord) -> bool:
        """Attest by a transaction what the aggregator has not made use of for half of the time there is."""
        entry = self._journal.entry(record.number)
        if entry.stage not in (Stage.APPLIED, Stage.ATTESTED) or entry.model is None:
            return False
        if not self._batches.is_late(record) or self._witness.has_attested(record):
            return False
        self._witness.attest(record.number, entry.model)
        return True

    def _examine_proposal(self, record: RoundRecord) -> bool:
        """Object to a proposed result that is another than this node's, or rests on no signatures."""
        proposal = record.proposal
        if proposal is None or (record.number, proposal.root) in self._examined:
            return False
        model = self._journal.entry(record.number).model
        if model is not None and model != proposal.model_digest:
            is_settled = self._witness.attest(record.number, model)
        else:
            is_settled = self._object_to_leaves(record, Subject.ATTESTATION)
        # What was refused is to be said again while the result is proposed.
        if is_settled:
            self._examined.add((record.number, proposal.root))
        return True

    def _examine_batch(self, record: RoundRecord) -> bool:
        """Object to anchored commitments that nobody signed so."""
        batch = record.batch
        if batch is None or (record.number, batch.root) in self._examined:
            return False
        if self._object_to_leaves(record, Subject.COMMITMENT):
            self._examined.add((record.number, batch.root))
        return True

    def _object_to_leaves(self, record: RoundRecord, subject: Subject) -> bool:
        """Dispute leaves that are bad or withheld; return whether that is settled."""
        try:
            if subject is Subject.ATTESTATION:
                self._batches.verify_proposal(record)
            else:
                self._batches.find_contributions(record)
        except BadLeaf as error:
            return self._witness.dispute(record, subject, error.index, reason=str(error))
        except (NetworkError, LedgerError) as error:
            # Before a result is proposed, nothing depends on them yet.
            if record.phase is not Phase.PROPOSED or not self._batches.is_late(record):
                raise
            return self._witness.dispute(record, subject, 0, reason=f"the leaves are withheld: {error}")
        except PeerError:
            # No leaf is wrong, but the seal: the daemon refuses the sum, and the audit finds it.
            return True
        return True
