"""The checks that need nothing but the ledger: 1, 2, 9, 11 and 12. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from fedproof.digests import ZERO_DIGEST, Digest
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.encoding import chain_entry, compute_entry
from fedproof.ledger.events import Event, ExclusionReason, OnChainPolicy, Phase, RoundSealed
from fedproof_auditor.chronicle import Chronicle, RoundRecord
from fedproof_auditor.findings import CheckFailed, Failure, require_equal, spell


def verify_code(code: bytes) -> None:
    """Check 1: the code at the contract's address is the artifact's.

    Raises:
        CheckFailed: it is not.
    """
    expected = load_artifact().deployed_bytecode
    if code != expected:
        got = f"{len(code)} bytes that differ" if code else "no code at that address"
        raise CheckFailed(
            Failure(check=1, field="code", expected=f"the artifact's {len(expected)} bytes", got=got)
        )


def verify_history(events: Sequence[Event], history_hash: Digest, *, block_number: int) -> None:
    """Check 2: the events in their order give the history hash at the audited block.

    Raises:
        CheckFailed: one is missing, altered or out of order.
    """
    what = f"history hash after block {block_number} of {len(events)} events"
    require_equal(compute_history_hash(events), history_hash, check=2, field=what)


def compute_history_hash(events: Sequence[Event]) -> Digest:
    """Return the running hash that the contract has after these events."""
    running = ZERO_DIGEST
    for event in events:
        running = chain_entry(running, compute_entry(event))
    return running


def locate_break(events: Sequence[Event], hash_at: Callable[[int], Digest], *, last_block: int) -> int:
    """Return the first block after which the events no longer give the history hash.

    Args:
        events: whose hash differs from the contract's after the last block.
        hash_at: returns the contract's history hash after a block; asked about log2(last_block) times, and
            never about a block before the first event, when there was no contract.
        last_block: where the difference was seen.
    """
    sound, broken = (events[0].block_number if events else last_block) - 1, last_block
    while broken - sound > 1:
        middle = (sound + broken) // 2
        upto = [event for event in events if event.block_number <= middle]
        if compute_history_hash(upto) == hash_at(middle):
            sound = middle
        else:
            broken = middle
    return broken


def verify_seal(record: RoundRecord, policy: OnChainPolicy) -> Iterator[Failure]:
    """Check 9: yield what is wrong with a sealed round's contributors.

    Contributors and excluded nodes are ascending, disjoint, and together exactly those who committed; each
    excluded node has a reason that we know; there are enough contributors; and the seal came early only when
    nobody of the cohort was left out.
    """
    sealed, number = record.sealed, record.number
    if sealed is None:
        return
    for what, nodes in (("contributors", sealed.contributors), ("excluded", sealed.excluded)):
        if list(nodes) != sorted(set(nodes)):
            yield Failure(
                check=9, round=number, field=what, expected="ascending addresses, each once", got="others"
            )
    listed = Counter([*sealed.contributors, *sealed.excluded])
    for node in sorted(listed.keys() | record.commitments.keys()):
        if node not in record.commitments:
            expected, got = "a committed node", "a node that did not commit"
        elif listed[node] != 1:
            expected = "once among contributors and excluded"
            got = "in neither" if not listed[node] else f"{listed[node]} times"
        else:
            continue
        yield Failure(check=9, round=number, node=node, field="sealed set", expected=expected, got=got)
    if len(sealed.excluded) != len(sealed.reasons):
        yield Failure(
            check=9,
            round=number,
            field="reasons",
            expected=f"one for each of {len(sealed.excluded)} excluded nodes",
            got=str(len(sealed.reasons)),
        )
    yield from _verify_reasons(record, sealed, policy)
    if len(sealed.contributors) < policy.min_contributors:
        yield Failure(
            check=9,
            round=number,
            field="contributors",
            expected=f"at least {policy.min_contributors}",
            got=str(len(sealed.contributors)),
        )
    if len(sealed.contributors) != len(record.cohort) and record.sealed_at <= record.opened.deadline:
        yield Failure(
            check=9,
            round=number,
            field="time of the seal",
            expected=f"after {record.opened.deadline}, as {len(sealed.contributors)} of {len(record.cohort)} "
            "nodes contributed",
            got=str(record.sealed_at),
        )


def _verify_reasons(record: RoundRecord, sealed: RoundSealed, policy: OnChainPolicy) -> Iterator[Failure]:
    for node, reason in zip(sealed.excluded, sealed.reasons, strict=False):
        expected = f"one of {sorted(int(known) for known in ExclusionReason)}"
        got = "" if reason in list(ExclusionReason) else str(reason)
        commitment = record.commitments.get(node)
        if reason == ExclusionReason.OVER_MAX_EXAMPLES and commitment is not None:
            expected = f"more than {policy.max_examples} examples"
            got = str(commitment.examples) if commitment.examples <= policy.max_examples else ""
        if got:
            yield Failure(check=9, round=record.number, node=node, field="reason", expected=expected, got=got)


def verify_attestations(record: RoundRecord, policy: OnChainPolicy) -> Iterator[Failure]:
    """Check 11: yield what is wrong with a finalised round's attestations.

    Every attestation names the finalised model; those that came before the finalisation reach the quorum and
    are as many as RoundFinalised says; and the quorum is more than half of the cohort.
    """
    finalised, number = record.finalised, record.number
    if finalised is None:
        return
    model, position = finalised.model_digest, (finalised.block_number, finalised.log_index)
    for node, attested in record.attestations.items():
        if attested.model_digest != model:
            yield Failure(
                check=11,
                round=number,
                node=node,
                field="attested model",
                expected=spell(model),
                got=spell(attested.model_digest),
            )
    equal = sum(
        each.model_digest == model and (each.block_number, each.log_index) < position
        for each in record.attestations.values()
    )
    if equal < policy.attestation_quorum:
        yield Failure(
            check=11,
            round=number,
            field="attestations of the finalised model",
            expected=f"at least {policy.attestation_quorum}",
            got=str(equal),
        )
    if equal != finalised.attestations:
        yield Failure(
            check=11,
            round=number,
            field="attestations in RoundFinalised",
            expected=str(equal),
            got=str(finalised.attestations),
        )
    if 2 * policy.attestation_quorum <= len(record.cohort):
        yield Failure(
            check=11,
            round=number,
            field="attestation quorum",
            expected=f"more than half of the cohort of {len(record.cohort)}",
            got=str(policy.attestation_quorum),
        )


def verify_head_model(chronicle: Chronicle, head_model: Digest) -> None:
    """Check 12: the head model on chain is what the last finalised round, or the first policy, made it.

    Raises:
        CheckFailed: it is another one.
    """
    finished = [number for number, record in chronicle.rounds.items() if record.phase is Phase.FINALISED]
    require_equal(
        head_model,
        chronicle.head_model or ZERO_DIGEST,
        check=12,
        field="head model" if finished else "head model (no round is finalised: the genesis model)",
        round_number=max(finished, default=None),
    )
