"""A federation of real processes trains, outlives kills, keeps its secrets, and is audited."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedproof.codec import Codec, SecretKey
from fedproof.digests import as_address
from fedproof.keys.wrapping import WrappingKey, wrapping_info
from fedproof.ledger.events import EpochPublished
from fedproof.local import Event, LocalFederation
from fedproof.model import load_model
from fedproof.policy import Policy
from fedproof.store import ObjectStore
from fedproof.wire.aggregation_pb2 import UploadRequest

from .conftest import NODES, audit, follow, kill_at_each, make_plan, of_kind
from .relay import RecordingRelay

pytestmark = pytest.mark.e2e

VICTIM = "hospital-b"


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended, its chain and its aggregator still alive."""

    federation: LocalFederation
    events: list[Event]
    relay: RecordingRelay


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    """Two rounds among three nodes, with daemons that are killed with SIGKILL in the midst of each.

    A relay between nodes and aggregator keeps what the nodes sent.
    """
    folder: Path = tmp_path_factory.mktemp("run")
    with LocalFederation(folder / "finished", make_plan(rounds=2)) as federation:
        federation.issue_certificate(folder / "relay", "relay")
        relay = RecordingRelay(
            federation.listen_port, tls=folder / "relay", authority=federation.folder / "authority"
        )
        federation.target_port = relay.port
        federation.prepare()
        federation.start()
        # In this order: while the aggregator is down, a node cannot run ahead of the test.
        first = kill_at_each(federation, "aggregator", [(1, "upload_complete"), (1, "aggregated")])
        second = kill_at_each(federation, VICTIM, [(2, "trained"), (2, "committed"), (2, "verified")])
        yield FinishedRun(federation, first + second + follow(federation), relay)
        relay.stop()


def test_every_round_is_finalised_by_all_nodes(finished_run: FinishedRun) -> None:
    """Each round ends finalised, with three contributors and three equal attestations."""
    events = finished_run.events
    assert [event["round"] for event in of_kind(events, "finalised")] == [1, 2]
    assert [len(event["contributors"]) for event in of_kind(events, "sealed")] == [3, 3]
    for number in (1, 2):
        models = {event["model"] for event in of_kind(events, "applied") if event["round"] == number}
        assert len(models) == 1


def test_killed_daemons_resume(finished_run: FinishedRun) -> None:
    """The aggregator and a node, killed with SIGKILL in the midst of a round, finish it all the same."""
    starts = Counter(event["process"] for event in of_kind(finished_run.events, "serving"))
    assert starts["aggregator"] == 3
    applied = [event for event in of_kind(finished_run.events, "applied") if event["process"] == VICTIM]
    assert {event["round"] for event in applied} == {1, 2}


def test_every_role_is_its_own_process(finished_run: FinishedRun) -> None:
    """Chain, aggregator and nodes have five different process numbers."""
    federation = finished_run.federation
    assert len({federation.pid(name) for name in ("devchain", "aggregator", *NODES)}) == 5


def test_training_improves_the_model(finished_run: FinishedRun) -> None:
    """Two rounds bring the held-out accuracy above nine in ten."""
    events = finished_run.events
    last = [event for event in of_kind(events, "applied") if event["round"] == 2]
    assert len(last) == 3
    assert all(event["accuracy"] > 0.9 for event in last)


def test_audit_proves_the_run(finished_run: FinishedRun) -> None:
    """The audit of an honest run ends with status 0."""
    federation = finished_run.federation
    report = audit(federation.folder)
    assert report.returncode == 0, report.stdout + report.stderr


def test_audit_names_the_round_node_and_chunk_of_a_flipped_byte(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    """One flipped byte in a copy of the evidence is refused, and named."""
    federation = finished_run.federation
    store = tmp_path / "store"
    shutil.copytree(federation.folder / "aggregator" / "store", store)
    objects = sorted(path for path in (store / "objects").rglob("*") if path.is_file())
    victim = min(objects, key=lambda path: path.stat().st_size)  # an update's chunk; a sum's is twice as long
    data = bytearray(victim.read_bytes())
    data[1000] ^= 0x10
    victim.chmod(0o644)
    victim.write_bytes(data)
    report = audit(federation.folder, "--store", str(store))
    assert report.returncode == 1
    failure = json.loads(report.stdout)["first_failure"]
    assert failure["round"] in (1, 2)
    assert failure["node"] in NODES
    assert failure["chunk"] == 0


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
    for method, messages in relay.requests:
        if method == "Upload" and messages:  # none came before its node was killed
            start, *chunk = (UploadRequest.FromString(message) for message in messages)
            if chunk:  # a stream that was cut off before its chunk is made again
                updates[start.start.round][start.start.node] = chunk[0].chunk.data
    assert {number: len(chunks) for number, chunks in updates.items()} == {1: 3, 2: 3}
    everything = b"".join(part for _, messages in relay.requests for part in messages)
    for path in (federation.folder / "nodes").rglob("*.model"):
        _, model = load_model(path)
        assert model.flat.tobytes()[:64] not in everything
    for chunks in updates.values():
        for chunk in chunks.values():
            counts = np.bincount(np.frombuffer(chunk, dtype=np.uint8), minlength=256)
            expected = len(chunk) / 256
            chi_square = float(((counts - expected) ** 2 / expected).sum())
            assert chi_square < 400, "255 degrees of freedom: beyond 400 once in 10^8 for uniform bytes"
        sums = codec.decrypt_chunk(
            codec.sum_chunks(chunks.values()),
            codec.make_decryptor(key),
            contributors=3,
            index=0,
            length=policy.update_length,
        )
        assert np.count_nonzero(sums) > sums.size // 2, "with the key, the same bytes are the updates"
