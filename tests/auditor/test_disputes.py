"""Each dispute gets the verdict that ledger and store allow, and no check fails for an honest aggregator."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fedproof_auditor.disputes import Ruling, Verdict
from fedproof_auditor.verify import Audit

from fedproof.digests import Digest, checksum_address
from fedproof.ledger.events import (
    AggregatePublished,
    CommitmentsAnchored,
    ResultProposed,
    RoundDisputed,
    Subject,
)
from fedproof.store import ObjectStore
from tests.auditor.batched import anchor_instead, read_batch, sign_again
from tests.auditor.world import World, checks_of

CAUSELESS = "; the node failed the round without cause"
UPHELD, UNFOUNDED, UNDECIDED = Ruling


@pytest.fixture(scope="module")
def audited(disputed: World) -> Audit:
    """The whole federation's audit."""
    return disputed.audit()


@pytest.fixture
def copy(disputed: World, tmp_path: Path) -> Path:
    """A copy of the store, for one test to damage."""
    shutil.copytree(disputed.store, tmp_path / "store")
    return tmp_path / "store"


def audit_round(world: World, number: int, store: Path | None = None, **dispute: object) -> Audit:
    """Audit one round as if its dispute had been another."""
    events = world.change(world.find(RoundDisputed, round=number), **dispute) if dispute else None
    return world.audit(store, events=events, is_selected=lambda each: each == number)


def judge(world: World, number: int, store: Path | None = None, **dispute: object) -> Verdict:
    """Return the verdict of such an audit."""
    return audit_round(world, number, store, **dispute).verdicts[number]


def leaves_of(world: World, number: int, store: Path, kind: type = CommitmentsAnchored) -> Path:
    """Return where the leaves of a batch or a proposal are stored."""
    return store / "statements" / world.find(kind, round=number).root.hex()


def test_every_dispute_gets_its_verdict(audited: Audit) -> None:
    """A wrong chunk or leaf is told from a right one, and only rounds with a wrong one fail a check."""
    rulings = {number: verdict.ruling for number, verdict in audited.verdicts.items()}
    upheld = {number for number, ruling in rulings.items() if ruling is UPHELD}
    assert upheld == {2, 4, 7, 8}
    assert {number for number, ruling in rulings.items() if ruling is UNFOUNDED} == {1, 3, 5, 6, 9, 10}
    failures = {(each.check, each.round) for each in audited.findings.failures}
    assert failures == {(10, 2), (9, 4), (9, 7), (11, 8)}


def test_a_round_that_was_not_asked_for_has_no_verdict(disputed: World) -> None:
    """A selection decides only the disputes of its rounds."""
    assert set(audit_round(disputed, 5).verdicts) == {5}


# Chunks of the sum


def test_a_wrong_chunk_is_named_with_both_digests(disputed: World, audited: Audit) -> None:
    """A chunk that is not the sum of the committed ones upholds the dispute; the chunk beside it does not."""
    assert audited.verdicts[2].reason.startswith(
        f"chunk 1 of the sum has leaf digest 0x{disputed.sum_leaves(2)[1].hex()}, while the committed ones"
    )
    assert judge(disputed, 2, index=0).ruling is UNFOUNDED


def test_a_right_chunk_was_disputed_without_cause(audited: Audit) -> None:
    """A chunk that is the sum of the committed ones does not uphold the dispute."""
    reason = "chunk 1 of the sum is that of the committed ones" + CAUSELESS
    assert audited.verdicts[1] == Verdict(UNFOUNDED, reason)


def test_a_sum_that_nobody_published_cannot_be_wrong(audited: Audit) -> None:
    """A chunk that was disputed before the publication was disputed without cause."""
    assert audited.verdicts[3] == Verdict(UNFOUNDED, "no sum had been published" + CAUSELESS)


