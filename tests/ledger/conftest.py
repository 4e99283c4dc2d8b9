"""A federation on a chain in memory, which every test gets as new; and a chain that is not ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from tests.chain import Federation, MemoryChain
from tests.ledger.anvil import Anvil, running_anvil


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


@pytest.fixture(scope="module")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anvil]:
    """A chain of our own."""
    with running_anvil(tmp_path_factory.mktemp("anvil")) as anvil:
        yield anvil


@pytest.fixture
def wallet(anvil: Anvil) -> LocalAccount:
    """A new account with money."""
    account: LocalAccount = Account.create()
    anvil.fund(account.address)
    return account
