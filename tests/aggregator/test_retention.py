"""Updates are deleted once the policy of their round says so: all of them, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from fedproof.digests import Digest
from fedproof.keys.tls import TlsFiles
from fedproof.ledger.events import FailureReason
from fedproof.merkle import leaf_digest
from fedproof.policy import EvidencePolicy
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.federation import POLICY, Link, deploy_federation
from tests.aggregator.world import Update, World, opened, refusal
from tests.chain import Federation, make_digest
from tests.ledger.anvil import until

DAY_S = 86_400
SHORT = replace(POLICY, evidence=EvidencePolicy(retention_days=1))


@pytest.fixture(scope="module")
def short_federation() -> tuple[Federation, Link]:
    """Three admitted nodes and an epoch, in a policy that keeps updates for a day."""
    return deploy_federation(SHORT)


@pytest.fixture
def short(
    short_federation: tuple[Federation, Link],
    aggregator_certificates: tuple[list[TlsFiles], Path],
    tmp_path: Path,
) -> Iterator[World]:
    """An aggregator with round 1 open, in such a policy."""
    with opened(*short_federation, tmp_path, *aggregator_certificates, policy=SHORT) as world:
        world.open_round()
        yield world


def finish(world: World, *indices: int, number: int = 1) -> list[Update]:
    """Take a round to its end, with the updates of these nodes in the sum."""
    updates = world.deliver(*indices, number=number)
    if len(indices) < 3:
        world.pass_deadline(by_s=60)
    assert world.daemon.step()
    assert world.daemon.step()
    for index in (0, 1):
        # Next to nothing has to be made up for a round after this one whose base model is the first one's.
        world.node(index).attest(number, POLICY.model.genesis)
    world.view.refresh()
    return updates


def ended_at(world: World, number: int = 1) -> int:
    """Return the time of the block in which a round ended."""
    world.view.refresh()
    record = world.view.find_round(number)
    assert record is not None
    assert record.ended_block is not None
    return world.federation.admin.block(record.ended_block).timestamp


def go_to(world: World, timestamp: int) -> None:
    """Mine a block of this time, and let the aggregator see it."""
    world.federation.chain.travel_to(timestamp)
    world.federation.chain.mine()
    assert world.federation.admin.latest_block().timestamp == timestamp
    world.view.refresh()


def expire(world: World, number: int = 1) -> None:
    """Go to the first second in which a round's updates are kept no longer, and delete them."""
    go_to(world, ended_at(world, number) + DAY_S + 1)
    world.retention.delete_expired()


def files(world: World) -> dict[Path, bytes]:
    """Return all that is in the store."""
    return {path: path.read_bytes() for path in world.config.store_dir.rglob("*") if path.is_file()}


def chunks_of(world: World, *updates: Update) -> set[Path]:
    """Return where the chunks of these updates stand."""
    return {world.store.object_path(digest) for update in updates for digest in update.digests}


def download(world: World, index: int, number: int = 1) -> list[wire.DownloadResponse]:
    request = wire.DownloadUpdateRequest(round=number, node=world.node(index).address, chunks=[1])
    return list(world.stub().DownloadUpdate(request))


def test_exactly_the_updates_of_old_rounds_are_deleted(short: World) -> None:
    """Also what came of one that was excluded. Headers, sums, policies and a younger round's updates stay."""
    late = short.committed_update(2)
    refusal(lambda: short.upload(2, late, chunks=[wire.Chunk(index=0, data=late.chunks[0])]))
    updates = finish(short, 0, 1)
    end = ended_at(short)
    go_to(short, end + 1000)
    short.open_round(2)
    finish(short, 0, 1, 2, number=2)
    before = files(short)
    go_to(short, end + DAY_S)
    short.retention.delete_expired()
    assert files(short) == before
    go_to(short, end + DAY_S + 1)
    short.retention.delete_expired()
    gone = chunks_of(short, *updates) | {short.store.object_path(late.digests[0])}
    assert files(short) == {path: data for path, data in before.items() if path not in gone}
    freed = sum(len(before[path]) for path in gone)
    (line,) = short.of_kind("updates_deleted")
    assert (line["rounds"], line["chunks"], line["bytes"]) == (1, 7, freed)


