"""Splits that every node computes alike."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedproof.errors import ConfigurationError
from fedproof.tasks.partition import FEWEST_EXAMPLES, Indices, split_dirichlet, split_iid

LABELS = np.arange(6000) % 10


def digest(split: list[Indices]) -> str:
    return hashlib.sha256(b"|".join(part.astype("<i8").tobytes() for part in split)).hexdigest()[:16]


@given(examples=st.integers(1, 400), nodes=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_iid_gives_each_example_to_one_node(examples: int, nodes: int, seed: int) -> None:
    """The parts are disjoint, complete, and of equal size but for one."""
    split = split_iid(examples, nodes=nodes, seed=seed)
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(examples))
    assert max(map(len, split)) - min(map(len, split)) <= 1


@given(
    nodes=st.integers(1, 10), alpha=st.sampled_from([0.3, 0.5, 1.0, 100.0]), seed=st.integers(0, 2**32 - 1)
)
def test_dirichlet_gives_each_example_to_one_node(nodes: int, alpha: float, seed: int) -> None:
    """The parts are disjoint and complete, and none is tiny."""
    split = split_dirichlet(LABELS, nodes=nodes, alpha=alpha, seed=seed)
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(len(LABELS)))
    assert min(map(len, split)) >= FEWEST_EXAMPLES


def test_splits_never_change() -> None:
    """Nodes with other versions of numpy compute the very same split: these digests stay."""
    assert digest(split_iid(6000, nodes=10, seed=1)) == "895b6daf94950337"
    assert digest(split_dirichlet(LABELS, nodes=10, alpha=0.5, seed=1)) == "6183f31f78a5f562"


def test_seeds_make_other_splits() -> None:
    """Another seed draws another split."""
    assert digest(split_iid(6000, nodes=10, seed=1)) != digest(split_iid(6000, nodes=10, seed=2))
    first, second = (split_dirichlet(LABELS, nodes=10, alpha=0.5, seed=seed) for seed in (1, 2))
    assert digest(first) != digest(second)


def test_smaller_alpha_is_more_skewed() -> None:
    """With a small alpha a node's largest class is a larger part of what it holds."""

    def mean_largest_class(alpha: float) -> float:
        split = split_dirichlet(LABELS, nodes=5, alpha=alpha, seed=3)
        return float(np.mean([np.bincount(LABELS[part]).max() / len(part) for part in split]))

    assert mean_largest_class(0.1) > mean_largest_class(1.0) > mean_largest_class(1000.0)
    assert mean_largest_class(1000.0) == pytest.approx(0.1, abs=0.03)


def test_impossible_split_is_refused() -> None:
    """More nodes than the data can serve is an error with the numbers, not an endless loop."""
    with pytest.raises(ConfigurationError, match=r"each of 20 nodes 10 of 150 examples.*alpha = 0\.5"):
        split_dirichlet(LABELS[:150], nodes=20, alpha=0.5, seed=1)
