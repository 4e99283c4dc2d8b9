"""Checks 7 to 10, on what is stored: each test changes exactly one thing, and one check names it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fedproof_auditor.checks import compute_history_hash
from fedproof_auditor.findings import Failure

from fedproof.codec import Codec
from fedproof.digests import checksum_address
from fedproof.ledger.events import (
    LEAF_TOO,
    AggregatePublished,
    Event,
    ExclusionReason,
    ModelAttested,
    RoundFinalised,
    RoundOpened,
    RoundSealed,
    UpdateCommitted,
)
from fedproof.manifest import AggregateManifest, Contribution
from fedproof.store import ObjectStore
from tests.auditor.tampering import commit_to, flip, read_chunks
from tests.auditor.world import (
    NAMES,
    PARAMETERS,
    Base,
    World,
    checks_of,
    first_of,
    make_digest,
)

# 7: headers


def first_of_another_manifest(world: World, store: Path, **changes: Any) -> Failure:
    """Return what is wrong first where a node committed to a manifest with other fields."""
    chunks = read_chunks(world, 1, 0)
    events = world.swap(world.commitment(1, 0), commit_to(world, store, 0, chunks, **changes))
    return first_of(world.audit(store, events=events))


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
    first = first_of_another_manifest(world, store, **{field: value})
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
    first = first_of_another_manifest(world, store, **{field: value})
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
