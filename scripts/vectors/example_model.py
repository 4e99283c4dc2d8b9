"""A small torch model with one tensor of every kind that docs/format.md tells apart."""

from __future__ import annotations

import torch
from torch import nn


class ExampleModel(nn.Module):
    """Tied weights, a norm with its buffers, low-rank adapters on a frozen weight, and every kind of type."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.coarse = nn.Parameter(torch.tensor([[1.0, -0.0, 2.0**-133]], dtype=torch.bfloat16))
        self.base = nn.Parameter(_count(2, 3).to(torch.bfloat16), requires_grad=False)
        self.nothing = nn.Parameter(torch.empty(0, 3))
        # As binary32: a tie down to even, one up to even, just above a tie, and a tie among subnormals.
        doubles = [1 + 2.0**-24, 1 + 3 * 2.0**-24, 1 + 2.0**-24 + 2.0**-52, -1.5 * 2.0**-149]
        self.register_buffer("doubles", torch.tensor(doubles, dtype=torch.float64))
        self.register_buffer("halves", torch.tensor([65504.0, 2.0**-24], dtype=torch.float16))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("ids", torch.tensor([[-1], [2**40]]))
        self.register_buffer("skipped", torch.zeros(5), persistent=False)
        self.embedding = nn.Embedding(3, 2)
        self.norm = nn.BatchNorm1d(3)
        down, up = nn.Linear(3, 1, bias=False), nn.Linear(1, 2)
        self.adapter = nn.Sequential(down, up)
        self.head = nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.embedding.weight.copy_(_count(3, 2) / 8)
            self.norm.running_mean.copy_(_count(3) / -4)  # type: ignore[union-attr]  # it has one
            down.weight.copy_(_count(1, 3) / 2)
            up.weight.copy_(_count(2, 1) / -2)
            up.bias.zero_()
        self.head.weight = self.embedding.weight
        # The same memory by other strides is no tie.
        self.register_buffer("turned", self.embedding.weight.detach().t())


def _count(*shape: int) -> torch.Tensor:
    return torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.float32).reshape(shape)
