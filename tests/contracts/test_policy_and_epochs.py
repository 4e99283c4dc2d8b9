"""Policies, and the epochs of the shared key."""

from __future__ import annotations

import pytest

from fedproof.digests import ZERO_DIGEST, Address
from fedproof.ledger.events import MemberStatus
from tests.chain import AGGREGATE_WINDOW_S, ATTEST_WINDOW_S, MAX_EXAMPLES, Federation, make_digest
from tests.contracts.refusals import refuses, refuses_all_but_admin

NOBODY = Address(bytes(20))
CONTEXT, KEYS = make_digest("context"), make_digest("keys")


def test_adopt_policy_sets_the_first_model_once(bare: Federation) -> None:
    """The first policy brings the first model; a later one leaves the head as it is."""
    bare.adopt_policy()
    bare.transact(
        bare.admin, "adoptPolicy", (make_digest(2), 2, 2, 1, 1, 1, 1), make_digest("another genesis")
    )
    assert bare.admin.head_model() == make_digest("genesis")
    assert (bare.admin.policy_version(), bare.admin.policy().digest) == (2, make_digest(2))


@pytest.mark.parametrize(
    ("term", "lowest"),
    [
        ("min_contributors", 2),
        ("attestation_quorum", 1),
        ("max_examples", 1),
        ("commit_window", 1),
        ("aggregate_window", 1),
        ("attest_window", 1),
    ],
)
def test_adopt_policy_bounds_each_term(bare: Federation, term: str, lowest: int) -> None:
    """Each term has a lowest value, and one below it is refused."""
    bare.adopt_policy(**{term: lowest})
    with refuses("InvalidPolicy"):
        bare.adopt_policy(**{term: lowest - 1})


def test_adopt_policy_refuses_zero_digests(bare: Federation) -> None:
    """A policy has a digest, and the first one a first model."""
    terms = (make_digest("policy"), 2, 2, 1, 1, 1, 1)
    with refuses("ZeroDigest"):
        bare.transact(bare.admin, "adoptPolicy", (ZERO_DIGEST, *terms[1:]), make_digest("genesis"))
    with refuses("ZeroDigest"):
        bare.transact(bare.admin, "adoptPolicy", terms, ZERO_DIGEST)
    bare.transact(bare.admin, "adoptPolicy", terms, make_digest("genesis"))
    bare.transact(bare.admin, "adoptPolicy", terms, ZERO_DIGEST)


def test_an_open_round_keeps_its_policy(opened: Federation) -> None:
    """A policy that is adopted during a round changes nothing in it, its later windows included."""
    before = opened.admin.round(1)
    opened.adopt_policy(max_examples=1, aggregate_window=1, attest_window=1, attestation_quorum=3)
    assert opened.admin.round(1) == before
    opened.nodes[0].commit(1, make_digest("update"), MAX_EXAMPLES)
    receipt = opened.aggregator.seal(1, [*opened.commit(1, 2), opened.nodes[0].address])
    now = opened.admin.block(receipt.block_number).timestamp
    assert opened.admin.round(1).deadline == now + AGGREGATE_WINDOW_S
    receipt = opened.aggregator.publish_aggregate(1, make_digest("sum"))
    now = opened.admin.block(receipt.block_number).timestamp
    assert opened.admin.round(1).deadline == now + ATTEST_WINDOW_S


def test_policy_is_the_admins(bare: Federation) -> None:
    """The aggregator adopts no policy and asks for no epoch."""
    with refuses_all_but_admin(bare.aggregator):
        bare.transact(bare.aggregator, "adoptPolicy", (make_digest(1), 2, 2, 1, 1, 1, 1), make_digest(2))
    with refuses_all_but_admin(bare.aggregator):
        bare.aggregator.request_epoch(bare.nodes[0].address)


def test_epoch_is_published_by_its_key_maker(bare: Federation) -> None:
    """The named node publishes the next epoch, once."""
    bare.admit_all()
    bare.admin.request_epoch(bare.nodes[1].address)
    assert bare.admin.key_maker() == bare.nodes[1].address
    bare.nodes[1].publish_epoch(1, CONTEXT, KEYS)
    assert (bare.admin.current_epoch(), bare.admin.key_maker()) == (1, NOBODY)
    with refuses("NotKeyMaker", epoch=2, key_maker=NOBODY, caller=bare.nodes[1].address):
        bare.nodes[1].publish_epoch(2, CONTEXT, KEYS)


def test_request_epoch_replaces_the_key_maker(bare: Federation) -> None:
    """Until the epoch is published, the admin may name another key maker."""
    bare.admit_all()
    first, second = bare.nodes[:2]
    bare.admin.request_epoch(first.address)
    bare.admin.request_epoch(second.address)
    with refuses("NotKeyMaker", epoch=1, key_maker=second.address, caller=first.address):
        first.publish_epoch(1, CONTEXT, KEYS)
    second.publish_epoch(1, CONTEXT, KEYS)


def test_request_epoch_refuses_who_is_not_admitted(bare: Federation) -> None:
    """A key maker is an admitted node."""
    node = bare.nodes[0].address
    with refuses("NotAdmitted", node=node, status=MemberStatus.NONE):
        bare.admin.request_epoch(node)


@pytest.mark.parametrize("epoch", [0, 2])
def test_publish_epoch_refuses_any_but_the_next(bare: Federation, epoch: int) -> None:
    """Epochs are counted one by one."""
    bare.admit_all()
    bare.admin.request_epoch(bare.nodes[0].address)
    with refuses("WrongEpoch", expected=1, actual=epoch):
        bare.nodes[0].publish_epoch(epoch, CONTEXT, KEYS)


def test_publish_epoch_refuses_a_suspended_key_maker(bare: Federation) -> None:
    """Being named does not outlast a suspension."""
    bare.admit_all()
    node = bare.nodes[0]
    bare.admin.request_epoch(node.address)
    bare.admin.suspend(node.address)
    with refuses("NotAdmitted", node=node.address, status=MemberStatus.SUSPENDED):
        node.publish_epoch(1, CONTEXT, KEYS)


@pytest.mark.parametrize("digests", [(ZERO_DIGEST, KEYS), (CONTEXT, ZERO_DIGEST)])
def test_publish_epoch_refuses_zero_digests(bare: Federation, digests: tuple[bytes, bytes]) -> None:
    """An epoch has a context and wrapped keys."""
    bare.admit_all()
    bare.admin.request_epoch(bare.nodes[0].address)
    with refuses("ZeroDigest"):
        bare.nodes[0].publish_epoch(1, *digests)
