"""A federation on a chain in memory; every test gets it as new."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chain import Federation, MemoryChain


@pytest.fixture(scope="module")
def deployed() -> Federation:
    """Three admitted nodes, a policy and an epoch; no round yet."""
    federation = Federation(MemoryChain())
    federation.admit_all()
    federation.adopt_policy()
    federation.publish_epoch()
    return federation


@pytest.fixture
def federation(deployed: Federation) -> Iterator[Federation]:
    """The deployed federation, taken back to where it was after the test."""
    with deployed.chain.rolled_back():
        yield deployed
