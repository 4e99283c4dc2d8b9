"""Secret keys of epochs: who gets them, where they never are, and what a crash or a liar can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from fedproof.codec import SecretKey
from fedproof.errors import NetworkError
from fedproof.ledger.events import FailureReason
from tests.node.world import Crash, Node, World

MakeWorld = Callable[..., World]


def key_of(node: Node, epoch: int = 1) -> SecretKey:
    keys = node.daemon._parts.keys
    return keys.open(epoch, node.world.history())


def record_keys(monkeypatch: pytest.MonkeyPatch) -> list[SecretKey]:
    """Return a list that every generated key is put into."""
    generated: list[SecretKey] = []
    generate = SecretKey.generate

    def generate_and_record() -> SecretKey:
        generated.append(generate())
        return generated[-1]

    monkeypatch.setattr(SecretKey, "generate", generate_and_record)
    return generated


def test_everybody_gets_the_same_key(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key maker's key reaches every admitted node, and no file or message holds it in the clear."""
    generated = record_keys(monkeypatch)
    world = make_world()
    world.begin_epoch()
    assert [key_of(node) for node in world.nodes] == generated * 3
    secret = generated[0].reveal()
    assert not any(secret in path.read_bytes() for path in world.folder.rglob("*") if path.is_file())
    assert not any(secret in request.SerializeToString() for request in world.servicer.requests)
    assert [len(node.log.of("epoch_joined")) for node in world.nodes] == [1, 1, 1]
    assert [len(node.log.of("epoch_published")) for node in world.nodes] == [1, 0, 0]


