"""The chain's time, by which deadlines are kept."""

from __future__ import annotations

import time
from collections.abc import Callable

from fedproof.ledger.client import Ledger
from fedproof.ledger.finality import Finality
from fedproof.ledger.reader import BlockRef

# Blocks carry whole seconds, and one may reach us late; a commitment that was in time must not be overlooked.
_MARGIN_S = 2.0


class ChainClock:
    """Tells the time of the newest block, or of the newest that counts.

    The former goes on by itself while no block comes. Some chains make a block only when somebody sends a
    transaction; there, once everybody has let a deadline pass, no block would ever say so.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        finality: Finality = "latest",
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._finality = finality
        self._wall = wall
        self._monotonic = monotonic
        self._newest: BlockRef | None = None
        self._seen_at = 0.0

    def fetch_time(self) -> float:
        """Return a Unix time that the next block which counts will not be older than.

        Raises:
            LedgerUnreachable: the endpoint does not answer.
        """
        if self._finality not in ("latest", 0):
            # Newer blocks are there, and do not count yet: time must not run ahead of what was read.
            return float(self._ledger.final_block(self._finality).timestamp)
        return self.fetch_newest_time()

    def fetch_newest_time(self) -> float:
        """Return a Unix time that the next block will not be older than: the contract goes by that block's.

        Raises:
            LedgerUnreachable: the endpoint does not answer.
        """
        block = self._ledger.latest_block()
        if self._newest is None or block.hash != self._newest.hash:
            self._newest = block
            self._seen_at = self._monotonic()
        # Neither clock alone would do: a chain may run ahead of ours, or far behind.
        elapsed = block.timestamp + self._monotonic() - self._seen_at
        return max(float(block.timestamp), min(elapsed, self._wall()) - _MARGIN_S)
