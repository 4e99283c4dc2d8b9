"""A federation with one round open; every test gets it as new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedproof.keys.tls import TlsFiles
from tests.aggregator.federation import BATCHING, Link, deploy_federation, make_certificates
from tests.aggregator.world import World, opened
from tests.chain import Federation


@pytest.fixture(scope="session")
def aggregator_certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[TlsFiles], Path]:
    """Certificates of four nodes, and their authority's."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def aggregator_federation() -> tuple[Federation, Link]:
    """Three admitted nodes, the policy and an epoch; no round yet."""
    return deploy_federation()


@pytest.fixture
def fresh(
    aggregator_federation: tuple[Federation, Link],
    aggregator_certificates: tuple[list[TlsFiles], Path],
    tmp_path: Path,
) -> Iterator[World]:
    """An aggregator before its first round."""
    with opened(*aggregator_federation, tmp_path, *aggregator_certificates) as world:
        yield world


@pytest.fixture
def world(fresh: World) -> World:
    """An aggregator with round 1 open."""
    fresh.open_round()
    return fresh


@pytest.fixture(scope="session")
def batching_federation() -> tuple[Federation, Link]:
    """As `aggregator_federation`, in a policy with batching."""
    return deploy_federation(BATCHING)


@pytest.fixture
def batching(
    batching_federation: tuple[Federation, Link],
    aggregator_certificates: tuple[list[TlsFiles], Path],
    tmp_path: Path,
) -> Iterator[World]:
    """An aggregator with round 1 open, in a policy with batching."""
    with opened(*batching_federation, tmp_path, *aggregator_certificates, policy=BATCHING) as world:
        world.open_round()
        yield world
