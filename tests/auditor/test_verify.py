"""Honest evidence passes every check; each test then changes exactly one thing, and one check names it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fedproof_auditor.checks import compute_history_hash
from fedproof_auditor.evidence import verify_pinned
from fedproof_auditor.findings import CheckFailed

from fedproof.codec import Codec
from fedproof.digests import ZERO_DIGEST, Digest, as_address, checksum_address
from fedproof.errors import LedgerError
from fedproof.ledger.events import (
    LEAF_TOO,
    AggregatePublished,
    EpochPublished,
    Event,
    ExclusionReason,
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
    UpdateCommitted,
)
from fedproof.manifest import AggregateManifest, Contribution, UpdateManifest
from fedproof.store import ObjectStore
from tests.auditor.world import (
    NAMES,
    PARAMETERS,
    ROUND_COST,
    Base,
    World,
    checks_of,
    first_of,
    make_account,
    make_base,
    make_digest,
)


def flip(path: Path, position: int = 1000) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1
    path.write_bytes(data)


def commit_to(
    world: World, store: Path, committer: int, chunks: list[bytes], *, number: int = 1, **changes: object
) -> UpdateCommitted:
    """Store an update of other chunks, or with another manifest, and return the commitment that fits it.

    The round stands in `number`, so that `round` can be one of the changes.
    """
    committed = world.commitment(number, committer)
    target = ObjectStore(store)
    manifest = UpdateManifest.parse(target.get_header(committed.update_root).manifest)
    changed = replace(manifest, **{"chunks": len(chunks), **changes})  # type: ignore[arg-type]
    root = target.put_header(changed.encode(), [target.put(chunk) for chunk in chunks])
    return replace(committed, update_root=root)


def read_chunks(world: World, number: int, node: int) -> list[bytes]:
    return [ObjectStore(world.store).get(leaf) for leaf in world.leaves(number, node)]


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


# 7: headers


def test_a_missing_header_is_a_failure(world: World, store: Path) -> None:
    """A contributor whose header is not stored fails check 7."""
    (store / "headers" / world.commitment(2, 1).update_root.hex()).unlink()
    first = first_of(world.audit(store))
    assert (first.check, first.round, first.node) == (7, 2, world.nodes[1])


def test_a_swapped_header_is_noticed(world: World, store: Path) -> None:
    """Another update's header under a commitment's root fails check 7."""
    headers = store / "headers"
    other = (headers / world.commitment(1, 1).update_root.hex()).read_bytes()
    (headers / world.commitment(1, 0).update_root.hex()).write_bytes(other)
    first = first_of(world.audit(store))
    assert (first.check, first.round, first.node) == (7, 1, world.nodes[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chain_id", 1),
        ("contract", bytes(20)),
        ("round", 2),
        ("node", bytes(19) + b"\x01"),
        ("epoch", 2),
        ("policy_digest", make_digest("x")),
        ("base_model", make_digest("x")),
        ("parameters", PARAMETERS - 1),
        ("examples", 101),
    ],
)
def test_a_manifest_must_say_what_the_ledger_says(
    world: World, store: Path, field: str, value: object
) -> None:
    """An update made for another chain, round, node, epoch, policy or model fails check 7, by field."""
    chunks = read_chunks(world, 1, 0)
    events = world.swap(world.commitment(1, 0), commit_to(world, store, 0, chunks, **{field: value}))  # type: ignore[arg-type]
    first = first_of(world.audit(store, events=events))
    assert (first.check, first.round, first.node) == (7, 1, world.nodes[0])
    assert first.field == f"manifest's {field}"


def test_a_sum_is_no_update(world: World) -> None:
    """A node that commits to the header of a sum fails check 7."""
    committed = world.commitment(2, 0)
    root = world.find(AggregatePublished, round=1).aggregate_root
    first = first_of(world.audit(events=world.change(committed, update_root=root)))
    assert (first.check, first.round, first.node) == (7, 2, world.nodes[0])
    assert (first.field, first.expected, first.got) == ("header", "an update's", "a sum's")


@pytest.mark.parametrize(
    ("field", "value"),
    [("base_values", make_digest("x")), ("clips", (0.5, 0.5, 0.5)), ("clips", (0.25, 0.5))],
)
def test_a_manifest_must_name_the_base_models_clips(
    world: World, store: Path, field: str, value: object
) -> None:
    """Values or clips that are not the base model's fail check 7, although nobody shows the model."""
    chunks = read_chunks(world, 1, 0)
    events = world.swap(world.commitment(1, 0), commit_to(world, store, 0, chunks, **{field: value}))  # type: ignore[arg-type]
    first = first_of(world.audit(store, events=events))
    assert (first.check, first.round, first.node, first.field) == (7, 1, world.nodes[0], "header")
    assert "expected those of the base model" in first.got


