"""The Wisconsin breast-cancer data (Wolberg, Street, Mangasarian; UCI, CC BY 4.0) as if hospitals held it.

569 tumours, 30 measurements of cell nuclei each, malignant or benign. `breast_cancer.csv` is scikit-learn's
copy to the byte: its own import takes longer than training does. Three tenths, stratified, are the held-out
set on which every hospital evaluates. The rest is split unevenly: each hospital is about half the size of the
one before, and they specialise. At the referral centres (1, 3, 5) the odds of a malignant tumour are several
times those in the whole data, at the screening centres (0, 2, 4) a fraction. So three hospitals train on 229,
110 and 59 tumours, of which 53, 81 and 14 are malignant.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedproof.errors import ConfigurationError
from fedproof.task import EvaluationResult, TrainResult
from fedproof.tasks.classification import evaluate_classifier, make_generator, sgd_train

if TYPE_CHECKING:
    from fedproof.policy import TrainingPlan

HELD_OUT = 0.3
MAX_HOSPITALS = 6  # the smallest then still holds seven tumours
SPECIALISATION = 0.5

# Each feature's least and greatest value as the data set's public description prints them. They are the scale
# that all hospitals agreed on beforehand: nobody's scaling looks at anybody's data, not even at its own.
PUBLISHED_RANGES = (
    ("radius (mean)", 6.981, 28.11),
    ("texture (mean)", 9.71, 39.28),
    ("perimeter (mean)", 43.79, 188.5),
    ("area (mean)", 143.5, 2501.0),
    ("smoothness (mean)", 0.053, 0.163),
    ("compactness (mean)", 0.019, 0.345),
    ("concavity (mean)", 0.0, 0.427),
    ("concave points (mean)", 0.0, 0.201),
    ("symmetry (mean)", 0.106, 0.304),
    ("fractal dimension (mean)", 0.05, 0.097),
    ("radius (standard error)", 0.112, 2.873),
    ("texture (standard error)", 0.36, 4.885),
    ("perimeter (standard error)", 0.757, 21.98),
    ("area (standard error)", 6.802, 542.2),
    ("smoothness (standard error)", 0.002, 0.031),
    ("compactness (standard error)", 0.002, 0.135),
    ("concavity (standard error)", 0.0, 0.396),
    ("concave points (standard error)", 0.0, 0.053),
    ("symmetry (standard error)", 0.008, 0.079),
    ("fractal dimension (standard error)", 0.001, 0.03),
    ("radius (worst)", 7.93, 36.04),
    ("texture (worst)", 12.02, 49.54),
    ("perimeter (worst)", 50.41, 251.2),
    ("area (worst)", 185.2, 4254.0),
    ("smoothness (worst)", 0.071, 0.223),
    ("compactness (worst)", 0.027, 1.058),
    ("concavity (worst)", 0.0, 1.252),
    ("concave points (worst)", 0.0, 0.291),
    ("symmetry (worst)", 0.156, 0.664),
    ("fractal dimension (worst)", 0.055, 0.208),
)
# The features are skewed to the right, so this puts most values within one of zero.
SCALED_LEAST, SCALED_GREATEST = -2.0, 4.0


class BreastCancer:
    """One hospital's tumours, and a perceptron with one hidden layer of 16: 530 parameters.

    Args:
        hospital: this hospital's index from 0, or "all" for everything but the held-out set (the
            centralised baseline).
        hospitals: among how many the data are split.
        split_seed: draws the held-out set and the split; equal at all hospitals.
        seed: draws this hospital's order of examples, together with hospital and round.
    """

    def __init__(
        self, *, hospital: int | Literal["all"], hospitals: int = 3, split_seed: int = 2, seed: int = 0
    ) -> None:
        if not 1 <= hospitals <= MAX_HOSPITALS:
            raise ConfigurationError(
                f"[task.settings] hospitals: expected 1 to {MAX_HOSPITALS}, got {hospitals}"
            )
        if hospital != "all" and not (isinstance(hospital, int) and 0 <= hospital < hospitals):
            raise ConfigurationError(
                f'[task.settings] hospital: expected 0 to {hospitals - 1} or "all", got {hospital!r}'
            )
        self.hospital = hospital
        self.seed = seed
        measured, labels = load_tumours()
        held_out, parts = split_tumours(labels, hospitals=hospitals, seed=split_seed)
        mine = np.concatenate(parts) if hospital == "all" else parts[hospital]
        features = scale_features(measured)
        self.features, self.labels = torch.from_numpy(features[mine]), torch.from_numpy(labels[mine])
        self.held_out = torch.from_numpy(features[held_out]), torch.from_numpy(labels[held_out])

    def build_model(self) -> nn.Module:
        """Return the untrained perceptron."""
        return nn.Sequential(nn.Linear(len(PUBLISHED_RANGES), 16), nn.ReLU(), nn.Linear(16, 2))

    def train(self, model: nn.Module, plan: TrainingPlan, *, round: int) -> TrainResult:
        """Train on this hospital's tumours."""
        generator = make_generator(self.seed, str(self.hospital), round)
        return sgd_train(model, self.features, self.labels, plan=plan, generator=generator)

    def evaluate(self, model: nn.Module) -> EvaluationResult:
        """Evaluate on the held-out set."""
        return evaluate_classifier(model, *self.held_out)


def load_tumours() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return all measurements, of shape (569, 30), and the labels: 1 for a malignant tumour."""
    with files("fedproof.tasks").joinpath("breast_cancer.csv").open(encoding="utf-8") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1)
    return table[:, :-1], (table[:, -1] == 0).astype(np.int64)  # theirs: 0


def scale_features(features: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the features, of shape (tumours, 30), on the agreed scale."""
    least, greatest = np.array([bounds[1:] for bounds in PUBLISHED_RANGES], dtype=np.float64).T
    unit = (features - least) / (greatest - least)
    scaled = SCALED_LEAST + unit * (SCALED_GREATEST - SCALED_LEAST)
    return np.asarray(scaled, dtype=np.float32)


def split_tumours(
    labels: NDArray[np.int64], *, hospitals: int, seed: int
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Return the indices of the held-out set, and each hospital's.

    Args:
        labels: 1 for a malignant tumour, 0 for a benign one.
        hospitals: how many parts.
        seed: draws all of it. `RandomState`, because numpy promises its stream for ever: hospitals with
            different versions of numpy must not share a tumour.
    """
    random = np.random.RandomState(seed)
    size = 2.0 ** -np.arange(hospitals)
    tilt = SPECIALISATION * (-1.0) ** np.arange(hospitals)
    held_out: list[NDArray[np.int64]] = []
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(hospitals)]
    for label, weights in ((0, size * (1 + tilt)), (1, size * (1 - tilt))):
        members = random.permutation(np.flatnonzero(labels == label))
        kept = round(HELD_OUT * len(members))
        held_out.append(members[:kept])
        cuts = np.cumsum(weights / weights.sum())[:-1] * (len(members) - kept)
        for part, chosen in zip(parts, np.split(members[kept:], cuts.astype(np.int64)), strict=True):
            part.append(chosen)
    return np.concatenate(held_out), [np.concatenate(part) for part in parts]
