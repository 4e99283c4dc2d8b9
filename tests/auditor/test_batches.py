"""Signed statements: honest ones pass every check; each test changes one thing, and one check names it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fedproof_auditor.findings import Failure

from fedproof.codec import Codec
from fedproof.digests import Address, Digest, as_address, checksum_address
from fedproof.ledger.events import (
    LEAF_TOO,
    AggregatePublished,
    CommitmentsAnchored,
    ExclusionReason,
    Phase,
    ResultProposed,
    RoundSealed,
)
from fedproof.ledger.statements import (
    SignedAttestation,
    SignedCommitment,
    compute_batch_root,
    encode_leaves,
)
from fedproof.manifest import AggregateManifest
from fedproof.store import ObjectStore
from tests.auditor.batched import (
    anchor_instead,
    describe_round,
    find_account,
    propose_instead,
    read_batch,
    read_proposal,
    sign_again,
)
from tests.auditor.world import World, checks_of, first_of, make_account, make_digest

STRANGER = make_account("stranger")
SOUND = "ascending, each signed by a node of the cohort"


def place_of(failure: Failure) -> tuple[int, int | None, Address | None, str]:
    """Return the check, the round, the node and the field of a failure."""
    return failure.check, failure.round, failure.node, failure.field


def document(world: World, store: Path, number: int, kind: type = CommitmentsAnchored) -> Path:
    """Return where the leaves of a round's batch, or proposal, are stored."""
    return store / "statements" / world.find(kind, round=number).root.hex()


# Nothing wrong


def test_honest_statements_hold(batched: World) -> None:
    """Every check holds; the sealed set is made of transactions and leaves, and the result of signatures."""
    audit = batched.audit()
    assert audit.findings.failures == []
    assert (audit.updates, audit.chunks, audit.sums) == (13, 26, 3)
    first, second, third, fourth = audit.chronicle.rounds.values()
    a, b, c, wallet = batched.nodes
    assert (first.contributors, first.batched_contributors) == (batched.nodes, (a, wallet))
    assert (second.contributors, second.batched_contributors) == ((a, b, c), (a, b, c))
    assert (first.endorsers, first.attesters) == ({a, b, wallet}, {a, b, wallet})
    assert (third.phase, third.endorsers) == (Phase.FAILED, {a, b, wallet})
    assert (fourth.phase, fourth.batched) == (Phase.FAILED, {a, b})


# Check 9: what is stored under an anchored root


def test_a_missing_batch_is_a_failure(batched: World, batched_store: Path) -> None:
    """A batch whose leaves are not stored fails check 9; nobody can tell what the sum is of."""
    document(batched, batched_store, 1).unlink()
    audit = batched.audit(batched_store)
    assert [place_of(each) for each in audit.findings.failures] == [
        (9, 1, None, "batch"),
        (10, 1, None, "sealed set"),
    ]
    assert first_of(audit).expected == "stored leaves"
    assert first_of(audit).got.endswith("found no file")
    assert audit.findings.failures[1].got == "its batch cannot be read (check 9)"


@pytest.mark.parametrize("position", [0, 60, -1])
def test_an_altered_batch_is_noticed(batched: World, batched_store: Path, position: int) -> None:
    """Leaves of which one byte was changed, whether they can still be read or not, fail check 9."""
    path = document(batched, batched_store, 1)
    altered = bytearray(path.read_bytes())
    altered[position] ^= 1
    path.write_bytes(altered)
    first = first_of(batched.audit(batched_store))
    assert place_of(first) == (9, 1, None, "batch")
    assert first.expected == "the leaves under its root"


def test_a_batch_of_another_root_is_noticed(batched: World, batched_store: Path) -> None:
    """The leaves of another round under a round's root fail check 9, with the root that they have."""
    document(batched, batched_store, 1).write_bytes(document(batched, batched_store, 2).read_bytes())
    first = first_of(batched.audit(batched_store))
    assert place_of(first) == (9, 1, None, "batch")
    other = batched.find(CommitmentsAnchored, round=2)
    assert first.got.endswith(f"got 4 of {other.root.hex()}")