@pytest.mark.parametrize(
    ("number", "subject", "past", "expected"),
    [
        (1, Subject.CHUNK, 2, "the sum has 2 chunks"),
        (5, Subject.COMMITMENT, 4, "the batch has 4 leaves"),
        (9, Subject.ATTESTATION, 3, "the proposal has 3 leaves"),
    ],
)
def test_an_index_out_of_range_has_no_cause(
    disputed: World, number: int, subject: Subject, past: int, expected: str
) -> None:
    """The first index past the end is no chunk and no leaf; the one before it is."""
    verdict = judge(disputed, number, subject=subject, index=past)
    assert verdict == Verdict(UNFOUNDED, expected + CAUSELESS)
    assert judge(disputed, number, subject=subject, index=past - 1).reason.startswith(
        ("chunk 1", "leaf 3", "leaf 2")
    )


def test_a_chunk_that_cannot_be_added_makes_every_sum_wrong(disputed: World, copy: Path) -> None:
    """A committed chunk that is malformed upholds the dispute of the sum that pretends to hold it."""
    store = ObjectStore(copy)
    leaf, *others = read_batch(disputed, 1)
    header = store.get_header(leaf.update_root)
    first, second = map(Digest, header.chunk_digests)
    root = store.put_header(header.manifest, [first, store.put(store.get(second)[:-1])])
    leaves = [sign_again(disputed, 1, leaf, 0, update_root=root), *others]
    events = anchor_instead(disputed, copy, 1, leaves)
    verdict = disputed.audit(copy, events=events).verdicts[1]
    assert verdict.ruling is UPHELD
    assert verdict.reason.startswith(f"chunk 1 of {checksum_address(leaf.node)} cannot be added")


def test_what_a_sum_is_of_must_be_stored(disputed: World, copy: Path) -> None:
    """Without a chunk, a header or the leaves of the batch nobody can tell, and the verdict names them."""
    store, leaf = ObjectStore(copy), read_batch(disputed, 1)[0]
    node, digest = checksum_address(leaf.node), Digest(store.get_header(leaf.update_root).chunk_digests[1])
    anchored = disputed.find(CommitmentsAnchored, round=1)
    for path, lack in (
        (store.object_path(digest), f"no chunk 1 of {node} with leaf digest 0x{digest.hex()}"),
        (store.header_path(leaf.update_root), f"no sound header of {node}'s update, root 0x"),
        (leaves_of(disputed, 1, copy), f"no leaves under the batch's root 0x{anchored.root.hex()}"),
    ):
        path.unlink()
        audit = audit_round(disputed, 1, copy)
        assert audit.verdicts[1].ruling is UNDECIDED
        assert audit.verdicts[1].reason.startswith(f"the store holds {lack}")
        assert audit.findings.failures != []  # a published sum has to stay provable, also of a failed round


def test_an_altered_chunk_is_none(disputed: World, copy: Path) -> None:
    """A stored chunk that is not the committed one decides no dispute."""
    store = ObjectStore(copy)
    path = store.object_path(
        Digest(store.get_header(read_batch(disputed, 1)[0].update_root).chunk_digests[1])
    )
    path.write_bytes(bytes(len(path.read_bytes())))
    audit = audit_round(disputed, 1, copy)
    assert audit.verdicts[1].ruling is UNDECIDED
    assert checks_of(audit) == {8, 10}


def test_a_right_sum_is_proven_without_its_header(disputed: World, copy: Path) -> None:
    """The published root tells that all chunks are right, but not which one is wrong."""
    for number in (1, 2):
        root = disputed.find(AggregatePublished, round=number).aggregate_root
        ObjectStore(copy).header_path(root).unlink()
    assert judge(disputed, 1, copy).ruling is UNFOUNDED
    root = disputed.find(AggregatePublished, round=2).aggregate_root
    lack = f"the store holds no header of the sum under the published root 0x{root.hex()}"
    assert judge(disputed, 2, copy) == Verdict(UNDECIDED, lack)


# Leaves


@pytest.mark.parametrize(("number", "what"), [(4, "batch"), (8, "proposal")])
def test_a_forged_leaf_is_named(disputed: World, audited: Audit, number: int, what: str) -> None:
    """A leaf that its node did not sign so upholds the dispute, with the node; the one after it does not."""
    reason = audited.verdicts[number].reason
    assert reason.startswith(f"leaf 1 of the {what}: ")
    assert checksum_address(disputed.nodes[1]) in reason
    assert reason.endswith("expected its signature, got another")
    assert judge(disputed, number, index=2).ruling is UNFOUNDED


