"""Splitting one data set among the nodes of an experiment, equally in every process.

Every node computes the whole split from the same settings and keeps its own part. `RandomState` draws it
because numpy promises that stream for ever; `default_rng`'s may change with numpy's version, and two nodes
with different versions would then share examples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedproof.errors import ConfigurationError

FEWEST_EXAMPLES = 10
MAX_DRAWS = 1000

Indices = NDArray[np.int64]


def split_iid(examples: int, *, nodes: int, seed: int) -> list[Indices]:
    """Return each node's indices: shuffled, in parts whose sizes differ by one at most."""
    order = np.random.RandomState(seed).permutation(examples).astype(np.int64)
    return [np.sort(part) for part in np.array_split(order, nodes)]


def split_dirichlet(labels: NDArray[np.integer], *, nodes: int, alpha: float, seed: int) -> list[Indices]:
    """Return each node's indices: each class divided by its own draw from Dirichlet(alpha, ..., alpha).

    Li et al. 2022, "Federated Learning on Non-IID Data Silos", section IV (arXiv:2102.02079): drawn again
    until each node holds ten examples. The smaller alpha is, the fewer classes a node sees.

    Raises:
        ConfigurationError: a thousand draws left some node short, so alpha is too small for so many nodes.
    """
    random = np.random.RandomState(seed)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(MAX_DRAWS):
        parts: list[list[Indices]] = [[] for _ in range(nodes)]
        for members in classes:
            shares = random.dirichlet(np.full(nodes, alpha))
            cuts = (np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
            for part, chosen in zip(parts, np.split(random.permutation(members), cuts), strict=True):
                part.append(chosen)
        split = [np.sort(np.concatenate(part)).astype(np.int64) for part in parts]
        if min(map(len, split)) >= FEWEST_EXAMPLES:
            return split
    raise ConfigurationError(
        f"split = dirichlet: expected a draw that leaves each of {nodes} nodes {FEWEST_EXAMPLES} of "
        f"{len(labels)} examples, got none in {MAX_DRAWS} draws with alpha = {alpha}"
    )
