"""What updates leave unsent comes later, once each, whatever crashes and whichever rounds fail."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedproof.ledger.events import ExclusionReason
from fedproof.model import compute_values_digest
from tests.node.world import Crash, Node, World, reason_of_skip

MakeWorld = Callable[..., World]
COARSE = {"bits": 8, "error_feedback": True}


class Bookkeeper:
    """Remembers what every node's training changed, to compare it with what the models have of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.changes: dict[tuple[int, Node], np.ndarray] = {}
        for node in world.nodes:
            node.trainer.train = self._wrap(node, node.trainer.train)

    def _wrap(self, node: Node, train: Callable[..., Any]) -> Callable[..., Any]:
        def train_and_remember(base: np.ndarray, *, round_number: int) -> Any:
            outcome = train(base, round_number=round_number)
            self.changes[round_number, node] = outcome.flat - base
            return outcome

        return train_and_remember

    def check(self, *rounds: tuple[int, list[Node]]) -> None:
        """Check that the last model is the first one and all changes, except what lies in the residuals.

        Only where every round has the same contributors does one weight hold for all that a node sent.
        """
        last = self.world.history().head_model
        expected = self.world.genesis.astype(np.float64)
        nodes = rounds[0][1]
        total = sum(node.trainer._examples for node in nodes)
        for node in nodes:
            sent = sum(self.changes[number, node] for number, _ in rounds) - read_residual(node)
            expected += sent * (node.trainer._examples / total)
        assert np.abs(nodes[0].models.load(last).flat - expected).max() < 1e-5


def find_residuals(node: Node) -> dict[int, Path]:
    """Return a node's residual files by round."""
    return {int(path.parent.name): path for path in node.folder.glob("state/rounds/*/residual")}


def read_residual(node: Node) -> np.ndarray:
    (path,) = find_residuals(node).values()
    return np.fromfile(path, dtype="<f4")


@pytest.mark.parametrize("keep_one_in", [1, 3])
def test_what_is_left_unsent_comes_later(make_world: MakeWorld, keep_one_in: int) -> None:
    """After some rounds, models and residuals together hold every change that training made."""
    world = make_world(nodes=2, codec={**COARSE, "keep_one_in": keep_one_in})
    world.begin_epoch()
    books = Bookkeeper(world)
    for number in (1, 2, 3):
        world.play_round(number)
        for node in world.nodes:
            assert list(find_residuals(node)) == [number]
            assert stat.S_IMODE(find_residuals(node)[number].stat().st_mode) == 0o600
    assert all(np.abs(read_residual(node)).max() > 1e-4 for node in world.nodes)
    books.check(*((number, world.nodes) for number in (1, 2, 3)))


def test_training_starts_with_what_is_unsent(make_world: MakeWorld) -> None:
    """A node trains from the model with its own pending changes applied, and never learns them twice."""
    world = make_world(nodes=2, codec={**COARSE, "keep_one_in": 3})
    world.begin_epoch()
    model = world.play_round(1)
    residuals = {node: read_residual(node) for node in world.nodes}
    world.play_round(2)
    for node in world.nodes:
        base = node.models.load(model).flat
        first, second = node.trainer.trained
        assert first.tobytes() == world.genesis.tobytes()
        assert second.tobytes() == (base + residuals[node]).tobytes()


def crash_once(node: Node, event: str, phase: str | None = None) -> None:
    """Let the node die when it logs an event."""
    done: list[bool] = []

    def is_time(entry: dict[str, Any]) -> bool:
        if done or (entry["event"], entry.get("phase")) != (event, phase):
            return False
        done.append(True)
        return True

    node.log.crash_at = is_time


def crash_before_finishing(node: Node) -> None:
    """Let the node die between the cleaning at a round's end and the journal's entry."""
    journal = node.journal
    advance = journal.advance

    def advance_or_die(number: int, stage: str, **keywords: Any) -> None:
        if stage == "finished":
            raise Crash
        advance(number, stage, **keywords)  # type: ignore[arg-type]

    journal.advance = advance_or_die  # type: ignore[method-assign]


def test_residuals_survive_crashes(make_world: MakeWorld) -> None:
    """A node that dies somewhere in each round, the end included, sends what is unsent once, and no more."""
    world = make_world(nodes=2, codec=COARSE)
    world.begin_epoch()
    books = Bookkeeper(world)
    node = world.nodes[0]
    world.play_round(1)
    crashes: list[Callable[[], None]] = [
        partial(crash_once, node, event)
        for event in ("encrypted", "committed", "uploaded", "verified", "attested")
    ]
    crashes += [partial(crash_once, node, "phase", phase) for phase in ("encrypting", "committing", "done")]
    crashes += [partial(crash_before_finishing, node)]
    for number, plan_crash in enumerate(crashes, start=2):
        plan_crash()
        before = node.daemon
        world.play_round(number)
        assert node.daemon is not before, plan_crash
    last = len(crashes) + 2
    world.play_round(last)
    books.check(*((number, world.nodes) for number in range(1, last + 1)))


