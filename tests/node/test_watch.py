"""The node's view of the ledger follows the chain, also when the chain changes its mind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fedproof_node.watch import LedgerWatch

from fedproof.errors import LedgerUnreachable
from tests.node.world import World


def test_history_grows_with_the_chain(make_world: Callable[..., World]) -> None:
    """Each look adds what has happened since."""
    world = make_world(nodes=2)
    watch = LedgerWatch(world.admin, from_block=0)
    assert len(watch.refresh().members) == 2
    world.admin.suspend(world.nodes[0].address)
    assert watch.refresh().admitted == (world.nodes[1].address,)


def test_dropped_blocks_are_read_afresh(make_world: Callable[..., World]) -> None:
    """After a reorganisation the history is that of the new chain."""
    world = make_world(nodes=2)
    watch = LedgerWatch(world.admin, from_block=0)
    with world.chain.rolled_back():
        world.admin.suspend(world.nodes[0].address)
        assert len(watch.refresh().admitted) == 1
    world.admin.suspend(world.nodes[1].address)
    world.chain.mine()
    assert watch.refresh().admitted == (world.nodes[0].address,)


def test_silent_endpoint_is_named(make_world: Callable[..., World]) -> None:
    """An endpoint that does not answer raises after bounded attempts, and the next look succeeds."""
    world = make_world(nodes=2)
    watch = LedgerWatch(world.admin, from_block=0)
    world.chain.provider.outages = 3
    with pytest.raises(LedgerUnreachable, match="in 3 attempts"):
        watch.refresh()
    assert len(watch.refresh().members) == 2
