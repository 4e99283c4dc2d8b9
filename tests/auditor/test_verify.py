"""Honest evidence passes every check; each test then changes exactly one thing, and one check names it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fedproof_auditor.evidence import verify_pinned
from fedproof_auditor.findings import CheckFailed

from fedproof.digests import ZERO_DIGEST, Digest, as_address
from fedproof.errors import LedgerError
from fedproof.ledger.events import (
    AggregatePublished,
    EpochPublished,
    Event,
    FailureReason,
    MemberAdmitted,
    MemberApplied,
    ModelAttested,
    Phase,
    PolicyAdopted,
    PrivacySpent,
    RoundFailed,
    RoundFinalised,
    RoundOpened,
    RoundSealed,
)
from fedproof.store import ObjectStore
from tests.auditor.tampering import flip
from tests.auditor.world import (
    ROUND_COST,
    World,
    checks_of,
    first_of,
    make_account,
    make_base,
    make_digest,
)

# Nothing wrong


def test_honest_evidence_holds(world: World) -> None:
    """Every check holds, and each had something to look at."""
    audit = world.audit()
    assert audit.findings.failures == []
    assert sorted(audit.chronicle.rounds) == [1, 2, 3, 4]
    assert (audit.updates, audit.chunks, audit.sums) == (9, 18, 3)
    parameters = world.policy.codec_parameters()
    assert audit.bytes_added == 8 * 18 * parameters.update_frame_bytes


def test_policies_come_from_the_store_as_well(world: World) -> None:
    """No document has to be handed in when the aggregator has stored the adopted one."""
    assert world.audit(policies=[]).findings.failures == []


# 1: code


@pytest.mark.parametrize("code", [b"", b"\x60\x80"])
def test_other_code_is_refused(world: World, code: bytes) -> None:
    """Code that is not the artifact's, or none at all, fails check 1."""
    audit = world.audit(code=code)
    assert checks_of(audit) == {1}
    assert first_of(audit).field == "code"


# 2: events


def test_a_missing_event_is_noticed(world: World) -> None:
    """An event that the endpoint leaves out fails check 2, which names the block that it stood in."""
    event = world.find(ModelAttested, round=2, node=world.nodes[1])
    audit = world.audit(events=world.swap(event), history_hash=world.evidence.history_hash)
    first = first_of(audit)
    assert first.check == 2
    assert f"after block {event.block_number} " in first.field


def test_a_missing_first_event_is_noticed(world: World) -> None:
    """Also the very first event may not be left out, although nothing is known of the time before it."""
    events = world.evidence.events[1:]
    audit = world.audit(events=events, history_hash=world.evidence.history_hash)
    assert f"after block {events[0].block_number} " in first_of(audit).field


def test_an_endpoint_without_old_state_hides_nothing(world: World) -> None:
    """When the endpoint cannot say what was true at earlier blocks, the audited block itself is named."""

    def forget(number: int) -> Digest:
        raise LedgerError(f"block {number}: missing trie node")

    events = world.swap(world.commitment(1, 0))
    audit = world.audit(events=events, history_hash=world.evidence.history_hash, hash_at=forget)
    assert f"after block {world.evidence.block.number} " in first_of(audit).field


def test_an_altered_event_is_noticed(world: World) -> None:
    """An event with another value fails check 2."""
    events = world.change(world.commitment(1, 0), examples=99)
    audit = world.audit(events=events, history_hash=world.evidence.history_hash)
    assert first_of(audit).check == 2


def test_events_out_of_order_are_noticed(world: World) -> None:
    """Two events that changed places fail check 2."""
    spent = world.find(PrivacySpent, round=2)
    opened = world.find(RoundOpened, round=2)
    events = [event for event in world.evidence.events if event != opened]
    events.insert(events.index(spent) + 1, opened)
    audit = world.audit(events=tuple(events), history_hash=world.evidence.history_hash)
    assert 2 in checks_of(audit)


def test_a_commitment_counts_from_the_seal_of_its_round_on(world: World) -> None:
    """The history hash covers the commitments of sealed rounds, not those of one that failed while open."""
    altered = world.change(world.commitment(3, 2), examples=99)
    audit = world.audit(events=altered, history_hash=world.evidence.history_hash)
    sealed = world.find(RoundSealed, round=3)
    assert f"after block {sealed.block_number} " in first_of(audit).field
    without = world.swap(world.commitment(4, 0))
    assert world.audit(events=without, history_hash=world.evidence.history_hash).findings.failures == []


