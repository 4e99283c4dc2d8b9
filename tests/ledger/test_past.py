"""Rounds that are over rest in a file, as they were."""

from __future__ import annotations

import os
import resource
import threading
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedproof.digests import Address, Digest
from fedproof.errors import LedgerError
from fedproof.ledger.events import Phase
from fedproof.ledger.past import Rounds
from fedproof.ledger.rounds import Commitment, RoundRecord

NODES = tuple(Address(bytes([index]) * 20) for index in range(1, 11))


def make_record(number: int, *, seed: int = 0) -> RoundRecord:
    """Return a finalised round of ten nodes, which differs from others of its number by the seed."""
    model = Digest(number.to_bytes(16, "big") + seed.to_bytes(16, "big"))
    return RoundRecord(
        number=number,
        phase=Phase.FINALISED,
        policy_version=1,
        epoch=1,
        base_model=Digest(bytes(32)),
        deadline=0,
        cohort=frozenset(NODES),
        opened_block=number,
        commitments={node: Commitment(Digest(os.urandom(32)), 100) for node in NODES},
        contributors=NODES,
        excluded={NODES[0]: 3},
        attestations=dict.fromkeys(NODES, model),
        signers=frozenset(NODES),
        result=model,
        ended_block=number + 1,
    )


def put_all(rounds: Rounds, records: Iterable[RoundRecord]) -> None:
    """Put one after the other."""
    for record in records:
        rounds.put(record)


@given(
    acts=st.lists(
        st.tuples(st.integers(min_value=0), st.sampled_from(["open", "advance", "copy"])), max_size=40
    )
)
def test_copies_of_rounds_are_what_copies_of_a_dict_would_be(acts: list[tuple[int, str]]) -> None:
    """However copies are made and go on, each holds its own rounds, the older ones as its newest were."""
    kept: list[tuple[Rounds, dict[int, RoundRecord]]] = [(Rounds(), {})]
    for seed, (choice, act) in enumerate(acts):
        rounds, model = kept[choice % len(kept)]
        if act == "copy":
            kept.append((rounds.copy(), dict(model)))
        elif act == "open" or model:
            number = len(model) + (act == "open")
            model[number] = make_record(number, seed=seed)
            rounds.put(model[number])
    for rounds, model in kept:
        assert dict(rounds) == model
        assert rounds.newest == model.get(len(model))
        assert [rounds.get(number) for number in (-1, 0, len(model) + 1)] == [None] * 3


def test_threads_read_while_one_writes() -> None:
    """What other threads read of a history is whole while its copy goes on."""
    rounds = Rounds()
    put_all(rounds, map(make_record, range(1, 50)))
    going_on, over = rounds.copy(), threading.Event()

    def write() -> None:
        try:
            put_all(going_on, map(make_record, range(50, 1000)))
        finally:
            over.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not over.is_set():
        assert [record.number for record in rounds.values()] == list(range(1, 50))
    writer.join()
    assert [record.number for record in going_on.values()] == list(range(1, 1000))


def test_memory_does_not_grow_with_the_rounds() -> None:
    """A round that is over takes eight bytes."""
    rounds = Rounds()
    put_all(rounds, map(make_record, range(1, 3)))
    tracemalloc.start()
    try:
        put_all(rounds, map(make_record, range(3, 1003)))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 30_000


def test_a_full_disk_is_named_and_loses_nothing() -> None:
    """What cannot be kept is not taken, says which round, and can be put again once there is room."""
    rounds, records = Rounds(), {number: make_record(number) for number in range(1, 101)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(LedgerError, match=r"round \d+: expected room .* \(TMPDIR\), got: File too large"):
            put_all(rounds, records.values())
        assert rounds[1] == records[1]
        assert rounds.copy()[len(rounds) - 1] == records[len(rounds) - 1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    kept = len(rounds)
    assert 10 < kept < 100
    assert dict(rounds) == {number: records[number] for number in range(1, kept + 1)}
    put_all(rounds, list(records.values())[kept:])
    assert dict(rounds) == records


def test_a_copy_that_is_made_again_takes_no_more_room() -> None:
    """Whoever replays the same events again and again, since an endpoint lies at the end, fills no disk."""
    rounds, records = Rounds(), list(map(make_record, range(1, 30)))
    put_all(rounds, records[:10])
    other = make_record(11, seed=1)
    for _ in range(5):
        again = rounds.copy()
        put_all(again, records[10:])
        size = os.fstat(again._file._file.fileno()).st_size
        assert size < 30 * 1100
    again = rounds.copy()
    put_all(again, [other, make_record(12, seed=1), make_record(13, seed=1)])
    assert [again[11], again[12].number, again[10]] == [other, 12, records[9]]
