"""A torch model as its layout and one flat float32 vector (fedproof/model.py), and back."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fedproof.errors import ConfigurationError
from fedproof.model import ModelLayout, TensorSpec, verify_layout


def compute_layout(model: torch.nn.Module) -> ModelLayout:
    """Return the model's layout.

    Raises:
        ConfigurationError: the model has no floating value, or a tensor that is sparse or of a type that
            cannot travel.
    """
    try:
        return ModelLayout(
            tuple(
                TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
                for name, tensor in _untied_tensors(model).items()
            )
        )
    except ValueError as error:
        raise ConfigurationError(f"model: {error}") from error


def flatten_model(model: torch.nn.Module, layout: ModelLayout) -> NDArray[np.float32]:
    """Return the model's floating values as float32 of shape (d,).

    Raises:
        ConfigurationError: the model has another layout.
    """
    tensors = _untied_tensors(model)
    verify_layout(compute_layout(model), expected=layout)
    return layout.flatten(
        {spec.name: tensors[spec.name].float().cpu().numpy() for spec in layout.tensors if spec.travels}
    )


@torch.no_grad()
def load_flat(model: torch.nn.Module, layout: ModelLayout, flat: NDArray[np.float32]) -> None:
    """Set the model's floating values, in place; all others stay as they are.

    Raises:
        ConfigurationError: the model or the vector does not belong to the layout.
    """
    tensors = _untied_tensors(model)
    verify_layout(compute_layout(model), expected=layout)
    for name, values in layout.unflatten(flat).items():
        # A copy: torch warns about an array that it may not write to, even if it only reads.
        tensors[name].copy_(torch.from_numpy(values.copy()))


def _untied_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the state dict without a tied tensor's later names: they see the same memory as the first."""
    state = model.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    seen: set[object] = set()
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
            seen.add(memory)
    return tensors


def _describe(value: object) -> str:
    return str(value.layout) if isinstance(value, torch.Tensor) else type(value).__name__
