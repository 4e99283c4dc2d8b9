"""Kinds of malformed uploads, after the header: chunks committed to, copied, or put out of order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from fedproof.ledger.events import FailureReason
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.federation import codec, encrypted
from tests.aggregator.world import World
from tests.hostile import seal_objects
from tests.hostile.attack import INVALID, Attack, chunk_of, start_of, upload

Chunks = tuple[bytes, ...]


def attacks() -> Iterator[Attack]:
    """Yield every kind."""
    yield from _of_committed_chunks()
    yield from _of_copies()
    yield from _of_streams()


def _of_committed_chunks() -> Iterator[Attack]:
    """Yield chunks that are what their node has committed to, and still none."""
    parameters = codec().parameters
    whole = parameters.update_frame_bytes * 16
    frame, polynomial = parameters.update_frame_bytes, parameters.update_frame_bytes - 64
    large, small = f"expected {whole} bytes, got .*: too large", f"expected {whole} bytes, got .*: too small"
    below = f"expected coefficients below {parameters.coeff_modulus}, got "
    bfv = seal_objects.bfv(parameters)
    rows: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
        "empty": ("no byte at all", lambda raw: b"", small),
        "one_byte": ("a byte", lambda raw: raw[:1], small),
        "one_byte_short": ("the last byte missing", lambda raw: raw[:-1], small),
        "fifteen_frames": ("a frame missing", lambda raw: raw[:-frame], small),
        "one_byte_long": ("a byte too many", lambda raw: raw + b"\0", large),
        "seventeen_frames": ("a frame too many", lambda raw: raw + raw[:frame], large),
        "trailing_bomb": ("a bomb behind it", lambda raw: raw + seal_objects.compression_bomb(), large),
        "three_mebibytes": ("3 MiB", lambda raw: bytes(3 << 20), large),
        "bfv_seeded": ("SEAL's file of a BFV ciphertext", lambda raw: bfv["seeded"], small),
        "bfv_ntt": ("one with the NTT flag", lambda raw: bfv["ntt"], small),
        "bgv": ("a BGV ciphertext", lambda raw: seal_objects.bgv(parameters), small),
        "ckks": ("a CKKS vector as NVFlare sends it", lambda raw: seal_objects.ckks(), small),
        "size_bomb": ("SEAL's header with 2^63 bytes", lambda raw: seal_objects.size_bomb(), small),
        "allocation_bomb": ("a file that asks for 16 GiB", lambda raw: seal_objects.allocation_bomb(), small),
        "ones_in_first_frame": (
            "ones in the first polynomial",
            lambda raw: b"\xff" * polynomial + raw[polynomial:],
            f"{below}.* at frame 0, coefficient 0",
        ),
        "ones_in_last_frame": (
            "ones in the last polynomial",
            lambda raw: raw[:-frame] + b"\xff" * polynomial + raw[-64:],
            f"{below}.* at frame 15, coefficient 0",
        ),
        "word_of_ones": (
            "2^64 - 1 in a polynomial",
            lambda raw: raw[:999] + b"\xff" * 16 + raw[1015:],
            below,
        ),
    }
    for name, (what, change, message) in rows.items():
        send = partial(_commit_chunk_and_send, change=change)
        yield Attack(
            f"committed_chunk_{name}", f"a committed chunk: {what}", send, INVALID, f"chunk 0: {message}"
        )


def _commit_chunk_and_send(world: World, *, change: Callable[[bytes], bytes]) -> object:
    first, *rest = encrypted(0, 1)
    return world.upload(0, world.committed_update(0, data=(change(first), *rest)))


def _of_copies() -> Iterator[Attack]:
    frame = codec().parameters.update_frame_bytes
    others = "expected seeds that no other frame has, got one of "

    def altered(chunk: bytes) -> bytes:
        return bytes([chunk[0] ^ 1]) + chunk[1:]

    def after_theirs(world: World, change: Callable[[bytes], bytes]) -> object:
        world.deliver(2)
        return _commit_all_and_send(world, (change(encrypted(2, 1)[0]), *encrypted(0, 1)[1:]))

    def next_round(world: World, node: int) -> object:
        world.deliver(0, 2)
        world.federation.aggregator.fail(1, FailureReason.ABANDONED)
        world.open_round(2)
        update = world.committed_update(0, number=2, data=encrypted(node, 1))
        return world.upload(0, update, number=2)

    yield Attack(
        "frame_of_another_node",
        "another node's chunk, as it is",
        lambda world: after_theirs(world, bytes),
        INVALID,
        f"chunk 0: {others}round 1, node 0x[0-9a-fA-F]{{40}}, chunk 0",
    )
    yield Attack(
        "altered_frame_of_another_node",
        "another node's chunk, one bit of a polynomial changed",
        lambda world: after_theirs(world, altered),
        INVALID,
        f"chunk 0: {others}round 1, node 0x[0-9a-fA-F]{{40}}, chunk 0",
    )
    for name, node in (("own", 0), ("anothers", 2)):
        yield Attack(
            f"{name}_frames_of_last_round",
            f"the {name} update of the round before, again",
            partial(next_round, node=node),
            INVALID,
            f"{others}round 1, node 0x[0-9a-fA-F]{{40}}, chunk 0",
            number=2,
        )
    twice = encrypted(0, 1)[0]
    updates: dict[str, tuple[str, Chunks, str]] = {
        "frame_twice_in_a_chunk": (
            "one frame twice in one chunk",
            (twice[:frame] + twice[:-frame], *encrypted(0, 1)[1:]),
            "chunk 0: " + others + "this update, chunk 0",
        ),
        "frame_in_two_chunks": (
            "one frame in two chunks",
            (twice, encrypted(0, 1)[1][:-frame] + twice[:frame], encrypted(0, 1)[2]),
            "chunk 1: " + others + "this update, chunk 0",
        ),
        "altered_frame_in_two_chunks": (
            "one chunk twice, one bit changed",
            (twice, altered(twice), encrypted(0, 1)[2]),
            "chunk 1: " + others + "this update, chunk 0",
        ),
        "zero_frames": (
            "frames of zeros",
            (bytes(len(twice)), *encrypted(0, 1)[1:]),
            "chunk 0: " + others + "this update, chunk 0",
        ),
    }
    for name, (what, data, message) in updates.items():
        yield Attack(name, what, partial(_commit_all_and_send, data=data), INVALID, message)


def _commit_all_and_send(world: World, data: Chunks) -> object:
    return world.upload(0, world.committed_update(0, data=data))


def _of_streams() -> Iterator[Attack]:
    """Yield streams of an honest, committed update that bring something else than that."""
    first, second, third = encrypted(0, 1)
    good = [chunk_of(i, data) for i, data in enumerate((first, second, third))]
    frame = codec().parameters.update_frame_bytes
    leaf = "chunk 0: expected leaf digest [0-9a-f]{64}, got "
    rows: dict[str, tuple[str, Sequence[wire.UploadRequest], str]] = {
        "of_another_index": ("chunk 1 as chunk 0", [chunk_of(0, second)], leaf),
        "of_frames_swapped": ("two frames in each other's place", [chunk_of(0, _swap(first, frame))], leaf),
        "of_a_flipped_bit": ("a bit flipped", [chunk_of(0, bytes([first[0] ^ 1]) + first[1:])], leaf),
        "of_zeros": ("zeros", [chunk_of(0, bytes(len(first)))], leaf),
        "of_a_trailing_byte": (
            "a byte too many",
            [chunk_of(0, first + b"\0")],
            "chunk 0: expected .*: too large",
        ),
        "of_a_byte_too_few": ("a byte too few", [chunk_of(0, first[:-1])], "chunk 0: expected .*: too small"),
        "without_data": ("no data", [chunk_of(0, b"")], "chunk 0: expected .* got 0: too small"),
        "out_of_order": ("the second chunk first", [good[1]], "expected chunk 0, got chunk 1 out of order"),
        "with_a_gap": (
            "the last chunk second",
            [good[0], good[2]],
            "expected chunk 1, got chunk 2 out of order",
        ),
        "again": ("the first chunk twice", [good[0], good[0]], "expected chunk 1, got chunk 0 again"),
        "beyond_the_last": (
            "a fourth chunk",
            [*good, chunk_of(3, third)],
            "no chunk after the last of 3, got chunk 3",
        ),
        "of_index_huge": (
            "chunk 2^32 - 1",
            [chunk_of(2**32 - 1, first)],
            "got chunk 4294967295 out of order",
        ),
        "with_an_empty_message": (
            "a message of nothing",
            [wire.UploadRequest()],
            "a chunk, got an empty message",
        ),
    }
    for name, (what, parts, message) in rows.items():
        send = partial(_commit_and_stream, parts=parts)
        yield Attack(f"stream_{name}", f"an honest update's stream: {what}", send, INVALID, message)
    yield Attack(
        "stream_with_two_headers",
        "a second start after the first",
        lambda world: _stream_starts(world, chunks_between=0),
        INVALID,
        "expected a chunk, got start",
    )
    yield Attack(
        "stream_with_a_late_header",
        "a second start after a chunk",
        lambda world: _stream_starts(world, chunks_between=1),
        INVALID,
        "expected a chunk, got start",
    )
    alone: dict[str, tuple[str, Sequence[wire.UploadRequest], str]] = {
        "empty": ("no message", [], "expected a start message first, got the end of the stream"),
        "of_nothing": (
            "an empty message",
            [wire.UploadRequest()],
            "start message first, got an empty message",
        ),
        "chunk_first": ("a chunk without header", [good[0]], "expected a start message first, got chunk"),
    }
    for name, (what, parts, message) in alone.items():
        yield Attack(
            f"stream_{name}", what, lambda world, parts=parts: upload(world, *parts), INVALID, message
        )


def _commit_and_stream(world: World, *, parts: Sequence[wire.UploadRequest]) -> object:
    return upload(world, start_of(world, world.committed_update(0).header), *parts)


def _stream_starts(world: World, *, chunks_between: int) -> object:
    update = world.committed_update(0)
    start = start_of(world, update.header)
    chunks = [chunk_of(i, update.chunks[i]) for i in range(chunks_between)]
    return upload(world, start, *chunks, start)


def _swap(chunk: bytes, frame: int) -> bytes:
    return chunk[frame : 2 * frame] + chunk[:frame] + chunk[2 * frame :]
