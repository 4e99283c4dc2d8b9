"""Whether a node that disputed a round was right, as far as anybody can tell from ledger and store.

A verdict decides no check: what it upholds fails check 9, 10 or 11 by itself, disputed or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from fedproof.errors import BadLeaf, PeerError
from fedproof.ledger.events import CommitmentsAnchored, ResultProposed, RoundDisputed, Subject
from fedproof.ledger.statements import (
    SignedAttestation,
    SignedCommitment,
    compute_batch_root,
    decode_batch,
    decode_proposal,
)
from fedproof_auditor.batches import StatementStore, describe_statements
from fedproof_auditor.chronicle import RoundRecord
from fedproof_auditor.chunks import ChunkResult, UpdateLeaf
from fedproof_auditor.findings import spell
from fedproof_auditor.rounds import RoundEvidence
from fedproof_auditor.sums import verify_sum
from fedproof_auditor.updates import RoundFacts, Standing, find_standing

_WITHOUT_CAUSE = "the node failed the round without cause"
_WITHHELD = "the leaves are there now, but may have been withheld when the node asked for them"


class Ruling(StrEnum):
    """How a dispute ends."""

    UPHELD = "upheld"  # what was disputed is wrong
    UNFOUNDED = "unfounded"  # it is right
    UNDECIDED = "undecided"  # the check needs what is not in the store


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit says of a dispute, and why."""

    ruling: Ruling
    reason: str


def judge(
    dispute: RoundDisputed,
    evidence: RoundEvidence,
    store: StatementStore,
) -> Verdict:
    """Return whether exactly what a node disputed is wrong.

    Args:
        dispute: the node's word.
        evidence: what is stored of its round, examined.
        store: holds the leaves of its batch and its proposal.
    """
    facts = evidence.facts
    if dispute.subject is Subject.CHUNK:
        return _judge_chunk(evidence, dispute.index)
    is_batch = dispute.subject is Subject.COMMITMENT
    bound = facts.record.batch if is_batch else facts.record.proposal
    what = "batch" if is_batch else "proposal"
    if bound is None:
        return _unfounded(f"there was no {what}")
    return _judge_leaf(facts, bound, store, what=what, index=dispute.index)


def _judge_chunk(evidence: RoundEvidence, index: int) -> Verdict:
    """Compare the published leaf digest of one chunk with that of the sum of the committed chunks."""
    chunks = evidence.facts.policy.chunks
    if evidence.facts.record.aggregate is None:
        return _unfounded("no sum had been published")
    if index >= chunks:
        return _unfounded(f"the sum has {chunks} chunks")
    result = evidence.results[index]
    spoilt = [spell(leaf.node) for leaf in _find_contributors(result) if leaf.node in result.malformed]
    if spoilt:
        reason = f"chunk {index} of {', '.join(spoilt)} cannot be added (check 8), so no sum of it is right"
        return Verdict(Ruling.UPHELD, reason)
    lack = next(_find_lacking(evidence, index), "")
    if lack:
        return _undecided(lack)
    digests = [each.sum_digest for each in evidence.results]  # what the root proves without a header
    published = evidence.aggregate.chunk_digests if evidence.aggregate else digests
    got, added = spell(published[index] if index < len(published) else None), spell(result.sum_digest)
    if got != added:
        reason = f"chunk {index} of the sum has leaf digest {got}, while the committed ones add up to {added}"
        return Verdict(Ruling.UPHELD, reason)
    return _unfounded(f"chunk {index} of the sum is that of the committed ones")


