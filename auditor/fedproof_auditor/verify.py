"""`fedproof audit verify`: whether what a ledger and a store say about a federation holds.

Trusts neither: the ledger's endpoint is held against the contract's own running hash, the store against the
ledger, and the published sums against sums recomputed from the stored ciphertexts, without any key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from fedproof.digests import Address
from fedproof.errors import LedgerError
from fedproof.policy import Policy
from fedproof_auditor.batches import StatementStore, read_statements
from fedproof_auditor.checks import (
    compute_history_hash,
    locate_break,
    verify_code,
    verify_head_model,
    verify_history,
    verify_seal,
)
from fedproof_auditor.chronicle import Chronicle, RoundRecord
from fedproof_auditor.clips import verify_clips
from fedproof_auditor.disputes import Ruling, Verdict, judge
from fedproof_auditor.documents import AdoptedPolicy, PolicyStore, verify_documents
from fedproof_auditor.epochs import KeyStore, verify_epochs
from fedproof_auditor.evidence import LedgerEvidence, Progress
from fedproof_auditor.findings import Failure, Findings, spell
from fedproof_auditor.replay import replay
from fedproof_auditor.rounds import ChunkStore, Examine, RoundEvidence, examine_rounds, read_headers
from fedproof_auditor.updates import RoundFacts


class Store(KeyStore, PolicyStore, ChunkStore, StatementStore, Protocol):
    """What an aggregator has stored: `fedproof_auditor.stored.StoredEvidence`."""


@dataclass(slots=True)
class Audit:
    """What an audit looked at, and found.

    Attributes:
        chronicle: what happened, according to the ledger.
        findings: what does not hold.
        examined: the rounds whose stored evidence was looked at, each with the nodes whose update is stored
            as a whole and sound.
        verdicts: on the disputes of the rounds that were looked at.
        deleted: the rounds of which updates are missing and need not be there any more, and for how many days
            they had to be.
        updates: how many updates with a sound header were looked at.
        chunks: how many of their chunks were read and are sound.
        sums: how many published sums were recomputed.
        bytes_added: of the ciphertexts that went into them.
    """

    chronicle: Chronicle = field(default_factory=Chronicle)
    findings: Findings = field(default_factory=Findings)
    examined: dict[int, frozenset[Address]] = field(default_factory=dict)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    deleted: dict[int, int] = field(default_factory=dict)
    updates: int = 0
    chunks: int = 0
    sums: int = 0
    bytes_added: int = 0


def verify(
    evidence: LedgerEvidence,
    store: Store,
    documents: Mapping[str, Policy],
    *,
    is_selected: Callable[[int], bool],
    examine: Examine,
    progress: Progress,
) -> Audit:
    """Return what holds and what does not.

    1. The code on chain equals the committed artifact's.
    2. The events, replayed, give the contract's history hash as of the audited block. It covers a commitment
       from the seal of its round on, and gives those of one round no order among themselves.
    3. Each policy document is one that the ledger adopted, and there is one for each version in use; the
       contract enforces what the document says.
    4. Rounds are numbered one by one and follow the state machine; each opens on the newest policy, on an
       epoch of the present membership and on the last finalised model, or the genesis; deadlines, batches
       and the privacy spent are as the policy says; what follows at once from an event does.
    5. Nodes apply, are admitted and leave in turn; each committer, attester and objector was admitted when
       the round opened, acted once per round, and before the deadline (block timestamps).
    6. Each epoch's context digest follows from the policy's codec; its wrapped keys are stored, have the
       published root, and are for exactly the nodes admitted then, whose public keys are stored.
    7. Each contributor's header is stored and has the committed root; its manifest names this chain,
       contract, round, node, epoch, policy, base model and example count. The base model's clips are the
       genesis model's, or may follow from those of the round that made it.
    8. Each chunk of a contributor is stored, hashes to its leaf, and has well-formed frames; no two frames of
       all updates share a seed, so no update copies another's ciphertexts; within a round, nobody can tell
       which is the copy. It need not be stored once the retention is over that the policy of its round names.
    9. The sealed nodes are exactly those who committed; each exclusion has a reason that the store does not
       contradict; there are enough contributors. The leaves of a batch are stored, and each is signed by a
       node of the cohort; the seal counts each node once.
    10. The sum recomputed from the stored ciphertexts has the published root, and is stored. Where updates
        need not be stored and are not, the rest is checked: the sum's header, its chunks, and what can be
        recomputed of them.
    11. Attestations agree, and those before the finalisation or with it reach the quorum; the finalised model
        is theirs. The leaves of a proposal are stored, and each is a signature under its model.
    12. The head model on chain is the last finalised one.

    Updates of a round that is not sealed yet, or failed before its sum was published, need not be there; what
    is must hold. So a dispute that is upheld has failed one of these checks.
    Checks that rest on the ledger alone are always made for all rounds.

    Args:
        evidence: what the chain says.
        store: what the aggregator has stored.
        documents: policy documents that were handed in, by where they come from.
        is_selected: whether to look at the stored evidence of a round.
        examine: does the work on chunks.
        progress: told how far it has come.
    """
    audit = Audit()
    findings = audit.findings
    with findings.collect():
        verify_code(evidence.code)  # 1
    with findings.collect():
        _verify_events(evidence)  # 2
    audit.chronicle = replay(evidence.events, evidence.timestamps, findings)  # 4, 5, 11
    policies = verify_documents(audit.chronicle, documents, store, findings)  # 3
    verify_epochs(audit.chronicle, policies, store, findings)  # 6
    for record in audit.chronicle.rounds.values():
        findings.failures += verify_seal(record)  # 9
    _examine_selected(  # 7, 8, 9, 10
        audit, evidence, policies, store, is_selected=is_selected, examine=examine, progress=progress
    )
    with findings.collect():
        verify_head_model(audit.chronicle, evidence.head_model)  # 12
    return audit


def _verify_events(evidence: LedgerEvidence) -> None:
    """Check 2, naming the first block after which something is missing or altered."""
    events, last_block = evidence.events, evidence.block.number
    if compute_history_hash(events) != evidence.history_hash:
        # An endpoint that keeps no old state, or fails now, must not hide what has been found already.
        with suppress(LedgerError):
            block = locate_break(events, evidence.hash_at, last_block=last_block)
            upto = [event for event in events if event.block_number <= block]
            verify_history(upto, evidence.hash_at(block), block_number=block)
    verify_history(events, evidence.history_hash, block_number=last_block)


def _examine_selected(
    audit: Audit,
    evidence: LedgerEvidence,
    policies: Mapping[int, AdoptedPolicy],
    store: Store,
    *,
    is_selected: Callable[[int], bool],
    examine: Examine,
    progress: Progress,
) -> None:
    """Checks 7 to 11 on the stored evidence of the selected rounds."""
    rounds: list[RoundEvidence] = []
    for record in sorted(audit.chronicle.rounds.values(), key=lambda each: each.number):
        if not is_selected(record.number):
            continue
        policy = policies.get(record.opened.policy_version)
        if policy is None:
            audit.findings.expect(
                not record.commitments and record.batch is None,
                Failure(
                    check=7,
                    field="stored updates",
                    expected="a policy document to read them by",
                    got="none (check 3)",
                    round=record.number,
                ),
            )
            if record.dispute:
                lack = f"the policy document {spell(record.terms.digest)} is not there (check 3)"
                audit.verdicts[record.number] = Verdict(Ruling.UNDECIDED, lack)
            continue
        has_expired = _has_expired(record, policy, evidence)
        facts = RoundFacts(evidence.chain_id, evidence.contract, record, policy, has_expired)
        read_statements(facts, store, audit.findings)
        rounds.append(read_headers(facts, store, audit.findings))
    clips = {each.facts.record.number: each.clips for each in rounds}
    audit.findings.failures += verify_clips(audit.chronicle, policies, clips)
    total = sum(len(each.tasks) for each in rounds)
    examine_rounds(
        rounds, examine, audit.findings, lambda done: progress("adding up ciphertexts", done, total)
    )
    for each in rounds:
        record = each.facts.record
        audit.examined[record.number] = each.complete
        if record.dispute:
            audit.verdicts[record.number] = judge(record.dispute, each, store)
        if each.is_deleted:
            audit.deleted[record.number] = each.facts.policy.document.evidence.retention_days
        audit.updates += len(each.updates)
        audit.chunks += sum(len(result.seeds) for result in each.results)
        audit.sums += bool(each.results) and all(result.sum_digest for result in each.results)
        audit.bytes_added += sum(result.bytes_added for result in each.results)


def _has_expired(record: RoundRecord, policy: AdoptedPolicy, evidence: LedgerEvidence) -> bool:
    """Return whether a round ended so long ago that its own policy lets its updates be deleted.

    When rounds opened, were sealed and had a sum, the history hash shows through their deadlines (check 4).
    When they ended, it does not; an end that an endpoint dates before one of these was no earlier than that.
    """
    end = record.finalised or record.failed
    if end is None:
        return False
    steps = (record.opened, record.sealed, record.aggregate, record.proposal, end)
    ended_at = max(evidence.timestamps[step.block_number] for step in steps if step is not None)
    return policy.document.evidence.has_expired(ended_at=ended_at, now=evidence.now)
