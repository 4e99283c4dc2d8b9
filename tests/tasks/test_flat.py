"""A torch model as a layout and a flat vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedproof.errors import ConfigurationError
from fedproof.tasks.flat import compute_layout, flatten_model, load_flat


class Tied(nn.Module):
    """An encoder and a decoder that share their weight, and a batch normalisation between."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 2, bias=False)
        self.norm = nn.BatchNorm1d(2)
        self.decoder = nn.Linear(3, 2, bias=False)
        self.decoder.weight = self.encoder.weight


def build(seed: int = 1) -> Tied:
    torch.manual_seed(seed)
    return Tied()


def test_layout_follows_the_state_dict() -> None:
    """Names, shapes and types stand in the state dict's order, a tied weight once under its first name."""
    layout = compute_layout(build())
    assert [(spec.name, spec.shape, spec.dtype) for spec in layout.tensors] == [
        ("encoder.weight", (2, 3), "float32"),
        ("norm.weight", (2,), "float32"),
        ("norm.bias", (2,), "float32"),
        ("norm.running_mean", (2,), "float32"),
        ("norm.running_var", (2,), "float32"),
        ("norm.num_batches_tracked", (), "int64"),
    ]
    assert layout.parameters == 6 + 4 * 2


def test_flatten_and_load_are_inverse() -> None:
    """A model that loads another's vector has the same values, running statistics included."""
    source, target = build(1), build(2)
    source.norm(torch.randn(8, 2))
    layout = compute_layout(source)
    flat = flatten_model(source, layout)
    assert flat.dtype == np.float32
    assert flat[:6].tolist() == source.encoder.weight.detach().flatten().tolist()
    load_flat(target, layout, flat)
    assert np.array_equal(flatten_model(target, layout), flat)
    assert torch.equal(target.norm.running_mean, source.norm.running_mean)  # type: ignore[arg-type]


def test_load_leaves_integers_and_ties_alone() -> None:
    """Integer buffers keep the base's value, and tied weights stay tied."""
    source, target = build(1), build(2)
    source.norm(torch.randn(8, 2))
    layout = compute_layout(source)
    load_flat(target, layout, flatten_model(source, layout))
    assert int(target.norm.num_batches_tracked) == 0  # type: ignore[arg-type]
    assert target.decoder.weight is target.encoder.weight


def test_layout_of_another_memory_format_is_the_same() -> None:
    """How a tensor lies in memory is not part of the architecture, and its values come in row-major order."""
    plain, permuted = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
    permuted.load_state_dict(plain.state_dict())
    permuted.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layout = compute_layout(plain)
    assert compute_layout(permuted) == layout
    assert np.array_equal(flatten_model(permuted, layout), flatten_model(plain, layout))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_travel_as_float32(dtype: torch.dtype) -> None:
    """A model of another floating type keeps it; float32 holds each of its values that it can."""
    model = nn.Linear(2, 1).to(dtype)
    layout = compute_layout(model)
    flat = np.array([0.5, -2.0, 0.125], dtype=np.float32)
    load_flat(model, layout, flat)
    assert model.weight.dtype is dtype
    assert np.array_equal(flatten_model(model, layout), flat)


def test_flatten_refuses_another_model() -> None:
    """The first tensor that differs is named."""
    layout = compute_layout(nn.Linear(2, 1))
    with pytest.raises(ConfigurationError, match=r"weight.*\[1, 2\].*\[1, 3\]"):
        flatten_model(nn.Linear(3, 1), layout)


@pytest.mark.parametrize("flat", [np.zeros(2, np.float32), np.zeros(4, np.float32), np.zeros(3, np.float64)])
def test_load_refuses_another_vector(flat: np.ndarray) -> None:
    """A vector of another length or type changes nothing in the model."""
    model = nn.Linear(2, 1)
    layout = compute_layout(model)
    before = flatten_model(model, layout)
    with pytest.raises(ConfigurationError, match="expected a float32 vector"):
        load_flat(model, layout, flat)
    assert np.array_equal(flatten_model(model, layout), before)


def test_layout_refuses_what_cannot_travel() -> None:
    """A complex tensor, and a model without a single floating value, are refused by name."""
    model = nn.Module()
    model.register_buffer("phase", torch.zeros(1, dtype=torch.complex64))
    with pytest.raises(ConfigurationError, match=r"'phase'.*complex64"):
        compute_layout(model)
    with pytest.raises(ConfigurationError, match="expected at least one floating value"):
        compute_layout(nn.ReLU())
