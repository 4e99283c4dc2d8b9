"""A model as every role sees it: a layout, and one flat float32 vector.

The layout lists the tensors of a PyTorch state dict in order, tied weights once under the first name.
Floating tensors travel, unless they are frozen: they stand in the flat vector one after another, row-major.
Integers (such as ``num_batches_tracked``) are part of the architecture, and keep the value that the local
model has. A frozen tensor is part of it with its values: every node has to bring the same ones.

A model also carries the clips of the next update, one for each tensor that travels (a group): every node
derives them together with the values, and one digest covers both.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fedproof.digests import (
    Digest,
    as_digest,
    decode_int,
    decode_text,
    encode_field,
    encode_fields,
    split_fields,
    tagged_digest,
)
from fedproof.errors import ConfigurationError, DigestMismatch, MalformedMessage
from fedproof.files import replace_file

FLOAT_DTYPES = ("float16", "bfloat16", "float32", "float64")
OTHER_DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64")

_LAYOUT_TAG = "fedproof.layout.v1"
_MODEL_TAG = "fedproof.model.v1"
_FILE_TAG = "fedproof.model-file.v1"
MOST_GROUPS = 1 << 13  # tensors that travel; each has a clip in every manifest
_MOST_SIZES = 64  # NumPy has no arrays of more dimensions


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor.

    Attributes:
        name: in the state dict.
        shape: empty for a scalar.
        dtype: torch's name of its type without ``torch.``.
        frozen: None, or SHA-256 of the values, which then belong to the architecture: row-major,
            little-endian, in the tensor's own type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    frozen: Digest | None = None

    def __post_init__(self) -> None:
        if self.dtype not in FLOAT_DTYPES + OTHER_DTYPES:
            raise ValueError(
                f"tensor {self.name[-60:]!r}: expected a type out of "
                f"{', '.join(FLOAT_DTYPES + OTHER_DTYPES)}, got {self.dtype[:40]!r}"
            )
        if len(self.shape) > _MOST_SIZES:
            raise ValueError(
                f"tensor {self.name[-60:]!r}: expected at most {_MOST_SIZES} sizes, got {len(self.shape)}"
            )
        for size in self.shape:
            if not 0 <= size < 1 << 32:
                raise ValueError(f"tensor {self.name[-60:]!r}: expected sizes from 0 to 2^32 - 1, got {size}")

    @property
    def travels(self) -> bool:
        """Whether the flat vector holds it."""
        return self.dtype in FLOAT_DTYPES and self.frozen is None

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        frozen = "" if self.frozen is None else f" frozen as {self.frozen.hex()[:16]}"
        return f"{self.name} {self.dtype}{list(self.shape)}{frozen}"


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """The tensors of a model, in the order of its state dict."""

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = set[str]()
        for tensor in self.tensors:
            if tensor.name in names:
                raise ValueError(f"layout: expected each tensor once, got {tensor.name[-60:]!r} twice")
            names.add(tensor.name)
        if len(self.group_sizes) > MOST_GROUPS:
            raise ValueError(
                f"layout: expected at most {MOST_GROUPS} tensors that travel, got {len(self.group_sizes)}"
            )
        if self.parameters == 0:
            frozen = sum(tensor.frozen is not None for tensor in self.tensors)
            raise ValueError(
                "layout: expected at least one floating value that is not frozen, got none "
                f"in {len(names)} tensors, {frozen} of them frozen"
            )

    @property
    def parameters(self) -> int:
        """How many values the flat vector has."""
        return sum(self.group_sizes)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """How many values each travelling tensor has, in order; 0 is possible."""
        return tuple(tensor.size for tensor in self.tensors if tensor.travels)

    @property
    def digest(self) -> Digest:
        """The architecture digest."""
        return Digest(hashlib.sha256(self.encode()).digest())

    def encode(self) -> bytes:
        """Return the layout's canonical bytes: docs/format.md, "Model layout and model digest"."""
        return encode_fields(
            _LAYOUT_TAG,
            *(
                encode_fields(tensor.name, tensor.dtype, tensor.frozen or b"", *tensor.shape)
                for tensor in self.tensors
            ),
        )

    @classmethod
    def parse(cls, raw: bytes) -> ModelLayout:
        """Return the layout that canonical bytes stand for.

        Raises:
            MalformedMessage: they are not what `encode` returns for any layout.
        """
        tag, *encoded = split_fields(raw, "layout") or (b"",)
        if tag != _LAYOUT_TAG.encode():
            raise MalformedMessage(f"layout: expected {_LAYOUT_TAG!r} first, got {tag[:40]!r}")
        try:
            return cls(tuple(_parse_tensor(each, f"layout: tensor {i}") for i, each in enumerate(encoded)))
        except ValueError as error:
            raise MalformedMessage(str(error)) from error

    def flatten(self, tensors: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """Return the floating tensors as one vector of shape (d,).

        Args:
            tensors: arrays by name; those that do not travel may be left out.

        Raises:
            ConfigurationError: a tensor is missing, or of another shape; the message names it.
        """
        flat = np.empty(self.parameters, dtype=np.float32)
        start = 0
        for tensor in self.tensors:
            if not tensor.travels:
                continue
            if tensor.name not in tensors:
                raise ConfigurationError(f"model: expected the tensor {tensor}, got none of that name")
            came = tensors[tensor.name]
            if came.shape != tensor.shape:
                raise ConfigurationError(
                    f"model: tensor {tensor.name!r}: expected shape {list(tensor.shape)}, "
                    f"got {list(came.shape)}"
                )
            flat[start : start + tensor.size] = came.reshape(-1)
            start += tensor.size
        return flat

    def unflatten(self, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return the floating tensors by name, as views of the vector in their shapes.

        Raises:
            ConfigurationError: the vector is not float32 of shape (d,).
        """
        self.verify_vector(flat)
        tensors = {}
        start = 0
        for tensor in self.tensors:
            if tensor.travels:
                tensors[tensor.name] = flat[start : start + tensor.size].reshape(tensor.shape)
                start += tensor.size
        return tensors

    def verify_vector(self, flat: NDArray[np.float32]) -> None:
        """Check that a vector belongs to this layout.

        Raises:
            ConfigurationError: it is not float32 of shape (d,).
        """
        if flat.dtype != np.float32 or flat.shape != (self.parameters,):
            raise ConfigurationError(
                f"model: expected a float32 vector of shape [{self.parameters}], "
                f"got {flat.dtype} of shape {list(flat.shape)}"
            )


def _parse_tensor(raw: bytes, what: str) -> TensorSpec:
    fields = split_fields(raw, what)
    if len(fields) < 3:
        raise MalformedMessage(
            f"{what}: expected a name, a type, frozen values' digest and sizes, got {len(fields)} fields"
        )
    name, dtype, frozen, *shape = fields
    return TensorSpec(
        decode_text(name, f"{what}: name"),
        tuple(decode_int(size, f"{what}: size") for size in shape),
        decode_text(dtype, f"{what}: type"),
        as_digest(frozen, f"{what}: frozen") if frozen else None,
    )


def verify_layout(layout: ModelLayout, *, expected: ModelLayout) -> None:
    """Check that a user's model has the layout of the federation's.

    Raises:
        ConfigurationError: it has not; the message names the first tensor that differs.
    """
    for i, (came, want) in enumerate(zip_longest(layout.tensors, expected.tensors)):
        if came == want:
            continue
        if came and want and replace(came, frozen=want.frozen) == want and came.frozen and want.frozen:
            raise ConfigurationError(
                f"model: frozen tensor {want.name!r}: expected the values of digest {want.frozen.hex()}, "
                f"got {came.frozen.hex()}: what is frozen does not travel, so it has to be the same at every "
                "node, and training must not change it"
            )
        raise ConfigurationError(
            f"model: tensor {i}: expected {want or 'no more tensors'}, got {came or 'no more tensors'}"
        )


def check_clips(clips: Sequence[float], what: str) -> None:
    """Check that there are clips, and that each is a positive, finite number.

    Raises:
        ValueError: they are not.
    """
    if not 1 <= len(clips) <= MOST_GROUPS:
        raise ValueError(f"{what}: expected positive finite numbers, 1 to {MOST_GROUPS}, got {len(clips)}")
    for clip in clips:
        if not 0 < clip < math.inf:
            raise ValueError(f"{what}: expected positive finite numbers, got {clip}")


def encode_clips(clips: Sequence[float]) -> bytes:
    """Return clips as bytes: each IEEE 754 binary64, big-endian."""
    return b"".join(map(encode_field, clips))


def decode_clips(field: bytes, what: str) -> tuple[float, ...]:
    """Return the clips that `encode_clips` made bytes of.

    Raises:
        MalformedMessage: there is none, one is cut short, or one is no positive finite number.
    """
    count, rest = divmod(len(field), 8)
    if rest or count > MOST_GROUPS:
        raise MalformedMessage(
            f"{what}: expected 1 to {MOST_GROUPS} floats of 8 bytes, got {len(field)} bytes"
        )
    clips = struct.unpack(f">{count}d", field)
    try:
        check_clips(clips, what)
    except ValueError as error:
        raise MalformedMessage(str(error)) from error
    return clips


def compute_values_digest(flat: NDArray[np.float32]) -> Digest:
    """Return the digest of a flat vector: SHA-256 of its values, little-endian.

    Args:
        flat: float32 vector of shape (d,); -0.0 and 0.0 differ, as do NaNs.
    """
    return Digest(hashlib.sha256(_little_endian(flat)).digest())


def compute_model_digest(
    layout_digest: Digest, parameters: int, values_digest: Digest, clips: Sequence[float]
) -> Digest:
    """Return the digest of a model: docs/format.md, "Model layout and model digest".

    Args:
        layout_digest: the architecture digest.
        parameters: values in the flat vector.
        values_digest: what `compute_values_digest` returns for it.
        clips: bounds of the next update, one for each group.
    """
    return tagged_digest(_MODEL_TAG, layout_digest, parameters, values_digest, encode_clips(clips))


@dataclass(frozen=True, eq=False)
class Model:
    """A model of one round, and the clips of the next update.

    Attributes:
        flat: float32 vector of shape (d,); from here on it stays as it is.
        clips: for each group, the bound of each of the update's values in it.
    """

    flat: NDArray[np.float32]
    clips: tuple[float, ...]

    @cached_property  # it takes a tenth of a second for eleven million values
    def values_digest(self) -> Digest:
        """Digest of the vector."""
        return compute_values_digest(self.flat)

    def compute_digest(self, layout_digest: Digest) -> Digest:
        """Return the model's digest under a layout."""
        return compute_model_digest(layout_digest, self.flat.size, self.values_digest, self.clips)


def save_model(path: Path, layout: ModelLayout, model: Model) -> Digest:
    """Write a model to a file, in place of what is there, and return its digest.

    Raises:
        ConfigurationError: the vector or the clips do not belong to the layout.
    """
    layout.verify_vector(model.flat)
    groups = len(layout.group_sizes)
    if len(model.clips) != groups:
        raise ConfigurationError(f"model: expected {groups} clips, got {len(model.clips)}")
    digest = model.compute_digest(layout.digest)
    head = encode_fields(_FILE_TAG, layout.encode(), digest, encode_clips(model.clips))
    replace_file(path, [head, _little_endian(model.flat)])
    return digest


def load_model(path: Path) -> tuple[ModelLayout, Model]:
    """Return the layout and the model in a file that `save_model` wrote.

    Raises:
        ConfigurationError: the file cannot be read.
        MalformedMessage: it is not a model file, or has bytes or clips too few or too many.
        DigestMismatch: its values or clips are not those that were saved.
    """
    try:
        with path.open("rb") as file:
            return _read_model(file, os.fstat(file.fileno()).st_size, str(path))
    except OSError as error:
        raise ConfigurationError(f"{path}: expected a model file, got: {error.strerror}") from error


def _read_model(file: BinaryIO, size: int, where: str) -> tuple[ModelLayout, Model]:
    fields = []
    for what in ("tag", "layout", "digest", "clips"):
        length = int.from_bytes(file.read(4))
        if file.tell() + length > size:
            raise MalformedMessage(f"{where}: expected a model file, got {size} bytes without {what}")
        fields.append(file.read(length))
    tag, encoded, digest, clips = fields
    if tag != _FILE_TAG.encode() or len(digest) != 32:
        raise MalformedMessage(f"{where}: expected a {_FILE_TAG} file, got one beginning {tag[:32]!r}")
    try:
        layout, bounds = ModelLayout.parse(encoded), decode_clips(clips, "clips")
    except MalformedMessage as error:
        raise MalformedMessage(f"{where}: {error}") from error
    groups, rest = len(layout.group_sizes), size - file.tell()
    if (rest, len(bounds)) != (4 * layout.parameters, groups):
        raise MalformedMessage(
            f"{where}: expected {layout.parameters} values of 4 bytes and {groups} clips, "
            f"got {rest} bytes and {len(bounds)} clips"
        )
    # Into place: a model fills much of a node's memory, and there is no room for it twice.
    flat = np.fromfile(file, dtype="<f4").astype(np.float32, copy=False)
    model = Model(flat, bounds)
    came = model.compute_digest(layout.digest)
    if came != digest:
        raise DigestMismatch(f"{where}: expected model {digest.hex()}, got {came.hex()}: the file is damaged")
    return layout, model


def _little_endian(flat: NDArray[np.float32]) -> memoryview:
    if flat.dtype != np.float32 or flat.ndim != 1:
        raise ValueError(f"expected a float32 vector, got {flat.dtype} of shape {list(flat.shape)}")
    return np.ascontiguousarray(flat, dtype="<f4").data.cast("B")
