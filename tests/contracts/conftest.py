"""A federation on a chain in memory, at the stages that the contract's tests begin from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chain import Federation, MemoryChain


@pytest.fixture(scope="module")
def deployed() -> Federation:
    """The bare contract: nobody has registered."""
    return Federation(MemoryChain())


@pytest.fixture
def bare(deployed: Federation) -> Iterator[Federation]:
    """The bare contract, taken back to where it was after the test."""
    with deployed.chain.rolled_back():
        yield deployed


@pytest.fixture(scope="module")
def prepared() -> Federation:
    """Three admitted nodes, a policy and an epoch; no round yet."""
    federation = Federation(MemoryChain())
    federation.admit_all()
    federation.adopt_policy()
    federation.publish_epoch()
    return federation


@pytest.fixture
def ready(prepared: Federation) -> Iterator[Federation]:
    """The prepared federation, taken back to where it was after the test."""
    with prepared.chain.rolled_back():
        yield prepared


@pytest.fixture
def opened(ready: Federation) -> Federation:
    """Round 1 is open."""
    ready.aggregator.open_round(1)
    return ready


@pytest.fixture
def sealed(opened: Federation) -> Federation:
    """Round 1 is sealed with all three nodes."""
    opened.aggregator.seal(1, opened.commit(0, 1, 2))
    return opened


@pytest.fixture
def aggregated(sealed: Federation) -> Federation:
    """Round 1 has its aggregate."""
    sealed.aggregator.publish_aggregate(1, b"\x01" * 32)
    return sealed
