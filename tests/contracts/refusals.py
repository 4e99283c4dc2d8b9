"""How a test says that the contract must refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fedproof.digests import Digest
from fedproof.errors import Reverted
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import AGGREGATOR_ROLE, DEFAULT_ADMIN_ROLE


@contextmanager
def refuses(error: str, **arguments: object) -> Iterator[None]:
    """Expect a custom error with exactly these arguments."""
    with pytest.raises(Reverted) as caught:
        yield
    assert (caught.value.name, caught.value.arguments) == (error, arguments)


def refuses_all_but_admin(caller: Ledger) -> contextmanager[None]:
    """Expect that the caller lacks the admin's role."""
    return _refuses_role(caller, DEFAULT_ADMIN_ROLE)


def refuses_all_but_aggregator(caller: Ledger) -> contextmanager[None]:
    """Expect that the caller lacks the aggregator's role."""
    return _refuses_role(caller, AGGREGATOR_ROLE)


def _refuses_role(caller: Ledger, role: Digest) -> contextmanager[None]:
    return refuses("AccessControlUnauthorizedAccount", account=caller.address, needed_role=role)