def test_a_wrong_count_of_leaves_is_noticed(batched: World) -> None:
    """An anchoring that names another count than there are leaves fails check 9."""
    anchored = batched.find(CommitmentsAnchored, round=1)
    failures = batched.audit(events=batched.change(anchored, count=4)).findings.of(9)
    (failure,) = [each for each in failures if each.field == "batch"]
    assert failure.round == 1
    assert "expected 4 leaves" in failure.got
    assert "got 3 of" in failure.got


def test_reordered_leaves_are_refused(batched: World, batched_store: Path) -> None:
    """Leaves that do not ascend by node fail check 9, with the index of the first that does not."""
    first, second, third = read_batch(batched, 1)
    events = anchor_instead(batched, batched_store, 1, [second, first, third])
    failures = batched.audit(batched_store, events=events).findings.failures
    assert [place_of(each) for each in failures] == [(9, 1, batched.nodes[0], "leaf 1 of the batch")]
    assert failures[0].expected == SOUND
    assert "expected a node above" in failures[0].got


def test_a_leaf_counts_once(batched: World, batched_store: Path) -> None:
    """The same leaf twice fails check 9: it would make a quorum of one node."""
    leaf, *others = read_batch(batched, 1)
    events = anchor_instead(batched, batched_store, 1, [leaf, leaf, *others])
    failures = batched.audit(batched_store, events=events).findings.of(9)
    assert (9, 1, batched.nodes[0], "leaf 1 of the batch") in map(place_of, failures)


def test_a_forged_signature_is_refused(batched: World, batched_store: Path) -> None:
    """A leaf that another node signed fails check 9, and that alone: the sum is as anchored."""
    forged, *others = read_batch(batched, 1)
    forged = sign_again(batched, 1, forged, 1)
    events = anchor_instead(batched, batched_store, 1, [forged, *others])
    failures = batched.audit(batched_store, events=events).findings.failures
    assert [place_of(each) for each in failures] == [(9, 1, batched.nodes[0], "leaf 0 of the batch")]
    assert failures[0].got.endswith("expected its signature, got another")


@pytest.mark.parametrize("changes", [{"examples": 101}, {"nonce": 7}, {"update_root": make_digest("x")}])
def test_what_was_signed_cannot_be_changed(
    batched: World, batched_store: Path, changes: dict[str, object]
) -> None:
    """A leaf that says something else than its signature is over fails check 9."""
    leaf, *others = read_batch(batched, 1)
    altered: SignedCommitment = replace(leaf, **changes)  # type: ignore[arg-type]
    events = anchor_instead(batched, batched_store, 1, [altered, *others])
    failures = batched.audit(batched_store, events=events).findings.of(9)
    assert [place_of(each) for each in failures] == [(9, 1, batched.nodes[0], "leaf 0 of the batch")]


def test_a_signature_of_another_round_is_refused(batched: World, batched_store: Path) -> None:
    """A leaf of an earlier round, replayed in a later one, fails check 9 there."""
    old, *_ = read_batch(batched, 1)
    _, *others = read_batch(batched, 2)
    events = anchor_instead(batched, batched_store, 2, [old, *others])
    first = batched.audit(batched_store, events=events).findings.of(9)[0]
    assert place_of(first) == (9, 2, batched.nodes[0], "leaf 0 of the batch")


def test_a_node_outside_the_cohort_is_refused(batched: World, batched_store: Path) -> None:
    """A leaf that a stranger signed for itself fails check 9, naming it."""
    node = as_address(STRANGER.address, "stranger")
    statements = describe_round(batched, 1)
    leaf = read_batch(batched, 1)[0]
    message = statements.describe_commitment(
        node, update_root=leaf.update_root, examples=leaf.examples, nonce=0
    )
    signature = bytes(STRANGER.sign_typed_data(full_message=message).signature)
    stranger = replace(leaf, node=node, nonce=0, signature=signature)
    leaves = sorted([*read_batch(batched, 1)[1:], stranger], key=lambda each: each.node)
    events = anchor_instead(batched, batched_store, 1, leaves)
    failures = batched.audit(batched_store, events=events).findings.of(9)
    assert [place_of(each) for each in failures] == [
        (9, 1, node, f"leaf {leaves.index(stranger)} of the batch")
    ]
    assert failures[0].got.endswith("expected a node of the cohort, it is none")


