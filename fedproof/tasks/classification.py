"""Training and evaluating a classifier on tensors in memory: what most tasks need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from fedproof.digests import tagged_digest
from fedproof.errors import ConfigurationError
from fedproof.task import EvaluationResult, TrainResult

if TYPE_CHECKING:
    from fedproof.policy import TrainingPlan

EVALUATION_BATCH = 500


def make_generator(seed: int, *context: int | str) -> torch.Generator:
    """Return a generator that depends on the seed and the context alone, such as hospital and round."""
    digest = tagged_digest("fedproof.generator.v1", seed, *context)
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def sgd_train(
    model: torch.nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    plan: TrainingPlan,
    generator: torch.Generator,
) -> TrainResult:
    """Train the model, in place, by minibatch SGD on cross entropy.

    Momentum starts from zero each round: an optimiser's state neither travels nor outlives the round.

    Args:
        model: takes a batch of inputs and returns logits, of shape (batch, classes).
        inputs: of shape (examples, ...).
        labels: class numbers as int64, of shape (examples,).
        plan: epochs, batch size, learning rate, momentum and weight decay.
        generator: draws the order of the examples, and seeds what the model draws (dropout).

    Raises:
        ConfigurationError: there are no examples, or not as many labels as inputs.
    """
    examples = _count_examples(inputs, labels)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=plan.learning_rate, momentum=plan.momentum, weight_decay=plan.weight_decay
    )
    model.train()
    total = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
        for _ in range(plan.epochs):
            total = 0.0
            for batch in torch.split(torch.randperm(examples, generator=generator), plan.batch_size):
                optimiser.zero_grad()
                loss = cross_entropy(model(inputs[batch]), labels[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                total += loss.item() * len(batch)
    return TrainResult(examples=examples, loss=total / examples)


@torch.no_grad()
def evaluate_classifier(
    model: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor
) -> EvaluationResult:
    """Return the model's mean cross entropy and its accuracy.

    Raises:
        ConfigurationError: there are no examples, or not as many labels as inputs.
    """
    examples = _count_examples(inputs, labels)
    model.eval()
    loss = 0.0
    correct = 0
    for start in range(0, examples, EVALUATION_BATCH):
        batch = slice(start, start + EVALUATION_BATCH)
        logits, expected = model(inputs[batch]), labels[batch]
        loss += cross_entropy(logits, expected, reduction="sum").item()
        correct += int((logits.argmax(dim=1) == expected).sum())
    return EvaluationResult(examples=examples, loss=loss / examples, accuracy=correct / examples)


def _count_examples(inputs: torch.Tensor, labels: torch.Tensor) -> int:
    if len(inputs) == 0 or len(inputs) != len(labels):
        raise ConfigurationError(
            f"expected at least one example and as many labels as inputs, "
            f"got {len(inputs)} inputs and {len(labels)} labels"
        )
    return len(inputs)
