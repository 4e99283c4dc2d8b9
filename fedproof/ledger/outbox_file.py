"""The outbox on the disk: what one wallet has signed, under which nonces, and what became of it.

One SQLite file for each wallet, shared by all its processes; without a path, a database in memory.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fedproof.digests import Address, Digest, as_address, checksum_address
from fedproof.errors import ConfigurationError
from fedproof.ledger.sending import Sending, SendingState, Version
from fedproof.ledger.signer import Signed

_LOCK_WAIT_S = 60.0  # longer than a remote signer may take while it is held
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS owner (
    only INTEGER PRIMARY KEY CHECK (only = 1), chain_id TEXT NOT NULL, wallet TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS sendings (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, what TEXT NOT NULL, call TEXT NOT NULL,
    nonce INTEGER NOT NULL, state TEXT NOT NULL, block INTEGER
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_of_a_key ON sendings (key)
    WHERE state NOT IN ('reverted', 'superseded');
CREATE UNIQUE INDEX IF NOT EXISTS one_of_a_nonce ON sendings (nonce)
    WHERE state IN ('prepared', 'pending', 'mined');
CREATE TABLE IF NOT EXISTS transactions (
    number INTEGER PRIMARY KEY, sending INTEGER NOT NULL REFERENCES sendings, hash BLOB NOT NULL,
    raw BLOB NOT NULL, fees TEXT NOT NULL, made REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS by_sending ON transactions (sending);
COMMIT;
"""
_COLUMNS = "SELECT number, key, what, call, nonce, state, block FROM sendings"
_UNSETTLED = "state IN ('prepared', 'pending', 'mined')"


class Mark(NamedTuple):
    """A moment in the file: the last sending's number, and the nonces of those that are not settled."""

    number: int
    nonces: frozenset[int]


