"""The chain's time, where blocks count only once others follow."""

from __future__ import annotations

from fedproof_aggregator.chainclock import ChainClock

from tests.chain import Federation, MemoryChain


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
