"""The rounds of a history: the newest in memory, those before it in a file, so that memory stays flat."""

from __future__ import annotations

import pickle
import tempfile
import threading
from array import array
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Final
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
        self._file = _File()

    def copy(self) -> Rounds:
        """Return the same rounds, which go on by themselves. All copies add to one file."""
        other = Rounds()
        other._newest, other._places, other._file = self._newest, self._places[:], self._file
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
            self._places.append(self._file.add(self._newest))
        self._newest = record

    def __getitem__(self, number: int) -> RoundRecord:
        if self._newest is not None and number == self._newest.number:
            return self._newest
        if not 0 < number <= len(self._places):
            raise KeyError(number)
        return self._file.read(self._places[number - 1])

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, len(self) + 1))

    def __len__(self) -> int:
        return len(self._places) + (self._newest is not None)


class _File:
    """Records in a file that has no name, for several threads. It is made when the first record comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream: BinaryIO | None = None
        self._end = 0

    def add(self, record: RoundRecord) -> int:
        """Write a record behind the others, and return where it begins."""
        data = pickle.dumps(record)
        with self._lock:
            place = self._end
            try:
                stream = self._open()
                stream.seek(place)
                stream.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
                stream.flush()
            except OSError as error:
                raise LedgerError(
                    f"round {record.number}: expected room for it where temporary files go (TMPDIR), "
                    f"got: {error.strerror}"
                ) from error
            self._end = place + _LENGTH_BYTES + len(data)
        return place

    def read(self, place: int) -> RoundRecord:
        """Return the record that begins there."""
        with self._lock:
            stream = self._open()
            stream.seek(place)
            data = stream.read(int.from_bytes(stream.read(_LENGTH_BYTES), "big"))
        record: RoundRecord = pickle.loads(data)  # noqa: S301 - what `add` wrote, where nobody else can write
        return record

    def _open(self) -> BinaryIO:
        if self._stream is None:
            self._stream = tempfile.TemporaryFile(prefix="fedproof-")  # noqa: SIM115
            finalize(self, self._stream.close)
        return self._stream
