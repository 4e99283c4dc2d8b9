"""The sum that grows while updates come in: the bytes of a plain sum, whatever happened on the way."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from fedproof_aggregator.intake import Incoming
from fedproof_aggregator.refusal import Refused

from fedproof.codec.messages import Kind
from fedproof.codec.worker_process import WorkerProcess
from fedproof.digests import Digest, checksum_address
from fedproof.errors import WorkerDied
from fedproof.ledger.events import ExclusionReason, FailureReason
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.federation import POLICY, codec, encrypted
from tests.aggregator.world import CHUNKS, Update, World, refusal


def plain_sum(updates: Sequence[Update]) -> list[bytes]:
    """Return the sum of whole updates, made at once in this process."""
    return [codec().sum_chunks(update.chunks[index] for update in updates) for index in range(CHUNKS)]


def published(world: World) -> list[bytes]:
    """Let the daemon seal and publish, and return the sum's chunks."""
    for _ in range(2):
        assert world.daemon.step()
    world.view.refresh()
    record = world.view.find_round(1)
    assert record is not None
    assert record.aggregate_root is not None
    header = world.store.get_header(record.aggregate_root)
    return [world.store.get(Digest(digest)) for digest in header.chunk_digests]


def begin(world: World, index: int, update: Update) -> Incoming:
    """Begin a stream of a node's, past gRPC."""
    world.view.refresh()
    return world.intake.begin(wire.UploadStart(round=1, node=world.node(index).address, header=update.header))


def bring(world: World, index: int, update: Update, chunks: Sequence[int]) -> None:
    """Bring some of an update's chunks in a stream of their own, past gRPC."""
    incoming = begin(world, index, update)
    for number in chunks:
        world.intake.accept(incoming, number, update.chunks[number])
    world.intake.settle(incoming)


def workers_of(world: World) -> list[WorkerProcess]:
    growing = world.summation._growing
    assert growing is not None
    return growing.workers._workers


def kill_workers(world: World) -> None:
    """Kill every codec worker that runs, as a lack of memory would."""
    for worker in workers_of(world):
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGKILL)


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kind], None]:
    """Kill each worker that is asked for something of a kind, before it answers."""

    def kill_at(kind: Kind) -> None:
        exchange = WorkerProcess._exchange

        def kill_and_exchange(self: WorkerProcess, *arguments: Any) -> Any:
            if arguments[-1].kind is kind:
                assert self.pid is not None
                os.kill(self.pid, signal.SIGKILL)
            return exchange(self, *arguments)

        monkeypatch.setattr(WorkerProcess, "_exchange", kill_and_exchange)

    return kill_at


def test_the_sum_is_ready_when_the_last_chunk_is(world: World) -> None:
    """After the seal nothing is read of the updates' chunks again: the sum is only written down."""
    updates = world.deliver(0, 1, 2)
    for update in updates:
        for digest in update.digests:
            world.store.object_path(digest).unlink()
    assert published(world) == plain_sum(updates)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_excluded_updates_chunks_are_taken_out(world: World, processes: int) -> None:
    """What a node brought of an update that is not whole at the seal leaves no trace in the sum."""
    world.reconfigure(codec_processes=processes)
    late = world.committed_update(2)
    bring(world, 2, late, [0, 1])
    updates = world.deliver(0, 1)
    world.pass_deadline(by_s=60)
    assert published(world) == plain_sum(updates)
    assert world.of_kind("sealed")[0]["excluded"] == {checksum_address(world.node(2).address): "NOT_UPLOADED"}


@pytest.mark.parametrize("held", range(CHUNKS + 1))
def test_a_restart_in_the_middle_costs_no_chunk(world: World, held: int) -> None:
    """What came before the restart is added from the store, what comes after it as it comes."""
    first = world.deliver(0)[0]
    second = world.committed_update(1)
    bring(world, 1, second, range(held))
    world.restart()
    bring(world, 1, second, range(held, CHUNKS))
    third = world.deliver(2)[0]
    assert published(world) == plain_sum([first, second, third])


def test_a_crash_in_the_middle_of_a_stream_costs_no_chunk(world: World) -> None:
    """What came and was not settled is sent again, and counts once."""
    first = world.deliver(0)[0]
    second = world.committed_update(1)
    world.intake.accept(begin(world, 1, second), 0, second.chunks[0])
    world.restart()
    assert world.standing(1).next_chunk == 0
    world.upload(1, second)
    third = world.deliver(2)[0]
    assert published(world) == plain_sum([first, second, third])


@pytest.mark.parametrize("moment", range(3))
def test_a_dead_worker_costs_no_chunk(world: World, moment: int) -> None:
    """A worker that is killed between two uploads, or before the sum is taken, is replaced, with its sum."""
    updates = []
    for index in range(3):
        updates += world.deliver(index)
        if index == moment:
            kill_workers(world)
    assert published(world) == plain_sum(updates)