@pytest.mark.parametrize("examples", [0, 1001])
def test_examples_beyond_the_policy_are_refused(batched: World, batched_store: Path, examples: int) -> None:
    """A signed count of examples that the policy does not allow fails check 9, with the count."""
    leaf, *others = read_batch(batched, 1)
    leaves = [sign_again(batched, 1, leaf, 0, examples=examples), *others]
    events = anchor_instead(batched, batched_store, 1, leaves)
    failures = batched.audit(batched_store, events=events).findings.of(9)
    assert [place_of(each) for each in failures] == [(9, 1, batched.nodes[0], "leaf 0 of the batch")]
    assert failures[0].got.endswith(f"expected 1 to 1000 examples, got {examples}")


# Check 9: what the seal makes of them


def test_a_doubled_node_counts_once(batched: World, batched_store: Path) -> None:
    """A seal that counts a node by its transaction and by its leaf fails check 9, naming the node."""
    sealed = batched.find(RoundSealed, round=1)
    # Without the wallet's leaf, the number of contributors seems to be that of the cohort.
    anchored = anchor_instead(batched, batched_store, 1, read_batch(batched, 1)[:2])
    events = tuple(replace(each, reasons=bytes(2)) if each == sealed else each for each in anchored)
    failures = batched.audit(batched_store, events=events).findings.of(9)
    assert [place_of(each) for each in failures] == [(9, 1, batched.nodes[2], "seal")]
    assert failures[0].got == "twice"


def test_no_more_contribute_than_there_are(batched: World) -> None:
    """A seal after which more contribute than the cohort has nodes fails check 9."""
    sealed = batched.find(RoundSealed, round=1)
    failures = batched.audit(events=batched.change(sealed, reasons=bytes(2))).findings.of(9)
    assert ("contributors", "at most the cohort's 4", "5") in {
        (each.field, each.expected, each.got) for each in failures
    }


def test_only_a_doubled_node_has_a_leaf_that_does_not_count(batched: World) -> None:
    """A seal that strikes a leaf which is not there fails check 9, naming the node."""
    sealed = batched.find(RoundSealed, round=1)
    events = batched.change(sealed, reasons=bytes([LEAF_TOO, LEAF_TOO]))
    failures = batched.audit(events=events).findings.failures
    assert (9, 1, batched.nodes[1], "seal") in map(place_of, failures)
    assert "a leaf in the batch as well" in {each.expected for each in failures}


def test_an_excluded_node_committed(batched: World) -> None:
    """An exclusion of a node that committed neither by transaction nor in the batch fails check 9."""
    sealed = batched.find(RoundSealed, round=2)
    stranger = as_address(STRANGER.address, "stranger")
    reasons = {**dict(zip(sealed.nodes, sealed.reasons, strict=True)), stranger: ExclusionReason.MALFORMED}
    nodes = tuple(sorted(reasons))
    events = batched.change(sealed, nodes=nodes, reasons=bytes(reasons[node] for node in nodes))
    failures = batched.audit(events=events).findings.failures
    assert [place_of(each) for each in failures] == [(9, 2, stranger, "seal")]
    assert failures[0].expected == "a node that committed in either way"


def test_no_more_leaves_are_struck_than_there_are(batched: World) -> None:
    """A seal that strikes more leaves than were anchored fails check 9."""
    anchored = batched.find(CommitmentsAnchored, round=1)
    sealed = batched.find(RoundSealed, round=1)
    events = batched.change(anchored, count=1)
    struck = replace(sealed, reasons=bytes([LEAF_TOO, LEAF_TOO]))
    events = tuple(struck if event == sealed else event for event in events)
    failures = batched.audit(events=events).findings.of(9)
    assert ("leaves that do not count", "at most the batch's 1", "2") in {
        (each.field, each.expected, each.got) for each in failures
    }


def test_a_leaf_cannot_be_excluded_as_malformed(batched: World) -> None:
    """An exclusion of a batched node as malformed fails check 9 when its stored update is sound."""
    sealed = batched.find(RoundSealed, round=2)
    events = batched.change(sealed, nodes=batched.nodes[:1], reasons=bytes([ExclusionReason.MALFORMED]))
    failures = batched.audit(events=events).findings.of(9)
    assert [place_of(each) for each in failures] == [(9, 2, batched.nodes[0], "reason")]


# Checks 7, 8 and 10: what a batched contributor has uploaded


