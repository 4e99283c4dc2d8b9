"""One round's update and sum, between flat vectors and chunks, in memory of a few chunks.

A node's part of a round, with codec workers for the heavy work:

    change = trained - base
    for index, encoded in enumerate(workers.encode(encoding.pieces(change), weight=weight)): ...
    sums = workers.decode(chunks, contributors=10, length=encoding.length)
    flat, measured = encoding.apply(base, sums, total_examples)
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fedproof.codec.parameters import CodecParameters
from fedproof.codec.quantise import Float32Vector, Int64Vector, apply_mean, check_finite
from fedproof.codec.scaling import GroupSquares, Scaling
from fedproof.codec.selection import Positions, Selection
from fedproof.codec.workers import Encoded, Piece
from fedproof.errors import ConfigurationError, MalformedMessage, UpdateRefused


@dataclass(frozen=True, slots=True)
class RoundEncoding:
    """How the values of one round travel.

    Attributes:
        parameters: the federation's.
        scaling: the round's clips.
        selection: the values that travel in the round.

    Raises:
        ConfigurationError: the groups do not add up to the vector, or the limits differ.
    """

    parameters: CodecParameters
    scaling: Scaling
    selection: Selection

    def __post_init__(self) -> None:
        expected, came = self.selection.parameters, sum(self.scaling.group_sizes)
        if came != expected or self.scaling.limit != self.parameters.limit:
            raise ConfigurationError(
                f"round: expected groups of {expected} values and the limit {self.parameters.limit}, "
                f"got {came} and {self.scaling.limit}"
            )

    @property
    def length(self) -> int:
        """How many values travel."""
        return self.selection.length

    @property
    def chunk_count(self) -> int:
        """How many chunks they take."""
        return self.parameters.chunk_count(self.length)

    def positions(self, index: int) -> Positions:
        """Return where the values of chunk `index` stand in the flat vector."""
        start = index * self.parameters.values_per_chunk
        return self.selection.positions(start, min(start + self.parameters.values_per_chunk, self.length))

    def pieces(self, change: Float32Vector) -> Iterator[Piece]:
        """Yield what travels of an update, chunk by chunk, for `CodecWorkers.encode`.

        Args:
            change: what the update is to change in the model, of shape (d,): the trained vector without the
                base model's.

        Raises:
            UpdateRefused: another shape or type; NaN or infinity where it travels, named by its index.
        """
        self._check_shape(change)
        for index in range(self.chunk_count):
            positions = self.positions(index)
            delta = change[positions]
            check_finite(delta, positions, what="update")
            yield Piece(delta, self.scaling.runs(positions), secrets.token_bytes(32))

    def store_residual(self, change: Float32Vector, index: int, encoded: Encoded) -> None:
        """Put into the change what its chunk `index` leaves unsent. After the last chunk it is the residual.

        Raises:
            ConfigurationError: the chunk was encoded without a residual.
        """
        if encoded.residual is None:
            raise ConfigurationError(f"chunk {index}: expected a residual, it was not asked for")
        change[self.positions(index)] = encoded.residual

    def apply(
        self, base: Float32Vector, sums: Iterable[Int64Vector], total_examples: int
    ) -> tuple[Float32Vector, GroupSquares]:
        """Return the next model's flat vector, and what the next clips are computed from.

        Args:
            base: the model that the updates start from, of shape (d,); unchanged.
            sums: the decrypted sums of each chunk, in order.
            total_examples: the sum of the contributors' example counts, each at most max_examples.

        Raises:
            MalformedMessage: not the sums of as many chunks as travel, or no examples.
            UpdateRefused: base has another shape or type, or a value of the new model is not finite.
        """
        self._check_shape(base)
        flat = base.copy()
        nothing = (0,) * len(self.scaling.clips)
        measured = GroupSquares(nothing, nothing)
        index = -1
        for index, chunk_sums in enumerate(sums):
            if index >= self.chunk_count:
                raise MalformedMessage(f"model: expected the sums of {self.chunk_count} chunks, got more")
            positions = self.positions(index)
            applied = apply_mean(
                base[positions],
                chunk_sums,
                self.scaling.clips_at(positions),
                limit=self.scaling.limit,
                max_examples=self.scaling.max_examples,
                total_examples=total_examples,
            )
            check_finite(applied, positions, what="model")
            flat[positions] = applied
            measured = measured.merge(self.scaling.measure(chunk_sums, positions))
        if index + 1 != self.chunk_count:
            raise MalformedMessage(f"model: expected the sums of {self.chunk_count} chunks, got {index + 1}")
        return flat, measured

    def _check_shape(self, vector: Float32Vector) -> None:
        expected = self.selection.parameters
        if vector.dtype != np.float32 or vector.shape != (expected,):
            raise UpdateRefused(
                f"update: expected a flat float32 vector of {expected} values, "
                f"got {vector.dtype} of shape {vector.shape}"
            )