class OutboxFile:
    """The file. Each method returns after its change is on the disk."""

    def __init__(self, path: Path | None, *, chain_id: int, wallet: Address) -> None:
        """Open the file, or make it.

        Raises:
            ConfigurationError: it is no outbox, or that of another wallet or chain.
        """
        where = str(path or "outbox in memory")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(
                path or ":memory:", timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False
            )
            weakref.finalize(self, self._database.close)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
            expected = (str(chain_id), checksum_address(wallet))
            self._database.execute("INSERT OR IGNORE INTO owner VALUES (1, ?, ?)", expected)
            found = self._database.execute("SELECT chain_id, wallet FROM owner").fetchone()
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"{where}: expected an outbox (SQLite), got: {error}") from error
        if found != expected:
            raise ConfigurationError(
                f"{where}: expected the outbox of {expected[1]} on chain {expected[0]}, "
                f"got that of {found[1]} on chain {found[0]}"
            )

    def find(self, key: str) -> Sending | None:
        """Return the sending of a key that is neither reverted nor superseded, if there is one."""
        with self._lock:
            return self._find(key)

    def load(self, number: int) -> Sending:
        """Return a sending as it is now."""
        with self._lock:
            return self._get(number)

    def unsettled(self) -> list[Sending]:
        """Return what may still change: prepared, pending and mined, by nonce."""
        with self._lock:
            return self._load(f"{_COLUMNS} WHERE {_UNSETTLED} ORDER BY nonce")

    def all(self) -> list[Sending]:
        """Return every sending, oldest first."""
        with self._lock:
            return self._load(f"{_COLUMNS} ORDER BY number")

    def mark(self) -> Mark:
        """Return which nonces are taken at this moment, though the chain may not know it."""
        with self._lock:
            (number,) = self._database.execute("SELECT coalesce(max(number), 0) FROM sendings").fetchone()
            unsettled = self._load(f"{_COLUMNS} WHERE {_UNSETTLED}")
            return Mark(number, frozenset(sending.nonce for sending in unsettled))

    def prepare(
        self,
        key: str,
        call: Mapping[str, Any],
        *,
        what: str,
        fees: Mapping[str, int],
        floor: int,
        mark: Mark,
        sign: Callable[[Mapping[str, Any]], Signed],
    ) -> Sending:
        """Allot a nonce to a call, sign it and write it down, unless its key has a sending already.

        Args:
            key: the caller's name for it.
            call: the transaction's fields, except nonce and fees.
            what: its purpose, for messages.
            fees: the fee fields.
            floor: the first nonce that the chain does not know to be taken.
            mark: as it was before the chain was asked for that: what was allotted since is taken as well.
            sign: returns the transaction, signed. Called with the file locked: a nonce that is taken without
                a transaction would be a gap which nobody could fill.
        """
        with self._transaction() as database:
            known = self._find(key)
            if known is not None:
                return known
            taken = mark.nonces | {
                sending.nonce
                for sending in self._load(f"{_COLUMNS} WHERE number > ?", mark.number)
                if sending.state is not SendingState.SUPERSEDED
            }
            nonce = floor
            while nonce in taken:
                nonce += 1
            signed = sign({**call, **fees, "nonce": nonce})
            cursor = database.execute(
                "INSERT INTO sendings (key, what, call, nonce, state) VALUES (?, ?, ?, ?, 'prepared')",
                (key, what, json.dumps(call), nonce),
            )
            number = int(cursor.lastrowid or 0)
            self._insert(number, signed, fees)
            return self._get(number)

    def replace(
        self, sending: Sending, fees: Mapping[str, int], *, sign: Callable[[Mapping[str, Any]], Signed]
    ) -> Sending:
        """Add a version with other fees, unless another process has done so meanwhile."""
        with self._transaction():
            current = self._get(sending.number)
            if len(current.versions) == len(sending.versions):
                signed = sign({**sending.call, **fees, "nonce": sending.nonce})
                self._insert(sending.number, signed, fees)
            return self._get(sending.number)

    def note(self, sending: Sending, state: SendingState, *, block: int | None = None) -> Sending:
        """Record what became of a sending, and return it."""
        with self._transaction():
            return self._note(sending, state, block)

    def note_offered(self, sending: Sending, state: SendingState) -> None:
        """Record whether enough endpoints took it (pending, else prepared), unless more is known."""
        with self._transaction() as database:
            database.execute(
                "UPDATE sendings SET state = ? WHERE number = ? AND state IN ('prepared', 'pending')",
                (state, sending.number),
            )

    def revive(self, sending: Sending) -> Sending:
        """Take a sending whose block is gone for one that is on its way, unless another one has its nonce."""
        with self._transaction() as database:
            rival = database.execute(
                f"SELECT number FROM sendings WHERE nonce = ? AND number != ? AND {_UNSETTLED}",  # noqa: S608 - ours
                (sending.nonce, sending.number),
            ).fetchone()
            state = SendingState.PENDING if rival is None else SendingState.SUPERSEDED
            return self._note(sending, state, None)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block does, or nothing of it. Other threads and processes wait meanwhile."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back already, as it does where the disk is full.
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _note(self, sending: Sending, state: SendingState, block: int | None) -> Sending:
        values = (state, block, sending.number)
        self._database.execute("UPDATE sendings SET state = ?, block = ? WHERE number = ?", values)
        return self._get(sending.number)

    def _insert(self, number: int, signed: Signed, fees: Mapping[str, int]) -> None:
        self._database.execute(
            "INSERT INTO transactions (sending, hash, raw, fees, made) VALUES (?, ?, ?, ?, ?)",
            (number, bytes(signed.hash), signed.raw, json.dumps(fees), time.time()),
        )

    def _find(self, key: str) -> Sending | None:
        live = "state NOT IN ('reverted', 'superseded')"
        found = self._load(f"{_COLUMNS} WHERE key = ? AND {live}", key)
        return found[0] if found else None

    def _get(self, number: int) -> Sending:
        return self._load(f"{_COLUMNS} WHERE number = ?", number)[0]

    def _load(self, query: str, *parameters: object) -> list[Sending]:
        return [
            Sending(
                number, key, what, json.loads(call), nonce, SendingState(state), block, self._versions(number)
            )
            for number, key, what, call, nonce, state, block in self._database.execute(query, parameters)
        ]

    def _versions(self, number: int) -> tuple[Version, ...]:
        rows = self._database.execute(
            "SELECT raw, hash, fees, made FROM transactions WHERE sending = ? ORDER BY number DESC",
            (number,),
        )
        return tuple(
            Version(Signed(raw, Digest(digest)), json.loads(fees), made) for raw, digest, fees, made in rows
        )


def read_outbox(path: Path) -> list[Sending]:
    """Return every sending in an outbox, oldest first, whoever's it is.

    Raises:
        ConfigurationError: no such file, or no outbox.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path}: expected a daemon's outbox, found no file")
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            chain_id, wallet = database.execute("SELECT chain_id, wallet FROM owner").fetchone()
        finally:
            database.close()
    except (sqlite3.DatabaseError, TypeError) as error:
        raise ConfigurationError(f"{path}: expected an outbox (SQLite), got: {error}") from error
    return OutboxFile(path, chain_id=int(chain_id), wallet=as_address(wallet, "owner")).all()
