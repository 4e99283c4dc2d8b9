"""The rounds of a history: the newest in memory, those before it in a file, so that memory stays flat."""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
from array import array
from collections.abc import Iterator, Mapping
from io import FileIO
from typing import Final
from weakref import finalize

from fedproof.errors import LedgerError
from fedproof.ledger.rounds import RoundRecord

_LENGTH_BYTES: Final = 4


class Rounds(Mapping[int, RoundRecord]):
    """Rounds by number, from 1. One that another has followed stays as it is."""

    def __init__(self) -> None:
        """Begin without a round."""
        self._newest: RoundRecord | None = None
        self._places = array("Q")  # in the file, of those before it
        self._end = 0  # of the last of these
        self._file = _File()

    def copy(self) -> Rounds:
        """Return the same rounds, which go on by themselves. All copies add to one file."""
        other = Rounds()
        other._newest, other._places = self._newest, self._places[:]
        other._end, other._file = self._end, self._file
        return other

    @property
    def newest(self) -> RoundRecord | None:
        """The one with the highest number, or None before the first."""
        return self._newest

    def put(self, record: RoundRecord) -> None:
        """Add the next round, or let the newest one be this.

        Raises:
            LedgerError: there is no room in the folder for temporary files.
        """
        if self._newest is not None and record.number != self._newest.number:
            place, self._end = self._file.add(self._newest, after=self._end)
            self._places.append(place)
        self._newest = record

    def __getitem__(self, number: int) -> RoundRecord:
        if self._newest is not None and number == self._newest.number:
            return self._newest
        if not 0 < number <= len(self._places):
            raise KeyError(number)
        return self._file.read(self._places[number - 1])[0]

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, len(self) + 1))

    def __len__(self) -> int:
        return len(self._places) + (self._newest is not None)


class _File:
    """Records in a file that has no name, for several threads. It is made when the first record comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: FileIO | None = None
        self._end = 0

    def add(self, record: RoundRecord, *, after: int) -> tuple[int, int]:
        """Write a record behind all others, and return where it begins and ends.

        If the one that begins where another ended (`after`) is the same, it is that: a copy which failed, and
        was made again, takes no more room.
        """
        with self._lock:
            if after < self._end and (found := self.read(after))[0] == record:
                return after, found[1]
            data, place = pickle.dumps(record), self._end
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(prefix="fedproof-", buffering=0)  # noqa: SIM115
                    finalize(self, self._file.close)
                rest = memoryview(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
                at = place
                while rest:
                    written = os.pwrite(self._file.fileno(), rest, at)
                    at, rest = at + written, rest[written:]
            except OSError as error:
                raise LedgerError(
                    f"round {record.number}: expected room for it where temporary files go (TMPDIR), "
                    f"got: {error.strerror}"
                ) from error
            self._end = at
            return place, at

    def read(self, place: int) -> tuple[RoundRecord, int]:
        """Return the record that begins there, and where it ends."""
        assert self._file is not None, "a place is had from `add`"
        length = int.from_bytes(os.pread(self._file.fileno(), _LENGTH_BYTES, place), "big")
        data = os.pread(self._file.fileno(), length, place + _LENGTH_BYTES)
        # It is what `add` wrote, where nobody else can write.
        return pickle.loads(data), place + _LENGTH_BYTES + length  # noqa: S301
