"""How a test says that the contract must refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from fedproof.digests import Address
from fedproof.ledger.events import AGGREGATOR_ROLE, DEFAULT_ADMIN_ROLE
from tests.contracts.model import Refused


@contextmanager
def refuses(error: str, *arguments: object) -> Iterator[None]:
    """Expect a custom error with exactly these arguments."""
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.args == (error, *arguments)


def refuses_all_but_admin(caller: Address) -> AbstractContextManager[None]:
    """Expect that the caller lacks the admin's role."""
    return refuses("AccessControlUnauthorizedAccount", caller, DEFAULT_ADMIN_ROLE)


def refuses_all_but_aggregator(caller: Address) -> AbstractContextManager[None]:
    """Expect that the caller lacks the aggregator's role."""
    return refuses("AccessControlUnauthorizedAccount", caller, AGGREGATOR_ROLE)
