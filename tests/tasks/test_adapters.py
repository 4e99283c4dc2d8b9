"""Low-rank adapters of a torch model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedproof.errors import ConfigurationError
from fedproof.tasks.adapters import add_low_rank_adapters
from fedproof.tasks.flat import compute_layout, flatten_model, load_flat


def build() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.GroupNorm(2, 6), nn.Flatten(), nn.Linear(6, 4))


def test_untrained_adapters_change_nothing() -> None:
    """The adapted model computes, to the bit, what the model did."""
    inputs = torch.randn(3, 2, 3, 3)
    model = build()
    before = model(inputs)
    add_low_rank_adapters(model, 2)
    assert torch.equal(model(inputs), before)


def test_only_adapters_train_and_travel() -> None:
    """SGD changes the adapters; weights, biases and norms stay, and the vector holds none of them."""
    model = build()
    add_low_rank_adapters(model, 2)
    layout = compute_layout(model)
    before = flatten_model(model, layout)
    assert layout.group_sizes == (6 * 2, 2 * 18, 4 * 2, 2 * 6)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        model(torch.randn(8, 2, 3, 3)).square().sum().backward()
        optimiser.step()
    after = flatten_model(model, layout)  # raises if a frozen tensor changed
    assert (before != after).mean() > 0.9


def test_adapters_travel_to_a_model_built_alike() -> None:
    """The trained vector, loaded into a fresh model, makes it compute the same."""
    first, second = build(), build()
    for model in (first, second):
        torch.manual_seed(6)
        add_low_rank_adapters(model, 3)
    layout = compute_layout(first)
    with torch.no_grad():
        for parameter in first.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape))
    load_flat(second, layout, flatten_model(first, layout))
    inputs = torch.randn(3, 2, 3, 3)
    assert torch.equal(first(inputs), second(inputs))


def test_rank_below_one_is_refused() -> None:
    """It would leave nothing to train."""
    with pytest.raises(ConfigurationError, match="expected a rank of 1 or more, got 0"):
        add_low_rank_adapters(build(), 0)
