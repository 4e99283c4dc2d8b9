"""Worlds for the node's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chain import Federation
from tests.node.aggregator import RunningAggregator, open_aggregator
from tests.node.batching import WINDOW_S, publish
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
def batched(make_world: Callable[..., World]) -> World:
    """Three nodes with their key, in a policy with batching."""
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    world.begin_epoch()
    return world


@pytest.fixture
def uploaded(batched: World) -> World:
    """Round 1 with everybody's signed commitment and whole update, and nothing anchored."""
    batched.open_round(1)
    batched.settle()
    return batched


@pytest.fixture
def attested(uploaded: World) -> World:
    """Everybody's signed attestation of round 1 is with the aggregator."""
    publish(uploaded)
    uploaded.settle()
    assert len(uploaded.attestations(1)) == 3
    return uploaded


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
