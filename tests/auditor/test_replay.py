"""A real ledger's history breaks no rule; each test then changes one thing, and one rule names it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fedproof_auditor.checks import compute_history_hash
from fedproof_auditor.findings import Findings
from fedproof_auditor.replay import replay

from fedproof.digests import Address
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import (
    LEAF_TOO,
    AggregatePublished,
    CheckpointReleased,
    CommitmentsAnchored,
    EpochPublished,
    EpochRequested,
    Event,
    FailureReason,
    KeysRotated,
    MemberAdmitted,
    MemberApplied,
    MemberLeft,
    MemberSuspended,
    ModelAttested,
    Phase,
    PolicyAdopted,
    PolicyApproved,
    PrivacySpent,
    ResultProposed,
    Retired,
    RoundDisputed,
    RoundFailed,
    RoundFinalised,
    RoundOpened,
    RoundSealed,
    Succeeded,
    UpdateCommitted,
)
from tests.auditor.story import Found, Story, play, read
from tests.chain import ATTEST_WINDOW_S, Federation, deploy, make_account, make_digest

STRANGER = Address(b"\x11" * 20)


@pytest.fixture(scope="module")
def federation() -> Federation:
    """A federation in which everything has happened."""
    return play()


@pytest.fixture(scope="module")
def story(federation: Federation) -> Story:
    """What happened there."""
    return read(federation.admin, tuple(node.address for node in federation.nodes))


def test_an_honest_history_breaks_no_rule(story: Story) -> None:
    """Nothing is found, whatever the contract allows, and the hash is the contract's."""
    assert story.judge() == set()
    assert compute_history_hash(story.events) == story.history_hash
    unseen = {"RoleRevoked", "Succeeded"}
    kinds = {type(event).__name__ for event in story.events}
    assert not unseen & kinds
    assert len(kinds) == 25 - len(unseen)


def test_a_history_is_understood(story: Story) -> None:
    """Each round's end, cohort and contributors are those that the ledger enforced."""
    chronicle = story.follow()
    ends = [(record.phase, len(record.cohort), len(record.attesters)) for record in chronicle.rounds.values()]
    assert ends == [
        (Phase.FINALISED, 3, 3),
        (Phase.FAILED, 3, 2),
        (Phase.FINALISED, 3, 2),
        (Phase.FINALISED, 3, 1),
        (Phase.FAILED, 3, 0),
        (Phase.FAILED, 2, 0),
    ]
    assert chronicle.is_retired
    assert chronicle.head_model == make_digest("model 4")


def test_a_successor_goes_on_from_the_last_head(federation: Federation, story: Story) -> None:
    """A successor's first round starts from the retired ledger's head; its first policy moves nothing."""
    admin = make_account(1)
    contract = deploy(
        federation.chain,
        admin,
        admin=federation.admin.address,
        aggregator=federation.aggregator.address,
        predecessor=federation.contract,
    )
    ledger = Ledger(federation.chain.connect(), contract, account=admin)
    successor = read(ledger, story.nodes)
    assert successor.judge() == set()
    assert compute_history_hash(successor.events) == successor.history_hash
    succeeded = successor.find(Succeeded)
    assert successor.follow().head_model == succeeded.head_model == make_digest("model 4")
    assert succeeded.privacy_spent == story.find(PrivacySpent).spent
    adopted = replace(story.find(PolicyAdopted, version=1), block_number=succeeded.block_number)
    assert successor.judge((*successor.events, adopted)) == {(4, "head model in PolicyAdopted")}
    sound = replace(adopted, head_model=succeeded.head_model)
    assert successor.judge((*successor.events, sound)) == set()
    assert successor.judge((succeeded, *successor.events[:2])) == {(4, "Succeeded")}