def test_a_worker_that_dies_with_some_of_the_sums_costs_no_chunk(world: World) -> None:
    """One of two workers dies: its sums are made again, the other's are as they were."""
    world.reconfigure(codec_processes=2)
    updates = world.deliver(0, 1)
    pid = workers_of(world)[1].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    updates += world.deliver(2)
    assert published(world) == plain_sum(updates)


def test_streams_that_bring_the_same_chunk_add_it_once(world: World) -> None:
    """Two streams of one node, side by side, change nothing in the sum."""
    updates = [world.committed_update(index) for index in range(3)]
    together = threading.Barrier(6)

    def stream(index: int) -> None:
        incoming = begin(world, index, updates[index])
        together.wait()
        for number, data in enumerate(updates[index].chunks):
            world.intake.accept(incoming, number, data)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(stream, [0, 1, 2] * 2))
    assert published(world) == plain_sum(updates)


def test_a_chunk_that_comes_again_is_added_once(world: World) -> None:
    """Whole or in part, over the same worker or a restart, an update counts once."""
    updates = world.deliver(0, 1)
    world.upload(0, updates[0])
    bring(world, 1, updates[1], [1, 2])
    world.restart()
    world.upload(1, updates[1])
    updates += world.deliver(2)
    assert published(world) == plain_sum(updates)


@pytest.mark.parametrize("dropped", [1, 2], ids=["with room", "beyond max_contributors"])
def test_a_commitment_that_the_chain_has_dropped_leaves_the_sum(world: World, dropped: int) -> None:
    """Updates from before a reorganisation are taken out; those that were committed after it are in."""
    with world.federation.chain.rolled_back():
        for index in range(dropped):
            update = world.committed_update(index, data=encrypted(index, 9))
            bring(world, index, update, range(CHUNKS))
    world.federation.chain.mine(3)
    world.view.refresh()
    updates = world.deliver(0, 1, 2)
    assert published(world) == plain_sum(updates)


@pytest.mark.parametrize("unstored", [1, 2])
def test_a_chunk_that_was_added_and_not_stored_leaves_the_sum(
    world: World, monkeypatch: pytest.MonkeyPatch, unstored: int
) -> None:
    """Where the disk was full, the sum holds what the store does not; it is made anew without it."""

    def fail(*_args: object, **_keywords: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def bring_unstored(late: Update) -> None:
        incoming = begin(world, 2, late)
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "stage", fail)
            with pytest.raises(OSError, match="No space"):
                world.intake.accept(incoming, 0, late.chunks[0])

    updates = []
    if unstored == 2:
        with world.federation.chain.rolled_back():
            bring_unstored(world.committed_update(2, data=encrypted(2, 9)))
        world.federation.chain.mine(3)
        world.view.refresh()
    bring_unstored(world.committed_update(2))
    updates += world.deliver(0, 1)
    growing = world.summation._growing
    assert growing is not None
    assert len(growing.running.summands(0)) == 2 + unstored
    world.pass_deadline(by_s=60)
    assert published(world) == plain_sum(updates)


