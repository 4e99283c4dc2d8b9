"""The view of the ledger: what was read stays readable, and only what adds up is ever shown."""

from __future__ import annotations

import threading

import pytest

from fedproof.errors import LedgerUnreachable
from tests.aggregator.world import World


def test_nobody_who_reads_waits_for_the_network(world: World) -> None:
    """While a refresh waits for the chain's answer, readers see what was read before it."""
    world.view.refresh()
    asked, answer = threading.Event(), threading.Event()

    def keep_waiting() -> None:
        asked.set()
        assert answer.wait(10)

    world.committed_update(0)
    world.federation.chain.provider.interrupts["eth_getLogs"] = keep_waiting
    refreshing = threading.Thread(target=world.view.refresh)
    refreshing.start()
    assert asked.wait(10)
    before = world.view.find_round(1)
    answer.set()
    refreshing.join(10)
    after = world.view.find_round(1)
    assert before is not None
    assert after is not None
    assert (len(before.commitments), len(after.commitments)) == (0, 1)


def test_a_history_that_does_not_add_up_is_never_shown(world: World) -> None:
    """After a reorganisation, what was read before it stays until it has been read afresh."""
    with world.federation.chain.rolled_back():
        world.committed_update(0)
        world.view.refresh()
    world.federation.chain.mine(3)
    world.committed_update(1)
    world.link.down.add("eth_getLogs")
    with pytest.raises(LedgerUnreachable):
        world.view.refresh()
    record = world.view.find_round(1)
    assert record is not None
    assert list(record.commitments) == [world.node(0).address]
    world.link.down.clear()
    world.view.refresh()
    record = world.view.find_round(1)
    assert record is not None
    assert list(record.commitments) == [world.node(1).address]
