"""What the aggregator refuses from a node, and that a refusal disturbs nobody."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from fedproof.codec.frames import decode_update_frames, encode_update_frames
from fedproof.digests import Digest, checksum_address
from fedproof.ledger.events import ExclusionReason, FailureReason
from fedproof.manifest import AggregateManifest, Contribution
from fedproof.merkle import leaf_digest
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.federation import PARAMETERS, POLICY, codec, encrypted
from tests.aggregator.world import CHUNKS, Update, World, chunks_of, refusal
from tests.chain import make_digest


def test_an_outsider_is_refused(world: World) -> None:
    """A node that is not of the cohort is told so, whatever it sends."""
    update = world.make_update(3)
    node = checksum_address(world.node(3).address)
    assert refusal(lambda: world.upload(3, update)) == (
        grpc.StatusCode.PERMISSION_DENIED,
        f"round 1, node {node}: expected a node that was admitted when the round was opened, it was not",
    )
    assert [(line["round"], line["node"]) for line in world.of_kind("upload_refused")] == [(1, node)]


def test_a_node_that_was_admitted_since_is_refused(world: World) -> None:
    """An admission during a round counts from the next one on."""
    world.node(3).register(make_digest("w"), make_digest("c"))
    world.federation.admin.admit(world.node(3).address)
    code, _ = refusal(lambda: world.upload(3, world.make_update(3)))
    assert code is grpc.StatusCode.PERMISSION_DENIED


def test_a_node_that_was_suspended_since_is_taken(world: World) -> None:
    """A suspension during a round counts from the next one on."""
    update = world.committed_update(0)
    world.federation.admin.suspend(world.node(0).address)
    world.view.refresh()
    assert world.upload(0, update).update_root == update.root


def test_an_upload_without_a_commitment_is_refused(world: World) -> None:
    """An admitted node has to commit first."""
    code, message = refusal(lambda: world.upload(0, world.make_update(0)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert message == (
        f"round 1, node {checksum_address(world.node(0).address)}: "
        "expected a commitment before the upload, found none"
    )


def test_an_upload_against_its_commitment_is_refused(world: World) -> None:
    """A header with another root than the committed one is refused; the true one still counts."""
    update = world.committed_update(0)
    other = world.make_update(0, data=encrypted(0, 9))
    code, message = refusal(lambda: world.upload(0, other))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert f"expected the root {update.root.hex()}, got {other.root.hex()} (the node's commitment)" in message
    assert world.upload(0, update).chunks == CHUNKS


def test_an_upload_for_a_round_that_was_never_opened_is_refused(fresh: World) -> None:
    """A round that is not on the ledger takes nothing."""
    code, message = refusal(lambda: fresh.upload(2, fresh.make_update(2)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "expected an open round, round 1 is in phase NONE (the newest is round 0)" in message


@pytest.mark.parametrize("phase", ["SEALED", "FAILED"])
def test_an_upload_for_a_round_that_is_over_is_refused(world: World, phase: str) -> None:
    """Only an open round takes updates; the message names the phase and the newest round."""
    update = world.committed_update(2)
    if phase == "SEALED":
        world.deliver(0, 1)
    world.pass_deadline(by_s=60)
    assert world.daemon.step()
    world.view.refresh()
    code, message = refusal(lambda: world.upload(2, update))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert f"expected an open round, round 1 is in phase {phase} (the newest is round 1)" in message
    assert not any(world.store.has(digest) for digest in update.digests)


def test_a_round_that_ends_during_a_stream_ends_the_stream(world: World) -> None:
    """A chunk that comes after the seal is refused, and is not stored."""
    update = world.committed_update(0)
    start = wire.UploadStart(round=1, node=world.node(0).address, header=update.header)
    world.view.refresh()
    incoming = world.intake.begin(start)
    world.intake.accept(incoming, 0, update.chunks[0])
    world.federation.aggregator.fail(1, FailureReason.ABANDONED)
    world.view.refresh()
    with pytest.raises(Exception, match="expected an open round, round 1 is in phase FAILED"):
        world.intake.accept(incoming, 1, update.chunks[1])
    assert not world.store.has(update.digests[1])


@pytest.mark.parametrize(
    ("make_chunks", "message"),
    [
        (lambda u: chunks_of(u, 1), "expected chunk 0, got chunk 1 out of order"),
        (lambda u: chunks_of(u, 0, 2), "expected chunk 1, got chunk 2 out of order"),
        (lambda u: chunks_of(u, 0, 0), "expected chunk 1, got chunk 0 again"),
        (lambda u: chunks_of(u, 0, 1, 2, 2), "expected no chunk after the last of 3, got chunk 2"),
        (
            lambda u: [wire.Chunk(index=0, data=u.chunks[0] + b"\x00")],
            "chunk 0: expected {full} bytes, got {full_and_one}: too large",
        ),
        (lambda u: [wire.Chunk(index=0, data=u.chunks[0][:-1])], ": too small"),
        (lambda u: [wire.Chunk(index=0, data=b"")], "got 0: too small"),
        (
            lambda u: [wire.Chunk(index=0, data=u.chunks[1])],
            "chunk 0: expected leaf digest {digest0}, got {digest1}",
        ),
        (lambda u: [wire.Chunk(index=0, data=bytes(len(u.chunks[0])))], "expected leaf digest {digest0}"),
    ],
    ids=["first", "gap", "twice", "after the last", "too large", "too small", "empty", "swapped", "zeros"],
)
def test_a_bad_chunk_is_refused_and_what_came_before_stays(
    world: World, make_chunks: Callable[[Update], list[wire.Chunk]], message: str
) -> None:
    """The refusal names round, node, chunk, expected and got; then the true update is taken."""
    update = world.committed_update(0)
    chunks = make_chunks(update)
    code, came = refusal(lambda: world.upload(0, update, chunks=chunks))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    full = len(update.chunks[0])
    digests = {f"digest{i}": digest.hex() for i, digest in enumerate(update.digests)}
    assert message.format(full=full, full_and_one=full + 1, **digests) in came
    node = checksum_address(world.node(0).address)
    assert came.startswith(f"round 1, node {node}")
    (line,) = world.of_kind("upload_refused")
    assert (line["round"], line["node"], line["reason"]) == (1, node, came)
    held = world.standing(0).next_chunk
    assert held == len([c for i, c in enumerate(chunks) if c.index == i and c.data == update.chunks[i]])
    assert world.upload(0, update, chunks=chunks_of(update, *range(held, 3))).chunks == CHUNKS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chain_id": 5}, "chain_id: expected {chain}, got 5"),
        ({"contract": b"\x05" * 20}, "contract: expected {contract}, got 0x0505050505"),
        ({"round": 2}, "round: expected 1, got 2"),
        ({"node": b"\x05" * 20}, "node: expected {node}, got 0x0505050505"),
        ({"epoch": 2}, "epoch: expected 1, got 2"),
        ({"policy_digest": Digest(b"\x05" * 32)}, "policy_digest: expected {policy}, got 0505"),
        ({"base_model": Digest(b"\x05" * 32)}, "base_model: expected {base}, got 0505"),
        (
            {"base_values": Digest(b"\x05" * 32)},
            "base_values, clips: expected those of the base model {base}",
        ),
        ({"clips": (0.25, 0.5)}, "base_values, clips: expected those of the base model {base}"),
        ({"clips": (0.25,)}, "base_values, clips: expected those of the base model {base}"),
        ({"examples": 99}, "examples: expected 100, got 99"),
        ({"parameters": 399_999}, "parameters: expected 400000, got 399999"),
        ({"chunks": 4}, "header: expected 4 chunk digests, got 3"),
        ({"raw_manifest": b"no manifest"}, "aggregate manifest: expected"),
        ({"raw_manifest": b""}, "aggregate manifest: expected"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_committed_manifest_that_lies_excludes_its_node(
    world: World, changes: dict[str, Any], message: str
) -> None:
    """A manifest that differs from ledger and policy is refused for good, and nobody else is disturbed."""
    update = world.committed_update(0, **changes)
    code, came = refusal(lambda: world.upload(0, update))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    ledger = world.node(0)
    assert came.startswith(f"round 1, node {checksum_address(ledger.address)}: ")
    assert (
        message.format(
            chain=ledger.chain_id,
            contract=checksum_address(ledger.contract),
            node=checksum_address(ledger.address),
            policy=POLICY.digest.hex(),
            base=ledger.head_model().hex(),
        )
        in came
    )
    standing = world.journal.find_upload(1, ledger.address, root=update.root)
    assert standing is not None
    assert standing.reason == ExclusionReason.MALFORMED
    assert not world.standing(0).complete
    assert not any(world.store.has(digest) for digest in update.digests)
    world.deliver(1)


def test_an_aggregates_manifest_is_no_updates(world: World) -> None:
    """A well-formed manifest of the other kind is refused as well."""
    ledger = world.node(0)
    manifest = AggregateManifest(
        chain_id=ledger.chain_id,
        contract=ledger.contract,
        round=1,
        epoch=1,
        policy_digest=POLICY.digest,
        contributors=(Contribution(ledger.address, make_digest("root"), 1),),
        parameters=PARAMETERS,
        chunks=CHUNKS,
    )
    update = world.committed_update(0, raw_manifest=manifest.encode())
    code, message = refusal(lambda: world.upload(0, update))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected an UpdateManifest, got an AggregateManifest" in message


def test_too_many_chunks_are_refused(world: World) -> None:
    """The policy fixes the number of chunks, whatever the manifest and the header agree on."""
    update = world.committed_update(0, data=(*encrypted(0), encrypted(0, 7)[0]))
    code, message = refusal(lambda: world.upload(0, update))
    assert (code, "chunks: expected 3, got 4" in message) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_a_header_with_a_short_digest_is_refused(world: World) -> None:
    """A chunk digest has 32 bytes."""
    update = world.committed_update(0)
    header = wire.Header(manifest=update.raw_manifest, chunk_digests=[*update.digests[:2], b"short"])
    start = wire.UploadStart(round=1, node=world.node(0).address, header=header)
    code, message = refusal(lambda: world.stub(0).Upload(iter([wire.UploadRequest(start=start)])))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "chunk digest 2: expected a digest of 32 bytes, got 5 bytes" in message


def test_a_header_of_too_many_digests_is_refused_before_they_are_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends one costs no hashing, and nothing is held against the node that it names."""
    update = world.committed_update(0)
    header = wire.Header(manifest=update.raw_manifest, chunk_digests=[update.root] * 100_000)
    start = wire.UploadStart(round=1, node=world.node(0).address, header=header)
    with monkeypatch.context() as patch:
        patch.delattr("fedproof_aggregator.intake.verify_header")
        code, message = refusal(lambda: world.stub(1).Upload(iter([wire.UploadRequest(start=start)])))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.endswith("header: chunks: expected 3, got 100000")
    assert world.upload(0, update).chunks == CHUNKS


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "upload: expected a start message first, got the end of the stream"),
        ([wire.UploadRequest()], "upload: expected a start message first, got an empty message"),
        ([wire.UploadRequest(chunk=wire.Chunk())], "upload: expected a start message first, got chunk"),
        (
            [wire.UploadRequest(start=wire.UploadStart(round=1, node=b"\x01"))],
            "round 1: node: expected an address of 20 bytes, got 1 bytes",
        ),
    ],
    ids=["nothing", "empty", "chunk", "short node"],
)
def test_a_stream_without_a_start_is_refused(
    world: World, parts: list[wire.UploadRequest], message: str
) -> None:
    """A stream begins with who sends what for which round."""
    assert refusal(lambda: world.stub(0).Upload(iter(parts))) == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_a_second_start_is_refused(world: World) -> None:
    """One stream brings one update."""
    update = world.committed_update(0)
    start = wire.UploadRequest(
        start=wire.UploadStart(round=1, node=world.node(0).address, header=update.header)
    )
    code, message = refusal(lambda: world.stub(0).Upload(iter([start, start])))
    assert (code, "expected a chunk, got start" in message) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def change_coefficient(chunk: bytes) -> bytes:
    """Return a chunk that is another ciphertext under the same seeds, as anybody can make of one."""
    parameters = codec().parameters
    polynomials, seeds = decode_update_frames(chunk, parameters, where="chunk")
    polynomials[0, 0] = (int(polynomials[0, 0]) + 1) % parameters.coeff_modulus
    return encode_update_frames(polynomials, seeds, parameters)