def test_a_reorganised_chain_is_noticed(world: World) -> None:
    """A block that was replaced during the audit fails check 2."""
    verify_pinned(world.endpoint, world.evidence.block)
    with pytest.raises(CheckFailed, match="reorganised") as caught:
        verify_pinned(world.endpoint, replace(world.evidence.block, hash=ZERO_DIGEST))
    assert caught.value.failure.check == 2


# 3: policy


def test_an_altered_policy_is_refused(world: World) -> None:
    """A policy document with another clip fails check 3, although the store holds the right one."""
    altered = replace(world.policy, codec=replace(world.policy.codec, clip=0.6))
    audit = world.audit(policies=[altered])
    assert checks_of(audit) == {3}
    assert first_of(audit).got == "0x" + altered.digest.hex()


def test_a_missing_policy_is_a_failure(world: World, store: Path) -> None:
    """Without a document, check 3 names the first round that needs it, and later checks do not pass."""
    (store / "policies" / world.policy.digest.hex()).unlink()
    audit = world.audit(store, policies=[])
    assert checks_of(audit) == {3, 6, 7}
    assert (first_of(audit).check, first_of(audit).round) == (3, 1)
    assert {failure.round for failure in audit.findings.of(7)} == {1, 2, 3, 4}


def test_an_altered_stored_policy_is_noticed(world: World, store: Path) -> None:
    """A stored policy whose bytes changed fails check 3, even where it was handed in as well."""
    flip(store / "policies" / world.policy.digest.hex(), 40)
    assert checks_of(world.audit(store)) == {3}


@pytest.mark.parametrize(
    ("term", "value", "named"),
    [
        ("max_examples", 999, "max_examples"),
        ("batching", True, "batching"),
        ("privacy_cost", ROUND_COST + 1, "privacy round_cost"),
        ("privacy_budget", 0, "privacy budget"),
    ],
)
def test_terms_on_chain_are_those_of_the_document(world: World, term: str, value: int, named: str) -> None:
    """A contract that enforces something else than the document says fails check 3, by field."""
    adopted = world.find(PolicyAdopted)
    audit = world.audit(events=world.change(adopted, policy=replace(adopted.policy, **{term: value})))  # type: ignore[arg-type]
    assert first_of(audit).check == 3
    assert named in first_of(audit).field


# 4: rounds


def test_a_wrong_base_model_is_refused(world: World) -> None:
    """A round on another model than the last finalised one fails check 4."""
    audit = world.audit(events=world.change(world.find(RoundOpened, round=2), base_model=make_digest("x")))
    first = first_of(audit)
    assert (first.check, first.round, first.field) == (4, 2, "base model")
    assert first.expected == "0x" + make_base(1).digest.hex()


def test_the_round_after_a_failed_one_keeps_its_base(world: World) -> None:
    """A round opened after a failed one starts from the last finalised model."""
    failed = world.find(RoundFailed, round=4)
    opened = world.find(RoundOpened, round=4)
    again = replace(opened, round=5, block_number=failed.block_number, deadline=0)
    deadline = world.evidence.timestamps[failed.block_number] + world.policy.rounds.commit_window_s
    spent = replace(world.find(PrivacySpent, round=4), round=5, spent=5 * ROUND_COST)
    sound = (*world.evidence.events, replace(again, deadline=deadline), spent)
    assert world.audit(events=sound).findings.failures == []
    opened = replace(again, deadline=deadline, base_model=make_base(2).digest)
    events = (*world.evidence.events, opened, spent)
    assert [each.field for each in world.audit(events=events).findings.failures] == ["base model"]


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("policy_version", 2, "policy version"),
        ("epoch", 2, "epoch"),
        ("deadline", 1, "commitment deadline"),
        ("round", 7, "number"),
    ],
)
def test_an_opening_must_fit_what_came_before(world: World, field: str, value: int, named: str) -> None:
    """A round opened on a version, an epoch, a deadline or a number that does not follow fails check 4."""
    audit = world.audit(events=world.change(world.find(RoundOpened, round=1), **{field: value}))
    assert first_of(audit).check == 4
    assert named in {failure.field for failure in audit.findings.of(4)}


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        (PolicyAdopted, {"version": 2}, "policy version"),
        (EpochPublished, {"epoch": 2}, "epoch"),
        (RoundSealed, {"deadline": 1}, "deadline in RoundSealed"),
        (AggregatePublished, {"deadline": 2**39}, "deadline in AggregatePublished"),
        (RoundFailed, {"phase": Phase.SEALED}, "phase in which it failed"),
    ],
)
def test_every_step_must_fit_what_came_before(
    world: World, kind: type[Event], changes: dict[str, object], field: str
) -> None:
    """A version, an epoch, a deadline or a phase that does not follow fails check 4, by field."""
    audit = world.audit(events=world.change(world.find(kind), **changes))
    assert field in {failure.field for failure in audit.findings.of(4)}