@pytest.mark.parametrize(
    ("kind", "which", "changes", "found"),
    [
        # Members
        (MemberAdmitted, {"first_round": 1}, {"first_round": 2}, {(5, "first round")}),
        (KeysRotated, {}, {"node": STRANGER}, {(5, "standing before KeysRotated")}),
        (EpochRequested, {"epoch": 2}, {"epoch": 3}, {(4, "requested epoch")}),
        (EpochRequested, {"epoch": 2}, {"key_maker": STRANGER}, {(5, "standing of the key maker")}),
        (EpochPublished, {"epoch": 2}, {"membership": 4}, {(4, "membership of epoch 2")}),
        # Policies and privacy
        (PolicyApproved, {}, {"version": 2}, {(4, "approved policy")}),
        (PolicyApproved, {}, {"policy_digest": make_digest("x")}, {(4, "approved policy")}),
        (PolicyApproved, {}, {"node": STRANGER}, {(5, "standing of the approver")}),
        (PrivacySpent, {"round": 2}, {"round": 1}, {(4, "round that spends privacy")}),
        (PrivacySpent, {"round": 2}, {"cost": 1}, {(4, "privacy cost")}),
        (PrivacySpent, {"round": 2}, {"spent": 3}, {(4, "privacy spent")}),
        (PrivacySpent, {"round": 2}, {"budget": 7}, {(4, "privacy budget")}),
        # Batches
        (CommitmentsAnchored, {"round": 4}, {"count": 4}, {(4, "count in CommitmentsAnchored")}),
        (CommitmentsAnchored, {"round": 5}, {"count": 0}, {(4, "count in CommitmentsAnchored")}),
        (ResultProposed, {}, {"count": 1}, {(4, "count in ResultProposed")}),
        (ResultProposed, {}, {"count": 4}, {(4, "count in ResultProposed")}),
        (ResultProposed, {}, {"deadline": 1}, {(4, "deadline in ResultProposed")}),
        (ResultProposed, {}, {"model_digest": make_digest("x")}, {(11, "proposed model")}),
        (RoundSealed, {"round": 4}, {"reasons": bytes([0, 0])}, {(9, "reason")}),
        (RoundSealed, {"round": 4}, {"reasons": bytes([LEAF_TOO, LEAF_TOO + 1])}, {(9, "reason")}),
        (RoundSealed, {"round": 4}, {"reasons": bytes([LEAF_TOO + 1, 1])}, {(9, "contributors")}),
        (CommitmentsAnchored, {"round": 4}, {"count": 1}, {(9, "leaves that do not count")}),
        # Objections
        (RoundDisputed, {}, {"node": STRANGER}, {(5, "disputer")}),
        (RoundFailed, {"round": 5}, {"reason": 4}, {(4, "next event")}),
        (RoundFailed, {"round": 2}, {"reason": 4}, {(4, "next event")}),
        (ModelAttested, {"round": 4}, {"model_digest": make_digest("x")}, {(11, "proposed model")}),
        # Results
        (RoundFinalised, {"round": 1}, {"attested": 3}, {(11, "attestations in RoundFinalised")}),
        (RoundFinalised, {"round": 3}, {"attested": 0}, {(11, "attestations in RoundFinalised")}),
        (RoundFinalised, {"round": 3}, {"signers": (STRANGER,)}, {(11, "signer")}),
        (RoundFinalised, {"round": 3}, {"signers": ()}, {(11, "attestations of the finalised model")}),
        (ModelAttested, {"round": 1}, {"model_digest": make_digest("x")}, {(11, "attested model")}),
        (ModelAttested, {"round": 3}, {"model_digest": make_digest("x")}, {(11, "attested model")}),
        # Lineage
        (CheckpointReleased, {}, {"head_model": make_digest("x")}, {(4, "head model in CheckpointReleased")}),
        (Retired, {}, {"head_model": make_digest("x")}, {(4, "head model in Retired")}),
    ],
)
def test_what_an_event_says_must_fit(
    story: Story, kind: type[Event], which: dict[str, object], changes: dict[str, object], found: Found
) -> None:
    """One value of one event that cannot be fails the check that is about it."""
    event = story.find(kind, **which)
    assert found <= story.judge(story.swap(event, replace(event, **changes)))  # type: ignore[arg-type]