def test_a_failed_rounds_updates_are_deleted_as_well(short: World) -> None:
    """Nobody can make anything of them, and everybody in the epoch could read them."""
    (update,) = short.deliver(0)
    short.federation.aggregator.fail(1, FailureReason.ABANDONED)
    expire(short)
    assert not chunks_of(short, update) & files(short).keys()


def test_an_upload_without_a_commitment_is_deleted_as_well(short: World) -> None:
    """The chain may have dropped the commitment since; the header that came says which round it was for."""
    finish(short, 0, 1, 2)
    update = short.make_update(0, data=[b"a chunk of another update"])
    short.store.put(update.chunks[0])
    short.store.put_header(update.raw_manifest, update.digests)
    expire(short)
    assert not short.store.has(update.digests[0])


def test_what_something_else_needs_is_kept(short: World) -> None:
    """A header may name what is not its node's: chunks of a sum, or of an update that came later."""
    finish(short, 0, 1, 2)
    root = short.view.find_round(1).aggregate_root  # type: ignore[union-attr]
    assert root is not None
    of_sum = [Digest(raw) for raw in short.store.get_header(root).chunk_digests]
    go_to(short, ended_at(short) + 1000)
    short.open_round(2)
    later, *_ = finish(short, 0, 1, 2, number=2)
    lie = short.make_update(1, number=1, chunks=6)
    short.store.put_header(lie.raw_manifest, [*of_sum, *later.digests])
    before = files(short)
    expire(short, 1)
    after = files(short)
    assert chunks_of(short, later) <= after.keys()
    assert {short.store.object_path(digest) for digest in of_sum} <= after.keys()
    assert len(before) - len(after) == 9
    expire(short, 2)
    assert not chunks_of(short, later) & files(short).keys()
    assert {short.store.object_path(digest) for digest in of_sum} <= files(short).keys()


