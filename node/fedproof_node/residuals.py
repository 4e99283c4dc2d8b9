"""What this node's updates left unsent, and which of it the next training starts with (error feedback).

A residual belongs to one update. It is this node's own from when a finalised round counts that update, and
worthless otherwise. The ledger and the journal together say which it is, so no crash leaves a wrong one.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from fedproof.digests import Address, Digest
from fedproof.errors import DigestMismatch, MissingObject
from fedproof.files import PRIVATE, replace_file
from fedproof.ledger.events import Phase
from fedproof.ledger.history import History
from fedproof.model import compute_values_digest
from fedproof_node.journal import Journal
from fedproof_node.vectors import Float32Vector, add_finite


class Residuals:
    """One file for each update that may count, beside its spool; readable for this node's user alone."""

    def __init__(self, rounds_dir: Path, *, journal: Journal, node: Address) -> None:
        self._rounds_dir = rounds_dir
        self._journal = journal
        self._node = node

    def save(self, number: int, residual: Float32Vector) -> Digest:
        """Store what a round's update leaves unsent and return its digest, for the journal."""
        values = np.ascontiguousarray(residual, dtype="<f4")
        replace_file(self._path(number), [values.data.cast("B")], mode=PRIVATE)
        return compute_values_digest(residual)

    def apply(self, base: Float32Vector, history: History, *, before: int) -> Float32Vector:
        """Return what training starts from in a round: the base model and what is unsent, in another vector;
        the base model itself, if nothing is.

        Error feedback adds the residual to the update (Seide et al. 2014). A round trains for many steps, and
        those that start from the base model alone learn what is pending once more, to send it twice.

        Raises:
            MissingObject: the residual's file is gone.
            DigestMismatch: the file holds something else.
            UpdateRefused: a value of the sum is not finite.
        """
        counted = self._find_counted(history, until=before - 1)
        if counted is None:
            return base
        number, digest = counted
        path = self._path(number)
        if not path.exists():
            raise MissingObject(
                f"{path}: expected what the update of round {number} left unsent, got no file"
            )
        residual = np.fromfile(path, dtype="<f4").astype(np.float32, copy=False)
        came = compute_values_digest(residual)
        if came != digest:
            raise DigestMismatch(f"{path}: expected values of digest {digest.hex()}, got {came.hex()}")
        add_finite(residual, base, what="base model and what earlier updates left unsent")
        return residual

    def prune(self, history: History, *, until: int) -> None:
        """Remove those of a round and the ones before it, but for the one that is this node's own."""
        counted = self._find_counted(history, until=until)
        for path in self._rounds_dir.glob("*/residual"):
            number = int(path.parent.name)
            if number <= until and (counted is None or number != counted[0]):
                path.unlink()
                with suppress(OSError):  # other things are in it
                    path.parent.rmdir()

    def _find_counted(self, history: History, *, until: int) -> tuple[int, Digest] | None:
        """Return the latest round whose result holds this node's update, and the residual's digest."""
        for number in range(until, 0, -1):
            record = history.rounds[number]
            if record.phase is Phase.FINALISED and self._node in record.contributors:
                entry = self._journal.entry(number)
                if entry.residual is None or entry.update_root != record.commitments[self._node].update_root:
                    return None
                return number, entry.residual
        return None

    def _path(self, number: int) -> Path:
        return self._rounds_dir / str(number) / "residual"