def test_signers_are_ascending_and_new(story: Story) -> None:
    """A signer that is named twice, or that attested by transaction before, fails check 11."""
    finalised = story.find(RoundFinalised, round=3)
    node = finalised.signers[0]
    twice = story.judge(story.swap(finalised, replace(finalised, signers=(node, node))))
    assert twice == {(11, "signers")}
    before = story.judge(story.swap(finalised, replace(finalised, signers=story.nodes[:1])))
    assert before == {(11, "signer")}


@pytest.mark.parametrize(
    ("kind", "which", "found"),
    [
        (MemberSuspended, {}, {(5, "standing before MemberAdmitted"), (4, "membership of epoch 2")}),
        (EpochRequested, {"epoch": 2}, {(4, "request for epoch 2")}),
        (EpochPublished, {"epoch": 2}, {(4, "membership changes since the epoch"), (4, "epoch")}),
        (PrivacySpent, {"round": 2}, {(4, "next event")}),
        (RoundFinalised, {"round": 1}, {(4, "next event")}),
        (RoundFailed, {"round": 2}, {(4, "next event")}),
        (RoundFailed, {"round": 5}, {(4, "next event")}),
        (ResultProposed, {}, {(11, "attestations of the finalised model")}),
        (UpdateCommitted, {"round": 4}, {(9, "reason"), (9, "contributors")}),
        (CommitmentsAnchored, {"round": 4}, {(9, "reason"), (9, "contributors")}),
    ],
)
def test_what_is_left_out_is_noticed(
    story: Story, kind: type[Event], which: dict[str, object], found: Found
) -> None:
    """An event without which the next ones cannot have come fails the check that is about it."""
    assert found <= story.judge(story.swap(story.find(kind, **which)))


@pytest.mark.parametrize(
    ("kind", "which", "found"),
    [
        (PrivacySpent, {"round": 2}, {(4, "next event"), (4, "privacy spent")}),
        (CommitmentsAnchored, {"round": 4}, {(4, "anchored batches")}),
        (ResultProposed, {}, {(4, "phase at ResultProposed")}),
        (MemberLeft, {}, {(5, "standing before MemberLeft"), (4, "membership of epoch 3")}),
        (MemberSuspended, {}, {(5, "standing before MemberSuspended")}),
        (MemberAdmitted, {"first_round": 1}, {(5, "standing before MemberAdmitted")}),
        (EpochPublished, {"epoch": 2}, {(4, "epoch"), (4, "request for epoch 2")}),
        (RoundDisputed, {}, {(4, "next event")}),
        (Retired, {}, {(4, "phase of round 6 at the retirement")}),
    ],
)
def test_what_comes_twice_is_noticed(
    story: Story, kind: type[Event], which: dict[str, object], found: Found
) -> None:
    """An event that cannot come again fails the check that is about it."""
    event = story.find(kind, **which)
    assert found <= story.judge(story.swap(event, event, event))


def test_an_admitted_node_does_not_apply(story: Story) -> None:
    """A node that is admitted, or suspended, cannot apply again; one that has left can."""
    applied = replace(story.find(MemberApplied), node=story.nodes[1])
    events = story.swap(story.find(PolicyApproved), applied)
    assert (5, "standing before MemberApplied") in story.judge(events)
    suspended = story.find(MemberSuspended)
    events = story.swap(suspended, suspended, replace(applied, node=suspended.node))
    assert (5, "standing before MemberApplied") in story.judge(events)