def test_a_batched_contributors_header_must_be_there(batched: World, batched_store: Path) -> None:
    """A contributor by signature whose header is not stored fails check 7."""
    (batched_store / "headers" / read_batch(batched, 1)[0].update_root.hex()).unlink()
    first = first_of(batched.audit(batched_store))
    assert place_of(first) == (7, 1, batched.nodes[0], "header")


def test_a_batched_contributors_chunk_is_the_committed_one(batched: World, batched_store: Path) -> None:
    """One flipped bit of a chunk of a contributor by signature fails check 8, naming node and chunk."""
    target = ObjectStore(batched_store)
    header = target.get_header(read_batch(batched, 1)[0].update_root)
    path = target.object_path(Digest(header.chunk_digests[1]))
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    audit = batched.audit(batched_store)
    assert checks_of(audit) == {8, 10}
    assert place_of(first_of(audit)) == (8, 1, batched.nodes[0], "stored ciphertext")
    assert first_of(audit).chunk == 1


def test_nobody_is_called_a_copier_where_one_of_two_was_batched(batched: World, batched_store: Path) -> None:
    """Frames of a batched update that a transaction commits to as well fail check 8, and both are named."""
    target = ObjectStore(batched_store)
    committed = batched.commitment(1, 1)
    anchored = batched.find(CommitmentsAnchored, round=1)
    victim = target.get_header(read_batch(batched, 1)[0].update_root)
    manifest = target.get_header(committed.update_root).manifest
    root = target.put_header(manifest, [Digest(raw) for raw in victim.chunk_digests])
    place = {name: getattr(anchored, name) for name in ("block_number", "transaction_hash")}
    copied = replace(committed, update_root=root, log_index=anchored.log_index + 1, **place)
    events = tuple(
        event
        for each in batched.evidence.events
        for event in ((each, copied) if each == anchored else () if each == committed else (each,))
    )
    first = first_of(batched.audit(batched_store, events=events))
    assert place_of(first) == (8, 1, None, "seeds of the frames")
    for node in batched.nodes[:2]:
        assert checksum_address(node) in first.got


def test_a_sum_has_every_batched_contributor(batched: World, batched_store: Path) -> None:
    """A sum from which a contributor by signature was left out fails check 10, in manifest and chunks."""
    target = ObjectStore(batched_store)
    published = batched.find(AggregatePublished, round=1)
    manifest = AggregateManifest.parse(target.get_header(published.aggregate_root).manifest)
    kept = tuple(each for each in manifest.contributors if each.node != batched.nodes[0])
    headers = [target.get_header(each.update_root) for each in kept]
    chunks = [[target.get(Digest(raw)) for raw in header.chunk_digests] for header in headers]
    codec = Codec(batched.policy.codec_parameters())
    sums = [target.put(codec.sum_chunks(row)) for row in zip(*chunks, strict=True)]
    root = target.put_header(replace(manifest, contributors=kept).encode(), sums)
    audit = batched.audit(batched_store, events=batched.change(published, aggregate_root=root))
    assert [(*place_of(each), each.chunk) for each in audit.findings.failures] == [
        (10, 1, None, "manifest's contributors", None),
        (10, 1, None, "sum", 0),
        (10, 1, None, "sum", 1),
    ]


# Check 11: what is stored under a proposed root


def test_a_missing_proposal_is_a_failure(batched: World, batched_store: Path) -> None:
    """A result that was proposed, and whose signatures are not stored, fails check 11."""
    document(batched, batched_store, 1, ResultProposed).unlink()
    failures = batched.audit(batched_store).findings.failures
    assert [place_of(each) for each in failures] == [(11, 1, None, "proposal")]
    assert failures[0].expected == "stored leaves"


def test_an_altered_proposal_is_noticed(batched: World, batched_store: Path) -> None:
    """Signatures of which one bit was changed fail check 11."""
    path = document(batched, batched_store, 1, ResultProposed)
    altered = bytearray(path.read_bytes())
    altered[-40] ^= 1
    path.write_bytes(altered)
    failures = batched.audit(batched_store).findings.failures
    assert [place_of(each) for each in failures] == [(11, 1, None, "proposal")]


def test_a_batch_is_no_proposal(batched: World) -> None:
    """Commitments in the place of attestations fail check 11."""
    anchored, proposed = batched.find(CommitmentsAnchored, round=1), batched.find(ResultProposed, round=1)
    failures = batched.audit(events=batched.change(proposed, root=anchored.root)).findings.failures
    assert [place_of(each) for each in failures] == [(11, 1, None, "proposal")]


