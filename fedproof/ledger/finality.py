"""Which blocks count, and the history up to them, also when the chain changes its mind."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple

import structlog
from eth_typing import BlockNumber
from structlog.typing import FilteringBoundLogger
from web3.types import BlockIdentifier

from fedproof.errors import HistoryBroken
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.history import History

if TYPE_CHECKING:
    from fedproof.ledger.client import Ledger
    from fedproof.ledger.reader import BlockRef

Finality = Literal["latest", "finalized"] | int
"""Blocks count once they are there, once the chain calls them final, or once so many others follow."""

# They share most of what they hold.
MOST_STANDS = 32
_MOST_FAILURES = 3


def find_final_tag(endpoint: Endpoint, finality: Finality) -> BlockIdentifier:
    """Return the newest block that counts, by a name or number that every request takes."""
    tag: Literal["latest", "finalized"] = "finalized" if finality == "finalized" else "latest"
    depth = finality if isinstance(finality, int) else 0
    if depth == 0 and endpoint.members == 1:
        return tag
    return BlockNumber(max(0, endpoint.height(tag) - depth))


def find_final_number(endpoint: Endpoint, finality: Finality) -> int:
    """Return the newest block's number that counts."""
    if isinstance(finality, int):
        return endpoint.height() - finality
    return endpoint.height(finality)


class Stand(NamedTuple):
    """A block, and the history up to it."""

    block: BlockRef
    history: History


class Follower:
    """The history up to the newest block that counts, for all threads.

    What it returns is never changed, only replaced, so that nobody who reads it waits for the network.

    Attributes:
        history: as of the last look.
        ledger: the connection that is read.
        finality: which blocks count.
    """

    def __init__(self, ledger: Ledger, *, from_block: int = 0, finality: Finality = "latest") -> None:
        """Begin before any event; nothing is asked yet.

        Args:
            ledger: the connection to read.
            from_block: no event of the contract is older.
            finality: which blocks count.
        """
        self.history = History(from_block=from_block)
        self.ledger = ledger
        self._from_block = from_block
        self.finality = finality
        self._looking = threading.Lock()
        # Where an earlier look ended, newest last: a reorganisation goes back to one of them.
        self._stands: deque[Stand] = deque(maxlen=MOST_STANDS)
        self._log: FilteringBoundLogger = structlog.get_logger()

    def refresh(self) -> History:
        """Return the history up to the newest block that counts, after a look at the chain.

        Raises:
            LedgerError: the endpoint does not answer.
            HistoryBroken: the events, read afresh, do not add up to the contract's running hash.
        """
        with self._looking:
            failures = 0
            while True:
                target = self.ledger.final_block(self.finality)
                try:
                    self._follow(target)
                    break
                except HistoryBroken as error:
                    # Another endpoint may tell the truth.
                    if self.ledger.distrust(str(error)):
                        continue
                    # The chain may have changed just now. At last, it has to add up from the start.
                    failures += 1
                    if failures == _MOST_FAILURES:
                        raise
                    if failures == _MOST_FAILURES - 1:
                        self._stands.clear()
            self.ledger.tend(target.number)
            return self.history

    def _follow(self, target: BlockRef) -> None:
        # A lower one is an endpoint that lags.
        if self._stands and target.number < self._stands[-1].block.number:
            return
        self._rewind(target)
        base = self._stands[-1].history if self._stands else History(from_block=self._from_block)
        if target.number >= base.next_block:
            history = base.copy()
            self.ledger.catch_up(history, to_block=target.number, block_hash=target.hash)
            if self._stands and history.event_count == base.event_count:
                self._stands.pop()
            self._stands.append(Stand(target, history))
            base = history
        self.history = base

    def _rewind(self, target: BlockRef) -> None:
        """Forget the stands that the chain of this block does not hold."""
        dropped = None
        while self._stands and not self._holds(target, self._stands[-1].block):
            dropped = self._stands.pop().block
        if dropped is not None:
            back_to = self._stands[-1].block.number if self._stands else None
            self._log.warning("chain_reorganised", read_up_to=dropped.number, back_to=back_to)

    def _holds(self, target: BlockRef, block: BlockRef) -> bool:
        if block.number == target.number:
            return block.hash == target.hash
        if block.number == target.number - 1:
            return block.hash == target.parent_hash
        return self.ledger.block(block.number).hash == block.hash
