"""Whole rounds, turn by turn: who contributes, what is derived, and what one bad node does to the others."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fedproof_node.journal import Stage

from fedproof.codec import Codec
from fedproof.digests import Digest
from fedproof.errors import LedgerUnreachable, NetworkError, TaskFailed, WorkerDied
from fedproof.ledger.events import ExclusionReason, Phase
from fedproof.policy import Policy
from tests.node.world import Node, World

MakeWorld = Callable[..., World]
STRANGE = Digest(b"\x66" * 32)


def reason_of_skip(node: Node, number: int) -> str:
    reasons = [entry["reason"] for entry in node.log.of("round_skipped") if entry["round"] == number]
    assert len(reasons) == 1, node.log.events
    return str(reasons[0])


def test_three_nodes_play_two_rounds(make_world: MakeWorld) -> None:
    """All contribute, verify, reach one model and attest it, and the second round starts from the first's."""
    world = make_world()
    world.begin_epoch()
    for number in (1, 2):
        model = world.play_round(number)
        record = world.history().rounds[number]
        assert len(record.contributors) == 3
        assert list(record.attestations.values()) == [model] * 3
        for node in world.nodes:
            assert node.journal.entry(number).stage is Stage.FINISHED
            assert node.log.of("applied")[-1]["model"] == model
            assert node.models.holds(model)
            spools = node.folder / "state" / "rounds" / str(number)
            assert not list(spools.rglob("*.chunk"))
    for node in world.nodes:
        assert len(node.log.of("committed")) == 2
        assert not node.log.of("error")
        assert not node.log.of("round_skipped")


def test_the_mean_is_weighted_over_the_contributors(make_world: MakeWorld) -> None:
    """The new model is the base plus the updates' mean, weighted by examples, up to the quantiser's step."""
    world = make_world(nodes=2)
    world.begin_epoch()
    trained = {}
    for node, examples in zip(world.nodes, (10, 90), strict=True):
        node.trainer._examples = examples
        node.trainer.spoil = lambda flat, node=node: trained.update({node.address: flat.copy()})
    model = world.play_round(1)
    first, second = (trained[node.address] for node in world.nodes)
    expected = 0.1 * first + 0.9 * second
    step = 2 * world.codec.parameters.step
    assert np.abs(world.nodes[0].models.load(model) - expected).max() < step


EVENTS_OF_A_ROUND = [
    ("phase", "training"),
    ("trained", None),
    ("phase", "encrypting"),
    ("encrypted", None),
    ("phase", "committing"),
    ("committed", None),
    ("phase", "uploading"),
    ("uploaded", None),
    ("phase", "verifying"),
    ("verified", None),
    ("phase", "attesting"),
    ("attested", None),
    ("applied", None),
    ("phase", "done"),
]


def test_a_crash_at_every_event_is_survived(make_world: MakeWorld) -> None:
    """A node that dies once at each event of a round takes part in it all the same, with one update."""
    world = make_world(nodes=2)
    world.begin_epoch()
    node = world.nodes[0]
    crashes: list[tuple[str, str | None]] = []

    def crash_once_at_each(entry: dict[str, Any]) -> bool:
        event = (entry["event"], entry.get("phase"))
        if event in crashes or event not in EVENTS_OF_A_ROUND:
            return False
        crashes.append(event)
        return True

    node.log.crash_at = crash_once_at_each
    model = world.play_round(1)
    assert crashes == EVENTS_OF_A_ROUND
    record = world.history().rounds[1]
    assert len(record.contributors) == 2
    assert list(record.attestations.values()) == [model, model]
    entry = node.journal.entry(1)
    assert (entry.stage, entry.model) == (Stage.FINISHED, model)
    assert record.commitments[node.address].update_root == entry.update_root
    assert not node.log.of("round_skipped")
    assert len(node.log.of("encrypted")) == 2, "once it is journalled, an update is never made anew"


def test_a_lost_receipt_is_no_second_commitment(make_world: MakeWorld) -> None:
    """When a commitment is mined but its node dies before it knows, the restart finds it and goes on."""
    world = make_world(nodes=2)
    world.begin_epoch()
    node = world.nodes[1]
    commit = node.ledger.commit

    def commit_and_lose(*arguments: Any) -> Any:
        node.ledger.commit = commit  # type: ignore[method-assign]
        commit(*arguments)
        raise LedgerUnreachable("the answer was lost")

    node.ledger.commit = commit_and_lose  # type: ignore[method-assign]
    world.open_round(1)
    with pytest.raises(LedgerUnreachable):
        node.settle()
    node.stop()
    world.settle()
    assert len(world.seal(1)) == 2


def break_with_nan(flat: np.ndarray) -> None:
    flat[3] = math.nan


def break_by_raising(_flat: np.ndarray) -> None:
    raise TaskFailed("task: train raised: the disk with the X-rays is not mounted")


def break_by_dying(_flat: np.ndarray) -> None:
    raise WorkerDied("training process: was ended by SIGSEGV")


