"""The ledger as far as this node has read it."""

from __future__ import annotations

from fedproof.errors import HistoryBroken
from fedproof.ledger.client import Ledger
from fedproof.ledger.history import History


class LedgerWatch:
    """The history as far as it was read, and read on at each look."""

    def __init__(self, ledger: Ledger, *, from_block: int) -> None:
        self._ledger = ledger
        self._from_block = from_block
        self.history = History(from_block=from_block)

    def refresh(self) -> History:
        """Return the history up to the newest block.

        Raises:
            LedgerError: the endpoint does not answer, or its events do not add up even when read afresh.
        """
        try:
            self._ledger.catch_up(self.history)
        except HistoryBroken:
            # The chain may have dropped blocks that were replayed: from the start, it has to add up.
            self.history = History(from_block=self._from_block)
            self._ledger.catch_up(self.history)
        return self.history