@pytest.mark.parametrize(
    ("clips", "field", "expected"),
    [
        ((0.5, 0.5), "", ""),
        ((0.25, 0.125), "", ""),
        ((0.5 + 2**-50, 0.125), "base model's clip 0", "0.25 to 0.5"),
        ((0.25 - 2**-50, 0.125), "base model's clip 0", "0.25 to 0.5"),
        ((0.5,), "number of the base model's clips", "2"),
    ],
)
def test_a_quorum_may_not_attest_any_clips(
    world: World, store: Path, clips: tuple[float, ...], field: str, expected: str
) -> None:
    """Clips above the policy's, or below half of what they were, fail check 7, although all nodes agree."""
    base = Base(make_digest("values 3"), clips)
    events: list[Event] = []
    for event in world.evidence.events:
        match event:
            case ModelAttested(round=3) | RoundFinalised(round=3):
                events.append(replace(event, model_digest=base.digest))
            case RoundOpened(round=4):
                events.append(replace(event, base_model=base.digest))
            case UpdateCommitted(round=4):
                chunks, changes = read_chunks(world, 4, 0), {"base_model": base.digest, "clips": clips}
                events.append(commit_to(world, store, 0, chunks, number=4, **changes))
            case _:
                events.append(event)
    audit = world.audit(store, events=tuple(events), head_model=base.digest)
    found = [(each.check, each.round, each.field, each.expected) for each in audit.findings.failures]
    assert found == [(7, 4, field, expected)] * bool(field)


# 8: chunks


def test_a_flipped_bit_is_named_by_round_node_and_chunk(world: World, store: Path) -> None:
    """One flipped bit of one stored ciphertext fails check 8."""
    flip(ObjectStore(store).object_path(world.leaves(2, 1)[1]))
    first = first_of(world.audit(store))
    assert (first.check, first.round, first.node, first.chunk) == (8, 2, world.nodes[1], 1)
    assert first.describe(world.names).startswith(f"round 2, {NAMES[1]}, chunk 1, stored ciphertext: ")


def test_a_missing_chunk_is_a_failure(world: World, store: Path) -> None:
    """A contributor's chunk that is not stored fails check 8, and its sum cannot be recomputed."""
    ObjectStore(store).object_path(world.leaves(1, 2)[0]).unlink()
    audit = world.audit(store)
    assert checks_of(audit) == {8, 10}
    first = first_of(audit)
    assert (first.round, first.node, first.chunk, first.expected) == (1, world.nodes[2], 0, "stored")


def test_a_malformed_chunk_is_refused(world: World, store: Path) -> None:
    """A committed chunk with a coefficient above the modulus fails check 8."""
    chunks = read_chunks(world, 1, 0)
    chunks[1] = b"\xff" * 32 + chunks[1][32:]
    events = world.swap(world.commitment(1, 0), commit_to(world, store, 0, chunks))
    first = first_of(world.audit(store, events=events))
    assert (first.check, first.node, first.chunk) == (8, world.nodes[0], 1)
    assert first.expected == "well-formed frames"


