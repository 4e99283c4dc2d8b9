"""The node's memory across crashes: one SQLite file, written before each act and never instead of the ledger.

What a stage means, and what a restart does when it finds it:

    STARTED    nothing has left the node; training begins again.
    ENCRYPTED  the update lies in the spool and its root is fixed, and what it left unsent lies beside it; the
               commitment may or may not be on chain.
    COMMITTED  the commitment is on chain; the upload goes on at the first chunk that the aggregator misses.
    UPLOADED   the aggregator holds every chunk.
    SKIPPED    this node does not contribute, for the reason noted; it still verifies, applies and attests.
    REFUSED    the aggregate failed a check; nothing was decrypted or attested.
    APPLIED    the new model is saved; the attestation may or may not be on chain.
    ATTESTED   the attestation is on chain.
    FINISHED   nothing is left to do.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from fedproof.digests import Address, Digest, as_digest, checksum_address
from fedproof.errors import ConfigurationError
from fedproof.ledger.events import Subject

_SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS owner (
    schema INTEGER NOT NULL, chain_id INTEGER NOT NULL, contract TEXT NOT NULL, node TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS rounds (
    round INTEGER PRIMARY KEY, stage TEXT NOT NULL, update_root BLOB, examples INTEGER NOT NULL,
    residual BLOB, model BLOB, reason TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS sound_leaves (
    round INTEGER NOT NULL, subject INTEGER NOT NULL, root BLOB NOT NULL, PRIMARY KEY (round, subject, root)
) STRICT;
CREATE TABLE IF NOT EXISTS key_packages (
    epoch INTEGER NOT NULL, root BLOB NOT NULL, package BLOB NOT NULL, PRIMARY KEY (epoch, root)
) STRICT;
CREATE TABLE IF NOT EXISTS wrapped_keys (epoch INTEGER PRIMARY KEY, ciphertext BLOB NOT NULL) STRICT;
"""


class Stage(StrEnum):
    """How far this node has come in one round."""

    STARTED = "started"
    ENCRYPTED = "encrypted"
    COMMITTED = "committed"
    UPLOADED = "uploaded"
    SKIPPED = "skipped"
    REFUSED = "refused"
    APPLIED = "applied"
    ATTESTED = "attested"
    FINISHED = "finished"


_ENDINGS = {Stage.APPLIED, Stage.REFUSED, Stage.FINISHED}

# A round may end around a node at any stage before APPLIED. REFUSED goes back to SKIPPED when a later round
# builds on the refused one: the aggregate is then fetched and checked once more.
TRANSITIONS: dict[Stage, set[Stage]] = {
    Stage.STARTED: {Stage.ENCRYPTED, Stage.SKIPPED} | _ENDINGS,
    Stage.ENCRYPTED: {Stage.COMMITTED, Stage.SKIPPED} | _ENDINGS,
    Stage.COMMITTED: {Stage.UPLOADED, Stage.SKIPPED} | _ENDINGS,
    Stage.UPLOADED: {Stage.SKIPPED} | _ENDINGS,
    Stage.SKIPPED: _ENDINGS,
    Stage.REFUSED: {Stage.SKIPPED, Stage.FINISHED},
    Stage.APPLIED: {Stage.ATTESTED, Stage.REFUSED, Stage.FINISHED},
    Stage.ATTESTED: {Stage.REFUSED, Stage.FINISHED},
    Stage.FINISHED: set(),
}


@dataclass(frozen=True, slots=True)
class RoundEntry:
    """What the journal holds about one round.

    Attributes:
        update_root: root of the encrypted update; set from ENCRYPTED on.
        examples: the example count that goes with it.
        residual: digest of what the update left unsent; None without error feedback.
        model: digest of the model that this node derived; set from APPLIED on.
        reason: why the round was skipped, refused, or finished early.
    """

    round: int
    stage: Stage = Stage.STARTED
    update_root: Digest | None = None
    examples: int = 0
    residual: Digest | None = None
    model: Digest | None = None
    reason: str = ""