def test_who_was_suspended_joins_the_next_round_only(story: Story) -> None:
    """Of a node that is not in the round under way, an admission is for the next round."""
    admitted = story.find(MemberAdmitted, first_round=1)
    applied = replace(story.find(MemberApplied), node=STRANGER)
    joined = replace(admitted, node=STRANGER, first_round=2)
    changes = story.find(EpochPublished, epoch=2)
    events = story.swap(admitted, admitted, applied, joined)
    sound = tuple(replace(changes, membership=6) if event == changes else event for event in events)
    assert (5, "first round") not in story.judge(sound)
    early = tuple(replace(joined, first_round=1) if event == joined else event for event in sound)
    assert (5, "first round") in story.judge(early)


def test_a_suspended_node_is_not_in_the_next_cohort(story: Story) -> None:
    """A node that was suspended before a round opened, and commits in it, fails check 5."""
    opened, suspended = story.find(RoundOpened, round=1), story.find(MemberSuspended)
    events = story.swap(suspended)
    index = events.index(opened)
    events = (*events[:index], suspended, *events[index:])
    assert {(5, "committer"), (5, "attester"), (5, "first round")} <= story.judge(events)


def test_the_budget_is_never_exceeded(story: Story) -> None:
    """A round over its policy's budget fails check 4, although everything else adds up."""
    spent = story.find(PrivacySpent, round=3)
    adopted = story.find(PolicyAdopted, version=1)
    low = replace(adopted, policy=replace(adopted.policy, privacy_budget=5))
    events = tuple(
        low if event == adopted else replace(event, budget=5) if isinstance(event, PrivacySpent) else event
        for event in story.events
    )
    assert story.judge(events) == {(4, "privacy spent")}
    assert story.judge(story.swap(spent)) == {(4, "next event")}


@pytest.mark.parametrize(("before", "found"), [(0, set()), (1, {(4, "privacy spent")})])
def test_a_successor_goes_on_with_what_was_spent(story: Story, before: int, found: Found) -> None:
    """What a predecessor's rounds have spent counts against the budget of its successor's."""
    role = story.events[1]
    succeeded = Succeeded(
        predecessor=STRANGER,
        history_hash=make_digest("end"),
        head_model=story.find(PolicyAdopted, version=1).head_model,
        privacy_spent=before,
        block_number=role.block_number,
        transaction_hash=role.transaction_hash,
        log_index=2,
    )
    assert story.judge(story.swap(role, role, succeeded)) == found


def test_a_key_maker_is_still_a_member(story: Story) -> None:
    """An epoch of a key maker that was suspended after it was asked fails check 5."""
    requested, published = story.find(EpochRequested, epoch=3), story.find(EpochPublished, epoch=3)
    suspended = replace(story.find(MemberSuspended), node=requested.key_maker)
    events = story.swap(published, suspended, replace(published, membership=published.membership + 1))
    assert (5, "standing of the key maker") in story.judge(events)


def test_a_round_needs_a_policy(story: Story) -> None:
    """A round that opens before any policy was adopted fails check 4."""
    opened = story.find(RoundOpened, round=1)
    assert story.judge((opened,)) == {(4, "policy")}


@pytest.mark.parametrize("late_s", [0, 1])
def test_a_late_attestation_is_refused(story: Story, late_s: int) -> None:
    """An attestation counts until the deadline; one second later, it fails check 5."""
    attested = story.find(ModelAttested, round=2)
    times = {attested.block_number: story.find(AggregatePublished, round=2).deadline + late_s}
    assert ((5, "time of the attestation") in story.judge(times=times)) == bool(late_s)


def test_batches_need_a_policy_that_allows_them(story: Story) -> None:
    """A batch and a proposal under a policy without batches fail check 4."""
    adopted = story.find(PolicyAdopted, version=2)
    events = story.swap(adopted, replace(adopted, policy=replace(adopted.policy, batching=False)))
    assert {(4, "CommitmentsAnchored"), (4, "ResultProposed")} == story.judge(events)


