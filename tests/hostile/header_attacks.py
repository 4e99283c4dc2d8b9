"""Kinds of malformed uploads, up to the header: what the aggregator has to look at the ledger to refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from fedproof.digests import ZERO_DIGEST, Address, encode_fields
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.federation import CLIPS, encrypted
from tests.aggregator.world import World
from tests.fuzz.samples import AGGREGATE
from tests.hostile.attack import DENIED, INVALID, TOO_EARLY, Attack, start_of, upload
from tests.hostile.document_kinds import nest, spoil


def attacks() -> Iterator[Attack]:
    """Yield every kind."""
    yield from _of_starts()
    yield from _of_manifests()


def _of_starts() -> Iterator[Attack]:
    def header(world: World) -> wire.Header:
        return world.make_update(0).header

    def from_node(world: World, node: bytes) -> object:
        return upload(world, start_of(world, header(world), node=node))

    for size in (0, 19, 21, 32, 100_000):
        send = partial(from_node, node=bytes(size))
        message = f"expected an address of 20 bytes, got {size} bytes"
        yield Attack(f"node_of_{size}_bytes", f"a node whose address is {size} bytes", send, INVALID, message)
    yield Attack(
        "outsider",
        "an address that was never admitted",
        lambda world: from_node(world, b"\x05" * 20),
        DENIED,
        "expected a node that was admitted when the round was opened",
    )
    for number in (0, 2, 2**32 - 1):
        send = partial(_send_in_round, number=number)
        message = f"expected an open round, round {number} is in phase NONE"
        yield Attack(f"round_{number}", f"round {number}, which was not opened", send, TOO_EARLY, message)
    yield Attack(
        "uncommitted",
        "an update without a commitment",
        lambda world: upload(world, start_of(world, header(world))),
        TOO_EARLY,
        "expected a commitment before the upload, found none",
    )
    yield Attack(
        "another_header",
        "a header that is not the committed one",
        lambda world: (
            world.upload(0, world.make_update(0, examples=99), chunks=[]) if world.committed_update(0) else 0
        ),
        TOO_EARLY,
        r"expected the root [0-9a-f]{64}, got [0-9a-f]{64} \(the node's commitment\)",
    )
    for size in (0, 31, 33):
        send = partial(_send_digest_of, size=size)
        message = f"chunk digest 0: expected a digest of 32 bytes, got {size} bytes"
        yield Attack(f"digest_of_{size}_bytes", f"a chunk digest of {size} bytes", send, INVALID, message)

    many = wire.Header(chunk_digests=[bytes(32)] * 100_000)
    yield Attack(
        "outsider_with_100000_digests",
        "a header of 3 MiB from an address that was never admitted",
        lambda world: upload(world, start_of(world, many, node=b"\x05" * 20)),
        DENIED,
        "expected a node that was admitted when the round was opened",
    )
    yield Attack(
        "header_of_100000_digests",
        "a header of 3 MiB in place of the committed one",
        lambda world: upload(world, start_of(world, many)) if world.committed_update(0) else None,
        INVALID,
        "header: chunks: expected 3, got 100000",
    )


def _send_in_round(world: World, *, number: int) -> object:
    return upload(world, start_of(world, world.make_update(0).header, number=number))


def _send_digest_of(world: World, *, size: int) -> object:
    manifest = world.committed_update(0).raw_manifest
    return upload(world, start_of(world, wire.Header(manifest=manifest, chunk_digests=[bytes(size)] * 3)))


def _of_manifests() -> Iterator[Attack]:
    lies: dict[str, tuple[dict[str, Any], str]] = {
        "another_chain": ({"chain_id": 5}, "chain_id: expected [0-9]+, got 5"),
        "another_contract": ({"contract": Address(b"\x05" * 20)}, "contract: expected 0x.*, got 0x0505"),
        "another_round": ({"round": 2}, "round: expected 1, got 2"),
        "another_node": ({"node": Address(b"\x05" * 20)}, "node: expected 0x.*, got 0x0505"),
        "another_epoch": ({"epoch": 2}, "epoch: expected 1, got 2"),
        "another_policy": ({"policy_digest": ZERO_DIGEST}, "policy_digest: expected .*, got 0000"),
        "another_base": ({"base_model": ZERO_DIGEST}, "base_model: expected .*, got 0000"),
        "other_base_values": (
            {"base_values": ZERO_DIGEST},
            "base_values, clips: expected those of the base model",
        ),
        "other_clips": ({"clips": (0.25, 0.5)}, "base_values, clips: expected those of the base model"),
        "one_clip_more": ({"clips": (*CLIPS, 0.25)}, "base_values, clips: expected those of the base model"),
        "other_parameters": ({"parameters": 399_999}, "parameters: expected 400000, got 399999"),
        "other_examples": ({"examples": 2**32 - 1}, "examples: expected 100, got 4294967295"),
        "one_chunk_more": ({"chunks": 4}, "header: expected 4 chunk digests, got 3"),
        "chunks_huge": ({"chunks": 2**32 - 1}, "header: expected 4294967295 chunk digests, got 3"),
    }
    for name, (changes, message) in lies.items():
        send = partial(_commit_and_send, changes=changes)
        yield Attack(f"manifest_of_{name}", f"a committed manifest of {changes}", send, INVALID, message)
    spoilt: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
        "empty": ("no manifest", lambda raw: b"", "manifest: expected 9 fields"),
        "cut": ("one byte short", lambda raw: raw[:-1], "expected a field of 8 bytes"),
        "trailing_byte": ("one byte long", lambda raw: raw + b"\0", "expected a length of 4 bytes"),
        "trailing_field": ("one field more", lambda raw: raw + encode_fields(1), "13 fields, .*, got 14"),
        "of_a_sum": ("a sum's", lambda raw: AGGREGATE.encode(), "expected 2 chunk digests, got 3"),
        "deep": ("fields in fields", lambda raw: nest(10_000), "aggregate manifest: expected 9 fields"),
        "huge": ("one of 3 MiB", lambda raw: raw + bytes(3 << 20), "expected at most 262144 bytes"),
        "nan_clip": (
            "with a clip of NaN",
            lambda raw: spoil(raw, 9, math.nan),
            "clips: expected positive finite",
        ),
        "clips_cut": (
            "with 15 bytes of clips",
            lambda raw: spoil(raw, 9, bytes(15)),
            "floats of 8 bytes, got 15",
        ),
        "no_clips": (
            "without clips",
            lambda raw: spoil(raw, 9, b""),
            "clips: expected positive finite numbers",
        ),
    }
    for name, (what, change, message) in spoilt.items():
        send = partial(_spoil_and_send, change=change)
        yield Attack(f"manifest_{name}", f"a committed manifest, {what}", send, INVALID, message)
    for name, count in (("too_few_chunks", 2), ("too_many_chunks", 4)):
        send = partial(_commit_and_send, changes={"data": (encrypted(0, 1) * 2)[:count]})
        yield Attack(
            name, f"{count} chunks where 3 are due", send, INVALID, f"chunks: expected 3, got {count}"
        )


def _commit_and_send(world: World, *, changes: dict[str, Any]) -> object:
    return world.upload(0, world.committed_update(0, **changes))


def _spoil_and_send(world: World, *, change: Callable[[bytes], bytes]) -> object:
    raw = change(world.make_update(0).raw_manifest)
    return world.upload(0, world.committed_update(0, raw_manifest=raw))
