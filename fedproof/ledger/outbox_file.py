"""The outbox on the disk: what one wallet has signed, under which nonces, and what became of it.

One SQLite file for each wallet, shared by all its processes; without a path, a database in memory.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fedproof.digests import Address, Digest, as_address, checksum_address
from fedproof.errors import ConfigurationError
from fedproof.ledger.database import Database, translating
from fedproof.ledger.finality import Finality
from fedproof.ledger.sending import Sending, SendingState, Version
from fedproof.ledger.signer import Signed

_SCHEMA = """
CREATE TABLE IF NOT EXISTS owner (
    only INTEGER PRIMARY KEY CHECK (only = 1), chain_id TEXT NOT NULL, wallet TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS sendings (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, what TEXT NOT NULL, call TEXT NOT NULL,
    nonce INTEGER NOT NULL, state TEXT NOT NULL, finality TEXT NOT NULL, block INTEGER
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
"""
_COLUMNS = "SELECT number, key, what, call, nonce, state, finality, block FROM sendings"
_UNSETTLED = "state IN ('prepared', 'pending', 'mined')"
_LIVE = "state NOT IN ('reverted', 'superseded')"


class Mark(NamedTuple):
    """A moment in the file: the last sending's number, and the nonces of those that are not settled."""

    number: int
    nonces: frozenset[int]


class OutboxFile:
    """The file. Each method returns after its change is on the disk, or raises LedgerError."""

    def __init__(
        self, path: Path | None, *, chain_id: int, wallet: Address, finality: Finality = "latest"
    ) -> None:
        """Open the file, or make it.

        Args:
            path: where it is; without one, it is in memory.
            chain_id: the chain.
            wallet: the account.
            finality: what the sendings are judged by that are prepared here.

        Raises:
            ConfigurationError: it is no outbox, or that of another wallet or chain.
            LedgerError: it cannot be written now.
        """
        where = str(path or "outbox in memory")
        self._finality = finality
        self._database = Database(path, schema=_SCHEMA)
        expected = (str(chain_id), checksum_address(wallet))
        with self._database.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO owner VALUES (1, ?, ?)", expected)
            found = connection.execute("SELECT chain_id, wallet FROM owner").fetchone()
            self._load(f"{_COLUMNS} LIMIT 0")  # an older version's file lacks a column
        if found != expected:
            raise ConfigurationError(
                f"{where}: expected the outbox of {expected[1]} on chain {expected[0]}, "
                f"got that of {found[1]} on chain {found[0]}"
            )

    def find(self, key: str) -> Sending | None:
        """Return the sending of a key that is neither reverted nor superseded, if there is one."""
        with self._database.reading():
            return self._find(key)

    def find_holders(self, first: int, end: int) -> dict[int, Sending]:
        """Return by nonce, from the first to before the end, what is neither reverted nor superseded."""
        with self._database.reading():
            return self._find_holders(first, end)

    def load(self, number: int) -> Sending:
        """Return a sending as it is now."""
        with self._database.reading():
            return self._get(number)

    def unsettled(self) -> list[Sending]:
        """Return what may still change: prepared, pending and mined, by nonce."""
        with self._database.reading():
            return self._load(f"{_COLUMNS} WHERE {_UNSETTLED} ORDER BY nonce")

    def all(self) -> list[Sending]:
        """Return every sending, oldest first."""
        with self._database.reading():
            return self._load(f"{_COLUMNS} ORDER BY number")

    def mark(self) -> Mark:
        """Return which nonces are taken at this moment, though the chain may not know it."""
        with self._database.reading() as connection:
            (number,) = connection.execute("SELECT coalesce(max(number), 0) FROM sendings").fetchone()
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
        with self._database.writing():
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
            return self._add(key, call, what=what, nonce=nonce, fees=fees, sign=sign)

    def fill(
        self,
        nonce: int,
        call: Mapping[str, Any],
        *,
        what: str,
        fees: Mapping[str, int],
        sign: Callable[[Mapping[str, Any]], Signed],
    ) -> Sending:
        """Sign a call under a nonce and write it down, unless another process gave that away meanwhile.

        Args:
            nonce: which one.
            call: the transaction's fields, except nonce and fees.
            what: its purpose, for messages.
            fees: the fee fields.
            sign: returns the transaction, signed; called with the file locked.
        """
        with self._database.writing():
            holder = self._find_holders(nonce, nonce + 1).get(nonce)
            return holder or self._add(f"nonce {nonce}", call, what=what, nonce=nonce, fees=fees, sign=sign)

    def replace(
        self, sending: Sending, fees: Mapping[str, int], *, sign: Callable[[Mapping[str, Any]], Signed]
    ) -> Sending:
        """Add a version with other fees, unless another process has done so meanwhile."""
        with self._database.writing():
            current = self._get(sending.number)
            if len(current.versions) == len(sending.versions):
                signed = sign({**sending.call, **fees, "nonce": sending.nonce})
                self._insert(sending.number, signed, fees)
            return self._get(sending.number)

    def note(self, sending: Sending, state: SendingState, *, block: int | None = None) -> Sending:
        """Record what became of a sending, and return it."""
        with self._database.writing():
            return self._note(sending, state, block)

    def note_offered(self, sending: Sending, state: SendingState) -> None:
        """Record whether enough endpoints took it (pending, else prepared), unless more is known."""
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE sendings SET state = ? WHERE number = ? AND state IN ('prepared', 'pending')",
                (state, sending.number),
            )

    def revive(self, sending: Sending) -> Sending:
        """Take a sending whose block is gone for one that is on its way, unless another one has its nonce."""
        with self._database.writing() as connection:
            rival = connection.execute(
                f"SELECT number FROM sendings WHERE nonce = ? AND number != ? AND {_UNSETTLED}",  # noqa: S608 - ours
                (sending.nonce, sending.number),
            ).fetchone()
            state = SendingState.PENDING if rival is None else SendingState.SUPERSEDED
            return self._note(sending, state, None)

    def _note(self, sending: Sending, state: SendingState, block: int | None) -> Sending:
        values = (state, block, sending.number)
        self._database.execute("UPDATE sendings SET state = ?, block = ? WHERE number = ?", values)
        return self._get(sending.number)

    def _add(
        self,
        key: str,
        call: Mapping[str, Any],
        *,
        what: str,
        nonce: int,
        fees: Mapping[str, int],
        sign: Callable[[Mapping[str, Any]], Signed],
    ) -> Sending:
        signed = sign({**call, **fees, "nonce": nonce})
        cursor = self._database.execute(
            "INSERT INTO sendings (key, what, call, nonce, state, finality) VALUES (?, ?, ?, ?, ?, ?)",
            (key, what, json.dumps(call), nonce, SendingState.PREPARED, json.dumps(self._finality)),
        )
        number = int(cursor.lastrowid or 0)
        self._insert(number, signed, fees)
        return self._get(number)

    def _insert(self, number: int, signed: Signed, fees: Mapping[str, int]) -> None:
        self._database.execute(
            "INSERT INTO transactions (sending, hash, raw, fees, made) VALUES (?, ?, ?, ?, ?)",
            (number, bytes(signed.hash), signed.raw, json.dumps(fees), time.time()),
        )

    def _find(self, key: str) -> Sending | None:
        found = self._load(f"{_COLUMNS} WHERE key = ? AND {_LIVE}", key)
        return found[0] if found else None

    def _find_holders(self, first: int, end: int) -> dict[int, Sending]:
        # The newest of a nonce: an older one was final, and its block is gone.
        query = f"{_COLUMNS} WHERE nonce >= ? AND nonce < ? AND {_LIVE} ORDER BY number"
        return {sending.nonce: sending for sending in self._load(query, first, end)}

    def _get(self, number: int) -> Sending:
        return self._load(f"{_COLUMNS} WHERE number = ?", number)[0]

    def _load(self, query: str, *parameters: object) -> list[Sending]:
        return [
            Sending(
                number=number,
                key=key,
                what=what,
                call=json.loads(call),
                nonce=nonce,
                state=SendingState(state),
                finality=json.loads(finality),
                block=block,
                versions=self._versions(number),
            )
            for number, key, what, call, nonce, state, finality, block in self._database.execute(
                query, parameters
            )
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
    with translating(str(path)):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            owner = connection.execute("SELECT chain_id, wallet FROM owner").fetchone()
        finally:
            connection.close()
    if owner is None:
        raise ConfigurationError(f"{path}: expected an outbox (SQLite), got one of nobody")
    chain_id, wallet = owner
    return OutboxFile(path, chain_id=int(chain_id), wallet=as_address(wallet, "owner")).all()
