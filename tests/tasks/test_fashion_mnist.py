"""Fashion-MNIST among nodes, on small files of its format, and once on the real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedproof.baselines import run_plain_fedavg
from fedproof.errors import ConfigurationError
from fedproof.model import Model, load_model, save_model, verify_layout
from fedproof.policy import TrainingPlan
from fedproof.tasks.fashion_mnist import DEFAULT_FOLDER, FashionMnist
from fedproof.tasks.runner import TaskRunner
from tests.tasks.fashion_files import write_bars, write_idx

PLAN = TrainingPlan(epochs=1, batch_size=32, learning_rate=0.03, momentum=0.9, weight_decay=0.0)
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with 600 training and 80 test images: bars whose height is the class."""
    write_bars(tmp_path)
    return tmp_path


def build(folder: Path, node: int | str = 0, **settings: object) -> FashionMnist:
    return FashionMnist(node=node, folder=str(folder), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["iid", "dirichlet"])
def test_nodes_divide_the_training_images(folder: Path, split: str) -> None:
    """Each training image is one node's; together they hold what "all" holds."""
    parts = [build(folder, node, nodes=4, split=split).images for node in range(4)]
    whole = build(folder, "all").images
    assert torch.equal(
        torch.unique(torch.cat(parts), dim=0, return_counts=True)[1], torch.ones(600, dtype=torch.int64)
    )
    assert torch.equal(torch.unique(torch.cat(parts), dim=0), torch.unique(whole, dim=0))


def test_images_keep_their_labels(folder: Path) -> None:
    """A node's labels are those of its own images."""
    task = build(folder, 1, nodes=3)
    heights = (task.images[:, :, 12] >= 150).sum(dim=1)
    assert torch.equal(heights, 2 * task.labels + 4)


@pytest.mark.parametrize("split", ["iid", "dirichlet"])
def test_public_images_are_no_nodes(folder: Path, split: str) -> None:
    """The first so many images are set aside; nodes, and "all", divide what is left."""
    parts = [build(folder, node, nodes=4, split=split, public=100).images for node in range(4)]
    public, whole = (build(folder, node, public=100).images for node in ("public", "all"))
    assert torch.equal(torch.cat([public, whole]), build(folder, "all").images)
    assert torch.equal(torch.unique(torch.cat(parts), dim=0), torch.unique(whole, dim=0))
    assert sum(len(part) for part in parts) == len(whole) == 500


@pytest.mark.parametrize(("evaluate_on", "examples"), [(0, 80), (25, 25), (80, 80), (500, 80)])
def test_evaluation_is_bounded(folder: Path, evaluate_on: int, examples: int) -> None:
    """The first so many test images are used; all of them when the bound is 0 or beyond."""
    task = build(folder, evaluate_on=evaluate_on)
    assert task.evaluate(task.build_model()).examples == examples
    assert torch.equal(task.test_images, build(folder).test_images[:examples])


def test_model_has_105_866_parameters(folder: Path) -> None:
    """The size that documentation and policy state; below the 150,000 that a round is planned for."""
    assert sum(values.numel() for values in build(folder).build_model().parameters()) == 105_866


def test_federation_learns(folder: Path) -> None:
    """Three rounds over three nodes tell the bars' heights apart."""
    tasks = [build(folder, node, nodes=3) for node in range(3)]
    plan = TrainingPlan(epochs=1, batch_size=8, learning_rate=0.03, momentum=0.9, weight_decay=0.0)
    rounds = list(run_plain_fedavg(tasks, plan, rounds=3, seed=7, max_examples=10_000))
    assert rounds[-1].accuracy > 0.8
    assert rounds[-1].accuracy > rounds[0].accuracy


@pytest.fixture
def pretrained(folder: Path, tmp_path: Path) -> Path:
    """Return a model file: what two epochs over 100 public images make of the CNN."""
    runner = TaskRunner(build(folder, "public", public=100), seed=3)
    trained = runner.train(runner.genesis, replace(PLAN, epochs=2, batch_size=8), round=1)
    path = tmp_path / "pretrained.model"
    save_model(path, runner.layout, Model(trained.flat, (1.0,) * len(runner.layout.group_sizes)))
    return path


def test_training_starts_from_the_pretrained_model(folder: Path, pretrained: Path) -> None:
    """The genesis model is the file's, whatever the seed; with adapters it computes the same."""
    runner = TaskRunner(build(folder, pretrained=str(pretrained)), seed=99)
    _, model = load_model(pretrained)
    assert np.array_equal(runner.genesis, model.flat)
    adapted = TaskRunner(build(folder, pretrained=str(pretrained), adapter_rank=2), seed=99)
    assert adapted.evaluate(adapted.genesis) == runner.evaluate(runner.genesis)


