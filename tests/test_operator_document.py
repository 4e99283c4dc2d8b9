"""docs/operator.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fedproof.model import Model, save_model
from fedproof.training import describe_task
from tests.node.world import make_policy

DOCUMENT = Path(__file__).parents[1] / "docs" / "operator.md"


def test_a_node_s_model_becomes_a_file_for_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document's lines write the values of a node's model file, under the names of the task's tensors."""
    monkeypatch.chdir(tmp_path)
    Path("policy.toml").write_text(make_policy(4)[0].dump_toml())
    layout, genesis = describe_task("fedproof.tasks.breast_cancer:BreastCancer", {"hospital": 0}, seed=7)
    trained = genesis + np.float32(1)
    save_model(Path("state/models/<digest>.model"), layout, Model(trained, (1.0,) * len(layout.group_sizes)))
    (example,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    exec(example, {})
    written = torch.load("model.pt")
    assert np.array_equal(layout.flatten({name: each.numpy() for name, each in written.items()}), trained)
