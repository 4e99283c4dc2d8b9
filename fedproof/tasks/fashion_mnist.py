"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 28 x 28 grey images of ten kinds of clothing.

The folder holds the four original IDX files, such as Debian's package dataset-fashion-mnist installs. For an
experiment the 60,000 training images are split among nodes; every node evaluates on the same test images.
The first of them may be set aside as public, for pre-training a model that the nodes then adapt.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from fedproof.errors import ConfigurationError
from fedproof.model import load_model
from fedproof.task import EvaluationResult, TrainResult
from fedproof.tasks.adapters import add_low_rank_adapters
from fedproof.tasks.classification import evaluate_classifier, make_generator, sgd_train
from fedproof.tasks.flat import load_flat
from fedproof.tasks.idx import find_idx, load_idx
from fedproof.tasks.partition import Indices, split_dirichlet, split_iid

if TYPE_CHECKING:
    from fedproof.policy import TrainingPlan

DEFAULT_FOLDER = "/usr/share/datasets/fashion-mnist"
IMAGE_SHAPE = (28, 28)
CLASSES = 10
MAX_IMAGES = 1_000_000
GREY_MEAN, GREY_SCALE = 73.0, 90.0  # rounded mean and standard deviation of the training images' pixels


class FashionCnn(nn.Module):
    """Two convolutions and two linear layers: 105,866 parameters, no buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, CLASSES)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, 10) of images (batch, 28, 28) as unsigned bytes."""
        scaled = (images.unsqueeze(1).float() - GREY_MEAN) / GREY_SCALE
        logits: torch.Tensor = self.classifier(self.features(scaled))
        return logits


class FashionMnist:
    """One node's part of Fashion-MNIST.

    Args:
        node: this node's index from 0, "all" for what all nodes have together (the centralised baseline), or
            "public" for the images that are set aside.
        nodes: among how many nodes the training images are split.
        split: "iid", or "dirichlet" for nodes that each see the classes in other proportions.
        alpha: the Dirichlet split's concentration.
        split_seed: draws the split; equal on all nodes.
        seed: draws this node's order of examples, together with node and round.
        evaluate_on: how many of the test images to evaluate on, from the first; all when 0. Every
            node evaluates every round, so a federation on one machine may want fewer.
        public: how many training images, from the first, no node has.
        pretrained: a model file to start from, of this CNN without adapters; an untrained CNN when empty.
        adapter_rank: train and send adapters of this rank and nothing else; the whole CNN when 0.
        folder: where the IDX files are, compressed or not.

    Raises:
        ConfigurationError: a setting is out of range, or a file is missing or does not fit.
        MalformedMessage: the file of the pre-trained model cannot be parsed; `DigestMismatch`: it is damaged.
    """

    def __init__(
        self,
        *,
        node: int | Literal["all", "public"],
        nodes: int = 10,
        split: Literal["iid", "dirichlet"] = "dirichlet",
        alpha: float = 0.5,
        split_seed: int = 1,
        seed: int = 0,
        evaluate_on: int = 0,
        public: int = 0,
        pretrained: str = "",
        adapter_rank: int = 0,
        folder: str = DEFAULT_FOLDER,
    ) -> None:
        for name, value in (("evaluate_on", evaluate_on), ("adapter_rank", adapter_rank)):
            if value < 0:
                raise ConfigurationError(f"[task.settings] {name}: expected 0 or more, got {value}")
        self.node = node
        self.seed = seed
        self.adapter_rank = adapter_rank
        self.pretrained = load_model(Path(pretrained)) if pretrained else None
        images, labels = _load_images(Path(folder), "train", max_images=MAX_IMAGES)
        mine = _choose(
            labels.numpy(), node=node, nodes=nodes, split=split, alpha=alpha, seed=split_seed, public=public
        )
        self.images, self.labels = images[mine], labels[mine]
        self.test_images, self.test_labels = _load_images(
            Path(folder), "t10k", max_images=evaluate_on or MAX_IMAGES
        )

    def build_model(self) -> FashionCnn:
        """Return the CNN, its convolutions laid out as the CPU prefers (half the time an epoch).

        Raises:
            ConfigurationError: the pre-trained model is of another architecture.
        """
        model = FashionCnn()
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        if self.pretrained is not None:
            layout, pretrained = self.pretrained
            try:
                load_flat(model, layout, pretrained.flat)
            except ConfigurationError as error:
                raise ConfigurationError(f"[task.settings] pretrained: {error}") from error
        if self.adapter_rank:
            add_low_rank_adapters(model, self.adapter_rank)
        return model

    def train(self, model: nn.Module, plan: TrainingPlan, *, round: int) -> TrainResult:
        """Train on this node's images."""
        generator = make_generator(self.seed, str(self.node), round)
        return sgd_train(model, self.images, self.labels, plan=plan, generator=generator)

    def evaluate(self, model: nn.Module) -> EvaluationResult:
        """Evaluate on the first `evaluate_on` test images."""
        return evaluate_classifier(model, self.test_images, self.test_labels)


def _load_images(folder: Path, kind: str, *, max_images: int) -> tuple[torch.Tensor, torch.Tensor]:
    images_path = find_idx(folder, f"{kind}-images-idx3-ubyte")
    labels_path = find_idx(folder, f"{kind}-labels-idx1-ubyte")
    images = load_idx(images_path, item_shape=IMAGE_SHAPE, max_items=max_images)
    labels = load_idx(labels_path, item_shape=(), max_items=max_images)
    if len(images) != len(labels):
        raise ConfigurationError(f"{labels_path}: expected {len(images)} labels, got {len(labels)}")
    if (largest := int(labels.max())) >= CLASSES:
        raise ConfigurationError(f"{labels_path}: expected labels below {CLASSES}, got {largest}")
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def _choose(
    labels: np.ndarray, *, node: int | str, nodes: int, split: str, alpha: float, seed: int, public: int
) -> Indices:
    """Return the indices of the node's training images."""
    if not (fewest := int(node == "public")) <= public < len(labels):
        raise ConfigurationError(
            f"[task.settings] public: expected {fewest} to {len(labels) - 1}, got {public}"
        )
    if node == "public":
        return np.arange(public, dtype=np.int64)
    if node == "all":
        return np.arange(public, len(labels), dtype=np.int64)
    labels = labels[public:]
    if not 1 <= nodes <= len(labels):
        raise ConfigurationError(f"[task.settings] nodes: expected 1 to {len(labels)}, got {nodes}")
    if not isinstance(node, int) or not 0 <= node < nodes:
        raise ConfigurationError(
            f'[task.settings] node: expected 0 to {nodes - 1}, "all" or "public", got {node!r}'
        )
    if not alpha > 0:
        raise ConfigurationError(f"[task.settings] alpha: expected more than 0, got {alpha}")
    match split:
        case "iid":
            return public + split_iid(len(labels), nodes=nodes, seed=seed)[node]
        case "dirichlet":
            return public + split_dirichlet(labels, nodes=nodes, alpha=alpha, seed=seed)[node]
    raise ConfigurationError(f'[task.settings] split: expected "iid" or "dirichlet", got {split!r}')
