"""An SQLite file that threads and processes share; what goes wrong with it says what to do."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedproof.errors import ConfigurationError, LedgerError
from fedproof.sqlite import committing

_LOCK_WAIT_S = 60.0  # longer than a remote signer may take while it is held, which is 30 s
_REMEDIES = {
    "SQLITE_BUSY": "another process holds it, perhaps until its signer answers: run this again",
    "SQLITE_CANTOPEN": "look whether its folder is there, and this user may write in it",
    "SQLITE_FULL": "make room on the disk",
    "SQLITE_IOERR": "look whether the disk is full, or fails",
    "SQLITE_READONLY": "let this user write the file, and the folder that it is in",
}


class Database:
    """The file; without a path, one in memory."""

    def __init__(self, path: Path | None, *, schema: str) -> None:
        """Open the file, or make it.

        Args:
            path: where it is; without one, it is in memory.
            schema: statements that change nothing where they were executed before.

        Raises:
            ConfigurationError: it is no SQLite, or has another schema.
            LedgerError: it cannot be used now.
        """
        self._where = str(path or "outbox in memory")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        with translating(self._where):
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False
            )
            weakref.finalize(self, self._connection.close)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(f"BEGIN IMMEDIATE;{schema}COMMIT;")

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> sqlite3.Cursor:
        """Return what a statement yields; only within `reading` or `writing`."""
        return self._connection.execute(statement, parameters)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Let other threads wait meanwhile.

        Raises:
            LedgerError: the file cannot be used now.
        """
        with self._lock, translating(self._where):
            yield self._connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block does, or nothing of it. Other threads and processes wait meanwhile.

        Raises:
            LedgerError: the file cannot be used now.
        """
        with self.reading() as connection, committing(connection):
            yield connection


@contextmanager
def translating(where: str) -> Iterator[None]:
    """Say of SQLite's errors what to do about them.

    Raises:
        LedgerError: the file cannot be used now.
        ConfigurationError: it is not what was expected.
    """
    try:
        yield
    except sqlite3.Error as error:
        # Of such as SQLITE_IOERR_WRITE, the first two words matter.
        name = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
        if name in _REMEDIES:
            raise LedgerError(
                f"{where}: expected to use this outbox, got: {error}; {_REMEDIES[name]}"
            ) from error
        raise ConfigurationError(
            f"{where}: expected an outbox (SQLite) of this version, got: {error}"
        ) from error