def test_a_policy_does_not_move_the_head(world: World) -> None:
    """A policy adopted later that names another head model than the last result fails check 4."""
    again = replace(world.find(PolicyAdopted), version=2, head_model=make_base(2).digest)
    audit = world.audit(events=(*world.evidence.events, again))
    assert [(each.check, each.field) for each in audit.findings.failures] == [
        (4, "head model in PolicyAdopted")
    ]


def test_a_round_opened_before_the_last_one_ended_is_refused(world: World) -> None:
    """Without the finalisation of round 1, the opening of round 2 fails check 4."""
    audit = world.audit(events=world.swap(world.find(RoundFinalised, round=1)))
    assert ("phase of round 1 at the opening of round 2", 2) in {
        (failure.field, failure.round) for failure in audit.findings.of(4)
    }


def test_a_commitment_after_the_seal_is_refused(world: World) -> None:
    """A commitment in a round that is sealed already fails check 4."""
    sealed, committed = world.find(RoundSealed, round=3), world.commitment(3, 2)
    events = list(world.swap(committed))
    events.insert(events.index(sealed) + 1, committed)
    first = first_of(world.audit(events=tuple(events)))
    assert (first.check, first.round, first.node) == (4, 3, world.nodes[2])


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"attestation_quorum": 1}, "at least 2 nodes, and fewer than 2"),
        ({"min_contributors": 4}, "at least 4 nodes, and fewer than 4"),
    ],
)
def test_a_cohort_reaches_both_quorums_once(world: World, terms: dict[str, int], expected: str) -> None:
    """A cohort too small for its quorums, or in which two models can reach one, fails check 4."""
    adopted = world.find(PolicyAdopted)
    policy = replace(adopted.policy, **terms)  # type: ignore[arg-type]
    audit = world.audit(events=world.change(adopted, policy=policy))
    failures = [each for each in audit.findings.of(4) if each.field == "cohort"]
    assert {each.round for each in failures} == {1, 2, 3, 4}
    assert {(each.expected, each.got) for each in failures} == {(expected, "3 nodes")}


def test_a_late_aggregate_is_refused(world: World) -> None:
    """A sum published after its deadline fails check 4."""
    published = world.find(AggregatePublished, round=2)
    late = world.find(RoundSealed, round=2).deadline + 1
    audit = world.audit(timestamps={**world.evidence.timestamps, published.block_number: late})
    assert ("time of the aggregate", 2) in {(each.field, each.round) for each in audit.findings.of(4)}


# 5: who acted, and when


def test_a_node_that_was_not_admitted_is_named(world: World) -> None:
    """A committer whose admission is not in the history fails check 5, by round and node."""
    audit = world.audit(events=world.swap(world.find(MemberAdmitted, node=world.nodes[2])))
    failure = audit.findings.of(5)[0]
    assert (failure.round, failure.node) == (1, world.nodes[2])
    assert failure.field == "committer"
    assert failure.expected == "a node of the cohort of round 1"


def test_a_node_that_never_applied_is_named(world: World) -> None:
    """An admission without an application fails check 5."""
    audit = world.audit(events=world.swap(world.find(MemberApplied, node=world.nodes[1])))
    failure = audit.findings.of(5)[0]
    assert (failure.node, failure.field, failure.got) == (
        world.nodes[1],
        "standing before MemberAdmitted",
        "none",
    )


def test_a_node_that_joined_later_is_named(world: World) -> None:
    """A committer that was admitted after the opening of the round fails check 5."""
    admitted, opened = world.find(MemberAdmitted, node=world.nodes[0]), world.find(RoundOpened, round=1)
    events = [event for event in world.evidence.events if event != admitted]
    events.insert(events.index(opened) + 2, replace(admitted, first_round=2))
    failure = world.audit(events=tuple(events)).findings.of(5)[-1]
    assert (failure.round, failure.node, failure.field) == (1, world.nodes[0], "attester")


def test_a_second_commitment_is_refused(world: World) -> None:
    """A node that commits twice in a round fails check 5."""
    committed = world.commitment(2, 0)
    audit = world.audit(events=world.swap(committed, committed, replace(committed, log_index=9)))
    assert checks_of(audit) == {5}
    assert (first_of(audit).round, first_of(audit).node) == (2, world.nodes[0])


