"""The checks that need nothing but the ledger and are made at its end: 1, 2, 9 and 12. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fedproof.digests import Address, Digest
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.encoding import RunningHash
from fedproof.ledger.events import LEAF_TOO, Event, ExclusionReason, Phase
from fedproof_auditor.chronicle import Chronicle, RoundRecord
from fedproof_auditor.findings import CheckFailed, Failure, require_equal


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

    What that does not show: the commitments of one round have no order among themselves, and count from the
    seal on.

    Raises:
        CheckFailed: one is missing, altered or out of order.
    """
    what = f"history hash after block {block_number} of {len(events)} events"
    require_equal(compute_history_hash(events), history_hash, check=2, field=what)


def compute_history_hash(events: Sequence[Event]) -> Digest:
    """Return the running hash that the contract has after these events."""
    running = RunningHash()
    for event in events:
        running.add(event)
    return running.value


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


def verify_seal(record: RoundRecord) -> Iterator[Failure]:
    """Check 9: yield what is wrong with a sealed round's contributors.

    The sealed nodes are ascending, each with a reason code that we know and that its commitment does not
    contradict. All who committed by transaction are among them, and others only to exclude them from a batch.
    The leaves that do not count are at most as many as the batch has. There are enough contributors, and no
    more than the cohort has nodes; and the seal came early only when nobody of the cohort was left out. Who
    sealed cannot be seen: that nobody but the aggregator excluded nodes rests on the contract's code.
    """
    sealed, number = record.sealed, record.number
    if sealed is None:
        return
    if list(sealed.nodes) != sorted(set(sealed.nodes)):
        expected, got = "ascending addresses, each once", "others"
        yield Failure(check=9, round=number, field="sealed nodes", expected=expected, got=got)
    if len(sealed.nodes) != len(sealed.reasons):
        expected, got = f"one for each of {len(sealed.nodes)} nodes", str(len(sealed.reasons))
        yield Failure(check=9, round=number, field="reasons", expected=expected, got=got)
    for node in sorted(record.commitments.keys() - set(sealed.nodes)):
        expected, got = "every node that committed", "one is missing"
        yield Failure(check=9, round=number, node=node, field="sealed nodes", expected=expected, got=got)
    void = 0
    for node, code in zip(sealed.nodes, sealed.reasons, strict=False):
        yield from _verify_reason(record, node, code)
        void += code >= LEAF_TOO or node not in record.commitments
    contributors = len(record.commitments.keys() - sealed.excluded.keys())
    if record.batch:
        contributors += record.batch.count - void
        if void > record.batch.count:
            expected, got = f"at most the batch's {record.batch.count}", str(void)
            yield Failure(check=9, round=number, field="leaves that do not count", expected=expected, got=got)
    if contributors < record.terms.min_contributors:
        expected = f"at least {record.terms.min_contributors}"
        yield Failure(check=9, round=number, field="contributors", expected=expected, got=str(contributors))
    if contributors > len(record.cohort):
        expected = f"at most the cohort's {len(record.cohort)}"
        yield Failure(check=9, round=number, field="contributors", expected=expected, got=str(contributors))
    if contributors != len(record.cohort) and record.sealed_at <= record.opened.deadline:
        yield Failure(
            check=9,
            round=number,
            field="time of the seal",
            expected=f"after {record.opened.deadline}, as {contributors} of {len(record.cohort)} "
            "nodes contributed",
            got=str(record.sealed_at),
        )


def _verify_reason(record: RoundRecord, node: Address, code: int) -> Iterator[Failure]:
    commitment, reason = record.commitments.get(node), code % LEAF_TOO
    most = record.terms.max_examples
    if commitment is None and (record.batch is None or not 0 < code < LEAF_TOO):
        expected, got = "a node that committed", "one that did not"
    elif code >= LEAF_TOO and record.batch is None:
        expected, got = f"below {LEAF_TOO}, as no batch was anchored", str(code)
    elif reason and reason not in list(ExclusionReason):
        expected, got = f"one of {sorted(int(known) for known in ExclusionReason)}", str(reason)
    elif commitment and reason == ExclusionReason.OVER_MAX_EXAMPLES and commitment.examples <= most:
        expected, got = f"more than {most} examples", str(commitment.examples)
    else:
        return
    yield Failure(check=9, round=record.number, node=node, field="reason", expected=expected, got=got)


def verify_head_model(chronicle: Chronicle, head_model: Digest) -> None:
    """Check 12: the head model on chain is the last finalised one, or the first that the events name.

    Raises:
        CheckFailed: it is another one.
    """
    finished = [number for number, record in chronicle.rounds.items() if record.phase is Phase.FINALISED]
    require_equal(
        head_model,
        chronicle.head_model,
        check=12,
        field="head model" if finished else "head model (no round is finalised: the first model)",
        round_number=max(finished, default=None),
    )
