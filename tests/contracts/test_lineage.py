"""Roles, releases, the end of a ledger and its successor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fedproof.digests import ZERO_DIGEST, Address
from fedproof.errors import Reverted
from fedproof.ledger.events import AGGREGATOR_ROLE, DEFAULT_ADMIN_ROLE, Phase, Succeeded
from tests.contracts.calls import DIGESTS, POLICY, START
from tests.contracts.differential import Pair
from tests.contracts.evm import Machine
from tests.contracts.model import NOBODY
from tests.contracts.refusals import refuses, refuses_all_but_admin, refuses_all_but_aggregator
from tests.contracts.signing import ADMIN, AGGREGATOR, NODES, OUTSIDER, WALLET


def test_roles_change_between_rounds(ready: Pair) -> None:
    """A replaced aggregator is shut out; nobody gets power over a round that has begun."""
    ready.act(ADMIN, "grantRole", AGGREGATOR_ROLE, OUTSIDER, at=START)
    ready.act(ADMIN, "revokeRole", AGGREGATOR_ROLE, AGGREGATOR, at=START)
    with refuses_all_but_aggregator(AGGREGATOR):
        ready.act(AGGREGATOR, "openRound", 1, at=START)
    ready.act(OUTSIDER, "openRound", 1, at=START)
    with refuses("WrongPhase", 1, Phase.OPEN):
        ready.act(ADMIN, "grantRole", AGGREGATOR_ROLE, ADMIN, at=START)
    ready.act(ADMIN, "revokeRole", AGGREGATOR_ROLE, OUTSIDER, at=START)


def test_roles_are_the_admins_to_give_and_everybodys_to_give_up(ready: Pair) -> None:
    """Nobody else grants or revokes one; whoever renounces has to say whose."""
    for function in ("grantRole", "revokeRole"):
        with refuses_all_but_admin(AGGREGATOR):
            ready.act(AGGREGATOR, function, AGGREGATOR_ROLE, OUTSIDER, at=START)
    with refuses("AccessControlBadConfirmation"):
        ready.act(AGGREGATOR, "renounceRole", AGGREGATOR_ROLE, ADMIN, at=START)
    ready.act(ADMIN, "renounceRole", DEFAULT_ADMIN_ROLE, ADMIN, at=START)
    with refuses_all_but_admin(ADMIN):
        ready.act(ADMIN, "suspend", NODES[0], at=START)


def test_a_role_that_is_granted_twice_is_recorded_once(ready: Pair) -> None:
    """Where no event is emitted, the history does not move."""
    before = ready.view("historyHash")
    assert ready.act(ADMIN, "grantRole", AGGREGATOR_ROLE, AGGREGATOR, at=START) == []
    assert ready.view("historyHash") == before


def test_a_release_names_the_head(ready: Pair) -> None:
    """The admin records the file's digest beside the head model's."""
    (event,) = ready.act(ADMIN, "releaseCheckpoint", DIGESTS[2], at=START)
    assert (event.head_model, event.file_digest) == (ready.view("headModel"), DIGESTS[2])
    with refuses("ZeroDigest"):
        ready.act(ADMIN, "releaseCheckpoint", ZERO_DIGEST, at=START)


def test_a_ledger_retires_between_rounds(opened: Pair) -> None:
    """Not in the middle of one, and once."""
    with refuses("WrongPhase", 1, Phase.OPEN):
        opened.act(ADMIN, "retire", at=START)
    opened.act(AGGREGATOR, "fail", 1, 0, at=START)
    opened.act(ADMIN, "retire", at=START)
    with refuses("WrongPhase", 1, Phase.RETIRED):
        opened.act(ADMIN, "retire", at=START)


@pytest.mark.parametrize(
    ("sender", "function", "arguments"),
    [
        (AGGREGATOR, "openRound", (1,)),
        (NODES[5], "register", DIGESTS),
        (NODES[0], "leave", ()),
        (ADMIN, "suspend", (NODES[0],)),
        (ADMIN, "adoptPolicy", (POLICY, DIGESTS[0])),
        (ADMIN, "requestEpoch", (NODES[0],)),
        (ADMIN, "releaseCheckpoint", (DIGESTS[0],)),
        (ADMIN, "grantRole", (AGGREGATOR_ROLE, OUTSIDER)),
    ],
)
def test_nothing_is_recorded_after_the_end(
    begin: Callable[[str], Pair], sender: Address, function: str, arguments: tuple[object, ...]
) -> None:
    """A successor's link to the history of a retired ledger stays true."""
    pair = begin("retired")
    with refuses("WrongPhase", 0, Phase.RETIRED):
        pair.act(sender, function, *arguments, at=START)


def test_a_successor_goes_on_from_the_head_and_the_budget(ready: Pair) -> None:
    """It takes over the model and what was spent on it, and names where the history before it ended."""
    old = ready.model.address
    with refuses("NotRetired", old):
        ready.act(ADMIN, "constructor", ADMIN, AGGREGATOR, old, at=START)
    accounted = replace(POLICY, privacy_cost=3, privacy_budget=9)
    ready.act(ADMIN, "adoptPolicy", accounted, DIGESTS[0], at=START)
    ready.act(AGGREGATOR, "openRound", 1, at=START)
    ready.act(AGGREGATOR, "fail", 1, 0, at=START)
    ready.act(ADMIN, "retire", at=START)
    last, head = ready.view("historyHash"), ready.view("headModel")
    *_, event = ready.act(ADMIN, "constructor", ADMIN, AGGREGATOR, old, at=START)
    assert isinstance(event, Succeeded)
    assert (event.predecessor, event.history_hash, event.head_model, event.privacy_spent) == (
        old,
        last,
        head,
        3,
    )
    assert (ready.view("predecessor"), ready.view("headModel"), ready.view("privacy").spent) == (old, head, 3)


def test_a_predecessor_is_a_ledger() -> None:
    """An address without code, or with other code, is none."""
    machine = Machine.with_ledger()
    for stranger in (OUTSIDER, WALLET):
        with pytest.raises(Reverted, match="constructor: reverted with no reason"):
            machine.deploy(NODES[0], ADMIN, START, (ADMIN, AGGREGATOR, stranger))


def test_a_first_ledger_has_no_predecessor(ready: Pair) -> None:
    """And no head before its first policy."""
    ready.act(ADMIN, "constructor", ADMIN, AGGREGATOR, NOBODY, at=START)
    assert (ready.view("predecessor"), ready.view("headModel")) == (NOBODY, ZERO_DIGEST)