def break_with_infinity(flat: np.ndarray) -> None:
    flat[-1] = math.inf


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (break_with_nan, "expected finite values, got nan at index 3"),
        (break_with_infinity, "expected finite values, got inf at index 299"),
        (break_by_raising, "X-rays"),
        (break_by_dying, "SIGSEGV"),
    ],
)
def test_one_bad_update_stops_nobody(
    make_world: MakeWorld, spoil: Callable[[np.ndarray], None], reason: str
) -> None:
    """A node whose training went wrong skips the round; the others finish it, and it applies their result."""
    world = make_world(nodes=3)
    world.begin_epoch()
    bad = world.nodes[1]
    bad.trainer.spoil = spoil
    world.open_round(1)
    world.settle()
    assert reason in reason_of_skip(bad, 1)
    assert bad.address not in world.history().rounds[1].commitments
    world.seal(1, after_deadline=True)
    world.aggregate(1)
    world.settle()
    model = world.finalise(1)
    world.settle()
    assert list(world.history().rounds[1].attestations.values()) == [model] * 3
    assert bad.models.holds(model)


def forge_bit(sums: list[bytes]) -> None:
    tampered = bytearray(sums[0])
    tampered[100] ^= 1
    sums[0] = bytes(tampered)


def test_a_forged_sum_is_neither_decrypted_nor_attested(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published sum that is not the sum of the updates is refused, by name, before any key touches it."""
    world = make_world(nodes=2)
    world.begin_epoch()
    world.open_round(1)
    world.settle()
    world.seal(1)
    world.aggregate(1, forge=forge_bit)
    decrypted: list[object] = []
    monkeypatch.setattr(Codec, "decrypt_chunk", lambda *arguments, **_keywords: decrypted.append(arguments))
    world.settle()
    monkeypatch.undo()
    assert not decrypted
    assert not world.history().rounds[1].attestations
    for node in world.nodes:
        (error,) = node.log.of("error")
        assert "round 1: chunk 0 of the aggregate is not the sum of the updates of" in error["message"]
        assert node.journal.entry(1).stage is Stage.REFUSED
    world.fail(1)
    world.settle()
    assert world.play_round(2) == world.history().head_model


def test_a_node_that_was_away_catches_up(make_world: MakeWorld) -> None:
    """A node that missed a whole round derives its model from the stored sum and contributes to the next."""
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
    world.nodes.append(away)
    world.open_round(2)
    away.settle()
    assert away.models.holds(model)
    assert "sealed before" in reason_of_skip(away, 1)
    assert away.address not in world.history().rounds[1].attestations
    assert away.address in world.history().rounds[2].commitments


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
    world.operator.finalise(1, STRANGE)
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
        world.chain_federation.pass_deadline(1)
        world.chain.tester.mine_block()

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
    world.chain_federation.pass_deadline(1)
    excluded = [(victim.address, ExclusionReason.NOT_UPLOADED)]
    world.operator.seal(1, [node.address for node in others], excluded)
    world.aggregate(1)
    world.settle()
    assert "NOT_UPLOADED" in reason_of_skip(victim, 1)
    assert victim.address in world.history().rounds[1].attestations


def test_another_policy_is_named(make_world: MakeWorld) -> None:
    """A round under a policy that is not this node's is skipped, naming both digests."""
    world = make_world(nodes=2)
    world.begin_epoch()
    ours = world.policy.digest
    other = Policy.parse(world.policy.canonical().replace(b"test", b"tset"))
    world.admin.adopt_policy(other)
    world.open_round(1)
    world.settle()
    reason = reason_of_skip(world.nodes[0], 1)
    assert ours.hex() in reason
    assert other.digest.hex() in reason


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


def test_the_loop_outlives_the_outside_world(make_world: MakeWorld) -> None:
    """An outage of the chain is logged and outlived, and the loop ends after its last round."""
    world = make_world(nodes=2)
    world.begin_epoch()
    world.open_round(1)
    world.fail(1)
    node = world.nodes[0]
    node.start()
    world.chain.provider.outages = 4  # more than one request's attempts
    node.daemon.run(poll_interval_s=0.001, until_round=1)
    (error,) = node.log.of("error")
    assert "expected an answer to eth_blockNumber, got none in 3 attempts" in error["message"]
    assert node.journal.entry(1).stage is Stage.FINISHED
    assert world.history().rounds[1].phase is Phase.FAILED


def test_a_restart_names_what_it_resumes(make_world: MakeWorld) -> None:
    """The first lines after a restart say which round goes on, and where."""
    world = make_world(nodes=2)
    world.begin_epoch()
    world.open_round(1)
    node = world.nodes[0]
    node.settle()
    node.stop()
    world.fail(1)
    node.daemon.run(poll_interval_s=0.001, until_round=1)
    assert node.log.of("resumed") == [{"event": "resumed", "round": 1, "phase": "awaiting_aggregate"}]


def test_a_broken_evaluation_does_not_keep_the_attestation_back(make_world: MakeWorld) -> None:
    """The model is attested although the task cannot evaluate it."""
    world = make_world(nodes=2)
    world.begin_epoch()
    node = world.nodes[0]
    node.trainer.evaluation_fails = True
    world.play_round(1)
    assert node.address in world.history().rounds[1].attestations
    assert not node.log.of("applied")
    assert "could not be evaluated" in node.log.of("error")[0]["message"]


def test_old_models_are_removed(make_world: MakeWorld) -> None:
    """Only the latest models and the first one stay on the disk."""
    world = make_world(nodes=2)
    world.begin_epoch()
    node = world.nodes[0]
    node.settings = {"keep_models": 1}
    node.start()
    results = [world.play_round(number) for number in (1, 2, 3)]
    names = {path.stem for path in node.models.folder.glob("*.model")}
    assert names == {world.policy.model.genesis.hex(), results[-1].hex()}