class Journal:
    """The node's SQLite file. Each method returns after its change is on the disk."""

    def __init__(self, path: Path, *, chain_id: int, contract: Address, node: Address) -> None:
        """Open the file, or make it.

        Raises:
            ConfigurationError: it is no journal, or that of another node, contract or chain.
        """
        self.path = path
        try:
            # Autocommit: every statement below is a transaction of its own.
            # The watchtower's thread uses it, too; SQLite's own lock keeps single statements apart.
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"{path}: expected a node's journal (SQLite): {error}") from error
        expected = (_SCHEMA_VERSION, chain_id, checksum_address(contract), checksum_address(node))
        found = self._database.execute("SELECT schema, chain_id, contract, node FROM owner").fetchone()
        if found is None:
            self._database.execute("INSERT INTO owner VALUES (?, ?, ?, ?)", expected)
        elif tuple(found) != expected:
            self.close()
            raise ConfigurationError(
                f"{path}: expected the journal of {_owner(expected)}, got {_owner(found)}"
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # Rounds

    def entry(self, number: int) -> RoundEntry:
        """Return what is known about a round; a round never touched is STARTED."""
        row = self._database.execute(
            "SELECT stage, update_root, examples, residual, model, reason FROM rounds WHERE round = ?",
            (number,),
        ).fetchone()
        if row is None:
            return RoundEntry(number)
        stage, update_root, examples, residual, model, reason = row
        return RoundEntry(
            number, Stage(stage), _digest(update_root), examples, _digest(residual), _digest(model), reason
        )

    def unfinished(self) -> list[RoundEntry]:
        """Return the rounds that were begun and not finished, ascending."""
        rows = self._database.execute(
            "SELECT round FROM rounds WHERE stage != ? ORDER BY round", (Stage.FINISHED,)
        ).fetchall()
        return [self.entry(number) for (number,) in rows]

    def note_encrypted(
        self, number: int, update_root: Digest, *, examples: int, residual: Digest | None
    ) -> None:
        """Fix the one update that this node may commit to in the round, and what it leaves unsent."""
        self._check(number, Stage.ENCRYPTED)
        self._write(RoundEntry(number, Stage.ENCRYPTED, update_root, examples, residual))

    def note_applied(self, number: int, model: Digest) -> None:
        """Fix the one model that this node may attest in the round."""
        entry = self._check(number, Stage.APPLIED)
        self._write(replace(entry, stage=Stage.APPLIED, model=model))

    def advance(self, number: int, stage: Stage, *, reason: str = "") -> None:
        """Move a round on.

        Raises:
            ValueError: the table does not know this step, which is a defect of the caller.
        """
        entry = self._check(number, stage)
        self._write(replace(entry, stage=stage, reason=reason or entry.reason))

    def _check(self, number: int, stage: Stage) -> RoundEntry:
        entry = self.entry(number)
        if stage not in TRANSITIONS[entry.stage]:
            raise ValueError(f"round {number}: no step leads from {entry.stage} to {stage}")
        return entry

    def _write(self, entry: RoundEntry) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                entry.round,
                entry.stage,
                entry.update_root,
                entry.examples,
                entry.residual,
                entry.model,
                entry.reason,
            ),
        )

    # Signed statements

    def note_sound(self, number: int, subject: Subject, root: Digest) -> None:
        """Keep that the leaves under an anchored or proposed root were here, and every one was signed so."""
        self._database.execute("INSERT OR IGNORE INTO sound_leaves VALUES (?, ?, ?)", (number, subject, root))

    def is_sound(self, number: int, subject: Subject, root: Digest) -> bool:
        """Return whether that was noted."""
        row = self._database.execute(
            "SELECT 1 FROM sound_leaves WHERE round = ? AND subject = ? AND root = ?", (number, subject, root)
        ).fetchone()
        return row is not None

    # Keys, wrapped only: nothing here opens without the node's private wrapping key

    def note_package(self, epoch: int, root: Digest, *, package: bytes) -> None:
        """Keep the wrapped keys of an epoch that this node makes, before their root can be on chain."""
        self._database.execute("INSERT OR REPLACE INTO key_packages VALUES (?, ?, ?)", (epoch, root, package))

    def packages(self, epoch: int) -> dict[Digest, bytes]:
        """Return the packages made for an epoch by root, the newest last."""
        rows = self._database.execute(
            "SELECT root, package FROM key_packages WHERE epoch = ? ORDER BY rowid", (epoch,)
        ).fetchall()
        return {as_digest(root, "journal"): package for root, package in rows}

    def note_wrapped_key(self, epoch: int, ciphertext: bytes) -> None:
        """Keep this node's own wrapped key of an epoch."""
        self._database.execute("INSERT OR REPLACE INTO wrapped_keys VALUES (?, ?)", (epoch, ciphertext))

    def wrapped_key(self, epoch: int) -> bytes | None:
        """Return this node's own wrapped key of an epoch, if it is here."""
        row = self._database.execute(
            "SELECT ciphertext FROM wrapped_keys WHERE epoch = ?", (epoch,)
        ).fetchone()
        return None if row is None else bytes(row[0])


def _digest(raw: bytes | None) -> Digest | None:
    return None if raw is None else as_digest(raw, "journal")


def _owner(row: tuple[int, int, str, str]) -> str:
    schema, chain_id, contract, node = row
    return f"node {node}, contract {contract}, chain {chain_id} (schema {schema})"
