"""The running hash, the roles that enter it, and what a commitment costs."""

from __future__ import annotations

from fedproof.ledger.events import (
    AGGREGATOR_ROLE,
    EVENT_TYPES,
    ExclusionReason,
    FailureReason,
    RoleGranted,
    RoleRevoked,
)
from fedproof.ledger.history import History
from tests.chain import Federation, make_digest
from tests.contracts.refusals import refuses_all_but_aggregator

MOST_GAS_FOR_A_COMMITMENT = 40_000


def test_history_hash_covers_every_kind_of_event(ready: Federation) -> None:
    """After each transaction of a life with every kind of event, the replay's hash is the contract's."""
    history = History()
    admin, aggregator, nodes = ready.admin, ready.aggregator, ready.nodes
    seen = ready.admin.catch_up(history)
    steps = [
        lambda: aggregator.open_round(1),
        lambda: ready.commit(0, 1, 2),
        ready.pass_deadline,
        lambda: aggregator.seal(1, ready.addresses(0, 1), [(nodes[2].address, ExclusionReason.MALFORMED)]),
        lambda: aggregator.publish_aggregate(1, make_digest("sum")),
        lambda: nodes[0].attest(1, make_digest("model")),
        lambda: nodes[1].attest(1, make_digest("model")),
        lambda: aggregator.finalise(1, make_digest("model")),
        lambda: nodes[2].attest(1, make_digest("model")),
        lambda: aggregator.open_round(2),
        lambda: aggregator.fail(2, FailureReason.ABANDONED),
        lambda: admin.suspend(nodes[1].address),
        ready.adopt_policy,
        lambda: ready.publish_epoch(2),
        lambda: ready.transact(admin, "grantRole", AGGREGATOR_ROLE, ready.outsider.address),
        lambda: ready.transact(aggregator, "renounceRole", AGGREGATOR_ROLE, aggregator.address),
    ]
    for step in steps:
        step()
        seen += admin.catch_up(history)
        assert history.history_hash == admin.history_hash()
    assert {type(event) for event in seen} == set(EVENT_TYPES)
    assert len(seen) == history.event_count


def test_roles_change_only_through_their_admin(ready: Federation) -> None:
    """A replaced aggregator is shut out, and both changes are in the history."""
    successor = ready.outsider
    ready.transact(ready.admin, "grantRole", AGGREGATOR_ROLE, successor.address)
    ready.transact(ready.admin, "revokeRole", AGGREGATOR_ROLE, ready.aggregator.address)
    with refuses_all_but_aggregator(ready.aggregator):
        ready.aggregator.open_round(1)
    successor.open_round(1)
    history = History()
    *_, granted, revoked, _opened = ready.admin.catch_up(history)
    assert isinstance(granted, RoleGranted)
    assert isinstance(revoked, RoleRevoked)
    assert history.roles[AGGREGATOR_ROLE] == {successor.address}


def test_a_role_that_is_granted_twice_is_recorded_once(ready: Federation) -> None:
    """Where no event is emitted, the history does not move."""
    before = ready.admin.history_hash()
    ready.transact(ready.admin, "grantRole", AGGREGATOR_ROLE, ready.aggregator.address)
    assert ready.admin.history_hash() == before


def test_gas_of_a_commitment(ready: Federation) -> None:
    """A commitment stays under its limit, in a node's first round and in later ones."""
    for number in (1, 2):
        ready.aggregator.open_round(number)
        for node in ready.nodes[:3]:
            receipt = node.commit(number, make_digest(("update", number, node.address)), 9_999)
            assert receipt.gas_used <= MOST_GAS_FOR_A_COMMITMENT
        ready.aggregator.fail(number, FailureReason.ABANDONED)
