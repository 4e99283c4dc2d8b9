"""Policies, the privacy that rounds spend under them, and the epochs of the shared key."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedproof.digests import ZERO_DIGEST
from fedproof.ledger.events import DEFAULT_ADMIN_ROLE, MemberStatus, PrivacySpent
from fedproof.ledger.standing import Privacy
from tests.contracts.calls import DIGESTS, POLICY, START
from tests.contracts.differential import Pair
from tests.contracts.model import NOBODY
from tests.contracts.refusals import refuses, refuses_all_but_admin
from tests.contracts.signing import ADMIN, AGGREGATOR, NODES

KEY_MAKER = NODES[1]
GENESIS = DIGESTS[0]


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
def test_each_term_has_a_lowest_value(ready: Pair, term: str, lowest: int) -> None:
    """It is taken, and one below it is refused."""
    ready.act(ADMIN, "adoptPolicy", replace(POLICY, **{term: lowest}), GENESIS, at=START)
    with refuses("InvalidPolicy"):
        ready.act(ADMIN, "adoptPolicy", replace(POLICY, **{term: lowest - 1}), GENESIS, at=START)


def test_batching_leaves_time_to_commit_by_oneself(ready: Pair) -> None:
    """The time to answer a batch has to fit into the time to commit; without batches it need not."""
    fitting = replace(POLICY, attest_window=POLICY.commit_window - 1, batching=True)
    ready.act(ADMIN, "adoptPolicy", fitting, GENESIS, at=START)
    too_long = replace(fitting, attest_window=POLICY.commit_window)
    with refuses("InvalidPolicy"):
        ready.act(ADMIN, "adoptPolicy", too_long, GENESIS, at=START)
    ready.act(ADMIN, "adoptPolicy", replace(too_long, batching=False), GENESIS, at=START)


def test_the_first_policy_brings_the_first_model(ready: Pair) -> None:
    """A later one leaves the head as it is, whatever it names."""
    ready.act(ADMIN, "adoptPolicy", replace(POLICY, digest=DIGESTS[1]), DIGESTS[2], at=START)
    assert (ready.view("headModel"), ready.view("policyDigest")) == (GENESIS, DIGESTS[1])
    assert ready.view("state").policy_version == 2
    with refuses("ZeroDigest"):
        ready.act(ADMIN, "adoptPolicy", replace(POLICY, digest=ZERO_DIGEST), GENESIS, at=START)


def test_a_round_keeps_its_policy(opened: Pair) -> None:
    """A policy that is adopted during a round changes nothing in it."""
    before = opened.view("currentRound")
    changed = replace(POLICY, max_examples=1, aggregate_window=1, attestation_quorum=5)
    opened.act(ADMIN, "adoptPolicy", changed, GENESIS, at=START)
    assert opened.view("currentRound") == before
    opened.act(NODES[0], "commit", 1, DIGESTS[0], POLICY.max_examples, at=START)


def test_nodes_approve_the_newest_policy(ready: Pair) -> None:
    """By version and digest, so that nobody agrees to what has been replaced meanwhile."""
    ready.act(NODES[0], "approvePolicy", 1, POLICY.digest, at=START)
    ready.act(ADMIN, "adoptPolicy", replace(POLICY, digest=DIGESTS[1]), GENESIS, at=START)
    with refuses("WrongPolicy", 2, DIGESTS[1], POLICY.digest):
        ready.act(NODES[0], "approvePolicy", 1, POLICY.digest, at=START)


def test_rounds_spend_up_to_the_budget(ready: Pair) -> None:
    """A round may use up the budget and not exceed it; one that fails has spent, too."""
    policy = replace(POLICY, privacy_cost=2, privacy_budget=4)
    ready.act(ADMIN, "adoptPolicy", policy, GENESIS, at=START)
    for number in (1, 2):
        _opened, spent = ready.act(AGGREGATOR, "openRound", number, at=START)
        assert isinstance(spent, PrivacySpent)
        assert (spent.cost, spent.spent, spent.budget) == (2, 2 * number, 4)
        ready.act(AGGREGATOR, "fail", number, 0, at=START)
    with refuses("BudgetExceeded", 3, 6, 4):
        ready.act(AGGREGATOR, "openRound", 3, at=START)
    assert ready.view("privacy") == Privacy(2, 4, 4)


def test_policy_is_the_admins(ready: Pair) -> None:
    """The aggregator adopts no policy."""
    with refuses_all_but_admin(AGGREGATOR):
        ready.act(AGGREGATOR, "adoptPolicy", POLICY, GENESIS, at=START)


def test_a_privacy_cost_needs_a_budget(ready: Pair) -> None:
    """Otherwise rounds would cost something that nobody counts."""
    with refuses("InvalidPolicy"):
        ready.act(ADMIN, "adoptPolicy", replace(POLICY, privacy_cost=1), GENESIS, at=START)


def test_an_epoch_is_requested_by_admin_or_aggregator(ready: Pair) -> None:
    """So a ledger without an admin goes on when a node leaves; nodes do not ask."""
    ready.act(ADMIN, "renounceRole", DEFAULT_ADMIN_ROLE, ADMIN, at=START)
    ready.act(NODES[0], "leave", at=START)
    for caller in (ADMIN, NODES[1]):
        with refuses_all_but_admin(caller):
            ready.act(caller, "requestEpoch", KEY_MAKER, at=START)
    ready.act(AGGREGATOR, "requestEpoch", KEY_MAKER, at=START)


def test_an_epoch_is_published_once_by_its_key_maker(ready: Pair) -> None:
    """The admin may name another until it is published; then nobody is named."""
    for node in (NODES[0], KEY_MAKER):
        ready.act(ADMIN, "requestEpoch", node, at=START)
    with refuses("NotKeyMaker", 2, KEY_MAKER, NODES[0]):
        ready.act(NODES[0], "publishEpoch", 2, *DIGESTS[:2], 5, at=START)
    ready.act(KEY_MAKER, "publishEpoch", 2, *DIGESTS[:2], 5, at=START)
    assert (ready.view("state").epoch, ready.view("keyMaker")) == (2, NOBODY)
    with refuses("NotKeyMaker", 3, NOBODY, KEY_MAKER):
        ready.act(KEY_MAKER, "publishEpoch", 3, *DIGESTS[:2], 5, at=START)


def test_an_epoch_is_of_the_present_members(ready: Pair) -> None:
    """After a change of members no round opens until there is a key for those that are left."""
    ready.act(NODES[4], "leave", at=START)
    with refuses("StaleEpoch", 1, 6):
        ready.act(AGGREGATOR, "openRound", 1, at=START)
    ready.act(ADMIN, "requestEpoch", KEY_MAKER, at=START)
    with refuses("StaleEpoch", 2, 6):
        ready.act(KEY_MAKER, "publishEpoch", 2, *DIGESTS[:2], 5, at=START)
    ready.act(KEY_MAKER, "publishEpoch", 2, *DIGESTS[:2], 6, at=START)
    ready.act(AGGREGATOR, "openRound", 1, at=START)


def test_a_suspended_key_maker_publishes_nothing(ready: Pair) -> None:
    """Being named does not outlast a suspension."""
    ready.act(ADMIN, "requestEpoch", KEY_MAKER, at=START)
    ready.act(ADMIN, "suspend", KEY_MAKER, at=START)
    with refuses("NotAdmitted", KEY_MAKER, MemberStatus.SUSPENDED):
        ready.act(KEY_MAKER, "publishEpoch", 2, *DIGESTS[:2], 6, at=START)
