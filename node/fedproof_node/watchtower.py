"""What cannot wait in the newest round: claims, objections, attestations pressed home, overdue ends.

They have a deadline on the chain, and decide whether a batch can be believed. While the daemon trains or
transfers, the watchtower goes on looking, in a thread and over a connection of its own.

If the aggregator is malicious, then at most it fails a round. A leaf that is provably bad is objected to in
the look that finds it. Whatever else is served instead of the anchored and proposed leaves may be a fault
that passes, until half of the window is over. What is missing then is asked for once more, and objected to.
After the window nobody objects to what is missing: the result stood, and its leaves may well be gone. What
was found sound is in the journal, so a restart takes nothing back.

Of a node that runs all the while, the last objection goes out when at most 23/32 of the window are over: half
of it, three answers that are dragged out for a sixteenth each, and the pause between two looks. The first of
the three was asked for just before half of the window was over; the second proves the batch sound, at the
last moment; the third one is the last that the proposal gets. What is left is for the ledger: for blocks to
come, and the transaction.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from structlog.typing import FilteringBoundLogger

from fedproof.digests import Address, Digest
from fedproof.errors import BadLeaf, LedgerError, NetworkError, PeerError, UpdateRefused
from fedproof.ledger.events import Phase, Subject
from fedproof.ledger.rounds import RoundRecord
from fedproof.policy import RoundPolicy
from fedproof_node.batches import Batches
from fedproof_node.commitment import Committer
from fedproof_node.journal import Journal, Stage
from fedproof_node.patience import LONGEST_PAUSE_S, Patience
from fedproof_node.watch import LedgerWatch
from fedproof_node.witness import Witness

# Looks within an attestation window, and how much of it one answer of the aggregator may take.
_LOOKS: Final = 32
_SHARE: Final = 1 / 16
_END_WAIT_S: Final = 5.0
# The outside world failed, or the disk is full: the next look tries again.
_PASSING: Final = (NetworkError, LedgerError, PeerError, OSError, sqlite3.OperationalError)


def make_patience(attest_window_s: int) -> Patience:
    """Return how long a watchtower waits for the aggregator: for one short answer.

    No round must fail because the aggregator was away a moment ago, and the connection has not noticed that
    it is back.
    """
    call_s = attest_window_s * _SHARE
    longest_pause_s = min(LONGEST_PAUSE_S, call_s / 2)
    return Patience(attempts=1, longest_pause_s=longest_pause_s, call_s=call_s, awaits_connection=True)


class Watchtower:
    """Attends to the newest round, as far as it has its time; notes in the journal what leaves were sound.

    Attributes:
        pause_s: between two looks, whatever came of the first.
    """

    def __init__(
        self,
        *,
        node: Address,
        rounds: RoundPolicy,
        watch: LedgerWatch,
        journal: Journal,
        committer: Committer,
        batches: Batches,
        witness: Witness,
        hang_up: Callable[[], None],
        log: FilteringBoundLogger,
    ) -> None:
        """Put it together; nothing is asked yet.

        Args:
            node: this node's address.
            rounds: the policy's windows.
            watch: the ledger, shared with the daemon.
            journal: the daemon's.
            committer: asks the aggregator through `batches`.
            batches: over a connection with little patience, see `make_patience`.
            witness: sends what this node objects to.
            hang_up: ends that connection, and what still waits for an answer.
            log: where to say what was done.
        """
        self.pause_s = rounds.attest_window_s / _LOOKS
        self._node = node
        self._overdue_s = rounds.aggregate_window_s
        self._watch = watch
        self._journal = journal
        self._committer = committer
        self._batches = batches
        self._witness = witness
        self._hang_up = hang_up
        self._log = log
        # Roots whose leaves were asked for in vain, and roots over a bad leaf.
        self._missed: set[tuple[int, Subject, Digest]] = set()
        self._bad: set[tuple[int, Subject, Digest]] = set()
        # Rounds in which a claim was refused.
        self._unclaimable: set[int] = set()
        self._failure: BaseException | None = None
        self._over = threading.Event()
        # What asks the aggregator comes last: by then the record is older by as long as that took.
        self._acts: dict[Phase, tuple[Callable[[RoundRecord], bool], ...]] = {
            Phase.OPEN: (self._end, self._claim),
            Phase.SEALED: (self._end, self._examine_batch),
            Phase.AGGREGATED: (witness.insist, self._end, self._press, self._examine_batch),
            Phase.PROPOSED: (witness.insist, self._end, self._examine_proposal, self._examine_batch),
        }

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Attend in a thread until the block ends, once; the connection to the aggregator ends with it."""
        thread = threading.Thread(target=self._run, name="watchtower", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._hang_up()
            thread.join(_END_WAIT_S)

    def check(self) -> None:
        """Return if the thread has not ended by a defect, which is raised here otherwise."""
        if self._failure is not None:
            raise self._failure

    def attend(self) -> bool:
        """Look at the ledger and do what cannot wait; return whether there was something.

        What cannot be done keeps nothing else from being done in the same look.

        Raises:
            NetworkError, LedgerError: something has to be tried again.
        """
        record = self._watch.refresh().current_round
        if record is None or self._node not in record.cohort:
            return False
        has_acted, failures = False, []
        for act in self._acts.get(record.phase, ()):
            try:
                has_acted = act(record) or has_acted
            except _PASSING as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return has_acted

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                try:
                    self.attend()
                except _PASSING as error:
                    if not self._over.is_set():
                        self._log.error("error", message=str(error))
                self._over.wait(self.pause_s)
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
        if proposal is None:
            return False
        model = self._journal.entry(record.number).model
        if model is not None and model != proposal.model_digest:
            self._witness.attest(record.number, model)
            return True
        return self._examine(record, Subject.ATTESTATION, proposal.root)

    def _examine_batch(self, record: RoundRecord) -> bool:
        """Object to anchored commitments that nobody signed so."""
        return record.batch is not None and self._examine(record, Subject.COMMITMENT, record.batch.root)

    def _examine(self, record: RoundRecord, subject: Subject, root: Digest) -> bool:
        """Dispute leaves that are bad, or withheld for too long, in each look until the round is over.

        Only then does the history show that the dispute was heard: an endpoint's receipt does not.
        """
        key = record.number, subject, root
        if self._journal.is_sound(*key):
            return False
        # Before a result is proposed, nothing depends on them yet. One failure is no more than a hint.
        is_last = record.phase is Phase.PROPOSED and key in self._missed and self._batches.is_late(record)
        try:
            if subject is Subject.ATTESTATION:
                self._batches.verify_proposal(record)
            else:
                self._batches.find_contributions(record)
        except BadLeaf as error:
            self._bad.add(key)
            self._witness.dispute(record, subject, error.index, reason=str(error))
            return True
        except NetworkError as error:
            self._missed.add(key)
            # An answer that our own end cut off says nothing about the aggregator.
            if not is_last or self._over.is_set():
                raise
            if self._watch.ledger.latest_block().timestamp > record.deadline:
                raise
            self._witness.dispute(record, subject, 0, reason=f"the leaves are withheld: {error}")
            return True
        except PeerError:
            # No leaf is wrong, but the seal: the daemon refuses the sum, and the audit finds it.
            pass
        self._journal.note_sound(*key)
        return True

    def _end(self, record: RoundRecord) -> bool:
        """End a round that is overdue for everybody, so that it does not wait for an aggregator that is gone.

        A result that stood for its window is made the head by a node that derived the same, or found its
        leaves sound, and has nothing against it. A node that can say neither lets all others end it first.
        """
        number, proposal = record.number, record.proposal
        entry = self._journal.entry(number)
        keys = [
            (number, subject, bound.root)
            for subject, bound in ((Subject.ATTESTATION, proposal), (Subject.COMMITMENT, record.batch))
            if bound is not None
        ]
        is_opposed = (
            proposal is None
            or entry.stage is Stage.REFUSED
            or entry.model not in (None, proposal.model_digest)
            or not self._bad.isdisjoint(keys)
        )
        can_say = is_opposed or entry.model is not None or all(self._journal.is_sound(*key) for key in keys)
        # One node after the other: the first one's transaction spares the others theirs.
        turn = 1 + sorted(record.cohort).index(self._node) + (0 if can_say else len(record.cohort))
        time_now = self._watch.ledger.final_block(self._watch.finality).timestamp
        if time_now <= record.deadline + self._overdue_s + turn * self.pause_s:
            return False
        if proposal is None or is_opposed or not can_say:
            self._witness.fail(record)
        else:
            self._witness.finalise(record, proposal.model_digest)
        return True
