"""The demo's task, with a fault that a setting asks for."""

from __future__ import annotations

import math

import torch

from fedproof.policy import TrainingPlan
from fedproof.task import TrainResult
from fedproof.tasks.breast_cancer import BreastCancer


class FaultyTask(BreastCancer):
    """Breast cancer, except that training leaves a NaN behind in round 1 and raises in round 2."""

    def __init__(self, *, hospital: int, hospitals: int = 3, faulty: bool = False) -> None:
        super().__init__(hospital=hospital, hospitals=hospitals)
        self.faulty = faulty

    def train(self, model: torch.nn.Module, plan: TrainingPlan, *, round: int) -> TrainResult:
        result = super().train(model, plan, round=round)
        if self.faulty and round == 1:
            with torch.no_grad():
                next(iter(model.parameters())).view(-1)[3] = math.nan
        if self.faulty and round == 2:
            raise ValueError("the disk with the X-rays is not mounted")
        return result