def test_a_chunk_that_kills_workers_is_refused_and_its_sender_named(
    world: World, killing: Callable[[Kind], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers dead of one chunk end its update for good; the daemon lives and sums the others up."""
    first = world.deliver(0)[0]
    poisoned = world.committed_update(1)
    with monkeypatch.context():
        killing(Kind.ADD)
        code, message = refusal(lambda: world.upload(1, poisoned))
    monkeypatch.undo()
    where = f"round 1, node {checksum_address(world.node(1).address)}"
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == f"{where}, chunk 0: expected a chunk that a codec worker can read, two died of it"
    (line,) = world.of_kind("upload_refused")
    assert (line["node"], line["reason"]) == (checksum_address(world.node(1).address), message)
    standing = world.journal.find_upload(1, world.node(1).address, root=poisoned.root)
    assert standing is not None
    assert standing.reason == ExclusionReason.MALFORMED
    assert not world.store.has(poisoned.digests[0])
    assert "(refused before)" in refusal(lambda: world.upload(1, poisoned))[1]
    last = world.deliver(2)[0]
    world.pass_deadline(by_s=60)
    assert published(world) == plain_sum([first, last])


def test_a_worker_that_does_not_start_is_nobodys_fault(
    world: World, killing: Callable[[Kind], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose chunk no worker has seen is told to try again, and is taken then."""
    update = world.committed_update(0)
    with monkeypatch.context():
        killing(Kind.START)
        assert refusal(lambda: world.upload(0, update)) == (
            grpc.StatusCode.UNAVAILABLE,
            "the aggregator cannot add updates now; try again",
        )
    monkeypatch.undo()
    assert "starting" in world.of_kind("error")[0]["message"]
    updates = [update, *world.deliver(1, 2)]
    world.upload(0, update)
    assert published(world) == plain_sum(updates)


@pytest.mark.parametrize("deaths", [[Kind.ADD, Kind.START], [Kind.START, Kind.ADD]], ids=["after", "before"])
def test_a_chunk_that_one_worker_died_of_is_not_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, deaths: list[Kind]
) -> None:
    """One dies over the chunk and one does not start, as memory is short: the node is told to try again."""
    update = world.committed_update(0)
    exchange = WorkerProcess._exchange
    to_come = deaths.copy()

    def kill_and_exchange(self: WorkerProcess, *arguments: Any) -> Any:
        if to_come and arguments[-1].kind is to_come[0]:
            to_come.pop(0)
            assert self.pid is not None
            os.kill(self.pid, signal.SIGKILL)
        return exchange(self, *arguments)

    monkeypatch.setattr(WorkerProcess, "_exchange", kill_and_exchange)
    code, message = refusal(lambda: world.upload(0, update))
    assert not to_come
    assert code is grpc.StatusCode.UNAVAILABLE
    assert message == "the aggregator cannot add updates now; try again"
    updates = [update, *world.deliver(1, 2)]
    world.upload(0, update)
    assert published(world) == plain_sum(updates)


def test_a_chunk_whose_commitment_the_chain_has_dropped_is_refused_by_its_root(
    world: World, killing: Callable[[Kind], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held against the update holds for its root, and not for what the node commits to later."""
    with world.federation.chain.rolled_back():
        poisoned = world.committed_update(0, data=encrypted(0, 9))
        incoming = begin(world, 0, poisoned)
    world.federation.chain.mine(3)
    world.view.refresh()
    with monkeypatch.context():
        killing(Kind.ADD)
        with pytest.raises(Refused, match="two died of it"):
            world.intake.accept(incoming, 0, poisoned.chunks[0])
    monkeypatch.undo()
    standing = world.journal.find_upload(1, world.node(0).address, root=poisoned.root)
    assert standing is not None
    assert standing.reason == ExclusionReason.MALFORMED
    updates = world.deliver(0, 1, 2)
    assert published(world) == plain_sum(updates)


def test_workers_that_die_again_and_again_end_the_step_and_not_the_daemon(
    world: World, killing: Callable[[Kind], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum that cannot be taken is an error of this step; the next one makes it from the store."""
    updates = world.deliver(0, 1, 2)
    assert world.daemon.step()
    with monkeypatch.context():
        killing(Kind.TAKE)
        with pytest.raises(WorkerDied):
            world.daemon.step()
    monkeypatch.undo()
    record = world.view.find_round(1)
    assert record is not None
    contributions = world.statements.compute_contributions(record)
    root = world.summation.finish(record, contributions, world.shelf.find(POLICY.digest))
    header = world.store.get_header(root)
    assert [world.store.get(Digest(digest)) for digest in header.chunk_digests] == plain_sum(updates)


@pytest.mark.parametrize("end", ["sealed", "failed"])
def test_nothing_is_added_to_a_round_that_is_over(world: World, end: str) -> None:
    """A stream that outlived its round is refused, and begins no sum anew."""
    late = world.committed_update(2)
    terms = begin(world, 2, late).terms
    world.deliver(0, 1)
    if end == "sealed":
        world.pass_deadline(by_s=60)
        published(world)
    else:
        world.federation.aggregator.fail(1, FailureReason.ABANDONED)
        world.daemon.step()
    assert world.summation._growing is None
    with pytest.raises(Refused, match="round 1: expected an open round, its sum is closed"):
        world.summation.add(1, terms, index=0, digest=late.digests[0], chunk=late.chunks[0], whose="late")
    assert world.summation._growing is None


@pytest.mark.parametrize("meanwhile", ["the round ends", "a later round begins"])
def test_a_chunk_that_waited_for_an_older_round_is_in_no_other_sum(world: World, meanwhile: str) -> None:
    """Its round may be over when the older one's sum has ended: it is then refused, and begins no sum."""
    late = world.committed_update(0)
    terms = begin(world, 0, late).terms
    summation = world.summation

    def add_late() -> None:
        summation.add(2, terms, index=0, digest=late.digests[0], chunk=late.chunks[0], whose="late")

    with ThreadPoolExecutor(1) as pool:
        with summation._entered(1, terms):
            waiting = pool.submit(add_late)
            deadline_s = time.monotonic() + 60
            while summation._growing is not None:
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
            if meanwhile == "the round ends":
                summation.close(2)
            else:
                with summation._entered(3, terms):
                    pass
        with pytest.raises(Refused, match="round 2: expected an open round, its sum is closed"):
            waiting.result()
    assert (None if summation._growing is None else summation._growing.round) == (
        None if meanwhile == "the round ends" else 3
    )
