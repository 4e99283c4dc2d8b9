"""Keys that pass through: only what the ledger vouches for, and never opened."""

from __future__ import annotations

import grpc
import pytest

from fedproof.keys.wrapping import PUBLIC_KEY_BYTES, WrappingKey
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.federation import WRAPPED, wrapped_keys, wrapping_key
from tests.aggregator.world import World, refusal
from tests.chain import make_digest


def put_wrapped(world: World, *, epoch: int = 1, keys: list[wire.WrappedKey] | None = None) -> None:
    if keys is None:
        pairs = wrapped_keys(world.federation)
        keys = [wire.WrappedKey(node=node, ciphertext=ciphertext) for node, ciphertext in pairs]
    world.stub().PutWrappedKeys(wire.PutWrappedKeysRequest(epoch=epoch, keys=keys))


def test_a_registered_public_key_is_passed_on(fresh: World) -> None:
    """A key that a member registered can be left, any number of times, and fetched, also after a restart."""
    key = wrapping_key()
    for _ in range(2):
        fresh.stub().PutPublicKey(wire.PutPublicKeyRequest(key=key.public_bytes))
    fresh.restart()
    answer = fresh.stub(1).GetPublicKey(wire.GetPublicKeyRequest(digest=key.digest))
    assert answer.key == key.public_bytes


def test_a_key_that_has_just_been_registered_is_taken(fresh: World) -> None:
    """The ledger is read again before a key is refused."""
    key = WrappingKey.generate()
    fresh.node(3).register(key.digest, make_digest("certificate 3"))
    fresh.stub(3).PutPublicKey(wire.PutPublicKeyRequest(key=key.public_bytes))
    assert fresh.store.get_public_key(key.digest) == key.public_bytes


@pytest.mark.parametrize("size", [0, PUBLIC_KEY_BYTES - 1, PUBLIC_KEY_BYTES + 1])
def test_a_public_key_of_another_length_is_refused(fresh: World, size: int) -> None:
    """A public key has an exact length."""
    assert refusal(lambda: fresh.stub().PutPublicKey(wire.PutPublicKeyRequest(key=bytes(size)))) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"public key: expected {PUBLIC_KEY_BYTES} bytes, got {size}",
    )


def test_a_key_that_nobody_registered_is_refused(fresh: World) -> None:
    """A stranger's key is not kept, and its digest is named."""
    key = WrappingKey.generate()
    code, message = refusal(lambda: fresh.stub().PutPublicKey(wire.PutPublicKeyRequest(key=key.public_bytes)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert message == (
        f"public key {key.digest.hex()}: expected a digest that a node has registered on the ledger, "
        "no node has"
    )
    code, _ = refusal(lambda: fresh.stub().GetPublicKey(wire.GetPublicKeyRequest(digest=key.digest)))
    assert code is grpc.StatusCode.NOT_FOUND


def test_a_digest_has_32_bytes(fresh: World) -> None:
    """Anything else is malformed."""
    code, message = refusal(lambda: fresh.stub().GetPublicKey(wire.GetPublicKeyRequest(digest=b"short")))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == "public key: expected a digest of 32 bytes, got 5 bytes"


def test_wrapped_keys_of_the_published_root_are_passed_on(fresh: World) -> None:
    """An epoch's keys can be left, more than once, and fetched, also after a restart; auditors find them."""
    code, message = refusal(lambda: fresh.stub(1).GetWrappedKeys(wire.GetWrappedKeysRequest(epoch=1)))
    assert code is grpc.StatusCode.NOT_FOUND
    assert message == "epoch 1: its key maker has not left the wrapped keys here yet"
    for _ in range(2):
        put_wrapped(fresh)
    fresh.restart()
    answer = fresh.stub(1).GetWrappedKeys(wire.GetWrappedKeysRequest(epoch=1))
    assert [(key.node, key.ciphertext) for key in answer.keys] == wrapped_keys(fresh.federation)
    assert list(fresh.store.get_wrapped_keys(1)) == wrapped_keys(fresh.federation)


def test_wrapped_keys_under_another_root_are_refused(fresh: World) -> None:
    """Altered, missing, or additional keys have another root than the ledger's."""
    pairs = wrapped_keys(fresh.federation)
    keys = [wire.WrappedKey(node=node, ciphertext=ciphertext) for node, ciphertext in pairs]
    altered = wire.WrappedKey(node=keys[1].node, ciphertext=WRAPPED)
    for bad in ([keys[0], altered, keys[2]], keys[:2], []):
        code, message = refusal(lambda bad=bad: put_wrapped(fresh, keys=bad))  # type: ignore[misc]
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        record = fresh.view.find_epoch(1)
        assert record is not None
        assert f"{record.wrapped_keys_root.hex()}, got {len(bad)} keys of root" in message


def test_malformed_wrapped_keys_are_refused(fresh: World) -> None:
    """Nodes are addresses, ascending, each once."""
    pairs = wrapped_keys(fresh.federation)
    keys = [wire.WrappedKey(node=node, ciphertext=ciphertext) for node, ciphertext in pairs]
    for bad, expected in (
        ([keys[1], keys[0]], "expected them ascending by node"),
        ([keys[0], keys[0]], "expected them ascending by node"),
        ([wire.WrappedKey(node=b"\x01", ciphertext=b"")], "epoch 1: key 0: expected an address of 20 bytes"),
    ):
        code, message = refusal(lambda bad=bad: put_wrapped(fresh, keys=bad))  # type: ignore[misc]
        assert (code, expected in message) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_wrapped_keys_of_an_unpublished_epoch_are_refused(fresh: World) -> None:
    """The key maker publishes on the ledger first."""
    assert refusal(lambda: put_wrapped(fresh, epoch=2)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "epoch 2: expected an epoch that is published on the ledger, it is not",
    )


def test_a_round_waits_for_the_wrapped_keys(fresh: World) -> None:
    """The aggregator says what it waits for, once, and opens as soon as the keys have come."""
    for _ in range(2):
        assert not fresh.daemon.step()
    (line,) = fresh.of_kind("waiting")
    assert "the wrapped keys of epoch 1 have not come from 0x" in line["reason"]
    put_wrapped(fresh)
    assert fresh.daemon.step()
    assert fresh.of_kind("round_opened")[0]["round"] == 1
