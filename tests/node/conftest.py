"""Worlds for the node's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.aggregator import RunningAggregator, open_aggregator
from tests.node.site import Site, open_site
from tests.node.world import World


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make worlds that end with the test."""
    worlds: list[World] = []

    def make(*, nodes: int = 3, **terms: Any) -> World:
        world = World(tmp_path / f"world-{len(worlds)}", **terms)
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


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One chain over HTTP for the tests that run commands."""
    with open_site(tmp_path_factory.mktemp("site")) as site:
        yield site
