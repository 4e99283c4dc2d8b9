"""What a node derives from a verified sum, and what a crash in a codec worker does to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fedproof_node.journal import Stage

from fedproof.codec.messages import Kind
from fedproof.codec.worker_process import WorkerProcess
from fedproof.digests import checksum_address
from fedproof.manifest import UpdateManifest
from fedproof.wire import aggregation_pb2 as wire
from tests.node.world import World, reason_of_skip

MakeWorld = Callable[..., World]


def test_clips_follow_the_training(make_world: MakeWorld) -> None:
    """The next clips are derived with the model, attested with it, and stand in the next manifests."""
    world = make_world(nodes=2, codec={"clip": 0.5, "clip_margin": 1.0})
    world.begin_epoch()
    clips = (0.5,)
    for number, following in ((1, 0.25), (2, 0.125)):
        model = world.play_round(number)
        for node in world.nodes:
            header = world.servicer.headers[number, node.address]
            assert UpdateManifest.parse(header.manifest).clips == clips
        clips = (following,)  # mean changes are below an eighth, and a clip at most halves
        assert world.nodes[0].models.load(model).clips == clips
        assert list(world.history().rounds[number].attestations.values()) == [model, model]


def test_only_selected_values_change(make_world: MakeWorld) -> None:
    """With one value in three, a third of the chunks travels, and the others keep the base model's bits."""
    world = make_world(nodes=2, length=3 * 131_072 + 1, codec={"keep_one_in": 3})
    assert world.chunks == 2
    world.begin_epoch()
    model = world.play_round(1)
    changed = np.flatnonzero(world.nodes[0].models.load(model).flat != world.genesis)
    assert len(set(changed // 3)) == changed.size > 130_000


def test_sum_is_downloaded_before_the_draw(make_world: MakeWorld) -> None:
    """While the draw's block is not mined, a node has the sum already; with it, nothing is fetched again."""
    world = make_world(nodes=2, length=131_072 + 1000)
    node = world.nodes[0]
    node.settings = {"verify": {"chunks": 1}}
    world.begin_epoch()
    world.open_round(1)
    world.settle()
    world.seal(1)
    world.aggregate(1, blocks_after=0)
    node.settle()
    assert len(list(node.folder.glob("state/rounds/1/aggregate/*.chunk"))) == world.chunks == 2
    assert not node.log.of("verified")
    asked = count_downloads(world)
    assert asked > 0
    world.chain.mine()
    node.settle()
    assert node.log.of("verified")
    assert count_downloads(world) == asked


def count_downloads(world: World) -> int:
    return sum(isinstance(each, wire.DownloadAggregateRequest) for each in world.servicer.requests)


def kill_workers(monkeypatch: pytest.MonkeyPatch, over: Kind) -> None:
    """Kill every codec worker that is asked for one kind of thing, just before it is asked."""
    exchange = WorkerProcess._exchange

    def kill_and_exchange(worker: WorkerProcess, connection: Any, request: Any) -> Any:
        if request.kind is over:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
        return exchange(worker, connection, request)

    monkeypatch.setattr(WorkerProcess, "_exchange", kill_and_exchange)


@pytest.mark.parametrize("over", [Kind.ADD, Kind.DECODE])
def test_crash_over_the_aggregators_chunk_refuses_the_round(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, over: Kind
) -> None:
    """A worker that dies twice over a chunk costs that round; the daemon names the chunk and lives."""
    world = make_world(nodes=2)
    world.begin_epoch()
    world.open_round(1)
    world.settle()
    world.seal(1)
    world.aggregate(1)
    kill_workers(monkeypatch, over)
    world.settle()
    monkeypatch.undo()
    first = checksum_address(min(node.address for node in world.nodes))
    chunk = {Kind.ADD: f"round 1: chunk 0 of {first}", Kind.DECODE: "decrypting chunk 0"}[over]
    for node in world.nodes:
        (error,) = node.log.of("error")
        assert error["message"].startswith("round 1: the aggregate: codec worker: died twice while ")
        assert error["message"].endswith(chunk)
        assert node.journal.entry(1).stage is Stage.REFUSED
    assert not world.history().rounds[1].attestations
    world.fail(1)
    assert world.play_round(2) == world.history().head_model


def test_crash_while_encrypting_skips_the_round(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies twice over this node's own chunk costs its part in the round, and no commitment."""
    world = make_world(nodes=2)
    world.begin_epoch()
    world.open_round(1)
    kill_workers(monkeypatch, Kind.ENCODE)
    world.settle()
    for node in world.nodes:
        assert reason_of_skip(node, 1) == "codec worker: died twice while encrypting chunk 0"
    assert not world.history().rounds[1].commitments
