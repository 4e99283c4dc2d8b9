"""Kinds of malformed keys: wrapped for a node, public, or in a list of an epoch's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from fedproof.codec import SecretKey
from fedproof.digests import Address, Digest, as_address
from fedproof.keys.wrapping import WrappingKey, wrap, wrapped_keys_root, wrapping_info
from fedproof.wire.aggregation_pb2 import PutWrappedKeysRequest
from tests.fuzz.keys import INFO, KEY, SECRET
from tests.fuzz.samples import NODES, make_wrapped_keys
from tests.hostile.document_kinds import table
from tests.hostile.kind import Kind

_NODE = Address(bytes(20))


@cache
def wrapped() -> bytes:
    """Return the epoch's key, wrapped for the one who opens it here."""
    return wrap(SECRET, KEY.public_bytes, info=INFO)


def unwrap(raw: bytes) -> bytes:
    """Open a wrapped key, as a node does."""
    return KEY.unwrap(raw, info=INFO)


def kinds() -> Iterator[Kind]:
    """Yield every kind."""
    closed = "wrapped key: expected one made for the public key [0-9a-f]{64} under this chain"
    sealed, public = wrapped(), KEY.public_bytes
    other = WrappingKey.generate()
    rows = {
        "empty": ("no byte at all", b"", closed),
        "encapsulation_cut": ("within the encapsulation", sealed[:500], closed),
        "encapsulation_alone": ("no ciphertext after the encapsulation", sealed[:1120], closed),
        "one_byte_short": ("the last byte is missing", sealed[:-1], closed),
        "one_byte_long": ("a byte after the last", sealed + b"\0", closed),
        "bit_flipped_in_kem": ("one bit of ML-KEM's part", _flip(sealed, 0), closed),
        "bit_flipped_in_point": ("one bit of X25519's part", _flip(sealed, 1100), closed),
        "bit_flipped_in_tag": ("one bit of the tag", _flip(sealed, -1), closed),
        "point_of_low_order": ("a point of low order", sealed[:1088] + bytes(32) + sealed[1120:], closed),
        "for_another_key": (
            "wrapped for another node's key",
            wrap(SECRET, other.public_bytes, info=INFO),
            closed,
        ),
        "for_another_node": ("for another node", wrap(SECRET, public, info=_info(node=NODES[1])), closed),
        "for_another_epoch": ("for another epoch", wrap(SECRET, public, info=_info(epoch=2)), closed),
        "in_the_clear": ("the key itself", SECRET, closed),
        "huge": ("a mebibyte", bytes(1 << 20), closed),
    }
    yield from table("wrapped_key", unwrap, rows)
    expected = "public key: expected 1216 bytes"
    not_reduced = "expected reduced ML-KEM-768 coefficients and an X25519 point of full order, got others"
    publics = {
        "empty": ("no byte at all", b"", expected),
        "one_byte_short": ("the last byte is missing", public[:-1], expected),
        "one_byte_long": ("a byte after the last", public + b"\0", expected),
        "not_reduced": ("coefficients that are not below 3329", b"\xff" * 1184 + public[1184:], not_reduced),
        "point_of_low_order": ("a point of low order", public[:1184] + bytes(32), not_reduced),
    }
    yield from table("public_key", lambda raw: wrap(SECRET, raw, info=INFO), publics)
    ascending = "expected them ascending by node, each once"
    lists = {
        "out_of_order": ("nodes descending", make_wrapped_keys(*reversed(NODES)), ascending),
        "twice": ("a node twice", make_wrapped_keys(NODES[0], NODES[0]), ascending),
        "short_node": ("a node of 19 bytes", make_wrapped_keys(Address(bytes(19))), "an address of 20 bytes"),
        "no_node": ("a node of no bytes", make_wrapped_keys(Address(b"")), "an address of 20 bytes"),
    }
    yield from table("wrapped_keys", _parse_list, lists)
    opened = {
        "short": ("31 bytes, rightly wrapped", bytes(31), "secret key: expected 32 bytes, got 31"),
        "long": ("33 bytes, rightly wrapped", bytes(33), "secret key: expected 32 bytes, got 33"),
    }
    yield from table("secret_key", SecretKey, opened)


def _parse_list(raw: bytes) -> Digest:
    keys = PutWrappedKeysRequest.FromString(raw).keys
    return wrapped_keys_root([(as_address(each.node, "wrapped key"), each.ciphertext) for each in keys])


def _info(*, epoch: int = 1, node: Address = _NODE) -> bytes:
    return wrapping_info(chain_id=1, contract=_NODE, epoch=epoch, node=node, context_digest=Digest(bytes(32)))


def _flip(raw: bytes, position: int) -> bytes:
    spoilt = bytearray(raw)
    spoilt[position] ^= 1
    return bytes(spoilt)