def test_a_signature_under_another_model_is_refused(batched: World, batched_store: Path) -> None:
    """A proposal in which one node signed another model fails check 11, naming the node."""
    first, second, third = read_proposal(batched, 1)
    message = describe_round(batched, 1).describe_attestation(second.node, make_digest("another model"))
    signature = bytes(find_account(batched, 1).sign_typed_data(full_message=message).signature)
    other = SignedAttestation(second.node, signature)
    events = propose_instead(batched, batched_store, 1, [first, other, third])
    failures = batched.audit(batched_store, events=events).findings.failures
    assert [place_of(each) for each in failures] == [(11, 1, batched.nodes[1], "leaf 1 of the proposal")]
    assert failures[0].got.endswith("expected its signature, got another")


def test_a_quorum_is_of_different_nodes(batched: World, batched_store: Path) -> None:
    """One node's attestation twice does not make up a quorum."""
    first, second, _ = read_proposal(batched, 1)
    events = propose_instead(batched, batched_store, 1, [first, second, second])
    failures = batched.audit(batched_store, events=events).findings.failures
    assert [place_of(each) for each in failures] == [(11, 1, batched.nodes[1], "leaf 2 of the proposal")]


# Rounds without an end


@pytest.mark.parametrize(
    ("number", "kind", "check"),
    [(3, CommitmentsAnchored, 9), (3, ResultProposed, 11), (4, CommitmentsAnchored, 9)],
)
def test_statements_of_a_failed_round_must_be_kept(
    batched: World, batched_store: Path, number: int, kind: type, check: int
) -> None:
    """However a round ended, who named a root on the ledger has to show what is under it."""
    document(batched, batched_store, number, kind).unlink()
    audit = batched.audit(batched_store)
    assert (first_of(audit).check, first_of(audit).round) == (check, number)
    assert audit.chronicle.rounds[number].is_batch_unread == (kind is CommitmentsAnchored)


@pytest.mark.parametrize(
    ("number", "kind", "check"),
    [(3, CommitmentsAnchored, 9), (3, ResultProposed, 11), (4, CommitmentsAnchored, 9)],
)
def test_what_is_stored_of_a_failed_round_must_hold(
    batched: World, batched_store: Path, number: int, kind: type, check: int
) -> None:
    """Altered leaves of a round that failed are named, whether it was sealed or not."""
    path = document(batched, batched_store, number, kind)
    path.write_bytes(path.read_bytes()[:-1])
    first = first_of(batched.audit(batched_store))
    assert (first.check, first.round) == (check, number)


def test_a_forgery_in_a_failed_round_is_named(batched: World, batched_store: Path) -> None:
    """A forged leaf fails check 9 although its round was never sealed."""
    leaf, other = read_batch(batched, 4)
    events = anchor_instead(batched, batched_store, 4, [sign_again(batched, 4, leaf, 1), other])
    failures = batched.audit(batched_store, events=events).findings.failures
    assert [place_of(each) for each in failures] == [(9, 4, batched.nodes[0], "leaf 0 of the batch")]


def test_an_empty_batch_is_none(batched: World, batched_store: Path) -> None:
    """A document without leaves, anchored as such, does not pass for a batch."""
    root = compute_batch_root([])
    ObjectStore(batched_store).put_statements(root, encode_leaves([]))
    events = batched.change(batched.find(CommitmentsAnchored, round=1), root=root, count=0)
    assert {4, 9} <= checks_of(batched.audit(batched_store, events=events))


def test_a_batch_without_its_policy_does_not_pass(batched: World, batched_store: Path) -> None:
    """Rounds to which nodes committed by signature alone fail check 7 where no policy document is there."""
    (batched_store / "policies" / batched.policy.digest.hex()).unlink()
    failures = batched.audit(batched_store, policies=[]).findings.of(7)
    assert [each.round for each in failures] == [1, 2, 3, 4]


def test_only_the_selected_rounds_statements_are_read(batched: World, batched_store: Path) -> None:
    """A selection leaves the statements of other rounds alone."""
    document(batched, batched_store, 1).unlink()
    audit = batched.audit(batched_store, is_selected=lambda number: number == 2)
    assert audit.findings.failures == []
    assert audit.chronicle.rounds[1].is_batch_unread