def exclude(world: World, victim: Node, number: int) -> None:
    """Play a round whose seal leaves a whole update out, and let the victim die as soon as it can know."""
    world.open_round(number)
    world.settle()
    world.chain_federation.pass_deadline()
    others = [node.address for node in world.nodes if node is not victim]
    world.operator.seal(number, {**dict.fromkeys(others, 0), victim.address: ExclusionReason.NOT_UPLOADED})
    world.aggregate(number)
    crash_once(victim, "phase", "verifying")
    world.settle()
    world.finalise(number)
    world.settle()


def test_update_that_is_not_counted_leaves_nothing_behind(make_world: MakeWorld) -> None:
    """Excluded although whole: that round's residual goes, the one before it is sent with the next update."""
    world = make_world(nodes=3, codec=COARSE)
    world.begin_epoch()
    victim = world.nodes[1]
    world.play_round(1)
    before = read_residual(victim)
    exclude(world, victim, 2)
    assert list(find_residuals(victim)) == [1]
    assert read_residual(victim).tobytes() == before.tobytes()
    world.play_round(3)
    assert list(find_residuals(victim)) == [3]
    assert not [node for node in world.nodes if list(find_residuals(node)) != [3]]


def test_failed_round_leaves_nothing_behind(make_world: MakeWorld) -> None:
    """When a round fails after the upload, every node goes on with the residual that it had before."""
    world = make_world(nodes=2, codec=COARSE)
    world.begin_epoch()
    books = Bookkeeper(world)
    world.play_round(1)
    world.open_round(2)
    world.settle()
    assert sorted(find_residuals(world.nodes[0])) == [1, 2]
    world.fail(2)
    world.play_round(3)
    books.check((1, world.nodes), (3, world.nodes))


def test_start_that_is_not_finite_costs_no_round(make_world: MakeWorld) -> None:
    """A residual whose sum with the model overflows is as good as lost, and gone after the next round."""
    world = make_world(nodes=2, codec=COARSE)
    world.begin_epoch()
    model = world.play_round(1)
    node = world.nodes[0]
    residual = read_residual(node)
    residual[17] = np.inf
    residual.tofile(find_residuals(node)[1])
    entry = replace(node.journal.entry(1), residual=compute_values_digest(residual))
    node.journal._write(entry)
    world.play_round(2)
    (error,) = node.log.of("error")
    assert "round 2: training goes without what earlier updates left unsent" in error["message"]
    assert "expected finite values, got inf at index 17" in error["message"]
    assert node.trainer.trained[1].tobytes() == node.models.load(model).flat.tobytes()
    assert node.address in world.history().rounds[2].contributors
    assert list(find_residuals(node)) == [2]
    assert np.isfinite(read_residual(node)).all()


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(bytes(1200))])
def test_lost_residual_costs_no_round(make_world: MakeWorld, damage: Callable[[Path], None]) -> None:
    """A residual that is gone or altered is named, and the update goes without it."""
    world = make_world(nodes=2, codec=COARSE)
    world.begin_epoch()
    world.play_round(1)
    node = world.nodes[0]
    damage(find_residuals(node)[1])
    world.play_round(2)
    (error,) = node.log.of("error")
    assert "round 2: training goes without what earlier updates left unsent" in error["message"]
    assert str(find_residuals(node)[2].parents[1] / "1" / "residual") in error["message"]
    assert node.address in world.history().rounds[2].contributors


def test_value_that_does_not_travel_is_checked_too(make_world: MakeWorld) -> None:
    """NaN anywhere skips the round, even where nothing travels: a residual would keep it for ever."""
    world = make_world(nodes=2, codec={**COARSE, "keep_one_in": 100})
    world.begin_epoch()
    node = world.nodes[0]

    def spoil(flat: np.ndarray) -> None:
        flat[50:60] = np.nan

    node.trainer.spoil = spoil
    world.open_round(1)
    node.settle()
    assert "expected finite values, got nan at index 50" in reason_of_skip(node, 1)
    assert not find_residuals(node)


def test_no_residual_without_error_feedback(make_world: MakeWorld) -> None:
    """A policy without error feedback leaves no trace of what was not sent."""
    world = make_world(nodes=2, codec={"bits": 8})
    world.begin_epoch()
    world.play_round(1)
    assert not find_residuals(world.nodes[0])
