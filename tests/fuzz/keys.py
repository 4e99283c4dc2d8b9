"""Fuzz targets: keys on their way from one node to another, past a relay that nobody trusts."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from google.protobuf.message import DecodeError

from fedproof.codec.secret_key import SecretKey
from fedproof.digests import Address, Digest, as_address
from fedproof.errors import MalformedMessage
from fedproof.keys.wrapping import WrappingKey, wrap, wrapped_keys_root, wrapping_info
from fedproof.wire.aggregation_pb2 import PutWrappedKeysRequest
from tests.fuzz.registry import refusing, skip, target

# A key that is the same in every run, so that a kept ciphertext stays one that opens.
KEY: Final = WrappingKey(
    mlkem.MLKEM768PrivateKey.from_seed_bytes(bytes(64)),
    x25519.X25519PrivateKey.from_private_bytes(bytes(32)),
)
INFO: Final = wrapping_info(
    chain_id=1,
    contract=Address(bytes(20)),
    epoch=1,
    node=Address(bytes(20)),
    context_digest=Digest(bytes(32)),
)
SECRET: Final = bytes(range(32))


@target(max_bytes=1500)
def hpke_open(raw: bytes) -> None:
    """`WrappingKey.unwrap`: an epoch's key, as it came past the relay."""
    with refusing(MalformedMessage):
        secret = KEY.unwrap(raw, info=INFO)
    assert SecretKey(secret).reveal() == SECRET


@target(max_bytes=1300)
def public_key(raw: bytes) -> None:
    """`wrapping.wrap`: another node's public key."""
    with refusing(MalformedMessage):
        wrap(SECRET, raw, info=INFO)


@target(max_bytes=2048)
def wrapped_keys(raw: bytes) -> None:
    """`wrapping.wrapped_keys_root`: an epoch's list of wrapped keys."""
    try:
        message = PutWrappedKeysRequest.FromString(raw)
    except DecodeError:
        skip()
    with refusing(MalformedMessage):
        keys = [(as_address(each.node, "node"), each.ciphertext) for each in message.keys]
        wrapped_keys_root(keys)
    assert [node for node, _ in keys] == sorted({node for node, _ in keys})
