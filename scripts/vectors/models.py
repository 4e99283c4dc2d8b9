"""State dicts, layouts, models with their clips, and model files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import torch

from fedproof.digests import encode_fields
from fedproof.model import (
    Model,
    ModelLayout,
    compute_model_digest,
    compute_values_digest,
    encode_clips,
    save_model,
)
from fedproof.tasks.flat import compute_layout, flatten_model
from vectors.example_model import ExampleModel
from vectors.form import Entry, Json, spell_floats

_INTEGERS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_TENSOR: Final = ("w", "float32", b"")


def build_layout() -> Entry:
    """Return a state dict with what follows from it, and bytes that are no layout."""
    model = ExampleModel()
    layout = compute_layout(model)
    return {
        "about": "A state dict (values as they are hashed when frozen), its layout and flat vector",
        "state_dict": _spell_state_dict(model),
        "layout": layout.encode().hex(),
        "layout_digest": layout.digest.hex(),
        "group_sizes": list(layout.group_sizes),
        "flat": flatten_model(model, layout).astype("<f4").tobytes().hex(),
        "refused": [
            {"layout": raw.hex(), "why": why}
            for raw, why in (
                (b"", "no tag"),
                (_layout(_TENSOR, tag="fedproof.layout.v2"), "another version"),
                (_layout(), "no tensor"),
                (_layout(("w", "int64", b"", 1)), "no value travels"),
                (_layout(("w", "float32", b"", 0)), "no value travels: a size is 0"),
                (_layout(("w", "float32", bytes(32), 1)), "no value travels: the tensor is frozen"),
                (_layout(_TENSOR, ("w",)), "a tensor without a type"),
                (_layout(_TENSOR, ("b", "float32")), "a tensor without the field of frozen values"),
                (_layout(_TENSOR, ("b", "float32", bytes(31))), "a digest of 31 bytes"),
                (_layout(_TENSOR, ("b", "complex64", b"")), "a type that has no meaning here"),
                (_layout(_TENSOR, ("b", "torch.float32", b"")), "a type spelled otherwise"),
                (_layout(_TENSOR, ("b", "float32", b"", 1 << 32)), "a size of 2^32"),
                (_layout(_TENSOR, ("b", "float32", b"", b"\x01")), "a size of one byte"),
                (_layout(_TENSOR, (b"\xff", "float32", b"")), "a name that is not UTF-8"),
                (_layout(_TENSOR, _TENSOR), "two tensors of one name"),
                (_layout(_TENSOR) + b"\x00", "a byte is left over"),
            )
        ],
    }


def build_model() -> Entry:
    """Return models with their clips, digests and files, and files that hold no model."""
    example = ExampleModel()
    layout = compute_layout(example)
    genesis = Model(flatten_model(example, layout), (0.25,) * len(layout.group_sizes))
    later = Model(
        genesis.flat * np.float32(-0.5), tuple(0.25 / (group + 1) for group, _ in enumerate(genesis.clips))
    )
    small = ModelLayout.parse(_layout(_TENSOR))
    one = Model(np.array([-0.0], dtype=np.float32), (2.0**-64,))
    raw = _write(small, one)
    head = encode_fields("fedproof.model-file.v1", small.encode(), one.compute_digest(small.digest))
    two_clips = one.clips * 2
    two_digest = compute_model_digest(small.digest, 1, compute_values_digest(one.flat), two_clips)
    return {
        "about": "Models: a flat vector and a clip for each group",
        "models": [_spell_model(layout, genesis), _spell_model(layout, later), _spell_model(small, one)],
        "refused_clips": [
            {"clips": clips, "why": why}
            for clips, why in (
                ("", "no clip"),
                (spell_floats([1.0])[:-2], "a clip of 7 bytes"),
                (spell_floats([1.0, 0.0]), "zero"),
                (spell_floats([-1.0]), "below zero"),
                (spell_floats([float("inf")]), "infinity"),
                (spell_floats([1.0, float("nan")]), "not a number"),
            )
        ],
        "refused": [
            {"file": file.hex(), "why": why}
            for file, why in (
                (raw[:-1], "a byte is missing"),
                (raw + bytes(4), "a value too many"),
                (raw[:-4] + bytes(4), "0.0 instead of -0.0: another model than the digest's"),
                (raw.replace(b"model-file.v1", b"model-file.v2"), "another version"),
                (
                    head + encode_fields(encode_clips([2.0**-63])) + raw[-4:],
                    "another clip than the digest's",
                ),
                (
                    encode_fields(
                        "fedproof.model-file.v1", small.encode(), two_digest, encode_clips(two_clips)
                    )
                    + raw[-4:],
                    "a clip more than groups",
                ),
            )
        ],
    }


def _layout(*tensors: tuple[bytes | str | int, ...], tag: str = "fedproof.layout.v1") -> bytes:
    return encode_fields(tag, *(encode_fields(*tensor) for tensor in tensors))


def _spell_state_dict(model: torch.nn.Module) -> list[Json]:
    entries: list[Json] = []
    names: dict[tuple[object, ...], str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        values = tensor.detach().contiguous().reshape(-1)
        memory = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        first = names.setdefault(memory, name) if tensor.numel() else name
        kind = "parameter" if isinstance(tensor, torch.nn.Parameter) else "buffer"
        entries.append(
            {
                "name": name,
                "kind": kind,
                "requires_grad": tensor.requires_grad,
                "type": str(tensor.dtype).removeprefix("torch."),
                "shape": list(tensor.shape),
                "tied_to": None if first == name else first,
                "values": values.view(_INTEGERS[values.element_size()]).numpy().tobytes().hex(),
            }
        )
    return entries


def _spell_model(layout: ModelLayout, model: Model) -> Json:
    return {
        "layout": layout.encode().hex(),
        "flat": model.flat.astype("<f4").tobytes().hex(),
        "clips": encode_clips(model.clips).hex(),
        "values_digest": compute_values_digest(model.flat).hex(),
        "model_digest": model.compute_digest(layout.digest).hex(),
        "file": _write(layout, model).hex(),
    }


def _write(layout: ModelLayout, model: Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save_model(path, layout, model)
        return path.read_bytes()