@pytest.mark.parametrize("late_s", [0, 1])
def test_a_batch_leaves_time_to_commit(story: Story, late_s: int) -> None:
    """A batch may be anchored until a window before the deadline; one second later, it fails check 4."""
    anchored, opened = story.find(CommitmentsAnchored, round=4), story.find(RoundOpened, round=4)
    times = {anchored.block_number: opened.deadline - ATTEST_WINDOW_S + late_s}
    assert ((4, "time of the batch") in story.judge(times=times)) == bool(late_s)


@pytest.mark.parametrize("late_s", [0, 1])
def test_a_proposal_stands_until_its_deadline(story: Story, late_s: int) -> None:
    """A round is finalised on a proposal after its deadline; at the deadline, too few have attested."""
    finalised, proposed = story.find(RoundFinalised, round=4), story.find(ResultProposed)
    findings = Findings()
    times = {**story.timestamps, finalised.block_number: proposed.deadline + late_s}
    replay(story.events, times, findings)
    places = [(each.round, each.field, each.got) for each in findings.of(11)]
    assert places == ([] if late_s else [(4, "attestations of the finalised model", "1")])


@pytest.mark.parametrize("reason", [FailureReason.DISAGREEMENT, FailureReason.DISPUTE])
def test_nobody_gives_a_round_up_for_an_objection(story: Story, reason: FailureReason) -> None:
    """A failure for a disagreement or a dispute that no event brought about fails check 4."""
    failed = story.find(RoundFailed, round=6)
    assert story.judge(story.swap(failed, replace(failed, reason=reason))) == {(4, "next event")}


@pytest.mark.parametrize("reason", [FailureReason.NO_QUORUM, 0, 255])
def test_a_round_is_given_up_for_any_other_reason(story: Story, reason: int) -> None:
    """Whatever code the contract takes for a failure breaks no rule, known or not."""
    failed = story.find(RoundFailed, round=6)
    assert story.judge(story.swap(failed, replace(failed, reason=reason))) == set()


def test_an_objection_is_followed_at_once(story: Story) -> None:
    """A failure that comes two events after the dispute is not the one that it brought about."""
    disputed, left = story.find(RoundDisputed), story.find(MemberLeft)
    events = story.swap(left)
    events = tuple(each for event in events for each in ((event, left) if event == disputed else (event,)))
    findings = Findings()
    replay(events, story.timestamps, findings)
    assert [each.expected for each in findings.of(4) if each.field == "next event"] == [
        "RoundFailed (dispute)",
        "another event, as nobody objected",
    ]


def test_a_late_proposal_is_refused(story: Story) -> None:
    """A proposal after the deadline of the aggregate fails check 4."""
    proposed = story.find(ResultProposed)
    assert (4, "time of the proposal") in story.judge(times={proposed.block_number: 2**39})


def test_nothing_opens_after_the_retirement(story: Story) -> None:
    """A retired ledger opens no round, and takes no attestation of the last one."""
    retired, opened = story.find(Retired), story.find(RoundOpened, round=6)
    again = replace(opened, round=7, block_number=retired.block_number)
    assert (4, "phase of round 6 at the opening of round 7") in story.judge((*story.events, again))
    attested = replace(story.find(ModelAttested, round=4), round=6, block_number=retired.block_number)
    assert (4, "phase at ModelAttested") in story.judge((*story.events, attested))


def test_a_ledger_does_not_retire_within_a_round(story: Story) -> None:
    """A retirement while a round is under way fails check 4."""
    failed, retired = story.find(RoundFailed, round=6), story.find(Retired)
    events = story.swap(failed, retired)
    assert (4, "phase of round 6 at the retirement") in story.judge(events)


def test_a_history_does_not_end_within_a_transaction(story: Story) -> None:
    """What an event brings about may not be missing at the end either."""
    events = story.events[: story.events.index(story.find(RoundDisputed)) + 1]
    assert (4, "next event") in story.judge(events)
