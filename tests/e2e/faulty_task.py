"""The demo's task, with a fault that a setting asks for."""

from __future__ import annotations

import math

import torch

from fedproof.policy import TrainingPlan
from fedproof.task import TrainResult
from fedproof.tasks.breast_cancer import BreastCancer


class FaultyTask(BreastCancer):
    """Breast cancer, except that training leaves a NaN behind or raises."""

    def __init__(self, *, hospital: int, hospitals: int = 3, fault: str = "") -> None:
        super().__init__(hospital=hospital, hospitals=hospitals)
        self.fault = fault

    def train(self, model: torch.nn.Module, plan: TrainingPlan, *, round: int) -> TrainResult:
        result = super().train(model, plan, round=round)
        if self.fault == "nan":
            with torch.no_grad():
                next(iter(model.parameters())).view(-1)[3] = math.nan
        if self.fault == "raise":
            raise ValueError("the disk with the X-rays is not mounted")
        return result
