"""A transaction of SQLite, for connections that begin none by themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def committing(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block does, or nothing of it; other processes wait meanwhile.

    Args:
        connection: with ``isolation_level=None``.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back already, as it does where the disk is full.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