def test_restart_needs_no_aggregator(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart the key is unwrapped from the journal, with the aggregator away."""
    generated = record_keys(monkeypatch)
    world = make_world(nodes=2)
    world.begin_epoch()
    node = world.nodes[1]
    node.stop()
    node.start()
    world.aggregator.stop()
    assert key_of(node) == generated[0]


def test_waits_for_public_keys(make_world: MakeWorld) -> None:
    """While patience lasts, the key maker waits for the missing key, and says whose it is, once."""
    world = make_world()
    maker, _, absent = world.nodes
    maker.settings = {"public_key_wait_s": 1000.0}
    maker.start()
    world.nodes[1].start()
    world.admin.request_epoch(maker.address)
    maker.settle()
    maker.settle()
    (waiting,) = maker.log.of("waiting")
    assert "epoch 1: no public key yet of" in waiting["reason"]
    assert absent.address.hex() in waiting["reason"].lower()
    assert world.history().current_epoch is None
    absent.start()
    maker.settle()
    assert world.history().current_epoch is not None
    assert key_of(absent) == key_of(maker)


def test_goes_on_without_a_silent_node(make_world: MakeWorld) -> None:
    """Once patience is over, the epoch begins without the silent node, which learns that it has no key."""
    world = make_world()
    maker, other, silent = world.nodes
    maker.start()
    other.start()
    world.admin.request_epoch(maker.address)
    maker.settle()
    assert "epoch 1 begins without" in maker.log.of("error")[0]["message"]
    assert key_of(other) == key_of(maker)
    silent.settle()
    assert "this node joins at the next epoch" in silent.log.of("waiting")[0]["reason"]
    world.open_round(1)
    silent.settle()
    assert "expected a key wrapped for" in silent.log.of("round_skipped")[0]["reason"]


def test_never_alone(make_world: MakeWorld) -> None:
    """With fewer keys than a round needs contributors, the key maker waits however long it takes."""
    world = make_world(nodes=2)
    maker = world.nodes[0]
    maker.start()
    world.admin.request_epoch(maker.address)
    maker.settle()
    assert world.history().current_epoch is None


def test_forged_public_key_is_not_wrapped_for(make_world: MakeWorld) -> None:
    """A public key that is not the registered one gets no secret: the aggregator cannot slip its own in."""
    world = make_world()
    maker, other, victim = world.nodes
    for node in world.nodes:
        node.start()
    stranger = other.wrapping_key.public_bytes
    world.servicer.public_keys[victim.wrapping_key.digest] = stranger
    world.admin.request_epoch(maker.address)
    maker.settle()
    assert "public key: expected digest" in maker.log.of("error")[0]["message"]
    assert [wrapped.node for wrapped in world.servicer.wrapped[1].keys] == sorted(
        node.address for node in (maker, other)
    )


@pytest.mark.parametrize("is_mined", [False, True])
def test_crash_around_the_publication(make_world: MakeWorld, is_mined: bool) -> None:
    """Dead before or after the root was mined, the key maker hands over the package that it names."""
    world = make_world(nodes=2)
    maker, other = world.nodes
    other.start()
    publish = maker.ledger.publish_epoch

    def publish_and_die(*arguments: Any, **keywords: Any) -> Any:
        maker.ledger.publish_epoch = publish  # type: ignore[method-assign]
        if is_mined:
            publish(*arguments, **keywords)
        raise Crash

    maker.ledger.publish_epoch = publish_and_die  # type: ignore[method-assign]
    maker.start()
    world.admin.request_epoch(maker.address)
    world.settle()
    assert len(maker.journal.packages(1)) == 1, "the journalled package was used again"
    assert key_of(maker) == key_of(other)


def test_handover_is_repeated_until_it_succeeds(make_world: MakeWorld) -> None:
    """With the aggregator failing after the publication, the others wait, and get the key when it is back."""
    world = make_world(nodes=2)
    maker, other = world.nodes
    maker.start()
    other.start()
    world.admin.request_epoch(maker.address)
    world.servicer.failures["PutWrappedKeys"] = [grpc.StatusCode.UNAVAILABLE] * 3
    with pytest.raises(NetworkError, match="PutWrappedKeys: given up after 3 attempts"):
        maker.settle()
    other.settle()
    assert "has not left the wrapped keys" in other.log.of("waiting")[0]["reason"]
    world.settle()
    assert key_of(maker) == key_of(other)


def test_altered_package_is_refused(make_world: MakeWorld) -> None:
    """Wrapped keys of another root than the ledger's are refused, naming both."""
    world = make_world(nodes=2)
    maker, other = world.nodes
    maker.start()
    other.start()
    world.admin.request_epoch(maker.address)
    maker.settle()
    world.servicer.wrapped[1].keys[0].ciphertext += b"\0"
    other.settle()
    root = world.history().epochs[1].wrapped_keys_root
    assert f"expected wrapped keys of root {root.hex()}" in other.log.of("error")[0]["message"]
    assert other.journal.wrapped_key(1) is None


def test_next_epoch_does_not_wait_for_a_lost_one(make_world: MakeWorld) -> None:
    """Where an epoch's package never came, its successor's key maker does its duty all the same."""
    world = make_world(nodes=2)
    maker, other = world.nodes
    maker.start()
    other.start()
    world.admin.request_epoch(maker.address)
    maker.settle()
    del world.servicer.wrapped[1]
    other.settle()
    world.admin.request_epoch(other.address)
    world.settle()
    assert key_of(maker, 2) == key_of(other, 2)


def test_refused_handover_does_not_end_the_daemon(make_world: MakeWorld) -> None:
    """An aggregator that refuses the package is reported, and asked again."""
    world = make_world(nodes=2)
    maker = world.nodes[0]
    for node in world.nodes:
        node.start()
    world.admin.request_epoch(maker.address)
    while world.history().current_epoch is None:
        maker.turn()
    world.servicer.failures["PutWrappedKeys"] = [grpc.StatusCode.PERMISSION_DENIED]
    world.operator.open_round(1)
    world.operator.fail(1, FailureReason.ABANDONED)
    maker.daemon.run(poll_interval_s=0.001, until_round=1)
    assert "PERMISSION_DENIED" in maker.log.of("error")[0]["message"]
    assert 1 in world.servicer.wrapped


def test_new_epoch_for_a_new_member(make_world: MakeWorld) -> None:
    """The next epoch has another key, which the new member gets; the old one stays closed to it."""
    world = make_world(nodes=2)
    world.begin_epoch()
    (late,) = world.admit(1)
    world.begin_epoch(maker=1)
    assert key_of(late, 2) == key_of(world.nodes[0], 2)
    assert key_of(world.nodes[0], 1) != key_of(world.nodes[0], 2)
    assert late.journal.wrapped_key(1) is None
