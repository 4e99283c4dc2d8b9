"""A task that trains nothing: what a round costs besides training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from measure import choose_width, resnet18_shapes
from torch import nn

from fedproof.task import EvaluationResult, TrainResult

if TYPE_CHECKING:
    from fedproof.policy import TrainingPlan

CHANGE = 1e-3


class IdleModel(nn.Module):
    """ResNet-18's tensors, and no way to use them."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        shapes = resnet18_shapes(choose_width(parameters))
        self.tensors = nn.ParameterList(torch.zeros(shape) for shape in shapes)


class IdleTask:
    """A node whose training adds a small constant to each tensor.

    Args:
        node: this node's index; draws the constants, together with the round.
        parameters: about how many the model has.
    """

    def __init__(self, *, node: int, parameters: int) -> None:
        self.node = node
        self.parameters = parameters

    def build_model(self) -> IdleModel:
        """Return the model, all zeros."""
        return IdleModel(self.parameters)

    @torch.no_grad()
    def train(self, model: nn.Module, plan: TrainingPlan, *, round: int) -> TrainResult:
        """Add to each tensor a constant from -0.001 to 0.001."""
        tensors = list(model.parameters())
        for tensor, change in zip(tensors, self._draw(len(tensors), round), strict=True):
            tensor.add_(change)
        return TrainResult(examples=100, loss=0.0)

    def evaluate(self, model: nn.Module) -> EvaluationResult:
        """Return that nothing is known."""
        return EvaluationResult(examples=1, loss=0.0, accuracy=0.0)

    def _draw(self, count: int, round: int) -> Iterator[float]:
        generator = torch.Generator().manual_seed(1000 * round + self.node)
        yield from ((2 * torch.rand(count, generator=generator) - 1) * CHANGE).tolist()
