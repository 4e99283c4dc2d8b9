"""The training process is there when it is needed, whatever happened to it before."""

from __future__ import annotations

import numpy as np
import pytest
from fedproof_node.trainer import Trainer

from fedproof.errors import TaskFailed, WorkerDied
from tests.node.world import make_policy

TOY = "tests.node.toy_task:Toy"


def test_a_failed_round_is_no_obstacle_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that raises, hangs or dies is named for what it did, and the next request is answered."""
    policy, _, _ = make_policy(4, commit_window_s=1)
    with Trainer(TOY, {}, policy=policy) as trainer:
        layout, genesis = trainer.describe()
        assert layout.parameters == 4
        with pytest.raises(TaskFailed, match="no data today"):
            trainer.train(genesis, round_number=1)
        with pytest.raises(WorkerDied, match="signal 9"):
            trainer.train(genesis, round_number=2)
        assert trainer.evaluate(genesis).accuracy == 0.75
        monkeypatch.setattr("fedproof_node.trainer._SHORTEST_TIMEOUT_S", 0.0)
        with pytest.raises(TaskFailed, match=r"training in round 3 to end within 1\.0 s"):
            trainer.train(genesis, round_number=3)
        monkeypatch.undo()
        outcome = trainer.train(genesis, round_number=4)
        assert np.allclose(outcome.flat, genesis + np.float32(0.1))
