"""Whole rounds, turn by turn: who contributes, what is derived, and what one bad node does to the others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fedproof_node.journal import Stage

from fedproof.codec.workers import CodecWorkers
from fedproof.digests import Digest
from fedproof.errors import LedgerUnreachable, TaskFailed, WorkerDied
from fedproof.ledger.events import ExclusionReason, Phase, Subject
from fedproof.ledger.rounds import Dispute
from tests.node.world import World, reason_of_skip

MakeWorld = Callable[..., World]
STRANGE = Digest(b"\x66" * 32)


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
            assert not (node.folder / "state" / "rounds" / str(number)).exists()
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
    step = 2 * world.policy.codec.clip / world.codec.parameters.limit
    assert np.abs(world.nodes[0].models.load(model).flat - expected).max() < step


def test_a_larger_model_is_verified_as_each_node_asks(make_world: MakeWorld) -> None:
    """A model of three chunks is recomputed wholly by a node that wants all, and in one chunk by another."""
    world = make_world(nodes=2, length=2 * 131_072 + 1000)
    assert world.chunks == 3
    thorough, trusting = world.nodes
    thorough.settings = {"verify": {"chunks": "all"}}
    trusting.settings = {"verify": {"chunks": 1}}
    world.begin_epoch()
    model = world.play_round(1)
    assert list(world.history().rounds[1].attestations.values()) == [model, model]
    counts = [node.log.of("verified")[0] for node in world.nodes]
    assert [(entry["chunks"], entry["of"]) for entry in counts] == [(3, 3), (1, 3)]


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


def test_a_commitment_that_is_not_ours_is_never_followed_by_another(make_world: MakeWorld) -> None:
    """A second daemon with the same key is told by its root, and nothing is uploaded against it."""
    world = make_world(nodes=3)
    world.begin_epoch()
    node = world.nodes[1]
    world.open_round(1)
    node.ledger.commit(1, STRANGE, 5)
    world.settle()
    reason = reason_of_skip(node, 1)
    assert f"holds a commitment of this node, {STRANGE.hex()}, that its journal does not know" in reason
    assert (1, node.address) not in world.servicer.uploads


def test_training_that_returns_another_shape_is_refused(make_world: MakeWorld) -> None:
    """A vector of another length than the base model's is no update; both shapes are named."""
    world = make_world(nodes=2)
    world.begin_epoch()
    node = world.nodes[0]
    train = node.trainer.train

    def train_short(*arguments: Any, **keywords: Any) -> Any:
        outcome = train(*arguments, **keywords)
        return dataclasses.replace(outcome, flat=outcome.flat[:-1])

    node.trainer.train = train_short
    world.open_round(1)
    node.settle()
    assert "expected shape (300,), training returned (299,)" in reason_of_skip(node, 1)


def break_with_nan(flat: np.ndarray) -> None:
    flat[3] = math.nan


def break_with_infinity(flat: np.ndarray) -> None:
    flat[-1] = math.inf


def break_by_raising(_flat: np.ndarray) -> None:
    raise TaskFailed("task: train raised: the disk with the X-rays is not mounted")


def break_by_dying(_flat: np.ndarray) -> None:
    raise WorkerDied("training process: was ended by SIGSEGV")


FAULTS = {
    1: (break_with_nan, "expected finite values, got nan at index 3"),
    2: (break_with_infinity, "expected finite values, got inf at index 299"),
    3: (break_by_raising, "X-rays"),
    4: (break_by_dying, "SIGSEGV"),
}


def test_one_bad_update_stops_nobody(make_world: MakeWorld) -> None:
    """A node whose training went wrong skips the round; the others finish it, and it applies their result."""
    world = make_world(nodes=3)
    world.begin_epoch()
    bad = world.nodes[1]
    for number, (spoil, reason) in FAULTS.items():
        bad.trainer.spoil = spoil
        world.open_round(number)
        world.settle()
        assert reason in reason_of_skip(bad, number)
        assert bad.address not in world.history().rounds[number].commitments
        if number > 1:
            world.fail(number)
            continue
        world.seal(number, after_deadline=True)
        world.aggregate(number)
        world.settle()
        model = world.finalise(number)
        world.settle()
        assert list(world.history().rounds[number].attestations.values()) == [model] * 3
        assert bad.models.holds(model)


def forge_bit(sums: list[bytes]) -> None:
    tampered = bytearray(sums[0])
    tampered[100] ^= 1
    sums[0] = bytes(tampered)


def test_a_forged_sum_is_neither_decrypted_nor_attested(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published sum that is not the sum of the updates is disputed before any key touches it."""
    world = make_world(nodes=2)
    world.begin_epoch()
    world.open_round(1)
    world.settle()
    world.seal(1)
    world.aggregate(1, forge=forge_bit)
    decrypted: list[object] = []
    monkeypatch.setattr(CodecWorkers, "decode", lambda *arguments, **_keywords: decrypted.append(arguments))
    world.settle()
    monkeypatch.undo()
    assert not decrypted
    assert not world.attestations(1)
    first, second = world.nodes
    assert world.history().rounds[1].dispute == Dispute(first.address, Subject.CHUNK, 0)
    (_, error) = first.log.of("error")
    assert "round 1: chunk 0 of the aggregate is not the sum of the updates of" in error["message"]
    assert not second.log.of("error"), "the round was over before it looked"
    assert world.play_round(2) == world.history().head_model


def commit_all(world: World) -> None:
    """Open round 1, let every node commit and upload, and let the deadline pass."""
    world.begin_epoch()
    world.open_round(1)
    world.settle()
    world.chain_federation.pass_deadline()


def test_a_node_says_when_its_acknowledged_update_is_excluded(make_world: MakeWorld) -> None:
    """The node whose whole update was taken and then excluded logs it, and follows the round all the same."""
    world = make_world(nodes=3)
    commit_all(world)
    *counted, dropped = sorted(node.address for node in world.nodes)
    world.operator.seal(1, {**dict.fromkeys(counted, 0), dropped: ExclusionReason.NOT_UPLOADED})
    world.aggregate(1)
    world.settle()
    assert len(world.attestations(1)) == 3
    errors = {node.address: [entry["message"] for entry in node.log.of("error")] for node in world.nodes}
    assert [address for address, messages in errors.items() if messages] == [dropped]
    assert "acknowledged this node's whole update, and sealed the round without it" in errors[dropped][0]


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
    assert "expected an answer to eth_getBlockByNumber, got none in 3 attempts" in error["message"]
    assert node.journal.entry(1).stage is Stage.FINISHED
    assert world.history().rounds[1].phase is Phase.FAILED