@pytest.mark.parametrize("change", [bytes, change_coefficient], ids=["as it is", "changed"])
def test_a_copied_chunk_is_refused(world: World, change: Callable[[bytes], bytes]) -> None:
    """An update that holds a frame of another node's is refused for good, and names where it was first."""
    world.deliver(0)
    stolen = change(encrypted(0, 1)[1])
    copied = world.committed_update(1, data=(encrypted(1, 1)[0], stolen, encrypted(1, 1)[2]))
    code, message = refusal(lambda: world.upload(1, copied))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    owner, copier = (checksum_address(world.node(i).address) for i in (0, 1))
    assert message == (
        f"round 1, node {copier}, chunk 1: expected seeds that no other frame has, "
        f"got one of round 1, node {owner}, chunk 1"
    )
    assert world.store.has(leaf_digest(stolen)) == (stolen == encrypted(0, 1)[1])
    standing = world.journal.find_upload(1, world.node(1).address, root=copied.root)
    assert standing is not None
    assert standing.reason == ExclusionReason.MALFORMED
    again, message = refusal(lambda: world.upload(1, copied))
    assert (again, message.endswith("(refused before)")) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    world.deliver(2)


def test_a_frame_twice_in_one_update_is_refused(world: World) -> None:
    """No two frames of an honest update have one seed, be it in two chunks or in one."""
    chunks = encrypted(0, 1)
    update = world.committed_update(0, data=(chunks[0], change_coefficient(chunks[0]), chunks[2]))
    code, message = refusal(lambda: world.upload(0, update))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "chunk 1: expected seeds that no other frame has, got one of this update, chunk 0" in message
    size = codec().parameters.update_frame_bytes
    chunks = encrypted(1, 1)
    update = world.committed_update(1, data=(chunks[0][:size] + chunks[0][:-size], *chunks[1:]))
    code, message = refusal(lambda: world.upload(1, update))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "chunk 0: expected seeds that no other frame has, got one of this update, chunk 0" in message