def _find_lacking(evidence: RoundEvidence, index: int) -> Iterator[str]:
    """Yield what would have to be stored to tell whether a chunk of a published sum is right."""
    record, result = evidence.facts.record, evidence.results[index]
    if record.is_batch_unread and record.batch:
        yield f"no leaves under the batch's root {spell(record.batch.root)}"
    sound = {each.node for each in evidence.updates}
    for node, committed in record.commitments.items():
        if find_standing(record, node) is Standing.CONTRIBUTOR and node not in sound:
            yield f"no sound header of {spell(node)}'s update, root {spell(committed.update_root)} (check 7)"
    for leaf in _find_contributors(result):
        if leaf.node not in result.seeds:
            yield f"no chunk {index} of {spell(leaf.node)} with leaf digest {spell(leaf.digest)}"
    if result.sum_digest is None:
        yield f"no chunks {index} that could be added up (checks 7 to 10)"
    if evidence.aggregate is None and record.aggregate:
        is_complete = all(each.sum_digest for each in evidence.results)
        if not is_complete or verify_sum(evidence.facts, evidence.results, None):
            yield f"no header of the sum under the published root {spell(record.aggregate.aggregate_root)}"


def _find_contributors(result: ChunkResult) -> list[UpdateLeaf]:
    return [leaf for leaf in result.task.leaves if leaf.standing is Standing.CONTRIBUTOR]


def _judge_leaf(
    facts: RoundFacts,
    bound: CommitmentsAnchored | ResultProposed,
    store: StatementStore,
    *,
    what: str,
    index: int,
) -> Verdict:
    """Look at one leaf under an anchored or proposed root; the first stands for all that are withheld."""
    if index >= bound.count:
        return _unfounded(f"the {what} has {bound.count} leaves")
    leaves = _read_leaves(bound, store)
    if not leaves:
        lack = f"no leaves under the {what}'s root {spell(bound.root)}"
        if index:
            return _undecided(lack)
        return Verdict(Ruling.UPHELD, f"as far as the store shows: it holds {lack}")
    statements, leaf = describe_statements(facts), leaves[index]
    try:
        if index and leaves[index - 1].node >= leaf.node:
            raise BadLeaf(f"expected a node above {spell(leaves[index - 1].node)}, got {spell(leaf.node)}")
        if isinstance(bound, ResultProposed):
            statements.verify_attestation(SignedAttestation(leaf.node, leaf.signature), bound.model_digest)
        elif isinstance(leaf, SignedCommitment):
            statements.verify_commitment(leaf, max_examples=facts.record.terms.max_examples)
            _verify_counted_once(facts.record, bound, leaf)
    except BadLeaf as error:
        return Verdict(Ruling.UPHELD, f"leaf {index} of the {what}: {error}")
    sound = f"leaf {index} of the {what} is one that {spell(leaf.node)} signed"
    if index == 0:
        return Verdict(Ruling.UNFOUNDED, f"as far as can be seen: {sound}; {_WITHHELD}")
    return _unfounded(sound)


def _read_leaves(
    bound: CommitmentsAnchored | ResultProposed, store: StatementStore
) -> tuple[SignedCommitment, ...] | tuple[SignedAttestation, ...]:
    """Return the stored leaves under a root; none if others, or none, are stored."""
    decode = decode_batch if isinstance(bound, CommitmentsAnchored) else decode_proposal
    try:
        leaves = decode(store.get_statements(bound.root))
    except PeerError:
        return ()
    return leaves if len(leaves) == bound.count and compute_batch_root(leaves) == bound.root else ()


def _verify_counted_once(record: RoundRecord, anchored: CommitmentsAnchored, leaf: SignedCommitment) -> None:
    """Raise BadLeaf if the seal counts a node by its transaction and by its leaf, or by neither."""
    committed = record.commitments.get(leaf.node, anchored)  # the leaf's own has the place of the batch
    place = (anchored.block_number, anchored.log_index)
    is_doubled = (committed.block_number, committed.log_index) != place
    if record.sealed and is_doubled != (leaf.node in record.sealed.doubled):
        raise BadLeaf(f"expected the seal to count {spell(leaf.node)} once, it does not")


def _unfounded(reason: str) -> Verdict:
    return Verdict(Ruling.UNFOUNDED, f"{reason}; {_WITHOUT_CAUSE}")


def _undecided(lack: str) -> Verdict:
    return Verdict(Ruling.UNDECIDED, f"the store holds {lack}")
