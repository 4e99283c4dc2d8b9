"""The journal: what it says survives, and it never says more than is on the disk."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fedproof_aggregator.journal import CopiedFrame, Journal, UploadStanding

from fedproof.digests import Address
from fedproof.errors import ConfigurationError
from tests.chain import make_digest

CONTRACT = Address(b"\x01" * 20)
NODE = Address(b"\x02" * 20)
OTHER = Address(b"\x03" * 20)
ROOT = make_digest("root")
SEEDS = [bytes([i]) * 64 for i in range(8)]


def open_journal(folder: Path, *, chain_id: int = 7, contract: Address = CONTRACT) -> Journal:
    return Journal(folder / "deep" / "state.sqlite", chain_id=chain_id, contract=contract)


def begin(journal: Journal) -> UploadStanding:
    return journal.begin_upload(1, NODE, root=ROOT, chunks=3)


def record(journal: Journal, received: int) -> None:
    journal.record_chunks(1, NODE, root=ROOT, received=received, chunks=3)


def test_an_upload_is_remembered_chunk_by_chunk(tmp_path: Path) -> None:
    """After each reopening, the standing is what was recorded last."""
    journal = open_journal(tmp_path)
    assert journal.find_upload(1, NODE, root=ROOT) is None
    assert begin(journal) == UploadStanding(ROOT, chunks=3, received=0, reason=None, message="")
    for index in range(3):
        journal.close()
        journal = open_journal(tmp_path)
        assert begin(journal).received == index
        record(journal, index + 1)
    standing = begin(journal)
    assert standing.received == 3
    assert standing.is_complete


def test_a_late_stream_takes_nothing_back(tmp_path: Path) -> None:
    """A chunk that a slower stream brings again does not lower the count."""
    journal = open_journal(tmp_path)
    begin(journal)
    record(journal, 3)
    record(journal, 1)
    assert begin(journal).received == 3


def test_what_a_power_failure_may_take_back(tmp_path: Path) -> None:
    """Only what concerns an update that is not whole: all else is on the disk when its call returns."""
    journal = open_journal(tmp_path)
    full, normal = 2, 1

    def synchronous() -> int:
        (level,) = journal._database.execute("PRAGMA synchronous").fetchone()
        return int(level)

    begin(journal)
    assert synchronous() == full
    for index, expected in ((0, normal), (1, normal), (2, full)):
        journal.claim_seeds(1, NODE, chunk=index, seeds=SEEDS[index : index + 1])
        assert synchronous() == normal
        record(journal, index + 1)
        assert synchronous() == expected
    journal.record_refusal(1, NODE, root=ROOT, reason=2, message="late")
    assert synchronous() == full
    record(journal, 1)
    journal.record_aggregate(1, ROOT)
    assert synchronous() == full


@pytest.mark.parametrize(
    ("number", "node", "chunk"), [(2, NODE, 7), (1, OTHER, 7), (1, NODE, 8)], ids=["round", "node", "chunk"]
)
def test_a_frame_of_another_chunk_is_found(tmp_path: Path, number: int, node: Address, chunk: int) -> None:
    """The copy names the first owner, over a reopening, and is not recorded, not even in part."""
    journal = open_journal(tmp_path)
    journal.claim_seeds(1, NODE, chunk=7, seeds=SEEDS[:3])
    journal.close()
    journal = open_journal(tmp_path)
    with pytest.raises(CopiedFrame) as caught:
        journal.claim_seeds(number, node, chunk=chunk, seeds=[SEEDS[5], SEEDS[1], SEEDS[6]])
    assert (caught.value.round, caught.value.node, caught.value.chunk) == (1, NODE, 7)
    journal.claim_seeds(3, OTHER, chunk=0, seeds=SEEDS[5:7])


def test_a_chunk_that_comes_again_keeps_its_frames(tmp_path: Path) -> None:
    """The same frames at the same place are no copies; one of them twice within the chunk is."""
    journal = open_journal(tmp_path)
    for _ in range(2):
        journal.claim_seeds(1, NODE, chunk=7, seeds=SEEDS[:3])
    with pytest.raises(CopiedFrame) as caught:
        journal.claim_seeds(1, OTHER, chunk=2, seeds=[SEEDS[5], SEEDS[6], SEEDS[5]])
    assert (caught.value.round, caught.value.node, caught.value.chunk) == (1, OTHER, 2)
    journal.claim_seeds(1, NODE, chunk=8, seeds=[SEEDS[5]])


def test_a_full_disk_leaves_the_journal_usable(tmp_path: Path) -> None:
    """What did not fit is not recorded, and is once there is room."""
    journal = open_journal(tmp_path)
    database = journal._database
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    many = [i.to_bytes(64) for i in range(1, 1401)]
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            journal.claim_seeds(1, NODE, chunk=0, seeds=many)
    database.execute(f"PRAGMA max_page_count = {pages + 1000}")
    journal.claim_seeds(1, OTHER, chunk=0, seeds=many)


def test_a_refusal_is_for_good(tmp_path: Path) -> None:
    """The first reason stays, with or without a header before it, and the upload is never complete."""
    journal = open_journal(tmp_path)
    journal.record_refusal(1, OTHER, root=ROOT, reason=2, message="first")
    journal.record_refusal(1, OTHER, root=ROOT, reason=3, message="second")
    assert journal.find_upload(1, OTHER, root=ROOT) == UploadStanding(ROOT, 0, 0, 2, "first")
    begin(journal)
    record(journal, 3)
    journal.record_refusal(1, NODE, root=ROOT, reason=2, message="late")
    standing = journal.find_upload(1, NODE, root=ROOT)
    assert standing == UploadStanding(ROOT, 3, 3, 2, "late")
    assert not standing.is_complete


def test_a_commitment_that_the_chain_has_dropped_is_forgotten(tmp_path: Path) -> None:
    """Under another root the upload begins anew."""
    journal = open_journal(tmp_path)
    begin(journal)
    record(journal, 1)
    root = make_digest("after a reorganisation")
    assert journal.find_upload(1, NODE, root=root) is None
    standing = journal.begin_upload(1, NODE, root=root, chunks=2)
    assert (standing.received, standing.chunks) == (0, 2)
    record(journal, 2)
    standing = journal.begin_upload(1, NODE, root=root, chunks=2)
    assert (standing.received, standing.is_complete) == (0, False), "a stream from before"


def test_streams_of_one_update_begin_it_once(tmp_path: Path) -> None:
    """Threads that race for a header's record do not undo one another's chunks."""
    journal = open_journal(tmp_path)

    def bring(index: int) -> UploadStanding:
        begin(journal)
        record(journal, index + 1)
        return begin(journal)

    with ThreadPoolExecutor(8) as pool:
        standings = list(pool.map(bring, [0, 1, 2] * 8))
    assert max(standing.received for standing in standings) == 3
    assert begin(journal).received == 3


def test_an_aggregate_is_remembered(tmp_path: Path) -> None:
    """The sum's root survives a reopening."""
    journal = open_journal(tmp_path)
    assert journal.find_aggregate(1) is None
    journal.record_aggregate(1, ROOT)
    journal.close()
    assert open_journal(tmp_path).find_aggregate(1) == ROOT


@pytest.mark.parametrize("change", [{"chain_id": 8}, {"contract": OTHER}])
def test_another_federations_journal_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """A state folder serves one contract on one chain, and the message names both."""
    open_journal(tmp_path).close()
    with pytest.raises(ConfigurationError, match=r"expected the journal of contract 0x.* got that of 0x0101"):
        open_journal(tmp_path, **change)  # type: ignore[arg-type]


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    """Other bytes are refused by path, and stay as they are."""
    path = tmp_path / "deep" / "state.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"a letter to the operator, not a database" * 100)
    with pytest.raises(ConfigurationError, match=r"state\.sqlite: expected an aggregator's journal"):
        open_journal(tmp_path)
    assert path.read_bytes().startswith(b"a letter")
