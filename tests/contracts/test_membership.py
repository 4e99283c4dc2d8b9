"""Registration, admission and suspension."""

from __future__ import annotations

import pytest

from fedproof.digests import ZERO_DIGEST, Address, as_address
from fedproof.ledger.client import Member
from fedproof.ledger.events import MemberApplied, MemberStatus
from tests.chain import Federation, MemoryChain, deploy, make_account, make_digest
from tests.contracts.refusals import refuses, refuses_all_but_admin

KEYS = (make_digest("wrapping"), make_digest("certificate"))


def test_register_applies(bare: Federation) -> None:
    """A node that registers has applied, and nothing more."""
    node = bare.nodes[0]
    (event,) = node.register(*KEYS).events
    assert isinstance(event, MemberApplied)
    assert (event.node, event.wrapping_key_digest, event.certificate_digest) == (node.address, *KEYS)
    assert node.member(node.address) == Member(MemberStatus.APPLIED, 0, 0, 0)
    assert node.admitted_count() == 0


def test_register_again_names_other_keys(bare: Federation) -> None:
    """While a node has only applied, it may name other keys."""
    node = bare.nodes[0]
    node.register(*KEYS)
    (event,) = node.register(KEYS[1], KEYS[0]).events
    assert isinstance(event, MemberApplied)
    assert event.wrapping_key_digest == KEYS[1]


@pytest.mark.parametrize("keys", [(ZERO_DIGEST, KEYS[1]), (KEYS[0], ZERO_DIGEST)])
def test_register_refuses_zero_digests(bare: Federation, keys: tuple[bytes, bytes]) -> None:
    """Neither key's digest may be zero."""
    with refuses("ZeroDigest"):
        bare.nodes[0].register(*keys)


@pytest.mark.parametrize("status", [MemberStatus.ADMITTED, MemberStatus.SUSPENDED])
def test_register_refuses_after_admission(bare: Federation, status: MemberStatus) -> None:
    """Keys cannot change once a node has been admitted, also not after a suspension."""
    node = bare.nodes[0]
    node.register(*KEYS)
    bare.admin.admit(node.address)
    if status is MemberStatus.SUSPENDED:
        bare.admin.suspend(node.address)
    with refuses("WrongStatus", node=node.address, expected=MemberStatus.APPLIED, actual=status):
        node.register(*KEYS)


def test_admit_counts_and_joins_the_next_round(ready: Federation) -> None:
    """A node that is admitted during a round belongs to the next one."""
    ready.outsider.register(*KEYS)
    ready.aggregator.open_round(1)
    ready.admin.admit(ready.outsider.address)
    assert ready.admin.member(ready.outsider.address) == Member(MemberStatus.ADMITTED, 2, 0, 0)
    assert ready.admin.admitted_count() == 4
    assert ready.admin.round(1).cohort == 3


@pytest.mark.parametrize("registered", [False, True])
def test_admit_refuses_strangers_and_members(bare: Federation, registered: bool) -> None:
    """Only a node that has applied or is suspended can be admitted."""
    node = bare.nodes[0].address
    if registered:
        bare.nodes[0].register(*KEYS)
        bare.admin.admit(node)
    actual = MemberStatus.ADMITTED if registered else MemberStatus.NONE
    with refuses("WrongStatus", node=node, expected=MemberStatus.APPLIED, actual=actual):
        bare.admin.admit(node)


def test_suspend_and_admit_again(bare: Federation) -> None:
    """Suspension takes a node out of the count, admission takes it back in."""
    node = bare.nodes[0]
    node.register(*KEYS)
    bare.admin.admit(node.address)
    bare.admin.suspend(node.address)
    assert (node.member(node.address).status, node.admitted_count()) == (MemberStatus.SUSPENDED, 0)
    bare.admin.admit(node.address)
    assert (node.member(node.address).status, node.admitted_count()) == (MemberStatus.ADMITTED, 1)


def test_suspend_refuses_who_is_not_admitted(bare: Federation) -> None:
    """Nobody is suspended twice, or before an admission."""
    node = bare.nodes[0]
    node.register(*KEYS)
    with refuses(
        "WrongStatus", node=node.address, expected=MemberStatus.ADMITTED, actual=MemberStatus.APPLIED
    ):
        bare.admin.suspend(node.address)


def test_membership_is_the_admins(bare: Federation) -> None:
    """Neither the aggregator nor a node admits or suspends."""
    for caller in (bare.aggregator, bare.nodes[0]):
        with refuses_all_but_admin(caller):
            caller.admit(bare.nodes[0].address)
        with refuses_all_but_admin(caller):
            caller.suspend(bare.nodes[0].address)


@pytest.mark.parametrize("missing", [0, 1])
def test_deployment_refuses_the_zero_address(missing: int) -> None:
    """A federation has an admin and an aggregator from its beginning."""
    account = make_account(1)
    roles = [as_address(account.address, "account")] * 2
    roles[missing] = Address(bytes(20))
    with refuses("ZeroAddress"):
        deploy(MemoryChain(), account, admin=roles[0], aggregator=roles[1])