@pytest.mark.parametrize(("late_s", "checks"), [(0, set()), (1, {5})])
def test_a_late_commitment_is_refused(world: World, late_s: int, checks: set[int]) -> None:
    """A commitment at the deadline counts, one second later it fails check 5."""
    committed = world.commitment(4, 0)
    time = world.find(RoundOpened, round=4).deadline + late_s
    audit = world.audit(timestamps={**world.evidence.timestamps, committed.block_number: time})
    assert checks_of(audit) == checks


def test_too_many_examples_are_refused(world: World) -> None:
    """A commitment above the policy's example cap fails check 5."""
    audit = world.audit(events=world.change(world.commitment(2, 1), examples=1001))
    first = first_of(audit)
    assert (first.check, first.round, first.node, first.got) == (5, 2, world.nodes[1], "1001")


def test_a_second_attestation_is_refused(world: World) -> None:
    """A node that attests twice in a round fails check 5."""
    attested = world.find(ModelAttested, round=1, node=world.nodes[2])
    audit = world.audit(events=world.swap(attested, attested, replace(attested, log_index=9)))
    assert checks_of(audit) == {5}


# 6: epochs


def test_another_context_is_refused(world: World) -> None:
    """An epoch whose context does not follow from the policy fails check 6."""
    audit = world.audit(events=world.change(world.find(EpochPublished), context_digest=make_digest("x")))
    assert checks_of(audit) == {6}
    assert first_of(audit).expected == "0x" + world.policy.codec_parameters().digest.hex()


def test_missing_wrapped_keys_are_a_failure(world: World, store: Path) -> None:
    """An epoch whose wrapped keys are not stored fails check 6."""
    (store / "epochs" / "1").unlink()
    assert checks_of(world.audit(store)) == {6}


def test_altered_wrapped_keys_are_noticed(world: World, store: Path) -> None:
    """Wrapped keys that do not have the published root fail check 6."""
    flip(store / "epochs" / "1", 500)
    assert checks_of(world.audit(store)) == {6}


def test_a_member_without_a_wrapped_key_is_named(world: World) -> None:
    """A node that was admitted before the epoch and got no key fails check 6."""
    outsider = as_address(make_account("outsider").address, "outsider")
    published = world.find(EpochPublished)
    applied = replace(world.find(MemberApplied), node=outsider)
    admitted = replace(world.find(MemberAdmitted), node=outsider)
    requested = world.evidence.events.index(published) - 1
    events = list(world.evidence.events)
    events[requested:requested] = [applied, admitted]
    failure = next(each for each in world.audit(events=tuple(events)).findings.of(6))
    assert failure.node == outsider
    assert failure.got == "none"


def test_a_key_for_somebody_else_is_named(world: World) -> None:
    """A wrapped key for a node that was never admitted fails check 6."""
    audit = world.audit(events=world.swap(world.find(MemberAdmitted, node=world.nodes[1])))
    (failure,) = audit.findings.of(6)
    assert (failure.node, failure.got) == (world.nodes[1], "one")


def test_a_node_admitted_while_the_key_is_made_gets_one(world: World) -> None:
    """A node that was admitted after the key maker was asked, and got no key, fails check 6."""
    outsider = as_address(make_account("outsider").address, "outsider")
    published = world.find(EpochPublished)
    applied = replace(world.find(MemberApplied), node=outsider)
    admitted = replace(world.find(MemberAdmitted), node=outsider)
    events = world.swap(published, applied, admitted, replace(published, membership=4))
    (failure,) = world.audit(events=events).findings.of(6)
    assert (failure.node, failure.got) == (outsider, "none")


def test_a_missing_public_key_is_a_failure(world: World, store: Path) -> None:
    """A wrapped key whose node's public key is not stored fails check 6, naming the node."""
    applied = world.find(MemberApplied, node=world.nodes[2])
    (store / "keys" / applied.wrapping_key_digest.hex()).unlink()
    audit = world.audit(store)
    assert [(each.check, each.node) for each in audit.findings.failures] == [(6, world.nodes[2])]


# 11: attestations


def test_a_late_dissenter_is_named(world: World) -> None:
    """An attestation of another model after the finalisation fails check 11, and that alone."""
    attested = world.find(ModelAttested, round=1, node=world.nodes[2])
    audit = world.audit(events=world.change(attested, model_digest=make_digest("x")))
    assert [(each.check, each.round, each.node, each.field) for each in audit.findings.failures] == [
        (11, 1, world.nodes[2], "attested model")
    ]