def test_a_chunk_of_another_length_is_refused(world: World, store: Path) -> None:
    """A committed chunk with a frame too many fails check 8."""
    chunks = read_chunks(world, 1, 0)
    chunks[1] += chunks[0][: len(chunks[1]) // 2]
    events = world.swap(world.commitment(1, 0), commit_to(world, store, 0, chunks))
    first = first_of(world.audit(store, events=events))
    assert (first.check, first.node, first.chunk) == (8, world.nodes[0], 1)


def test_of_two_equal_updates_of_a_round_both_nodes_are_named(world: World, store: Path) -> None:
    """Who copied cannot be told: commitments in the other order have the same hash, and the same is found."""
    committed, chunks = world.commitment(1, 0), read_chunks(world, 1, 0)
    copied = commit_to(world, store, 1, chunks)
    events = world.swap(world.commitment(1, 1), copied)
    place = {name: getattr(copied, name) for name in ("block_number", "transaction_hash", "log_index")}
    place_before = {name: getattr(committed, name) for name in place}
    moved = {committed: replace(copied, **place_before), copied: replace(committed, **place)}
    swapped = tuple(moved.get(event, event) for event in events)  # type: ignore[call-overload]
    assert swapped.index(moved[committed]) < swapped.index(moved[copied])
    assert compute_history_hash(swapped) == compute_history_hash(events)
    audits = [world.audit(store, events=each) for each in (events, swapped)]
    assert audits[0].findings.failures == audits[1].findings.failures
    first = first_of(audits[0])
    assert (first.check, first.round, first.node, first.chunk) == (8, 1, None, 0)
    assert all(checksum_address(node) in first.got for node in world.nodes[:2])


def test_a_copy_in_a_round_that_was_never_sealed_accuses_nobody(world: World, store: Path) -> None:
    """The hash does not cover such a commitment, so anybody may have made it up: both nodes are named."""
    chunks = read_chunks(world, 3, 1)
    events = world.swap(world.commitment(4, 0), commit_to(world, store, 0, chunks, number=4))
    audit = world.audit(store, events=events, history_hash=world.evidence.history_hash)
    assert checks_of(audit) == {8}
    first = first_of(audit)
    assert (first.round, first.node, first.chunk) == (4, None, 0)
    assert all(checksum_address(node) in first.got for node in world.nodes[:2])


def test_a_copy_from_an_earlier_round_is_named(world: World, store: Path) -> None:
    """A node that replays a ciphertext of an earlier round fails check 8."""
    chunks = [*read_chunks(world, 2, 2)[:1], read_chunks(world, 1, 0)[1]]
    events = world.swap(world.commitment(2, 2), commit_to(world, store, 2, chunks, number=2))
    first = first_of(world.audit(store, events=events))
    assert (first.check, first.round, first.node, first.chunk) == (8, 2, world.nodes[2], 1)
    assert first.got == f"one of round 1, {checksum_address(world.nodes[0])}, chunk 1"


def test_a_copy_with_something_added_is_named(world: World, store: Path) -> None:
    """Changing a copied ciphertext's first half does not hide the copy: its seed gives it away."""
    chunks = read_chunks(world, 1, 0)
    malleated = [bytes([chunk[0] ^ 1]) + chunk[1:] for chunk in chunks]
    events = world.swap(world.commitment(2, 1), commit_to(world, store, 1, malleated, number=2))
    first = first_of(world.audit(store, events=events))
    assert (first.check, first.round, first.node, first.chunk) == (8, 2, world.nodes[1], 0)


def test_a_node_that_repeats_its_own_frames_is_named(world: World, store: Path) -> None:
    """Equal frames within one update fail check 8: their order does not matter."""
    chunks = read_chunks(world, 1, 0)
    repeated = [chunks[0], chunks[0][: len(chunks[1])]]
    events = world.swap(world.commitment(1, 0), commit_to(world, store, 0, repeated))
    first = first_of(world.audit(store, events=events))
    assert (first.check, first.round, first.node, first.chunk) == (8, 1, world.nodes[0], 1)
    assert first.field == "seeds of the frames"


@pytest.mark.parametrize(("excluded", "named"), [((1,), ()), ((2,), ()), ((1, 2), (1, 2))])
def test_of_two_equal_updates_one_may_be_excluded(
    world: World, store: Path, excluded: tuple[int, ...], named: tuple[int, ...]
) -> None:
    """Whichever it is, it may be the copy; but one of the two was none, so excluding both fails check 9."""
    events = world.swap(
        world.commitment(2, 2), commit_to(world, store, 2, read_chunks(world, 2, 1), number=2)
    )
    sealed = world.find(RoundSealed, round=2)
    reasons = bytes(ExclusionReason.MALFORMED if node in excluded else 0 for node in range(3))
    index = events.index(sealed)
    events = (*events[:index], replace(sealed, reasons=reasons), *events[index + 1 :])
    failures = world.audit(store, events=events).findings.failures
    blamed = [each.node for each in failures if (each.check, each.field) == (9, "reason")]
    assert blamed == [world.nodes[node] for node in named]
    assert "seeds of the frames" not in {each.field for each in failures}


# 9: the sealed set


def test_a_dropped_committer_is_named(world: World) -> None:
    """A node that committed and is not among the sealed nodes fails check 9."""
    sealed = world.find(RoundSealed, round=1)
    audit = world.audit(events=world.change(sealed, nodes=sealed.nodes[1:], reasons=bytes(2)))
    first = first_of(audit)
    assert (first.check, first.round, first.node) == (9, 1, sealed.nodes[0])
    assert (first.field, first.got) == ("sealed nodes", "one is missing")


def test_a_contributor_that_did_not_commit_is_named(world: World) -> None:
    """A contributor without a commitment fails check 9, and so does an excluded node without one."""
    failures = world.audit(events=world.swap(world.commitment(1, 1))).findings.of(9)
    assert (1, world.nodes[1], "reason") in [(each.round, each.node, each.field) for each in failures]
    failures = world.audit(events=world.swap(world.commitment(3, 2))).findings.of(9)
    assert (3, world.nodes[2], "reason") in [(each.round, each.node, each.field) for each in failures]


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 1, 1, 2)])
def test_sealed_nodes_out_of_order_are_refused(world: World, order: tuple[int, ...]) -> None:
    """Sealed nodes that are not ascending, or named twice, fail check 9."""
    sealed = world.find(RoundSealed, round=1)
    nodes = tuple(sealed.nodes[index] for index in order)
    audit = world.audit(events=world.change(sealed, nodes=nodes, reasons=bytes(len(nodes))))
    assert [(each.round, each.field) for each in audit.findings.of(9)] == [(1, "sealed nodes")]


