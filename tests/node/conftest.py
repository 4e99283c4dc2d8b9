"""Worlds for the node's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chain import Federation
from tests.node.aggregator import RunningAggregator, open_aggregator
from tests.node.site import Site, open_site
from tests.node.world import World, found_federation


@pytest.fixture(scope="session")
def founded() -> Federation:
    """A contract with two nodes."""
    return found_federation()


@pytest.fixture
def make_world(tmp_path: Path, founded: Federation) -> Iterator[Callable[..., World]]:
    """Make a world that ends with the test."""
    with ExitStack() as stack:
        stack.enter_context(founded.chain.rolled_back())

        def make(*, nodes: int = 3, **terms: Any) -> World:
            world = World(tmp_path / "world", founded, **terms)
            stack.callback(world.close)
            world.admit(nodes)
            return world

        yield make


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
