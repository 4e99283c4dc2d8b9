"""The outbox's database: what goes wrong with the file says what to do."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fedproof.digests import as_address
from fedproof.errors import ConfigurationError, LedgerError
from fedproof.ledger import database
from fedproof.ledger.database import Database
from fedproof.ledger.outbox_file import OutboxFile, read_outbox

SCHEMA = "CREATE TABLE IF NOT EXISTS things (name TEXT) STRICT;"


def insert(opened: Database) -> None:
    """Write more than a file of four pages holds."""
    with opened.writing() as connection:
        connection.execute("INSERT INTO things VALUES (?)", ("x" * 50_000,))


def test_a_file_that_another_process_holds_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is held, opening and writing are errors that say so; reading goes on; later, all does."""
    path = tmp_path / "outbox.sqlite"
    monkeypatch.setattr(database, "_LOCK_WAIT_S", 0.05)
    opened = Database(path, schema=SCHEMA)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for attempt in (lambda: insert(opened), lambda: Database(path, schema=SCHEMA)):
            with pytest.raises(LedgerError, match=r"outbox.sqlite: .* locked; another process holds it"):
                attempt()
        with opened.reading() as connection:
            assert connection.execute("SELECT * FROM things").fetchall() == []
    insert(opened)


@pytest.mark.parametrize(
    ("pragma", "remedy"),
    [("max_page_count = 4", "make room on the disk"), ("query_only = 1", "let this user write the file")],
)
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, pragma: str, remedy: str) -> None:
    """Without room, or permission, the error says so, and nothing is half written."""
    opened = Database(tmp_path / "outbox.sqlite", schema=SCHEMA)
    with opened.reading() as connection:
        connection.execute(f"PRAGMA {pragma}")
    with pytest.raises(LedgerError, match=f"outbox.sqlite: expected to use this outbox, .*; {remedy}"):
        insert(opened)
    with opened.reading() as connection:
        connection.execute("PRAGMA max_page_count = 1000")
        connection.execute("PRAGMA query_only = 0")
        assert connection.execute("SELECT count(*) FROM things").fetchone() == (0,)
    insert(opened)


def test_an_older_outbox_is_refused(tmp_path: Path) -> None:
    """A file that lacks a column is named when it is opened, not when it is needed."""
    path = tmp_path / "outbox.sqlite"
    wallet = as_address(b"\x11" * 20, "test")
    OutboxFile(path, chain_id=1, wallet=wallet)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE sendings DROP COLUMN finality")
    with pytest.raises(ConfigurationError, match=r"an outbox .* of this version, got: no such column"):
        OutboxFile(path, chain_id=1, wallet=wallet)
    with pytest.raises(ConfigurationError, match="no such column"):
        read_outbox(path)
