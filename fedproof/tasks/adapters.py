"""Low-rank adapters: of a pre-trained model, only small corrections of its layers train and travel.

Everything else is frozen: it belongs to the architecture, and every node must bring the same values.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from fedproof.errors import ConfigurationError


class LowRank(nn.Module):
    """A correction of a weight by a product of two thin matrices.

    Hu et al. 2021, section 4.1 (arXiv:2106.09685): W + up @ down, where up starts as zeros.

    Args:
        weight: of shape (rows, ...); its other dimensions count as one.
        rank: columns of up, and rows of down.
    """

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.up = nn.Parameter(torch.zeros(rows, rank))
        self.down = nn.Parameter(torch.randn(rank, columns) / columns**0.5)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the corrected weight."""
        return weight + (self.up @ self.down).view_as(weight)


def add_low_rank_adapters(model: nn.Module, rank: int) -> None:
    """Freeze the model, in place, and give each linear and two-dimensional convolution layer an adapter.

    The adapted model computes what it did before, until its adapters are trained.

    Raises:
        ConfigurationError: the rank is below 1.
    """
    if rank < 1:
        raise ConfigurationError(f"adapters: expected a rank of 1 or more, got {rank}")
    model.requires_grad_(False)
    for layer in [each for each in model.modules() if isinstance(each, (nn.Linear, nn.Conv2d))]:
        register_parametrization(layer, "weight", LowRank(layer.weight, rank))
