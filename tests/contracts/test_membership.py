"""Who takes part: registration, admission, suspension, departure, and the cohorts that follow from them."""

from __future__ import annotations

import pytest

from fedproof.digests import ZERO_DIGEST, Address, Digest
from fedproof.ledger.events import MemberStatus, Phase
from fedproof.ledger.standing import Member
from tests.contracts.calls import DIGESTS, START
from tests.contracts.differential import Pair
from tests.contracts.model import NOBODY
from tests.contracts.refusals import refuses, refuses_all_but_admin
from tests.contracts.signing import ADMIN, AGGREGATOR, NODES

FIRST, LATE = NODES[0], NODES[5]


def test_a_node_that_registers_has_applied_and_no_more(ready: Pair) -> None:
    """It belongs to no cohort until the admin admits it, and may name other keys until then."""
    for keys in (DIGESTS, DIGESTS[::-1]):
        (event,) = ready.act(LATE, "register", *keys, at=START)
        assert (event.wrapping_key_digest, event.certificate_digest, event.metadata_digest) == keys
    assert ready.view("member", LATE) == Member(MemberStatus.APPLIED, 0, 0, False, bytes(24))
    assert ready.view("state").admitted == 5


@pytest.mark.parametrize("digests", [(ZERO_DIGEST, *DIGESTS[:2]), (DIGESTS[0], ZERO_DIGEST, DIGESTS[1])])
def test_register_needs_both_keys(ready: Pair, digests: tuple[Digest, Digest, Digest]) -> None:
    """Neither key's digest may be zero; what a node says about itself may."""
    with refuses("ZeroDigest"):
        ready.act(LATE, "register", *digests, at=START)
    ready.act(LATE, "register", *DIGESTS[:2], ZERO_DIGEST, at=START)


def test_keys_of_a_member_change_by_rotation_only(ready: Pair) -> None:
    """Admitted nodes rotate, which leaves the epoch fresh; suspended ones have to be admitted first."""
    with refuses("WrongStatus", FIRST, MemberStatus.APPLIED, MemberStatus.ADMITTED):
        ready.act(FIRST, "register", *DIGESTS, at=START)
    ready.act(FIRST, "rotateKeys", *DIGESTS[:2], at=START)
    assert not ready.view("state").is_epoch_stale
    ready.act(ADMIN, "suspend", FIRST, at=START)
    with refuses("NotAdmitted", FIRST, MemberStatus.SUSPENDED):
        ready.act(FIRST, "rotateKeys", *DIGESTS[:2], at=START)
    with refuses("WrongStatus", FIRST, MemberStatus.APPLIED, MemberStatus.SUSPENDED):
        ready.act(FIRST, "register", *DIGESTS, at=START)


def test_a_round_keeps_its_cohort_while_it_is_under_way(opened: Pair) -> None:
    """Whoever leaves or is suspended goes on in the round; who is admitted meanwhile waits for the next."""
    leaving, suspended = NODES[1], NODES[2]
    opened.act(leaving, "leave", at=START)
    opened.act(ADMIN, "suspend", suspended, at=START)
    opened.act(LATE, "register", *DIGESTS, at=START)
    opened.act(ADMIN, "admit", LATE, at=START)
    for node in (leaving, suspended):
        opened.act(node, "commit", 1, DIGESTS[0], 7, at=START)
    with refuses("NotInCohort", 1, LATE):
        opened.act(LATE, "commit", 1, DIGESTS[0], 7, at=START)
    assert [opened.view("isInCohort", node) for node in (leaving, suspended, LATE)] == [True, True, False]
    assert opened.view("currentRound").cohort == 5


def test_a_suspension_silences_no_dissent(aggregated: Pair) -> None:
    """Whoever has not attested still can when the round is over, also suspended or admitted again."""
    for node in NODES[:3]:
        aggregated.act(node, "attest", 1, DIGESTS[1], at=START)
    assert aggregated.view("currentRound").phase == Phase.FINALISED
    suspended, back = NODES[3], NODES[4]
    for node in (suspended, back):
        aggregated.act(ADMIN, "suspend", node, at=START)
    aggregated.act(ADMIN, "admit", back, at=START)
    for node in (suspended, back):
        (event,) = aggregated.act(node, "attest", 1, DIGESTS[2], at=START)
        assert event.model_digest == DIGESTS[2]


def test_who_comes_back_to_a_round_is_still_in_it(opened: Pair) -> None:
    """Suspended and admitted again in the same round, a node can still commit, once."""
    opened.act(FIRST, "commit", 1, DIGESTS[0], 7, at=START)
    opened.act(ADMIN, "suspend", FIRST, at=START)
    (event,) = opened.act(ADMIN, "admit", FIRST, at=START)
    assert event.first_round == 1
    with refuses("AlreadyCommitted", 1, FIRST):
        opened.act(FIRST, "commit", 1, DIGESTS[0], 7, at=START)


def test_who_left_applies_again(ready: Pair) -> None:
    """A departure is no expulsion, but it ends with a new admission only."""
    ready.act(FIRST, "leave", at=START)
    with refuses("WrongStatus", FIRST, MemberStatus.APPLIED, MemberStatus.LEFT):
        ready.act(ADMIN, "admit", FIRST, at=START)
    ready.act(FIRST, "register", *DIGESTS, at=START)
    (event,) = ready.act(ADMIN, "admit", FIRST, at=START)
    assert event.first_round == 1


def test_membership_is_the_admins(ready: Pair) -> None:
    """Neither the aggregator nor a node admits or suspends."""
    for caller in (AGGREGATOR, FIRST):
        for function in ("admit", "suspend"):
            with refuses_all_but_admin(caller):
                ready.act(caller, function, FIRST, at=START)


@pytest.mark.parametrize("people", [(NOBODY, AGGREGATOR), (ADMIN, NOBODY)])
def test_a_ledger_has_an_admin_and_an_aggregator(ready: Pair, people: tuple[Address, Address]) -> None:
    """Nobody is not one of them."""
    with refuses("ZeroAddress"):
        ready.act(ADMIN, "constructor", *people, NOBODY, at=START)
