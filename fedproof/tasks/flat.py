"""A torch model as its layout and one flat float32 vector (fedproof/model.py), and back.

Parameters that the model has set to ``requires_grad = False`` are frozen: they do not travel. So low-rank
adapters (Hu et al. 2021, arXiv:2106.09685; peft, or torch's parametrizations) need no setting of ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedproof.digests import Digest
from fedproof.errors import ConfigurationError
from fedproof.model import ModelLayout, TensorSpec, verify_layout

# numpy knows no bfloat16, so values become bytes as integers of their size.
_INTEGERS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def compute_layout(model: torch.nn.Module) -> ModelLayout:
    """Return the model's layout. What `requires_grad` says now decides which parameters are frozen.

    Raises:
        ConfigurationError: the model has no floating value that travels, a tensor that is sparse or of a type
            that is not supported, or tied tensors of which some are frozen.
    """
    tensors = _untied_tensors(model)
    return _describe_tensors(tensors, frozen=[name for name, each in tensors.items() if _is_frozen(each)])


def flatten_model(model: torch.nn.Module, layout: ModelLayout) -> NDArray[np.float32]:
    """Return the values of the tensors that travel as float32 of shape (d,).

    Raises:
        ConfigurationError: the model has another layout, or other values in a frozen tensor.
    """
    tensors = _load_tensors(model, layout)
    return layout.flatten(
        {
            spec.name: tensors[spec.name].detach().float().cpu().numpy()
            for spec in layout.tensors
            if spec.travels
        }
    )


@torch.no_grad()
def load_flat(model: torch.nn.Module, layout: ModelLayout, flat: NDArray[np.float32]) -> None:
    """Set the values of the tensors that travel, in place; all others stay as they are.

    Raises:
        ConfigurationError: the model or the vector does not belong to the layout, or a frozen tensor has
            other values.
    """
    tensors = _load_tensors(model, layout)
    for name, values in layout.unflatten(flat).items():
        # A copy: torch warns about an array that it may not write to, even if it only reads.
        tensors[name].copy_(torch.from_numpy(values.copy()))


def _load_tensors(model: torch.nn.Module, layout: ModelLayout) -> dict[str, torch.Tensor]:
    """Return the model's tensors by name, once they are those of the layout.

    Frozen is what the layout says: a task may thaw and freeze in training, as long as those tensors stay.
    """
    tensors = _untied_tensors(model)
    frozen = [spec.name for spec in layout.tensors if spec.frozen]
    verify_layout(_describe_tensors(tensors, frozen=frozen), expected=layout)
    return tensors


def _describe_tensors(tensors: Mapping[str, torch.Tensor], *, frozen: Collection[str]) -> ModelLayout:
    try:
        specs = [
            TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in tensors.items()
        ]
        return ModelLayout(
            tuple(
                replace(spec, frozen=_compute_digest(tensors[spec.name])) if spec.name in frozen else spec
                for spec in specs
            )
        )
    except ValueError as error:
        raise ConfigurationError(f"model: {error}") from error


def _compute_digest(tensor: torch.Tensor) -> Digest:
    """Return SHA-256 of the values, row-major, little-endian, in their own type."""
    values = tensor.detach().cpu().reshape(-1).contiguous()
    integers = values.view(_INTEGERS[values.element_size()]).numpy()
    return Digest(hashlib.sha256(integers.astype(integers.dtype.newbyteorder("<"), copy=False).data).digest())


def _is_frozen(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad


def _untied_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the state dict without a tied tensor's later names: they see the same memory as the first."""
    state = model.state_dict(keep_vars=True)  # parameters as such, not as detached tensors
    tensors: dict[str, torch.Tensor] = {}
    seen: dict[object, str] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
            raise ConfigurationError(f"model: {name!r}: expected a dense tensor, got {_describe(tensor)}")
        memory = (
            tensor.untyped_storage().data_ptr(),
            tensor.storage_offset(),
            tensor.dtype,
            tensor.shape,
            tensor.stride(),
        )
        if tensor.numel() == 0 or memory not in seen:
            tensors[name] = tensor
            seen[memory] = name
        elif _is_frozen(tensor) != _is_frozen(tensors[seen[memory]]):
            first = seen[memory]
            frozen, other = (name, first) if _is_frozen(tensor) else (first, name)
            raise ConfigurationError(
                f"model: expected tied tensors to be frozen (requires_grad=False) together, got {frozen!r} "
                f"frozen and {other!r}, in the same memory, not"
            )
    return tensors


def _describe(value: object) -> str:
    return str(value.layout) if isinstance(value, torch.Tensor) else type(value).__name__
