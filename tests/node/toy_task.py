"""Tasks that learn nothing. One fails in each of its first rounds in another way, two are large."""

from __future__ import annotations

import os
import signal
import threading

import torch

from fedproof.policy import TrainingPlan
from fedproof.task import EvaluationResult, TrainResult


class Toy:
    """A linear model of four weights."""

    def build_model(self) -> torch.nn.Module:
        return torch.nn.Linear(2, 2, bias=False)

    def train(self, model: torch.nn.Module, plan: TrainingPlan, *, round: int) -> TrainResult:
        if round == 1:
            raise ValueError("no data today")
        if round == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if round == 3:
            threading.Event().wait()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(plan.learning_rate)
        return TrainResult(examples=5, loss=0.5)

    def evaluate(self, model: torch.nn.Module) -> EvaluationResult:
        return EvaluationResult(examples=5, loss=0.25, accuracy=0.75)


class Large(Toy):
    """A linear model of nine million weights."""

    side = 3000

    def build_model(self) -> torch.nn.Module:
        return torch.nn.Linear(self.side, self.side, bias=False)

    def train(self, model: torch.nn.Module, plan: TrainingPlan, *, round: int) -> TrainResult:
        return super().train(model, plan, round=4)


class Midsize(Large):
    """A linear model that takes a while to encrypt."""

    side = 1500
