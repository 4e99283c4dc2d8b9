"""The journal remembers across restarts and refuses steps that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedproof_node.journal import TRANSITIONS, Journal, RoundEntry, Stage

from fedproof.digests import Address, Digest
from fedproof.errors import ConfigurationError
from fedproof.ledger.events import Subject

CONTRACT = Address(b"\x01" * 20)
NODE = Address(b"\x02" * 20)
ROOT = Digest(b"\x03" * 32)
MODEL = Digest(b"\x04" * 32)
RESIDUAL = Digest(b"\x05" * 32)


def open_journal(folder: Path, *, chain_id: int = 7, node: Address = NODE) -> Journal:
    return Journal(folder / "journal.sqlite", chain_id=chain_id, contract=CONTRACT, node=node)


def test_untouched_round_is_started(tmp_path: Path) -> None:
    """A round that the journal has never heard of is at its beginning."""
    assert open_journal(tmp_path).entry(5) == RoundEntry(5)


def test_every_stage_survives_reopening(tmp_path: Path) -> None:
    """What was noted before a crash is there after it, at each stage of a whole round."""
    journal = open_journal(tmp_path)
    journal.note_encrypted(3, ROOT, examples=120, residual=RESIDUAL)
    journal.close()
    for stage in (Stage.COMMITTED, Stage.UPLOADED):
        journal = open_journal(tmp_path)
        journal.advance(3, stage)
        journal.close()
        journal = open_journal(tmp_path)
        assert journal.entry(3) == RoundEntry(3, stage, ROOT, 120, RESIDUAL)
        journal.close()
    journal = open_journal(tmp_path)
    journal.note_applied(3, MODEL)
    journal.close()
    journal = open_journal(tmp_path)
    assert journal.entry(3) == RoundEntry(3, Stage.APPLIED, ROOT, 120, RESIDUAL, MODEL)
    journal.advance(3, Stage.ATTESTED)
    assert [entry.round for entry in journal.unfinished()] == [3]
    journal.advance(3, Stage.FINISHED)
    assert journal.unfinished() == []


def test_reason_of_a_skip_is_kept(tmp_path: Path) -> None:
    """The reason stays when the round goes on to be applied without this node's update."""
    journal = open_journal(tmp_path)
    journal.advance(1, Stage.SKIPPED, reason="NaN at index 3")
    assert journal.entry(1).reason == "NaN at index 3"
    journal.note_applied(1, MODEL)
    assert (journal.entry(1).stage, journal.entry(1).reason) == (Stage.APPLIED, "NaN at index 3")


@pytest.mark.parametrize("stage", [Stage.COMMITTED, Stage.UPLOADED, Stage.ATTESTED])
def test_step_out_of_order_is_refused(tmp_path: Path, stage: Stage) -> None:
    """A step that the table does not know raises and changes nothing."""
    journal = open_journal(tmp_path)
    with pytest.raises(ValueError, match=f"round 2: no step leads from started to {stage}"):
        journal.advance(2, stage)
    assert journal.entry(2) == RoundEntry(2)


def test_second_update_of_a_round_is_refused(tmp_path: Path) -> None:
    """Once an update is fixed, no other can take its place: the node cannot equivocate."""
    journal = open_journal(tmp_path)
    journal.note_encrypted(1, ROOT, examples=10, residual=None)
    with pytest.raises(ValueError, match="no step leads from encrypted to encrypted"):
        journal.note_encrypted(1, MODEL, examples=10, residual=None)
    assert journal.entry(1).update_root == ROOT


def test_finished_is_final() -> None:
    """Every stage leads to FINISHED in one step or more, and nothing leads out of it."""
    assert TRANSITIONS[Stage.FINISHED] == set()
    assert set(TRANSITIONS) == set(Stage)
    assert all(
        Stage.FINISHED in reached for stage, reached in TRANSITIONS.items() if stage is not Stage.FINISHED
    )


def test_packages_of_an_epoch_are_all_kept(tmp_path: Path) -> None:
    """A package made again for the same epoch does not displace the first, whose root may be on its way."""
    journal = open_journal(tmp_path)
    journal.note_package(1, ROOT, package=b"first")
    journal.note_package(1, MODEL, package=b"second")
    journal.note_wrapped_key(1, b"mine")
    journal.close()
    journal = open_journal(tmp_path)
    assert list(journal.packages(1).items()) == [(ROOT, b"first"), (MODEL, b"second")]
    assert journal.packages(2) == {}
    assert journal.wrapped_key(1) == b"mine"
    assert journal.wrapped_key(2) is None


def test_what_was_found_sound_is_kept(tmp_path: Path) -> None:
    """A root that was examined stays so after a restart: in its round, and as what it was."""
    journal = open_journal(tmp_path)
    for _ in range(2):
        journal.note_sound(1, Subject.COMMITMENT, ROOT)
    journal.close()
    journal = open_journal(tmp_path)
    assert journal.is_sound(1, Subject.COMMITMENT, ROOT)
    assert not journal.is_sound(2, Subject.COMMITMENT, ROOT)
    assert not journal.is_sound(1, Subject.ATTESTATION, ROOT)
    assert not journal.is_sound(1, Subject.COMMITMENT, MODEL)


def test_another_nodes_journal_is_refused(tmp_path: Path) -> None:
    """A state folder copied from another node or chain is named as such."""
    open_journal(tmp_path).close()
    with pytest.raises(ConfigurationError, match=r"expected the journal of node 0x0303.*got node 0x0202"):
        open_journal(tmp_path, node=Address(b"\x03" * 20))
    with pytest.raises(ConfigurationError, match=r"chain 8 .*got .*chain 7 "):
        open_journal(tmp_path, chain_id=8)


def test_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    """Other bytes under the journal's name are a configuration error that names the file."""
    (tmp_path / "journal.sqlite").write_bytes(b"not a database, but long enough to be taken for one" * 20)
    with pytest.raises(ConfigurationError, match=r"journal\.sqlite: expected a node's journal"):
        open_journal(tmp_path)