def test_too_few_attestations_are_refused(world: World) -> None:
    """A round finalised on fewer attestations than the quorum fails check 11."""
    audit = world.audit(events=world.swap(world.find(ModelAttested, round=2, node=world.nodes[1])))
    assert checks_of(audit) == {11}
    fields = ["attestations in RoundFinalised", "attestations of the finalised model"]
    assert [each.field for each in audit.findings.failures] == fields


def test_the_finalised_model_is_the_attested_one(world: World) -> None:
    """A round finalised with a model that nobody attested fails check 11."""
    audit = world.audit(
        events=world.change(world.find(RoundFinalised, round=3), model_digest=make_digest("x"))
    )
    assert first_of(audit).check == 4  # round 4 opened on another model
    assert ("finalised model", 3) in {(each.field, each.round) for each in audit.findings.of(11)}


# 12: the head


def test_another_head_model_is_refused(world: World) -> None:
    """A head model that is not the last finalised one fails check 12."""
    audit = world.audit(head_model=make_base(2).digest)
    assert checks_of(audit) == {12}
    assert (first_of(audit).round, first_of(audit).expected) == (3, "0x" + make_base(3).digest.hex())


# Rounds without an end, and selections


def test_a_failed_round_need_not_be_complete(world: World, store: Path) -> None:
    """Evidence of a failed round may be missing, and the report says how much of it there is."""
    ObjectStore(store).object_path(world.leaves(4, 0)[1]).unlink()
    audit = world.audit(store)
    assert audit.findings.failures == []
    assert audit.examined[4] == frozenset()
    (store / "headers" / world.commitment(4, 0).update_root.hex()).unlink()
    assert world.audit(store).findings.failures == []


def test_what_is_stored_of_a_failed_round_must_be_true(world: World, store: Path) -> None:
    """A flipped bit in a failed round's ciphertext fails check 8."""
    flip(ObjectStore(store).object_path(world.leaves(4, 0)[0]))
    audit = world.audit(store)
    assert [(each.check, each.round, each.chunk) for each in audit.findings.failures] == [(8, 4, 0)]


def test_a_round_that_failed_after_its_sum_is_still_recomputed(world: World, store: Path) -> None:
    """A wrong sum is named although its round failed, and so is one that was lost with a failed round."""
    finalised = world.find(RoundFinalised, round=3)
    late = [world.find(ModelAttested, round=3, node=node) for node in world.nodes[1:]]
    place = {
        name: getattr(finalised, name) for name in ("block_number", "transaction_hash", "log_index", "round")
    }
    failed = RoundFailed(phase=Phase.AGGREGATED, reason=FailureReason.NO_QUORUM, **place)
    events = tuple(
        failed if event == finalised else event
        for event in world.evidence.events
        if getattr(event, "round", 0) < 4 and event not in late
    )
    head = make_base(2).digest
    assert world.audit(events=events, head_model=head).findings.failures == []
    published = world.find(AggregatePublished, round=3)
    lying = tuple(
        replace(event, aggregate_root=make_digest("x")) if event == published else event for event in events
    )
    assert checks_of(world.audit(events=lying, head_model=head)) == {10}
    ObjectStore(store).object_path(world.sum_leaves(3)[0]).unlink()
    ObjectStore(store).object_path(world.leaves(3, 0)[0]).unlink()
    assert checks_of(world.audit(store, events=events, head_model=head)) == {8, 10}
    later = (AggregatePublished, ModelAttested)
    unpublished = tuple(
        replace(event, phase=Phase.SEALED) if event == failed else event
        for event in events
        if not (isinstance(event, later) and event.round == 3)
    )
    assert world.audit(store, events=unpublished, head_model=head).findings.failures == []


def test_only_the_selected_rounds_are_read(world: World, store: Path) -> None:
    """A selection leaves the stored evidence of other rounds alone, and says which it looked at."""
    flip(ObjectStore(store).object_path(world.leaves(2, 0)[0]))
    assert world.audit(store, is_selected=lambda number: number == 1).findings.failures == []
    assert checks_of(world.audit(store, is_selected=lambda number: number == 2)) == {8, 10}


def test_an_empty_federation_holds(world: World) -> None:
    """A contract that has only been deployed has nothing wrong with it."""
    events = tuple(event for event in world.evidence.events if type(event).__name__.startswith("Role"))
    audit = world.audit(events=events, head_model=ZERO_DIGEST, policies=[])
    assert audit.findings.failures == []
