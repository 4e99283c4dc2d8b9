"""Nodes that come late, were away, lost their state or fell out with the others, and how they go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest
from fedproof_node.journal import Stage

from fedproof.digests import Digest
from fedproof.errors import NetworkError
from fedproof.ledger.events import ExclusionReason
from fedproof.policy import Policy
from tests.node.world import World, reason_of_skip

MakeWorld = Callable[..., World]
STRANGE = Digest(b"\x66" * 32)


def test_a_node_that_was_away_catches_up(make_world: MakeWorld) -> None:
    """A node that missed whole rounds derives their models from the stored sums, and contributes again."""
    world = make_world(nodes=3)
    world.begin_epoch()
    away = world.nodes.pop()
    away.stop()
    away.settings = {"keep_models": 1}
    for number in (1, 3):
        world.open_round(number)
        world.settle()
        world.seal(number, after_deadline=True)
        world.aggregate(number)
        world.settle()
        model = world.finalise(number)
        world.settle()
        world.open_round(number + 1)
        if number == 1:
            world.fail(2)
    world.nodes.append(away)
    away.settle()
    assert away.models.holds(model)
    for number in (1, 3):
        assert "sealed before" in reason_of_skip(away, number)
        assert away.address not in world.history().rounds[number].attestations
    assert away.address in world.history().rounds[4].commitments
    assert not away.log.of("error")


def test_a_node_that_was_away_for_too_long_brings_the_model(make_world: MakeWorld) -> None:
    """Where the updates behind a sum are deleted, it decrypts nothing, and goes on with a copied model."""
    world = make_world(nodes=3)
    world.begin_epoch()
    away = world.nodes.pop()
    away.stop()
    world.open_round(1)
    world.settle()
    world.seal(1, after_deadline=True)
    world.aggregate(1)
    world.settle()
    model = world.finalise(1)
    world.settle()
    world.servicer.headers.clear()
    away.settle()
    assert away.journal.entry(1).stage is Stage.REFUSED
    assert not away.log.of("verified")
    world.nodes.append(away)
    world.open_round(2)
    away.settle()
    assert f"does not have the base model {model.hex()}" in reason_of_skip(away, 2)
    shutil.copy(world.nodes[0].models.path(model), away.models.path(model))
    world.fail(2)
    world.settle()
    world.play_round(3)
    assert len(world.history().rounds[3].contributors) == 3
    assert not world.history().rounds[1].dispute


def test_a_diverging_node_says_so_and_sits_out(make_world: MakeWorld) -> None:
    """When the others finalise another model, the node names both, looks once more, and sits out."""
    world = make_world(nodes=3)
    world.begin_epoch()
    *liars, honest = world.nodes
    world.open_round(1)
    world.settle()
    world.seal(1)
    world.aggregate(1)
    for liar in liars:
        liar.ledger.attest(1, STRANGE)
    honest.settle()
    derived = world.history().rounds[1].attestations[honest.address]
    (error,) = honest.log.of("error")
    assert "model diverged" in error["message"]
    assert STRANGE.hex() in error["message"]
    assert derived.hex() in error["message"]

    world.open_round(2)
    honest.settle()
    assert f"does not have the base model {STRANGE.hex()}" in reason_of_skip(honest, 2)
    assert len(honest.log.of("error")) == 2, "it looked at the refused round once more, and once only"
    world.fail(2)
    honest.settle()


def test_a_new_member_brings_the_model(make_world: MakeWorld) -> None:
    """A node admitted later has no key for old rounds; with a copied model it joins at the next epoch."""
    world = make_world(nodes=2)
    world.begin_epoch()
    model = world.play_round(1)
    (late,) = world.admit(1)
    late.start()
    late.settle()
    assert late.journal.entry(1).stage is Stage.FINISHED
    assert not late.log.of("round_skipped")
    world.begin_epoch()
    world.open_round(2)
    late.settle()
    assert model.hex() in reason_of_skip(late, 2)
    shutil.copy(world.nodes[0].models.path(model), late.models.path(model))
    world.fail(2)
    world.settle()
    world.play_round(3)
    assert len(world.history().rounds[3].contributors) == 3


def test_a_lost_state_folder_does_not_equivocate(make_world: MakeWorld) -> None:
    """A node that committed and then lost its state says so and makes no second update."""
    world = make_world(nodes=2)
    world.begin_epoch()
    world.open_round(1)
    world.settle()
    node = world.nodes[0]
    committed = world.history().rounds[1].commitments[node.address]
    node.stop()
    shutil.rmtree(node.folder / "state")
    trainings = len(node.trainer.trained)
    node.settle()
    assert "that its journal does not know" in reason_of_skip(node, 1)
    assert len(node.trainer.trained) == trainings
    assert world.history().rounds[1].commitments[node.address] == committed


def test_training_past_the_deadline_skips(make_world: MakeWorld) -> None:
    """An update that is ready only after the deadline is not committed to."""
    world = make_world(nodes=2)
    world.begin_epoch()
    slow = world.nodes[0]

    def dawdle(_flat: np.ndarray) -> None:
        world.pass_deadline()

    slow.trainer.spoil = dawdle
    world.open_round(1)
    slow.settle()
    assert "the deadline for commitments" in reason_of_skip(slow, 1)
    assert not world.history().rounds[1].commitments


def test_an_excluded_node_learns_why(make_world: MakeWorld) -> None:
    """A node whose update was excluded names the reason, and applies what the others made."""
    world = make_world(nodes=3)
    world.begin_epoch()
    world.open_round(1)
    *others, victim = world.nodes
    for node in others:
        node.settle()
    victim.log.crash_at = lambda entry: entry.get("phase") == "uploading"
    while not victim.log.of("committed"):
        victim.turn()
    assert victim.address in world.history().rounds[1].commitments
    victim.log.crash_at = lambda _entry: False
    world.chain_federation.pass_deadline()
    counted = dict.fromkeys((node.address for node in others), 0)
    world.operator.seal(1, {**counted, victim.address: ExclusionReason.NOT_UPLOADED})
    world.aggregate(1)
    world.settle()
    assert "NOT_UPLOADED" in reason_of_skip(victim, 1)
    assert victim.address in world.attestations(1)


def test_another_policy_is_named(make_world: MakeWorld) -> None:
    """A round under a policy that is not this node's is skipped, naming both digests and what to do; nothing
    is to be done where the node has the newer one already."""
    world = make_world(nodes=2)
    world.begin_epoch()
    ours = world.policy.digest
    other = Policy.parse(world.policy.canonical().replace(b"test", b"tset"))
    world.admin.adopt_policy(other)
    world.open_round(1)
    world.nodes[0].settle()
    world.admin.adopt_policy(world.policy)
    world.nodes[1].settle()
    reason = f"round 1 follows policy version 2 of digest {other.digest.hex()}; policy.toml has {ours.hex()}"
    advice = ": put the adopted document there, and start this node again"
    assert reason_of_skip(world.nodes[0], 1) == reason + advice
    assert reason_of_skip(world.nodes[1], 1) == reason
    assert not world.history().rounds[1].commitments


def test_an_absent_aggregator_is_waited_for(make_world: MakeWorld) -> None:
    """An upload that finds no aggregator fails after bounded attempts, and succeeds once it is back."""
    world = make_world(nodes=2)
    world.begin_epoch()
    world.open_round(1)
    world.aggregator.stop()
    node = world.nodes[0]
    with pytest.raises(NetworkError, match=rf"given up after 3 attempts.*{world.aggregator.target}"):
        node.settle()
    assert node.journal.entry(1).stage is Stage.COMMITTED
    world.aggregator.start()
    world.settle()
    assert len(world.seal(1)) == 2
