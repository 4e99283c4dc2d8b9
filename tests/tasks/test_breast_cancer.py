"""The Wisconsin data among hospitals."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from fedproof.baselines import BaselineRound, run_plain_fedavg
from fedproof.errors import ConfigurationError
from fedproof.policy import TrainingPlan
from fedproof.tasks.breast_cancer import PUBLISHED_RANGES, BreastCancer, load_tumours, split_tumours

PLAN = TrainingPlan(epochs=4, batch_size=16, learning_rate=0.02, momentum=0.9, weight_decay=0.0)


def train(*tasks: BreastCancer) -> list[BaselineRound]:
    return list(run_plain_fedavg(tasks, PLAN, rounds=5, seed=7, max_examples=10_000))


def test_hospitals_share_nothing_but_the_held_out_set() -> None:
    """Every tumour is held out, or belongs to exactly one hospital; the held-out set is stratified."""
    _, labels = load_tumours()
    held_out, parts = split_tumours(labels, hospitals=3, seed=2)
    assert np.array_equal(np.sort(np.concatenate([held_out, *parts])), np.arange(569))
    assert labels[held_out].mean() == pytest.approx(labels.mean(), abs=0.003)
    assert [(len(part), int(labels[part].sum())) for part in parts] == [(229, 53), (110, 81), (59, 14)]


def test_split_never_changes() -> None:
    """Hospitals with other versions of numpy compute the very same split: this digest stays."""
    _, labels = load_tumours()
    held_out, parts = split_tumours(labels, hospitals=3, seed=2)
    digest = hashlib.sha256(b"|".join(part.astype("<i8").tobytes() for part in (held_out, *parts)))
    assert digest.hexdigest()[:16] == "824dad9a3f865e23"


@pytest.mark.parametrize("hospitals", range(1, 7))
def test_every_hospital_sees_both_kinds(hospitals: int) -> None:
    """Up to six hospitals, each has malignant and benign tumours to train on."""
    for hospital in range(hospitals):
        task = BreastCancer(hospital=hospital, hospitals=hospitals)
        assert set(task.labels.tolist()) == {0, 1}


def test_data_are_the_published_ones() -> None:
    """The measurements have the extremes that the data set's description prints, and are near zero scaled."""
    measured, labels = load_tumours()
    assert (measured.shape, int(labels.sum())) == ((569, 30), 212)
    extremes = zip(measured.min(axis=0).round(3), measured.max(axis=0).round(3), strict=True)
    assert [bounds[1:] for bounds in PUBLISHED_RANGES] == list(extremes)
    features = BreastCancer(hospital="all").features
    assert float(features.abs().max()) < 5
    assert float(features.mean().abs()) < 1


def test_model_has_530_parameters() -> None:
    """The size that documentation and policy state."""
    assert sum(values.numel() for values in BreastCancer(hospital=0).build_model().parameters()) == 530


def test_training_is_reproducible() -> None:
    """The same hospital, round and seed make the same model; another round makes another."""

    def trained(round: int, seed: int = 0) -> torch.Tensor:
        task = BreastCancer(hospital=2, seed=seed)
        torch.manual_seed(7)
        model = task.build_model()
        task.train(model, PLAN, round=round)
        return torch.nn.utils.parameters_to_vector(model.parameters()).detach()

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))
    assert not torch.equal(trained(1), trained(1, seed=1))


def test_federation_is_as_good_as_central_training() -> None:
    """Five rounds reach what training on all the data reaches, and more than the small hospitals do alone."""
    hospitals = [BreastCancer(hospital=i) for i in range(3)]
    federated = train(*hospitals)[-1].accuracy
    central = train(BreastCancer(hospital="all"))[-1].accuracy
    alone = [train(hospital)[-1].accuracy for hospital in hospitals]
    assert federated >= central - 0.01
    assert federated >= max(alone)
    assert federated >= 0.95
    assert max(alone[1:]) <= federated - 0.015


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hospital": 3}, 'expected 0 to 2 or "all", got 3'),
        ({"hospital": -1}, 'expected 0 to 2 or "all", got -1'),
        ({"hospital": "b"}, "got 'b'"),
        ({"hospital": 0, "hospitals": 0}, "hospitals: expected 1 to 6, got 0"),
        ({"hospital": 0, "hospitals": 7}, "hospitals: expected 1 to 6, got 7"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, int], message: str) -> None:
    """The message names the setting, its range, and what came."""
    with pytest.raises(ConfigurationError) as caught:
        BreastCancer(**settings)
    assert message in str(caught.value)
