"""A model as every role sees it: a layout, and one flat float32 vector.

The layout lists the tensors of a PyTorch state dict in order, tied weights once under the first name.
Floating tensors travel: they stand in the flat vector one after another, row-major. The others (such as
``num_batches_tracked``) are part of the architecture, and keep the value that the local model has.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedproof.digests import (
    Digest,
    decode_int,
    decode_text,
    encode_fields,
    split_fields,
    tagged_digest,
)
from fedproof.errors import ConfigurationError, DigestMismatch, MalformedMessage
from fedproof.files import read_whole, replace_file

FLOAT_DTYPES = ("float16", "bfloat16", "float32", "float64")
OTHER_DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64")

_LAYOUT_TAG = "fedproof.layout.v1"
_MODEL_TAG = "fedproof.model.v1"
_FILE_TAG = "fedproof.model-file.v1"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: its name in the state dict, its shape, and torch's name of its type without ``torch.``."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in FLOAT_DTYPES + OTHER_DTYPES:
            raise ValueError(
                f"tensor {self.name!r}: expected a type out of {', '.join(FLOAT_DTYPES + OTHER_DTYPES)}, "
                f"got {self.dtype!r}"
            )
        if any(not 0 <= size < 1 << 32 for size in self.shape):
            raise ValueError(f"tensor {self.name!r}: expected sizes from 0 to 2^32 - 1, got {self.shape}")

    @property
    def travels(self) -> bool:
        """Whether the flat vector holds it."""
        return self.dtype in FLOAT_DTYPES

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """The tensors of a model, in the order of its state dict."""

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) != len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise ValueError(f"layout: expected each tensor once, got {twice!r} twice")
        if self.parameters == 0:
            raise ValueError("layout: expected at least one floating value, got none")

    @property
    def parameters(self) -> int:
        """How many values the flat vector has."""
        return sum(tensor.size for tensor in self.tensors if tensor.travels)

    @property
    def digest(self) -> Digest:
        """The architecture digest."""
        return Digest(hashlib.sha256(self.encode()).digest())

    def encode(self) -> bytes:
        """Return the layout's canonical bytes: docs/format.md, "Model layout and model digest"."""
        return encode_fields(
            _LAYOUT_TAG,
            *(encode_fields(tensor.name, tensor.dtype, *tensor.shape) for tensor in self.tensors),
        )

    @classmethod
    def parse(cls, raw: bytes) -> ModelLayout:
        """Return the layout that canonical bytes stand for.

        Raises:
            MalformedMessage: they are not what `encode` returns for any layout.
        """
        tag, *encoded = split_fields(raw, "layout") or (b"",)
        if tag != _LAYOUT_TAG.encode():
            raise MalformedMessage(f"layout: expected {_LAYOUT_TAG!r} first, got {tag!r}")
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
    if len(fields) < 2:
        raise MalformedMessage(f"{what}: expected a name, a type and sizes, got {len(fields)} fields")
    name, dtype, *shape = fields
    return TensorSpec(
        decode_text(name, f"{what}: name"),
        tuple(decode_int(size, f"{what}: size") for size in shape),
        decode_text(dtype, f"{what}: type"),
    )


def verify_layout(layout: ModelLayout, *, expected: ModelLayout) -> None:
    """Check that a user's model has the layout of the federation's.

    Raises:
        ConfigurationError: it has not; the message names the first tensor that differs.
    """
    for i in range(max(len(layout.tensors), len(expected.tensors))):
        want = str(expected.tensors[i]) if i < len(expected.tensors) else "no more tensors"
        came = str(layout.tensors[i]) if i < len(layout.tensors) else "no more tensors"
        if want != came:
            raise ConfigurationError(f"model: tensor {i}: expected {want}, got {came}")


def compute_model_digest(layout_digest: Digest, flat: NDArray[np.float32]) -> Digest:
    """Return the digest of a model: docs/format.md, "Model layout and model digest".

    Args:
        layout_digest: the architecture digest.
        flat: float32 vector of shape (d,); -0.0 and 0.0 differ, as do NaNs.
    """
    values = hashlib.sha256(_little_endian(flat)).digest()
    return tagged_digest(_MODEL_TAG, layout_digest, flat.size, values)


def save_model(path: Path, layout: ModelLayout, flat: NDArray[np.float32]) -> Digest:
    """Write a model to a file, in place of what is there, and return its digest.

    Raises:
        ConfigurationError: the vector does not belong to the layout.
    """
    layout.verify_vector(flat)
    digest = compute_model_digest(layout.digest, flat)
    replace_file(path, [encode_fields(_FILE_TAG, layout.encode(), digest), _little_endian(flat)])
    return digest


def load_model(path: Path) -> tuple[ModelLayout, NDArray[np.float32]]:
    """Return the layout and the vector in a file that `save_model` wrote.

    Raises:
        ConfigurationError: the file cannot be read.
        MalformedMessage: it is not a model file, or has bytes too few or too many.
        DigestMismatch: its values are not those that were saved.
    """
    raw = read_whole(path, "a model file")
    layout, digest, start = _parse_file_head(raw, str(path))
    if len(raw) - start != 4 * layout.parameters:
        raise MalformedMessage(
            f"{path}: expected {layout.parameters} values of 4 bytes, got {len(raw) - start} bytes"
        )
    flat = np.frombuffer(raw, dtype="<f4", offset=start).astype(np.float32)
    came = compute_model_digest(layout.digest, flat)
    if came != digest:
        raise DigestMismatch(f"{path}: expected model {digest.hex()}, got {came.hex()}: the file is damaged")
    return layout, flat


def _parse_file_head(raw: bytes, where: str) -> tuple[ModelLayout, Digest, int]:
    """Return layout, digest and where the values start."""
    position = 0
    fields = []
    for what in ("tag", "layout", "digest"):
        end = position + 4 + int.from_bytes(raw[position : position + 4])
        if end > len(raw):
            raise MalformedMessage(f"{where}: expected a model file, got {len(raw)} bytes without a {what}")
        fields.append(raw[position + 4 : end])
        position = end
    tag, layout, digest = fields
    if tag != _FILE_TAG.encode() or len(digest) != 32:
        raise MalformedMessage(f"{where}: expected a {_FILE_TAG} file, got one beginning {raw[:16]!r}")
    try:
        return ModelLayout.parse(layout), Digest(digest), position
    except MalformedMessage as error:
        raise MalformedMessage(f"{where}: {error}") from error


def _little_endian(flat: NDArray[np.float32]) -> memoryview:
    if flat.dtype != np.float32 or flat.ndim != 1:
        raise ValueError(f"expected a float32 vector, got {flat.dtype} of shape {list(flat.shape)}")
    return np.ascontiguousarray(flat, dtype="<f4").data.cast("B")
