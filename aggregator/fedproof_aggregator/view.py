"""What the aggregator has read of the ledger: events, replayed and checked against the running hash."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from fedproof.digests import Address, Digest
from fedproof.errors import LedgerError, MissingObject
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import OnChainPolicy
from fedproof.ledger.finality import Finality, Follower
from fedproof.ledger.history import EpochRecord, History
from fedproof.ledger.rounds import RoundRecord
from fedproof_aggregator.refusal import not_found

# Between two looks at the chain that peers cause. An answer that needs one comes so much later at most.
_PEERS_LOOK_S: Final = 0.05


class LedgerView:
    """The newest state that was read, for all threads; `refresh` reads what came since.

    If peers are malicious, then at most they have the chain looked at 20 times a second, all together.

    Every record that it returns is immutable: it is the state as of the last refresh, whatever happens after.

    Attributes:
        chain_id: the chain's EIP-155 number.
        contract: the federation's contract.
    """

    def __init__(self, ledger: Ledger, *, first_block: int = 0, finality: Finality = "latest") -> None:
        """Read the ledger for the first time.

        Args:
            ledger: the connection to read.
            first_block: no event of the contract is older.
            finality: which blocks count.

        Raises:
            LedgerError: as `refresh`.
        """
        self.chain_id = ledger.chain_id
        self.contract = ledger.contract
        self._follower = Follower(ledger, from_block=first_block, finality=finality)
        self._looking = threading.Lock()
        self._looks = 0
        self._failure: LedgerError | None = None
        self._peers = threading.Lock()
        self._next_look_at = time.monotonic()
        self.refresh()

    def refresh(self) -> None:
        """Read up to the newest block that counts. Who asks while others wait for the same shares their look.

        Raises:
            LedgerUnreachable: the endpoint does not answer.
            HistoryBroken: the events, read afresh, do not add up to the contract's running hash.
        """
        self._look(self._looks)

    def refresh_for_peer(self) -> None:
        """Read as `refresh`, for a request that what was read does not back; waits where many cause that.

        Raises:
            LedgerError: as `refresh`.
        """
        before = self._looks
        with self._peers:
            if self._looks == before:
                now = time.monotonic()
                time.sleep(max(0.0, self._next_look_at - now))
                self._next_look_at = max(self._next_look_at, now) + _PEERS_LOOK_S
            self._look(before)

    def _look(self, before: int) -> None:
        """Look at the chain, unless a look has begun and ended since there were so many."""
        with self._looking:
            if self._looks == before:
                self._looks += 1
                self._failure = None
                try:
                    self._follower.refresh()
                except LedgerError as error:
                    self._failure = error
                    raise
            elif self._failure is not None:
                raise self._failure

    @property
    def _history(self) -> History:
        return self._follower.history

    def current_round(self) -> RoundRecord | None:
        """Return the newest round, if there is one."""
        return self._history.current_round

    def find_round(self, number: int) -> RoundRecord | None:
        """Return a round, if it has been opened."""
        return self._history.rounds.get(number)

    def ended_rounds(self) -> Iterator[RoundRecord]:
        """Yield the rounds that are over, ascending."""
        return (record for record in self._history.rounds.values() if record.phase.is_over)

    def fetch_round(self, number: int, is_ready: Callable[[RoundRecord], bool]) -> RoundRecord:
        """Return a round for a peer, after another look at the ledger if it does not look ready.

        Raises:
            Refused: it has not been opened.
            LedgerError: as `refresh`.
        """
        record = self.find_round(number)
        # One that is over stays as it is.
        if record is None or not (is_ready(record) or record.phase.is_over):
            self.refresh_for_peer()
            record = self.find_round(number)
        if record is None:
            raise not_found(f"round {number}: not on the ledger")
        return record

    def find_epoch(self, number: int) -> EpochRecord | None:
        """Return an epoch, if it has been published."""
        return self._history.epochs.get(number)

    def current_epoch(self) -> EpochRecord | None:
        """Return the newest epoch, if there is one."""
        return self._history.current_epoch

    def key_maker(self) -> Address | None:
        """Return who has been asked for the next epoch and has not published it, if anyone."""
        return self._history.key_maker

    def is_wrapping_key(self, digest: Digest) -> bool:
        """Return whether a member has registered the public key of that digest."""
        members = self._history.members.values()
        return any(member.wrapping_key_digest == digest for member in members)

    def admitted(self) -> tuple[Address, ...]:
        """Return the admitted nodes, ascending."""
        return self._history.admitted

    def is_epoch_stale(self) -> bool:
        """Return whether the membership has changed since the newest epoch's key was wrapped."""
        return self._history.is_epoch_stale

    def policy(self) -> OnChainPolicy | None:
        """Return the policy that the next round will follow, if one was adopted."""
        policies = self._history.policies
        return policies.get(len(policies))

    def round_policy(self, record: RoundRecord) -> OnChainPolicy:
        """Return the policy that a round follows.

        Raises:
            MissingObject: the history holds no such version.
        """
        policy = self._history.policies.get(record.policy_version)
        if policy is None:
            raise MissingObject(f"round {record.number}: expected policy version {record.policy_version}")
        return policy
