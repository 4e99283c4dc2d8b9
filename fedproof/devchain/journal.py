"""The development chain on disk: what it takes to mine the same blocks again.

A folder holds one file, `blocks.jsonl`. Its first line is the genesis, each further one a block as it was
mined, or a revert to an earlier block. Lines are only ever appended, and each is on disk before anyone can
see its block. So a crash can tear the last line at most; a torn line was never visible, and is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from fedproof.errors import ConfigurationError

FORMAT = "fedproof.devchain.v1"
FILE_NAME = "blocks.jsonl"


@dataclass(frozen=True, slots=True)
class Genesis:
    """What tells one development chain from another."""

    chain_id: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """A block's own facts; everything else in it follows from these and its parent.

    Attributes:
        mix_hash: the block's randomness, 32 bytes (EIP-4399).
        balances: accounts set to a balance before the first transaction, which only a development chain does.
        transactions: signed, as they came.
        hash: the block hash, for checking a replay.
    """

    number: int
    timestamp: int
    mix_hash: bytes
    balances: tuple[tuple[bytes, int], ...]
    transactions: tuple[bytes, ...]
    hash: bytes


@dataclass(frozen=True, slots=True)
class RevertRecord:
    """The chain went back to a block, and forgot those after it."""

    number: int


Record = BlockRecord | RevertRecord


class Journal:
    """An open journal. Holds a lock on its file, so that two chains never write the same one.

    Attributes:
        genesis: of the chain that the journal is about.
        records: those that were found on opening.
        torn_bytes: length of the torn last line that was found on opening; 0 usually.
        read_only: whether nothing may be appended.
    """

    def __init__(self, folder: Path, *, default: Genesis, read_only: bool = False) -> None:
        """Open the folder's journal; when it holds none, begin one with the genesis given.

        Raises:
            ConfigurationError: the file is not a journal, is in use, or cannot be opened.
        """
        self.path = folder / FILE_NAME
        self.read_only = read_only
        self._file = _open(self.path, read_only=read_only)
        try:
            self._lock()
            lines, self.torn_bytes = _split_lines(self._file.read())
            self._size = sum(len(line) + 1 for line in lines)
            if not read_only:
                self._file.truncate(self._size)
            if lines:
                self.genesis = _parse_genesis(lines[0], self.path)
            elif read_only:
                raise ConfigurationError(f"{self.path}: expected a development chain's journal, got no line")
            else:
                self.genesis = default
                self._write(_encode_genesis(default))
                _sync_folder(folder)
            self.records: Sequence[Record] = [
                _parse_record(line, f"{self.path}, line {number}") for number, line in enumerate(lines[1:], 2)
            ]
        except BaseException:
            self._file.close()
            raise

    def append(self, record: Record) -> None:
        """Write a record and wait until it is on disk."""
        self._write(_encode_record(record))

    def close(self) -> None:
        """Close the file, which also gives up the lock."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        mode = fcntl.LOCK_SH if self.read_only else fcntl.LOCK_EX
        try:
            fcntl.flock(self._file, mode | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"{self.path}: expected a free journal, but a devchain is using it"
            ) from error

    def _write(self, document: dict[str, Any]) -> None:
        line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        try:
            self._file.seek(self._size)
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError:
            # What was written of the line must not stand before the next one.
            os.ftruncate(self._file.fileno(), self._size)
            raise
        self._size += len(line)


def _open(path: Path, *, read_only: bool) -> FileIO:
    try:
        if read_only:
            return FileIO(path, "rb")
        path.parent.mkdir(parents=True, exist_ok=True)
        # No mode of open() creates a missing file, keeps an existing one and heeds seeks when writing.
        return FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot open the journal: {error.strerror}") from error


def _split_lines(raw: bytes) -> tuple[list[bytes], int]:
    *lines, torn = raw.split(b"\n")
    return lines, len(torn)


def _sync_folder(folder: Path) -> None:
    # A new file's name is on disk only after its folder is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode_genesis(genesis: Genesis) -> dict[str, Any]:
    return {"format": FORMAT, "chain_id": genesis.chain_id, "timestamp": genesis.timestamp}


def _encode_record(record: Record) -> dict[str, Any]:
    match record:
        case RevertRecord():
            return {"revert_to": record.number}
        case BlockRecord():
            return {
                "number": record.number,
                "timestamp": record.timestamp,
                "mix_hash": record.mix_hash.hex(),
                "balances": {address.hex(): balance for address, balance in record.balances},
                "transactions": [raw.hex() for raw in record.transactions],
                "hash": record.hash.hex(),
            }


def _parse_genesis(line: bytes, path: Path) -> Genesis:
    where = f"{path}, line 1"
    document = _parse_document(line, where)
    if document.get("format") != FORMAT:
        raise ConfigurationError(f"{where}: expected format {FORMAT!r}, got {document.get('format')!r}")
    try:
        return Genesis(chain_id=int(document["chain_id"]), timestamp=int(document["timestamp"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: expected a genesis, got {error!r}") from error


def _parse_record(line: bytes, where: str) -> Record:
    document = _parse_document(line, where)
    try:
        if "revert_to" in document:
            return RevertRecord(int(document["revert_to"]))
        return BlockRecord(
            number=int(document["number"]),
            timestamp=int(document["timestamp"]),
            mix_hash=bytes.fromhex(document["mix_hash"]),
            balances=tuple((bytes.fromhex(key), int(value)) for key, value in document["balances"].items()),
            transactions=tuple(bytes.fromhex(raw) for raw in document["transactions"]),
            hash=bytes.fromhex(document["hash"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"{where}: expected a block, got {error!r}") from error


def _parse_document(line: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise ConfigurationError(f"{where}: expected JSON, got {line[:40]!r}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{where}: expected a JSON object, got {line[:40]!r}")
    return document
