"""A torch model as a layout and a flat vector."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

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


class LowRank(nn.Module):
    """A trained correction of rank 1 to a frozen weight."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.zeros(rows, 1)), nn.Parameter(torch.ones(1, columns))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.up @ self.down


def build_adapted() -> nn.Sequential:
    """Return a frozen layer with an adapter, as torch's parametrizations make it, and a layer that trains."""
    base = nn.Linear(3, 2)
    with torch.no_grad():
        base.weight.copy_(torch.arange(6.0).reshape(2, 3))
        base.bias.zero_()
    base.requires_grad_(False)
    parametrize.register_parametrization(base, "weight", LowRank(2, 3))
    return nn.Sequential(base, nn.BatchNorm1d(2).requires_grad_(False), nn.Linear(2, 1, bias=False))


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


def test_only_adapters_travel() -> None:
    """Of a model with low-rank adapters the adapters travel, and buffers; the frozen weights do not."""
    layout = compute_layout(build_adapted())
    assert [(spec.name, spec.travels, spec.frozen is not None) for spec in layout.tensors] == [
        ("0.bias", False, True),
        ("0.parametrizations.weight.original", False, True),
        ("0.parametrizations.weight.0.up", True, False),
        ("0.parametrizations.weight.0.down", True, False),
        ("1.weight", False, True),
        ("1.bias", False, True),
        ("1.running_mean", True, False),
        ("1.running_var", True, False),
        ("1.num_batches_tracked", False, False),
        ("2.weight", True, False),
    ]
    assert layout.group_sizes == (2, 3, 2, 2, 2)
    original = layout.tensors[1]
    assert original.frozen == hashlib.sha256(struct.pack("<6f", *range(6))).digest()


def test_adapters_are_flattened_and_loaded() -> None:
    """The vector holds what travels alone, and loading it leaves the frozen weights alone."""
    source, target = build_adapted(), build_adapted()
    layout = compute_layout(source)
    flat = np.arange(layout.parameters, dtype=np.float32)
    load_flat(target, layout, flat)
    assert np.array_equal(flatten_model(target, layout), flat)
    assert target[0].weight[0].tolist() == [0 + 0 * 2, 1 + 0 * 3, 2 + 0 * 4]  # original + up @ down
    assert target[0].weight[1].tolist() == [3 + 1 * 2, 4 + 1 * 3, 5 + 1 * 4]
    assert compute_layout(target) == layout


@pytest.mark.parametrize("name", ["0.bias", "0.parametrizations.weight.original", "1.weight"])
def test_layout_covers_frozen_values(name: str) -> None:
    """One changed bit in a frozen tensor is another architecture, and the tensor is named."""
    model, changed = build_adapted(), build_adapted()
    layout = compute_layout(model)
    flat = flatten_model(model, layout)
    with torch.no_grad():
        values = changed.get_parameter(name).view(-1)
        values[-1] = torch.nextafter(values[-1], torch.tensor(9.0))
    assert compute_layout(changed).digest != layout.digest
    message = f"frozen tensor '{name}': expected the values of digest"
    with pytest.raises(ConfigurationError, match=message):
        flatten_model(changed, layout)
    with pytest.raises(ConfigurationError, match=message):
        load_flat(changed, layout, flat)


