"""What leaves a node is encrypted, and the aggregator never holds what opens it."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from fedproof.codec import Codec, SecretKey
from fedproof.digests import as_address
from fedproof.keys.wrapping import WrappingKey, wrapping_info
from fedproof.ledger.events import EpochPublished
from fedproof.local import LocalFederation
from fedproof.model import load_model
from fedproof.policy import Policy
from fedproof.store import ObjectStore
from fedproof.wire.aggregation_pb2 import UploadRequest

from .conftest import FinishedRun

pytestmark = pytest.mark.e2e


def reveal_epoch_key(federation: LocalFederation) -> SecretKey:
    """Return the secret key as hospital-a's owner can: with its password and its wrapping key."""
    folder = federation.folder / "nodes"
    password = (folder / "hospital-a.password").read_text().strip()
    wrapping_key = WrappingKey.load(folder / "hospital-a" / "wrapping.key", password)
    store = ObjectStore(federation.folder / "aggregator" / "store")
    node = next(
        as_address(address, "run.json")
        for address, name in federation.node_names.items()
        if name == "hospital-a"
    )
    ledger = federation.admin_ledger()
    published = next(e for e in ledger.events(0, ledger.block_number()) if isinstance(e, EpochPublished))
    info = wrapping_info(
        chain_id=ledger.chain_id,
        contract=ledger.contract,
        epoch=1,
        node=node,
        context_digest=published.context_digest,
    )
    return SecretKey(wrapping_key.unwrap(dict(store.get_wrapped_keys(1))[node], info=info))


def test_the_aggregator_never_holds_the_secret_key(finished_run: FinishedRun) -> None:
    """Neither the aggregator's files nor its memory, searched while it is alive, contain the epoch's key."""
    federation = finished_run.federation
    key = reveal_epoch_key(federation)
    policy = Policy.load(federation.folder / "policy.toml")
    needles = {key.reveal(), key.expand(policy.codec_parameters()).tobytes()[:256]}
    for path in (federation.folder / "aggregator").rglob("*"):
        if path.is_file():
            assert not any(needle in path.read_bytes() for needle in needles), path
    assert not memory_holds(federation.pid("aggregator"), needles)


def memory_holds(pid: int, needles: set[bytes]) -> bool:
    """Return whether a process's readable memory contains one of the needles (Linux)."""
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if span is None or "[v" in line:
                continue
            start, end = (int(part, 16) for part in span.groups())
            memory.seek(start)
            try:
                data = memory.read(end - start)
            except OSError:
                continue
            if any(needle in data for needle in needles):
                return True
    return False


def test_nothing_that_leaves_a_node_is_in_the_clear(finished_run: FinishedRun) -> None:
    """Of all bytes that nodes send, chunks are uniform noise without the key and the updates with it."""
    federation, relay = finished_run.federation, finished_run.relay
    key = reveal_epoch_key(federation)
    policy = Policy.load(federation.folder / "policy.toml")
    codec = Codec(policy.codec_parameters())
    updates: dict[int, dict[bytes, bytes]] = defaultdict(dict)
    for method, message in relay.requests:
        if method == "Upload":
            request = UploadRequest.FromString(message)
            if request.HasField("start"):
                start = request.start
            else:
                updates[start.round][start.node] = request.chunk.data
    assert {number: len(chunks) for number, chunks in updates.items()} == {1: 3, 2: 3}
    everything = b"".join(message for _, message in relay.requests)
    for path in (federation.folder / "nodes").rglob("*.model"):
        _, flat = load_model(path)
        assert flat.tobytes()[:64] not in everything
    for chunks in updates.values():
        for chunk in chunks.values():
            counts = np.bincount(np.frombuffer(chunk, dtype=np.uint8), minlength=256)
            expected = len(chunk) / 256
            chi_square = float(((counts - expected) ** 2 / expected).sum())
            assert chi_square < 400, "255 degrees of freedom: beyond 400 once in 10^8 for uniform bytes"
        sums = codec.decrypt_chunk(
            codec.sum_chunks(chunks.values()), key, contributors=3, index=0, length=policy.model.parameters
        )
        assert np.count_nonzero(sums) > sums.size // 2, "with the key, the same bytes are the updates"