def test_a_header_that_comes_meanwhile_is_not_overlooked(
    short: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that named a chunk in an old round may send it now, in an open one: it is not deleted."""
    finish(short, 0, 1, 2)
    data = b"named long ago, sent now"
    old = short.make_update(2, data=[data])
    short.store.put_header(old.raw_manifest, old.digests)
    go_to(short, ended_at(short) + DAY_S + 1)
    new = short.make_update(2, number=2, data=[data])
    list_roots = short.store.list_roots

    def send_meanwhile() -> list[Digest]:
        roots = list_roots()
        short.store.put_header(new.raw_manifest, new.digests)
        short.store.put(data)
        return roots

    monkeypatch.setattr(short.store, "list_roots", send_meanwhile)
    short.retention.delete_expired()
    assert short.store.has(leaf_digest(data))
    assert short.of_kind("updates_deleted")[0]["chunks"] == 9


def test_another_federations_updates_are_kept(short: World) -> None:
    """Where a predecessor's updates lie in the same store, its rounds have numbers and ends of their own."""
    finish(short, 0, 1, 2)
    update = short.make_update(0, data=[b"a predecessor's"], contract=short.node(0).address)
    short.store.put(update.chunks[0])
    short.store.put_header(update.raw_manifest, update.digests)
    expire(short)
    assert short.store.has(update.digests[0])


def test_without_a_retention_nothing_is_deleted(world: World) -> None:
    """By default, updates are kept for ever."""
    finish(world, 0, 1, 2)
    go_to(world, ended_at(world) + 36_501 * DAY_S)
    before = files(world)
    world.retention.delete_expired()
    assert files(world) == before


def test_a_later_policy_does_not_shorten_a_round(world: World) -> None:
    """What counts is the policy that the round named, which the store holds."""
    finish(world, 0, 1, 2)
    world.store.put_policy(SHORT.digest, SHORT.canonical())
    world.federation.admin.adopt_policy(SHORT)
    before = files(world)
    expire(world)
    assert files(world) == before


def test_a_round_whose_policy_is_lost_is_kept(short: World) -> None:
    """Without its document nobody knows for how long, so nothing is deleted."""
    finish(short, 0, 1, 2)
    short.policy = POLICY
    (short.config.store_dir / "policies" / SHORT.digest.hex()).unlink()
    short.restart()
    before = files(short)
    expire(short)
    assert files(short) == before


def test_it_deletes_by_itself(short: World) -> None:
    """As it starts; a second pass finds nothing more."""
    updates = finish(short, 0, 1, 2)
    go_to(short, ended_at(short) + DAY_S + 1)
    with short.retention.running():
        until(lambda: short.of_kind("updates_deleted"))
    assert not chunks_of(short, *updates) & files(short).keys()
    after = files(short)
    short.restart()
    short.retention.delete_expired()
    short.retention.delete_expired()
    assert files(short) == after
    assert len(short.of_kind("updates_deleted")) == 1


def test_nothing_waits_for_it(short: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it reads, the loop takes its steps; told to stop, it ends after the file that it reads."""
    finish(short, 0, 1, 2)
    go_to(short, ended_at(short) + DAY_S + 1)
    before = files(short)
    get_header, seen = short.store.get_header, list[Digest]()

    def read_until_stopped(root: Digest) -> object:
        seen.append(root)
        assert short.retention._stopping.wait(10)
        return get_header(root)

    monkeypatch.setattr(short.store, "get_header", read_until_stopped)
    with short.retention.running():
        until(lambda: seen)
        short.daemon.step()
        assert short.of_kind("waiting")
    assert len(seen) == 1
    assert files(short) == before


@pytest.mark.parametrize("was_deleted", [False, True])
def test_a_crash_in_the_middle_costs_nothing(
    short: World, monkeypatch: pytest.MonkeyPatch, was_deleted: bool
) -> None:
    """Before a chunk is deleted or after it: the next process deletes what is left."""
    updates = finish(short, 0, 1, 2)
    go_to(short, ended_at(short) + DAY_S + 1)
    delete, seen = short.store.delete, list[Digest]()

    def die(digest: Digest) -> int:
        seen.append(digest)
        if len(seen) == 4:
            if was_deleted:
                delete(digest)
            raise OSError("the process dies here")
        return delete(digest)

    monkeypatch.setattr(short.store, "delete", die)
    with pytest.raises(OSError, match="dies here"):
        short.retention.delete_expired()
    left = chunks_of(short, *updates) & files(short).keys()
    assert len(left) == (5 if was_deleted else 6)
    short.restart()
    short.retention.delete_expired()
    assert not left & files(short).keys()
    assert short.of_kind("updates_deleted")[-1]["chunks"] == len(left)


def test_a_disk_that_refuses_is_tried_again(short: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next look; the log says what was wrong."""
    updates = finish(short, 0, 1, 2)
    go_to(short, ended_at(short) + DAY_S + 1)
    delete = short.store.delete

    def refuse(_digest: Digest) -> int:
        monkeypatch.setattr(short.store, "delete", delete)
        raise PermissionError("read-only")

    monkeypatch.setattr(short.store, "delete", refuse)
    monkeypatch.setattr(short.retention, "_pause_s", 0.01)
    with short.retention.running():
        until(lambda: short.of_kind("updates_deleted"))
    assert not chunks_of(short, *updates) & files(short).keys()
    assert [line["message"] for line in short.of_kind("error")] == ["retention: read-only"]


def test_a_deleted_update_is_said_to_be_deleted(short: World) -> None:
    """Who asks for it learns why it is gone; the sum is given for ever, and a chunk that is lost is lost."""
    updates = finish(short, 0, 1, 2)
    path = short.store.object_path(updates[0].digests[1])
    data = path.read_bytes()
    path.unlink()
    node = "round 1, node 0x"
    code, message = refusal(lambda: download(short, 0))
    assert (code, message.startswith(node)) == (grpc.StatusCode.NOT_FOUND, True)
    assert message.endswith("chunk 1 has not come")
    path.write_bytes(data)
    assert len(download(short, 0)) == 2
    expire(short)
    code, message = refusal(lambda: download(short, 0))
    assert (code, message.startswith(node)) == (grpc.StatusCode.NOT_FOUND, True)
    deleted = "chunk 1 was deleted after the retention of the round's policy (retention_days = 1)"
    assert message.endswith(deleted)
    whole = list(short.stub().DownloadAggregate(wire.DownloadAggregateRequest(round=1)))
    assert len(whole) == 1 + 3


def test_strange_files_beside_the_headers_are_passed_over(short: World) -> None:
    """What a file manager leaves in the folder, or a header that has rotted, stops nothing."""
    updates = finish(short, 0, 1, 2)
    (short.config.store_dir / "headers" / ".DS_Store").write_bytes(b"x")
    short.store.header_path(make_digest("no header")).write_bytes(b"\xff")
    expire(short)
    assert not chunks_of(short, *updates) & files(short).keys()