@pytest.mark.parametrize("thief", [0, 1])
def test_a_chunk_of_an_earlier_round_is_refused(world: World, thief: int) -> None:
    """Nobody can send again what was downloaded after an earlier round's seal, however changed."""
    world.deliver(0, 1, 2)
    assert world.daemon.step(), "sealed"
    world.federation.aggregator.fail(1, FailureReason.ABANDONED)
    world.open_round(2)
    chunks = [change_coefficient(chunk) for chunk in encrypted(0, 1)]
    replayed = world.committed_update(thief, number=2, data=chunks)
    world.restart()
    code, message = refusal(lambda: world.upload(thief, replayed, number=2))
    owner = checksum_address(world.node(0).address)
    assert (code, message.endswith(f"got one of round 1, node {owner}, chunk 0")) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        True,
    )


@pytest.mark.parametrize("where", ["claim_seeds", "stage", "sync", "record_chunks"])
def test_a_full_disk_is_nobodys_fault(world: World, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """While nothing can be written, a node is told to try again, and resumes where it was."""
    update = world.committed_update(0)
    refusal(lambda: world.upload(0, update, chunks=chunks_of(update, 0)))

    def fail(*_args: object, **_keywords: object) -> None:
        if where in {"stage", "sync"}:
            raise OSError(errno.ENOSPC, "No space left on device", "/srv/secret/path")
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(world.store if where in {"stage", "sync"} else world.journal, where, fail)
        assert refusal(lambda: world.upload(0, update, chunks=chunks_of(update, 1, 2))) == (
            grpc.StatusCode.UNAVAILABLE,
            "the aggregator cannot use its disk; try again",
        )
    assert world.of_kind("error")[0]["message"].startswith("disk: ")
    assert world.standing(0) == wire.GetUploadResponse(next_chunk=1, complete=False)
    assert world.upload(0, update, chunks=chunks_of(update, 1, 2)).chunks == CHUNKS


def test_a_node_of_any_length_makes_a_short_line(world: World) -> None:
    """What a peer names itself is cut to an address's length in the log."""
    start = wire.UploadStart(round=1, node=b"\xab" * 100_000)
    refusal(lambda: world.stub(0).Upload(iter([wire.UploadRequest(start=start)])))
    (line,) = world.of_kind("upload_refused")
    assert line["node"] == "0x" + "ab" * 20


@pytest.mark.parametrize("broken", ["coefficient", "length"])
def test_a_malformed_frame_under_a_true_digest_excludes_its_node(world: World, broken: str) -> None:
    """A chunk that is what was committed, and still no ciphertext, is never stored and ends the update."""
    first, *rest = encrypted(0, 1)
    bad = b"\xff" * len(first) if broken == "coefficient" else first + first[:100]
    update = world.committed_update(0, data=(bad, *rest))
    code, message = refusal(lambda: world.upload(0, update))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert ("chunk 0" in message, leaf_digest(bad) == update.digests[0]) == (True, True)
    assert not world.store.has(leaf_digest(bad))
    standing = world.journal.find_upload(1, world.node(0).address, root=update.root)
    assert standing is not None
    assert standing.reason == ExclusionReason.MALFORMED
    assert "(refused before)" in refusal(lambda: world.upload(0, update))[1]


def test_getupload_asks_for_an_address(world: World) -> None:
    """A node that is no address is malformed; one that has sent nothing has everything to send."""
    request = wire.GetUploadRequest(round=1, node=b"\x01" * 19)
    code, message = refusal(lambda: world.stub(0).GetUpload(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == "round 1: node: expected an address of 20 bytes, got 19 bytes"
    assert world.standing(1) == wire.GetUploadResponse(next_chunk=0, complete=False)
    assert world.standing(1, number=77) == wire.GetUploadResponse(next_chunk=0, complete=False)


def test_the_ledger_out_of_reach_is_nobodys_fault(world: World) -> None:
    """While the chain does not answer, a node is told to try again, and loses nothing."""
    update = world.committed_update(0)
    world.address  # noqa: B018 - the server starts before the outage
    world.federation.chain.provider.outages = 3
    assert refusal(lambda: world.upload(0, update)) == (
        grpc.StatusCode.UNAVAILABLE,
        "the aggregator cannot read the ledger; try again",
    )
    assert "memory" in world.of_kind("error")[0]["message"]
    assert world.upload(0, update).chunks == CHUNKS