def test_a_node_without_a_reason_is_refused(world: World) -> None:
    """A seal with fewer reasons than nodes fails check 9."""
    failures = world.audit(events=world.change(world.find(RoundSealed, round=3), reasons=b"")).findings.of(9)
    assert (3, "reasons") in [(each.round, each.field) for each in failures]


@pytest.mark.parametrize("reason", [99, ExclusionReason.OVER_MAX_EXAMPLES, LEAF_TOO])
def test_a_reason_that_cannot_be_is_refused(world: World, reason: int) -> None:
    """A reason that is unknown, that the commitment contradicts, or that needs a batch fails check 9."""
    events = world.change(world.find(RoundSealed, round=3), reasons=bytes([0, 0, reason]))
    failures = world.audit(events=events).findings.of(9)
    assert (3, world.nodes[2], "reason") in [(each.round, each.node, each.field) for each in failures]


def test_a_sound_update_cannot_be_excluded_as_malformed(world: World) -> None:
    """An exclusion as malformed fails check 9 when the stored update is complete and sound."""
    sealed = world.find(RoundSealed, round=2)
    events = world.change(sealed, reasons=bytes([0, 0, ExclusionReason.MALFORMED]))
    failures = world.audit(events=events).findings.of(9)
    assert ("reason", sealed.nodes[2]) in {(each.field, each.node) for each in failures}


def test_a_seal_below_the_quorum_is_refused(world: World) -> None:
    """A round sealed with fewer contributors than the policy asks for fails check 9."""
    events = world.change(world.find(RoundSealed, round=3), reasons=bytes([0, 1, 1]))
    assert "at least 2" in {each.expected for each in world.audit(events=events).findings.of(9)}


def test_an_early_seal_needs_everybody(world: World) -> None:
    """A seal before the deadline that leaves a node out fails check 9."""
    sealed = world.find(RoundSealed, round=3)
    early = world.find(RoundOpened, round=3).deadline
    audit = world.audit(timestamps={**world.evidence.timestamps, sealed.block_number: early})
    assert [(each.round, each.field) for each in audit.findings.of(9)] == [(3, "time of the seal")]


