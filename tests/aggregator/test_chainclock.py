"""The chain's time: between blocks, beside our clock, and where blocks count only once others follow."""

from __future__ import annotations

from fedproof_aggregator.chainclock import ChainClock

from fedproof.ledger.reader import BlockRef
from tests.chain import Federation, MemoryChain, make_digest


def test_time_does_not_run_ahead_of_what_counts() -> None:
    """A commitment in time, in a block that does not count yet, is never taken for a missing one."""
    federation = Federation(MemoryChain())
    federation.admit_all()
    clock = ChainClock(federation.admin, finality=2)
    head = federation.admin.block_number()
    assert clock.fetch_time() == federation.admin.block(head - 2).timestamp
    assert clock.fetch_newest_time() >= federation.admin.block(head).timestamp
    federation.chain.mine()
    assert clock.fetch_time() == federation.admin.block(head - 1).timestamp


class FakeChain:
    """A chain whose newest block a test can set."""

    def __init__(self, timestamp: int) -> None:
        self.block = BlockRef(1, make_digest(1), timestamp)

    def latest_block(self) -> BlockRef:
        return self.block

    def mine(self, timestamp: int) -> None:
        number = self.block.number + 1
        self.block = BlockRef(number, make_digest(number), timestamp)


def test_the_chains_time_goes_on_while_no_block_comes() -> None:
    """The newest block's time, then the time that passes, two seconds behind; a new block sets it."""
    now = 1000.0
    chain = FakeChain(1000)
    clock = ChainClock(chain, wall=lambda: now, monotonic=lambda: now)  # type: ignore[arg-type]
    assert clock.fetch_time() == 1000
    now = 1001.5
    assert clock.fetch_time() == 1000
    now = 1012.0
    assert clock.fetch_time() == 1010
    chain.mine(1011)
    assert clock.fetch_time() == 1011


def test_a_chain_ahead_of_our_clock_is_not_run_further_ahead() -> None:
    """Where many blocks a second push the chain's time ahead, only its blocks move it."""
    now = 1000.0
    chain = FakeChain(1060)
    clock = ChainClock(chain, wall=lambda: now, monotonic=lambda: now)  # type: ignore[arg-type]
    assert clock.fetch_time() == 1060
    now = 1030.0
    assert clock.fetch_time() == 1060
    now = 1070.0
    assert clock.fetch_time() == 1068


def test_a_chain_far_behind_our_clock_keeps_its_own_time() -> None:
    """A chain that was set back goes on from its newest block."""
    now = 1_000_000.0
    chain = FakeChain(1000)
    clock = ChainClock(chain, wall=lambda: now, monotonic=lambda: now)  # type: ignore[arg-type]
    assert clock.fetch_time() == 1000
    now += 10
    assert clock.fetch_time() == 1008