@pytest.mark.parametrize(("number", "what"), [(5, "batch"), (9, "proposal")])
def test_a_right_leaf_was_disputed_without_cause(
    disputed: World, audited: Audit, number: int, what: str
) -> None:
    """A leaf that its node signed does not uphold the dispute."""
    reason = f"leaf 1 of the {what} is one that {checksum_address(disputed.nodes[1])} signed" + CAUSELESS
    assert audited.verdicts[number] == Verdict(UNFOUNDED, reason)


def test_a_leaf_out_of_order_is_named(disputed: World, copy: Path) -> None:
    """A leaf that does not ascend upholds the dispute."""
    first, second, *others = read_batch(disputed, 5)
    events = anchor_instead(disputed, copy, 5, [second, first, *others])
    verdict = disputed.audit(copy, events=events).verdicts[5]
    assert verdict.ruling is UPHELD
    assert verdict.reason.startswith("leaf 1 of the batch: expected a node above ")


def test_a_leaf_that_counts_twice_is_named(disputed: World, audited: Audit) -> None:
    """A leaf whose node the seal counts by its transaction as well upholds the dispute."""
    node = checksum_address(disputed.nodes[1])
    reason = f"leaf 1 of the batch: expected the seal to count {node} once, it does not"
    assert audited.verdicts[7] == Verdict(UPHELD, reason)


@pytest.mark.parametrize(
    ("number", "kind", "what"), [(6, CommitmentsAnchored, "batch"), (10, ResultProposed, "proposal")]
)
def test_leaves_that_are_there_may_have_been_withheld(
    disputed: World, copy: Path, audited: Audit, number: int, kind: type, what: str
) -> None:
    """The first leaf stands for all: stored ones leave a doubt, lost ones support the dispute."""
    assert audited.verdicts[number].ruling is UNFOUNDED
    assert audited.verdicts[number].reason.endswith("may have been withheld when the node asked for them")
    leaves_of(disputed, number, copy, kind).unlink()
    audit = audit_round(disputed, number, copy)
    root = disputed.find(kind, round=number).root
    lack = f"it holds no leaves under the {what}'s root 0x{root.hex()}"
    assert audit.verdicts[number] == Verdict(UPHELD, f"as far as the store shows: {lack}")
    assert checks_of(audit) >= {9 if kind is CommitmentsAnchored else 11}
    assert judge(disputed, number, copy, index=1).ruling is UNDECIDED


@pytest.mark.parametrize("kept", [0, 100])
def test_other_leaves_are_none(disputed: World, copy: Path, kept: int) -> None:
    """Bytes that are not the leaves under the root support the dispute of withheld ones."""
    path = leaves_of(disputed, 6, copy)
    path.write_bytes(path.read_bytes()[:kept] if kept else leaves_of(disputed, 5, copy).read_bytes())
    assert judge(disputed, 6, copy).ruling is UPHELD
    assert judge(disputed, 6, copy, index=2).ruling is UNDECIDED


@pytest.mark.parametrize(
    ("subject", "what"), [(Subject.COMMITMENT, "batch"), (Subject.ATTESTATION, "proposal")]
)
def test_what_was_not_there_cannot_be_wrong(disputed: World, subject: Subject, what: str) -> None:
    """A leaf of a batch or proposal that there never was is disputed without cause."""
    assert judge(disputed, 3, subject=subject) == Verdict(UNFOUNDED, f"there was no {what}" + CAUSELESS)


def test_without_its_policy_no_dispute_is_decided(disputed: World, copy: Path) -> None:
    """Without the policy document nothing of the round can be read, and the verdict names the document."""
    digest = disputed.policy.digest.hex()
    (copy / "policies" / digest).unlink()
    verdict = disputed.audit(copy, policies=[]).verdicts[1]
    assert verdict.ruling is UNDECIDED
    assert digest in verdict.reason