def test_adapters_alone_travel_and_learn(folder: Path, pretrained: Path) -> None:
    """Each layer's adapter has rank x (rows + columns) values, and three rounds of them improve the model."""
    settings = {"pretrained": str(pretrained), "public": 100, "nodes": 3, "adapter_rank": 2}
    tasks = [build(folder, node, **settings) for node in range(3)]
    runner = TaskRunner(tasks[0], seed=7)
    assert runner.genesis.size == 2 * ((16 + 9) + (32 + 16 * 9) + (64 + 1568) + (10 + 64))
    travelling = [spec.name for spec in runner.layout.tensors if spec.travels]
    assert len(travelling) == 8
    assert all(name.endswith((".up", ".down")) for name in travelling)
    before = runner.evaluate(runner.genesis)
    plan = replace(PLAN, batch_size=8)
    rounds = list(run_plain_fedavg(tasks, plan, rounds=3, seed=7, max_examples=10_000))
    assert rounds[-1].loss < before.loss
    assert rounds[-1].accuracy > before.accuracy


def test_another_pretrained_model_is_another_architecture(folder: Path, pretrained: Path) -> None:
    """Frozen values are part of what a policy fixes: a node that starts from others is told so."""
    runner = TaskRunner(build(folder, pretrained=str(pretrained), adapter_rank=1), seed=7)
    other = TaskRunner(build(folder, adapter_rank=1), seed=7)
    with pytest.raises(ConfigurationError, match=r"frozen tensor 'features\.0\."):
        verify_layout(other.layout, expected=runner.layout)


def test_pretrained_model_of_another_architecture_is_refused(folder: Path, tmp_path: Path) -> None:
    """The message names the setting."""
    runner = TaskRunner(build(folder, adapter_rank=1), seed=7)
    path = tmp_path / "adapters.model"
    save_model(path, runner.layout, Model(runner.genesis, (1.0,) * 8))
    with pytest.raises(ConfigurationError, match=r"\[task\.settings\] pretrained: model: tensor 0: expected"):
        TaskRunner(build(folder, pretrained=str(path)), seed=7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"node": 10}, '[task.settings] node: expected 0 to 9, "all" or "public", got 10'),
        ({"node": -1}, 'expected 0 to 9, "all" or "public", got -1'),
        ({"node": "first"}, "got 'first'"),
        ({"nodes": 0}, "[task.settings] nodes: expected 1 to 600, got 0"),
        ({"nodes": 601}, "[task.settings] nodes: expected 1 to 600, got 601"),
        ({"nodes": 500, "public": 101}, "[task.settings] nodes: expected 1 to 499, got 500"),
        ({"split": "by-class"}, 'expected "iid" or "dirichlet", got \'by-class\''),
        ({"alpha": 0.0}, "[task.settings] alpha: expected more than 0, got 0.0"),
        ({"evaluate_on": -1}, "[task.settings] evaluate_on: expected 0 or more, got -1"),
        ({"adapter_rank": -1}, "[task.settings] adapter_rank: expected 0 or more, got -1"),
        ({"public": -1}, "[task.settings] public: expected 0 to 599, got -1"),
        ({"public": 600}, "[task.settings] public: expected 0 to 599, got 600"),
        ({"node": "public"}, "[task.settings] public: expected 1 to 599, got 0"),
    ],
)
def test_other_settings_are_refused(folder: Path, settings: dict[str, object], message: str) -> None:
    """The message names the setting, its range, and what came."""
    with pytest.raises(ConfigurationError) as caught:
        build(folder, **{"node": 0, **settings})  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    """The message names folder and file."""
    with pytest.raises(ConfigurationError, match=r"nowhere: expected train-images-idx3-ubyte or"):
        build(tmp_path / "nowhere")


def test_mismatched_files_are_refused(folder: Path) -> None:
    """Labels that do not fit their images, in number or in value, are refused by file name."""
    write_idx(folder / "t10k-labels-idx1-ubyte", np.zeros(79))
    with pytest.raises(ConfigurationError, match="t10k-labels-idx1-ubyte: expected 80 labels, got 79"):
        build(folder)
    write_idx(folder / "t10k-labels-idx1-ubyte", np.full(80, 10))
    with pytest.raises(ConfigurationError, match="t10k-labels-idx1-ubyte: expected labels below 10, got 10"):
        build(folder)


@pytest.mark.skipif(
    not Path(DEFAULT_FOLDER, f"{FILES[0]}.gz").exists(),
    reason=f"Fashion-MNIST is not in {DEFAULT_FOLDER} (Debian: apt install dataset-fashion-mnist)",
)
def test_real_files_are_read_and_learned_from() -> None:
    """One of thirty nodes learns from its share of the real images, in one epoch, most kinds of clothing."""
    task = FashionMnist(node=0, nodes=30, split="iid", evaluate_on=1000)
    assert (len(task.images), len(task.test_images)) == (2000, 1000)
    (result,) = run_plain_fedavg([task], PLAN, rounds=1, seed=7, max_examples=10_000)
    assert result.accuracy > 0.6
