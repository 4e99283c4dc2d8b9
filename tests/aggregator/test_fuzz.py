"""Whatever bytes a peer sends in place of a header or a chunk, the answer is one of our refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fedproof_aggregator.refusal import Refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedproof.digests import Digest, encode_fields
from fedproof.errors import MalformedMessage
from fedproof.ledger.rounds import Commitment
from fedproof.manifest import compute_header_root
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.world import Update, World

FUZZED = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    # Each example commits to another root, so what the last one left behind does not matter to it.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
DIGESTS = st.lists(st.binary(min_size=32, max_size=32).map(Digest), max_size=5)
FIELDS = st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 2**64 - 1)), max_size=12)


@pytest.fixture
def committed(world: World) -> Update:
    """An update of the first node's, for the tests to bring."""
    return world.make_update(0)


@pytest.fixture(autouse=True)
def _read(world: World) -> None:
    world.view.refresh()


def commit_to(world: World, root: Digest) -> None:
    """Let the ledger, as the aggregator has read it, hold a commitment of the first node to any root."""
    history = world.view._history
    commitments = {world.node(0).address: Commitment(root, 100)}
    history.rounds.put(replace(history.rounds[1], commitments=commitments))


def is_refused(world: World, start: wire.UploadStart) -> bool:
    try:
        world.intake.begin(start)
    except (Refused, MalformedMessage):
        return True
    return False


@FUZZED
@given(
    manifest=st.one_of(st.binary(max_size=400), FIELDS.map(lambda fields: encode_fields(*fields))),
    digests=DIGESTS,
)
def test_a_header_of_any_bytes_is_refused(world: World, manifest: bytes, digests: list[Digest]) -> None:
    """Committed or not, bytes that are no manifest of this federation end in a refusal."""
    header = wire.Header(manifest=manifest, chunk_digests=digests)
    start = wire.UploadStart(round=1, node=world.node(0).address, header=header)
    commit_to(world, Digest(bytes(32)))
    assert is_refused(world, start)
    commit_to(world, compute_header_root(manifest, digests))
    assert is_refused(world, start)


@FUZZED
@given(data=st.data())
def test_a_true_header_with_changed_bytes_is_refused(
    world: World, committed: Update, data: st.DataObject
) -> None:
    """A cut, an insertion or a flipped byte anywhere in a true manifest is refused, although committed."""
    update = committed
    raw = bytearray(update.raw_manifest)
    position = data.draw(st.integers(0, len(raw) - 1))
    kind = data.draw(st.sampled_from(["cut", "insert", "flip"]))
    if kind == "cut":
        del raw[position : position + data.draw(st.integers(1, 40))]
    elif kind == "insert":
        raw[position:position] = data.draw(st.binary(min_size=1, max_size=40))
    else:
        raw[position] ^= data.draw(st.integers(1, 255))
    if bytes(raw) == update.raw_manifest:
        return
    commit_to(world, compute_header_root(bytes(raw), update.digests))
    header = wire.Header(manifest=bytes(raw), chunk_digests=update.digests)
    assert is_refused(world, wire.UploadStart(round=1, node=world.node(0).address, header=header))


@FUZZED
@given(raw=st.binary(max_size=300))
def test_a_start_of_any_bytes_is_refused(world: World, raw: bytes) -> None:
    """Any bytes that protobuf takes for a start are refused."""
    start = wire.UploadStart()
    try:
        start.MergeFromString(raw)
    except Exception:  # noqa: BLE001 - protobuf's own refusal, which gRPC makes before us
        return
    assert is_refused(world, start)


@FUZZED
@given(index=st.integers(0, 2**32 - 1), data=st.binary(max_size=200))
def test_a_chunk_of_any_bytes_is_refused(world: World, committed: Update, index: int, data: bytes) -> None:
    """Nothing that was not committed is stored, whatever its index and length."""
    update = committed
    commit_to(world, update.root)
    incoming = world.intake.begin(wire.UploadStart(round=1, node=world.node(0).address, header=update.header))
    try:
        world.intake.accept(incoming, index, data)
    except Refused:
        assert not incoming.held
        return
    raise AssertionError("taken")