def test_what_is_frozen_stays_so_whatever_training_thaws() -> None:
    """After the layout is made, requires_grad no longer matters: training may thaw and freeze."""
    model = build_adapted()
    layout = compute_layout(model)
    flat = flatten_model(model, layout)
    model.requires_grad_(True)
    assert np.array_equal(flatten_model(model, layout), flat)
    model.requires_grad_(False)
    load_flat(model, layout, flat + 1)
    assert np.array_equal(flatten_model(model, layout), flat + 1)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (torch.float16, struct.pack("<3e", 1.0, -2.0, 0.0)),
        (torch.bfloat16, b"".join(struct.pack("<f", value)[2:] for value in (1.0, -2.0, 0.0))),
        (torch.float64, struct.pack("<3d", 1.0, -2.0, 0.0)),
        (torch.int8, struct.pack("<3b", 1, -2, 0)),
        (torch.int64, struct.pack("<3q", 1, -2, 0)),
        (torch.bool, b"\x01\x01\x00"),
    ],
)
def test_frozen_values_are_hashed_in_their_own_type(dtype: torch.dtype, values: bytes) -> None:
    """A frozen tensor of any type that we know, quantised weights among them, has the digest of its bytes."""
    model = nn.Linear(1, 1, bias=False)
    model.base = nn.Parameter(torch.tensor([1.0, -2.0, 0.0]).to(dtype), requires_grad=False)
    specs = {spec.name: spec for spec in compute_layout(model).tensors}
    assert specs["base"].frozen == hashlib.sha256(values).digest()


def test_frozen_digest_does_not_depend_on_memory() -> None:
    """A transposed, scalar or empty frozen tensor has the digest of its values in row-major order."""
    matrix = torch.arange(6.0).reshape(2, 3)
    model = nn.Linear(1, 1)
    model.plain = nn.Parameter(matrix.clone(), requires_grad=False)
    model.transposed = nn.Parameter(matrix.t().contiguous().t(), requires_grad=False)
    model.scalar = nn.Parameter(torch.tensor(1.0), requires_grad=False)
    model.empty = nn.Parameter(torch.zeros(0, 2), requires_grad=False)
    assert not model.transposed.is_contiguous()
    frozen = {spec.name: spec.frozen for spec in compute_layout(model).tensors}
    assert frozen["plain"] == frozen["transposed"]
    assert frozen["scalar"] == hashlib.sha256(struct.pack("<f", 1.0)).digest()
    assert frozen["empty"] == hashlib.sha256().digest()


def test_tied_and_frozen() -> None:
    """A tied weight is frozen once, under its first name; frozen under one name alone it is refused."""
    model = build()
    model.encoder.weight.requires_grad_(False)
    layout = compute_layout(model)
    assert layout.tensors[0].frozen is not None
    assert "decoder.weight" not in {spec.name for spec in layout.tensors}

    model = build()
    model.decoder.weight = nn.Parameter(model.encoder.weight.data, requires_grad=False)
    with pytest.raises(
        ConfigurationError, match=r"'decoder.weight' frozen and 'encoder.weight', in the same"
    ):
        compute_layout(model)
    model.encoder.weight, model.decoder.weight = model.decoder.weight, model.encoder.weight
    with pytest.raises(
        ConfigurationError, match=r"'encoder.weight' frozen and 'decoder.weight', in the same"
    ):
        compute_layout(model)


def test_buffers_are_never_frozen() -> None:
    """A frozen layer's running statistics travel; a buffer tied to a frozen weight is refused."""
    norm = nn.BatchNorm1d(2).requires_grad_(False)
    assert compute_layout(norm).group_sizes == (2, 2)
    norm.register_buffer("copy", norm.weight.data)
    with pytest.raises(ConfigurationError, match="'weight' frozen and 'copy', in the same memory, not"):
        compute_layout(norm)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float8_e5m2])
def test_frozen_tensor_of_an_unsupported_type_is_refused(dtype: torch.dtype) -> None:
    """What may not stand in a layout may not be frozen in it either."""
    model = nn.Linear(1, 1)
    model.phase = nn.Parameter(torch.zeros(2).to(dtype), requires_grad=False)
    with pytest.raises(ConfigurationError, match=r"tensor 'phase': expected a type out of .*, got '"):
        compute_layout(model)


def test_model_with_everything_frozen_is_refused() -> None:
    """There would be nothing to train together."""
    with pytest.raises(ConfigurationError, match=r"not frozen, got none in 2 tensors, 2 of them frozen"):
        compute_layout(nn.Linear(2, 1).requires_grad_(False))
