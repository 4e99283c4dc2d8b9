"""A ledger at the stages that the contract's tests begin from; the model of it makes every call as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.contracts.calls import DIGESTS, START
from tests.contracts.differential import Pair, prepare
from tests.contracts.signing import AGGREGATOR, NODES


@pytest.fixture
def begin() -> Iterator[Callable[[str], Pair]]:
    """Return a pair at one of the stages of `make_stages`, taken back to it after the test."""
    with ExitStack() as stack:

        def start(stage: str) -> Pair:
            pair = prepare(stage)
            stack.enter_context(pair.rolled_back())
            return pair

        yield start


@pytest.fixture
def ready(begin: Callable[[str], Pair]) -> Pair:
    """Five admitted nodes, a policy without batches, and an epoch; no round yet."""
    return begin("direct")


@pytest.fixture
def opened(ready: Pair) -> Pair:
    """Round 1 is open."""
    ready.act(AGGREGATOR, "openRound", 1, at=START)
    return ready


@pytest.fixture
def sealed(opened: Pair) -> Pair:
    """Round 1 is sealed with all five nodes."""
    for node in NODES[:5]:
        opened.act(node, "commit", 1, DIGESTS[0], 7, at=START)
    opened.act(AGGREGATOR, "seal", 1, NODES[:5], bytes(5), at=START)
    return opened


@pytest.fixture
def aggregated(sealed: Pair) -> Pair:
    """Round 1 has its aggregate."""
    sealed.act(AGGREGATOR, "publishAggregate", 1, DIGESTS[0], at=START)
    return sealed
