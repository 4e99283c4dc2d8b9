"""Training and evaluating a classifier on tensors in memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedproof.errors import ConfigurationError
from fedproof.policy import TrainingPlan
from fedproof.tasks.classification import evaluate_classifier, make_generator, sgd_train

PLAN = TrainingPlan(epochs=3, batch_size=8, learning_rate=0.1, momentum=0.9, weight_decay=0.0)


def blobs(count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes, far apart."""
    labels = torch.arange(count) % 2
    return torch.randn(count, 4, generator=make_generator(5)) + 3.0 * labels[:, None], labels


def build() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))


def weights(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_training_learns() -> None:
    """Three epochs separate two blobs, and the result says what happened."""
    model = build()
    inputs, labels = blobs()
    before = evaluate_classifier(model, inputs, labels)
    result = sgd_train(model, inputs, labels, plan=PLAN, generator=make_generator(1))
    after = evaluate_classifier(model, inputs, labels)
    assert result.examples == 60
    assert after.accuracy > 0.95 > before.accuracy
    assert after.loss < result.loss < before.loss


def test_training_is_reproducible() -> None:
    """Equal generators make equal models, dropout included, and other rounds make others."""
    inputs, labels = blobs()
    trained = []
    for round in (1, 1, 2):
        model = build()
        torch.manual_seed(len(trained))  # what ran before in this process must not matter
        sgd_train(model, inputs, labels, plan=PLAN, generator=make_generator(1, "node", round))
        trained.append(weights(model))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_training_leaves_the_global_generator_alone() -> None:
    """A task that draws from torch's own generator is not reset by ours."""
    inputs, labels = blobs()
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    sgd_train(build_without_reset(), inputs, labels, plan=PLAN, generator=make_generator(1))
    assert torch.equal(torch.rand(2), expected)


def build_without_reset() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return build()


def test_plan_is_heeded() -> None:
    """One step of plain SGD is the textbook's: w - rate * (gradient + decay * w)."""
    inputs, labels = blobs(8)
    plan = TrainingPlan(epochs=1, batch_size=8, learning_rate=0.5, momentum=0.0, weight_decay=0.1)
    torch.manual_seed(1)
    model = nn.Linear(4, 2)
    start = weights(model)
    nn.functional.cross_entropy(model(inputs), labels).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    sgd_train(model, inputs, labels, plan=plan, generator=make_generator(1))
    torch.testing.assert_close(weights(model), start - 0.5 * (gradient + 0.1 * start))


def test_evaluation_counts_every_example() -> None:
    """A set that is no multiple of the batch is evaluated whole."""
    inputs, labels = blobs(1203)
    model = nn.Linear(4, 2)
    result = evaluate_classifier(model, inputs, labels)
    with torch.no_grad():
        logits = model(inputs)
    assert result.examples == 1203
    assert result.accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item(), abs=1e-9)
    assert result.loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


@pytest.mark.parametrize(("inputs", "labels"), [(0, 0), (3, 2), (2, 3)])
def test_unequal_tensors_are_refused(inputs: int, labels: int) -> None:
    """No examples, or labels that do not match them, never train a model."""
    with pytest.raises(ConfigurationError, match=f"got {inputs} inputs and {labels} labels"):
        sgd_train(
            nn.Linear(4, 2),
            torch.zeros(inputs, 4),
            torch.zeros(labels, dtype=torch.int64),
            plan=PLAN,
            generator=make_generator(1),
        )


def test_sgd_leaves_frozen_parameters_alone() -> None:
    """Momentum and weight decay do not touch what is frozen."""
    plan = TrainingPlan(epochs=2, batch_size=2, learning_rate=0.1, momentum=0.9, weight_decay=0.5)
    model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2))
    frozen, trained = model[0].weight.clone(), model[1].weight.clone()
    inputs, labels = torch.eye(2).repeat(2, 1), torch.tensor([0, 1, 0, 1])
    sgd_train(model, inputs, labels, plan=plan, generator=make_generator(1))
    assert torch.equal(model[0].weight, frozen)
    assert not torch.equal(model[1].weight, trained)
