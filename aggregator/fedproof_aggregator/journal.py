"""What the aggregator must not forget in a crash: which updates it holds, how much of each, and its own sums.

The ledger is the truth about rounds and the store holds the bytes; this journal only says how far each upload
has come, and whose each frame is. What it says to be held was on the disk before; a seed has its owner before
its frame is stored, and for good once its update is whole, before which nobody is given a frame of it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedproof.digests import Address, Digest, checksum_address
from fedproof.errors import ConfigurationError
from fedproof.ledger.statements import SignedAttestation, SignedCommitment
from fedproof.sqlite import committing

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS federation (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    chain_id INTEGER NOT NULL,
    contract BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS uploads (
    round INTEGER NOT NULL,
    node BLOB NOT NULL,
    root BLOB NOT NULL,
    chunks INTEGER NOT NULL,
    received INTEGER NOT NULL DEFAULT 0,
    reason INTEGER,
    message TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (round, node)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS frame_seeds (
    seed BLOB PRIMARY KEY,
    round INTEGER NOT NULL,
    node BLOB NOT NULL,
    chunk INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS commitments (
    round INTEGER NOT NULL,
    node BLOB NOT NULL,
    root BLOB NOT NULL,
    examples INTEGER NOT NULL,
    nonce INTEGER NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (round, node)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attestations (
    round INTEGER NOT NULL,
    node BLOB NOT NULL,
    model BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (round, node)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS aggregates (
    round INTEGER PRIMARY KEY,
    root BLOB NOT NULL
);
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class UploadStanding:
    """How far an update has come.

    Attributes:
        root: the update's Merkle root, as committed.
        chunks: how many chunks it has; 0 if its header was refused.
        received: how many are on the disk, counted from the first.
        reason: code of the reason for which it can never count, if there is one.
        message: that reason in words.
    """

    root: Digest
    chunks: int
    received: int
    reason: int | None
    message: str

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is there and none was refused for good."""
        return self.reason is None and self.received == self.chunks


class CopiedFrame(Exception):
    """A frame's seed that belongs to another frame.

    Attributes:
        round: the other frame's.
        node: the other frame's.
        chunk: index of the other frame's chunk; of the same one, if it holds the seed twice.
    """

    def __init__(self, round_number: int, node: Address, chunk: int) -> None:
        super().__init__(round_number, node, chunk)
        self.round = round_number
        self.node = node
        self.chunk = chunk


