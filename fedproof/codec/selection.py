"""Which values of the flat vector travel in a round: all, or a subset that is drawn for all nodes alike.

The vector is cut into runs of `keep_one_in` consecutive values, and one value of each run travels. A seed
that the ledger fixes draws it anew in each round, so sums stay exact and no index ever travels.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fedproof.digests import Address, Digest, encode_fields, tagged_digest
from fedproof.errors import ConfigurationError

Positions = slice | npt.NDArray[np.int64]
"""Ascending indices in the flat vector; a slice where they are consecutive."""

_BLOCK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Selection:
    """The values that travel in one round (docs/format.md, "Selection").

    Attributes:
        parameters: how many values the flat vector has.
        keep_one_in: of this many consecutive values one travels; 1 for all of them.
        seed: what draws it, from `compute_selection_seed`.

    Raises:
        ConfigurationError: parameters is not positive, or keep_one_in is not from 1 to 1024.
    """

    parameters: int
    keep_one_in: int
    seed: Digest

    def __post_init__(self) -> None:
        if self.parameters < 1:
            raise ConfigurationError(
                f"selection: expected a vector of at least one value, got {self.parameters}"
            )
        if not 1 <= self.keep_one_in <= 1024:
            raise ConfigurationError(
                f"selection: expected keep_one_in from 1 to 1024, got {self.keep_one_in}"
            )

    @property
    def length(self) -> int:
        """How many values travel."""
        return math.ceil(self.parameters / self.keep_one_in)

    def positions(self, start: int, stop: int) -> Positions:
        """Return where the travelling values `start` to `stop` - 1 stand in the flat vector."""
        if self.keep_one_in == 1:
            return slice(start, stop)
        blocks = [self._draw(block) for block in range(start // _BLOCK, math.ceil(stop / _BLOCK))]
        drawn = np.concatenate(blocks)[start % _BLOCK :][: stop - start]
        runs = np.arange(start, stop, dtype=np.int64) * self.keep_one_in
        sizes = np.minimum(self.keep_one_in, self.parameters - runs)
        return runs + drawn % sizes

    def _draw(self, block: int) -> npt.NDArray[np.int64]:
        stream = hashlib.shake_256(encode_fields("fedproof.selection-block.v1", self.seed, block))
        return np.frombuffer(stream.digest(4 * _BLOCK), dtype="<u4").astype(np.int64)


def compute_selection_seed(*, chain_id: int, contract: Address, round: int, base_model: Digest) -> Digest:
    """Return the seed of a round's selection.

    The base model is known only when the round before is final, so nobody knows earlier which values will
    travel; but whoever can make a round fail learns the seed of the next one early.
    """
    return tagged_digest("fedproof.selection.v1", chain_id, contract, round, base_model)
