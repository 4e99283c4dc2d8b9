"""Worlds for the node's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.world import RunningAggregator, World, open_aggregator


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make worlds that end with the test."""
    worlds: list[World] = []

    def make(*, nodes: int = 3, length: int = 300, **rounds: int) -> World:
        world = World(tmp_path / f"world-{len(worlds)}", length=length, **rounds)
        worlds.append(world)
        world.admit(nodes)
        return world

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def aggregator(tmp_path: Path) -> Iterator[RunningAggregator]:
    """An aggregator without a chain."""
    running = open_aggregator(tmp_path)
    yield running
    running.stop()