class Journal:
    """One SQLite file, shared by the threads of one process."""

    def __init__(self, path: Path, *, chain_id: int, contract: Address) -> None:
        """Open the journal, or begin one.

        Raises:
            ConfigurationError: the file belongs to another federation, or is not a journal.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.executescript(_SCHEMA)
            self._database.execute(
                "INSERT OR IGNORE INTO federation VALUES (1, ?, ?)", (chain_id, bytes(contract))
            )
            owner = self._database.execute("SELECT chain_id, contract FROM federation").fetchone()
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise ConfigurationError(f"{path}: expected an aggregator's journal, got: {error}") from error
        if owner != (chain_id, bytes(contract)):
            self._database.close()
            raise ConfigurationError(
                f"{path}: expected the journal of contract {checksum_address(contract)} on chain {chain_id}, "
                f"got that of {checksum_address(Address(owner[1]))} on chain {owner[0]}"
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _transaction(self, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> Iterator[sqlite3.Connection]:
        """Commit what the block does, or nothing of it.

        Args:
            synchronous: FULL, and it outlives a power failure; NORMAL, and a power failure may take it back
                with what was committed after it. Either outlives a crash of this process.
        """
        with self._lock:
            self._database.execute(f"PRAGMA synchronous = {synchronous}")
            with committing(self._database):
                yield self._database

    def find_upload(self, round_number: int, node: Address, *, root: Digest) -> UploadStanding | None:
        """Return how far the update of that root has come, or nothing if its header is not known."""
        with self._lock:
            return self._find(round_number, node, root)

    def _find(self, round_number: int, node: Address, root: Digest) -> UploadStanding | None:
        row = self._database.execute(
            "SELECT root, chunks, received, reason, message FROM uploads WHERE round = ? AND node = ?",
            (round_number, bytes(node)),
        ).fetchone()
        # Another root than the ledger's is left from a block that the chain has dropped.
        if row is None or row[0] != root:
            return None
        return UploadStanding(Digest(row[0]), *row[1:])

    def begin_upload(self, round_number: int, node: Address, *, root: Digest, chunks: int) -> UploadStanding:
        """Record an update's header, unless it is recorded, and return how far the update has come."""
        with self._transaction() as database:
            known = self._find(round_number, node, root)
            if known is not None:
                return known
            database.execute(
                "INSERT OR REPLACE INTO uploads (round, node, root, chunks) VALUES (?, ?, ?, ?)",
                (round_number, bytes(node), bytes(root), chunks),
            )
        return UploadStanding(root, chunks, 0, None, "")

    def claim_seeds(self, round_number: int, node: Address, *, chunk: int, seeds: Sequence[bytes]) -> None:
        """Record whose the frames of a chunk are; a chunk that comes again changes nothing.

        An owner stays one for good, also where the chain has dropped its commitment: its frames were seen. A
        power failure may only take it back while its update is not whole.

        Raises:
            CopiedFrame: a seed belongs to a frame of another chunk, update or round, or comes twice in this
                chunk; nothing is recorded.
        """
        place = (round_number, bytes(node), chunk)
        if len(set(seeds)) < len(seeds):
            raise CopiedFrame(round_number, node, chunk)
        # Enough, since only whole updates are counted and given to others, and before one is whole there is a
        # FULL commit (record_chunks), with which everything before it outlives a power failure. Without that
        # the owner sends its chunks again, and no copy can come first: nobody else has seen the frames.
        with self._transaction("NORMAL") as database:
            # One statement: between any two, other threads may take Python's lock.
            rows = ", ".join(["(?, ?, ?, ?)"] * len(seeds))
            inserted = database.execute(
                f"INSERT OR IGNORE INTO frame_seeds VALUES {rows}",  # noqa: S608 - question marks
                [value for seed in seeds for value in (seed, *place)],
            )
            if inserted.rowcount == len(seeds):
                return
            for seed in seeds:
                owner = database.execute(
                    "SELECT round, node, chunk FROM frame_seeds WHERE seed = ?", (seed,)
                ).fetchone()
                if owner != place:
                    raise CopiedFrame(owner[0], Address(owner[1]), owner[2])

    def record_chunks(
        self, round_number: int, node: Address, *, root: Digest, received: int, chunks: int
    ) -> None:
        """Record that so many chunks of an update, counted from the first, are on the disk.

        Never takes one back. A power failure may, unless they are all: the node sends it again.

        Args:
            round_number: of which round.
            node: whose.
            root: the update's. Of one that another has replaced, nothing is recorded.
            received: how many.
            chunks: of how many.
        """
        with self._transaction("FULL" if received == chunks else "NORMAL") as database:
            database.execute(
                "UPDATE uploads SET received = max(received, ?) WHERE round = ? AND node = ? AND root = ?",
                (received, round_number, bytes(node), bytes(root)),
            )

    def record_refusal(
        self, round_number: int, node: Address, *, root: Digest, reason: int, message: str
    ) -> None:
        """Record that the update of that root can never count. The first reason stays."""
        with self._transaction() as database:
            if self._find(round_number, node, root) is None:
                database.execute(
                    "INSERT OR REPLACE INTO uploads (round, node, root, chunks) VALUES (?, ?, ?, 0)",
                    (round_number, bytes(node), bytes(root)),
                )
            database.execute(
                "UPDATE uploads SET reason = ?, message = ? WHERE round = ? AND node = ? AND reason IS NULL",
                (reason, message, round_number, bytes(node)),
            )

    def record_commitment(self, round_number: int, signed: SignedCommitment) -> SignedCommitment:
        """Record a node's signed commitment, and return the one that counts: the first."""
        with self._transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO commitments VALUES (?, ?, ?, ?, ?, ?)",
                (
                    round_number,
                    bytes(signed.node),
                    bytes(signed.update_root),
                    signed.examples,
                    signed.nonce,
                    signed.signature,
                ),
            )
        return self.find_commitments(round_number)[signed.node]

    def find_commitments(self, round_number: int) -> dict[Address, SignedCommitment]:
        """Return the signed commitments of a round, ascending by node."""
        with self._lock:
            rows = self._database.execute(
                "SELECT node, root, examples, nonce, signature FROM commitments WHERE round = ?"
                " ORDER BY node",
                (round_number,),
            ).fetchall()
        return {
            Address(node): SignedCommitment(Address(node), Digest(root), examples, nonce, signature)
            for node, root, examples, nonce, signature in rows
        }

    def record_attestation(
        self, round_number: int, model: Digest, signed: SignedAttestation
    ) -> tuple[Digest, SignedAttestation]:
        """Record a node's signed attestation, and return the one that counts, with its model: the first."""
        with self._transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO attestations VALUES (?, ?, ?, ?)",
                (round_number, bytes(signed.node), bytes(model), signed.signature),
            )
        return self.find_attestations(round_number)[signed.node]

    def find_attestations(self, round_number: int) -> dict[Address, tuple[Digest, SignedAttestation]]:
        """Return the signed attestations of a round with their models, ascending by node."""
        with self._lock:
            rows = self._database.execute(
                "SELECT node, model, signature FROM attestations WHERE round = ? ORDER BY node",
                (round_number,),
            ).fetchall()
        return {
            Address(node): (Digest(model), SignedAttestation(Address(node), signature))
            for node, model, signature in rows
        }

    def find_aggregate(self, round_number: int) -> Digest | None:
        """Return the root of the round's sum, if it has been computed and stored."""
        with self._lock:
            row = self._database.execute(
                "SELECT root FROM aggregates WHERE round = ?", (round_number,)
            ).fetchone()
        return None if row is None else Digest(row[0])

    def record_aggregate(self, round_number: int, root: Digest) -> None:
        """Record that the sum's chunks and header are on the disk."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO aggregates VALUES (?, ?)", (round_number, bytes(root)))