# 10: sums


def republish(world: World, store: Path, chunks: list[bytes], **changes: object) -> AggregatePublished:
    """Store another sum for round 1, and return the event that publishes it."""
    published = world.find(AggregatePublished, round=1)
    target = ObjectStore(store)
    manifest = AggregateManifest.parse(target.get_header(published.aggregate_root).manifest)
    encoded = replace(manifest, **changes).encode()  # type: ignore[arg-type]
    root = target.put_header(encoded, [target.put(chunk) for chunk in chunks])
    return replace(published, aggregate_root=root)


def test_a_wrong_sum_is_named_by_its_chunk(world: World, store: Path) -> None:
    """A published sum that leaves one update out of one chunk fails check 10, naming that chunk only."""
    codec = Codec(world.policy.codec_parameters())
    wrong = codec.sum_chunks(read_chunks(world, 1, node)[1] for node in (0, 1))
    chunks = [ObjectStore(store).get(world.sum_leaves(1)[0]), wrong]
    events = world.swap(world.find(AggregatePublished, round=1), republish(world, store, chunks))
    audit = world.audit(store, events=events)
    assert checks_of(audit) == {10}
    assert [(each.round, each.chunk, each.field) for each in audit.findings.failures] == [(1, 1, "sum")]


def test_a_wrong_sum_without_a_header_is_refused(world: World) -> None:
    """A published root that the recomputed sum does not have fails check 10, header or not."""
    published = world.find(AggregatePublished, round=1)
    audit = world.audit(events=world.change(published, aggregate_root=make_digest("x")))
    assert checks_of(audit) == {10}
    assert {each.field for each in audit.findings.failures} == {"header of the sum", "aggregate root"}


def test_a_sum_that_names_other_contributors_is_refused(world: World, store: Path) -> None:
    """A sum whose manifest lists other contributors than the seal fails check 10, by field."""
    chunks = [ObjectStore(store).get(leaf) for leaf in world.sum_leaves(1)]
    two = tuple(
        Contribution(world.nodes[node], world.commitment(1, node).update_root, 100 + 10 * node)
        for node in (0, 1)
    )
    event = republish(world, store, chunks, contributors=two)
    audit = world.audit(store, events=world.swap(world.find(AggregatePublished, round=1), event))
    assert [(each.check, each.field) for each in audit.findings.failures] == [(10, "manifest's contributors")]


def test_a_sum_without_a_manifest_is_refused(world: World, store: Path) -> None:
    """A right sum published under something that is no manifest fails check 10."""
    published = world.find(AggregatePublished, round=1)
    root = ObjectStore(store).put_header(b"no manifest", world.sum_leaves(1))
    audit = world.audit(store, events=world.change(published, aggregate_root=root))
    assert [(each.check, each.round, each.field) for each in audit.findings.failures] == [
        (10, 1, "header of the sum")
    ]


def test_a_flipped_bit_in_a_stored_sum_is_named(world: World, store: Path) -> None:
    """One flipped bit of a stored sum fails check 10, naming round and chunk."""
    flip(ObjectStore(store).object_path(world.sum_leaves(2)[0]))
    audit = world.audit(store)
    assert checks_of(audit) == {10}
    assert (first_of(audit).round, first_of(audit).chunk) == (2, 0)


def test_a_missing_chunk_of_a_sum_is_a_failure(world: World, store: Path) -> None:
    """A sum that is not stored as a whole fails check 10: the nodes could not have read it."""
    ObjectStore(store).object_path(world.sum_leaves(2)[1]).unlink()
    audit = world.audit(store)
    assert [(each.check, each.round, each.chunk) for each in audit.findings.failures] == [(10, 2, 1)]


def test_a_missing_header_of_a_sum_is_a_failure(world: World, store: Path) -> None:
    """A sum whose header is not stored fails check 10."""
    (store / "headers" / world.find(AggregatePublished, round=3).aggregate_root.hex()).unlink()
    audit = world.audit(store)
    assert [(each.check, each.round) for each in audit.findings.failures] == [(10, 3)]


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
