"""Wrapping keys: only the node that a secret was wrapped for opens it, and only where it was meant for."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from fedproof.digests import Address, Digest, encode_fields, split_fields
from fedproof.errors import ConfigurationError, MalformedMessage
from fedproof.keys.wrapping import (
    PUBLIC_KEY_BYTES,
    WrappingKey,
    public_key_digest,
    wrap,
    wrapped_keys_root,
    wrapping_info,
)

SECRET = bytes(range(32))
WORK = 2  # scrypt's cost: these keys protect nothing


def _info(
    *, chain_id: int = 1, contract: int = 0xC0, epoch: int = 1, node: int = 0x0A, context: int = 0
) -> bytes:
    return wrapping_info(
        chain_id=chain_id,
        contract=Address(bytes([contract]) * 20),
        epoch=epoch,
        node=Address(bytes([node]) * 20),
        context_digest=Digest(bytes([context]) * 32),
    )


@pytest.fixture(scope="module")
def key() -> WrappingKey:
    """Return a node's key."""
    return WrappingKey.generate()


def test_wrapped_secret_opens(key: WrappingKey) -> None:
    """The node that it was wrapped for gets the secret."""
    assert key.unwrap(wrap(SECRET, key.public_bytes, info=_info()), info=_info()) == SECRET


def test_wrapping_is_randomised_and_hides_the_secret(key: WrappingKey) -> None:
    """Two wrappings of one secret differ, and neither contains it."""
    first, second = (wrap(SECRET, key.public_bytes, info=_info()) for _ in range(2))
    assert first != second
    assert SECRET not in first


@pytest.mark.parametrize(
    "other",
    [
        {"chain_id": 2},
        {"contract": 0xC1},
        {"epoch": 2},
        {"node": 0x0B},
        {"context": 1},
    ],
)
def test_secret_for_another_purpose_does_not_open(key: WrappingKey, other: dict[str, int]) -> None:
    """A wrapped key of another chain, contract, epoch, node or context is refused."""
    wrapped = wrap(SECRET, key.public_bytes, info=_info(**other))
    with pytest.raises(
        MalformedMessage, match=r"expected one made for the public key .*, got one that does not"
    ):
        key.unwrap(wrapped, info=_info())


def test_other_node_opens_nothing(key: WrappingKey) -> None:
    """A relayed key opens for its addressee alone."""
    wrapped = wrap(SECRET, key.public_bytes, info=_info())
    with pytest.raises(MalformedMessage):
        WrappingKey.generate().unwrap(wrapped, info=_info())


def test_each_half_of_the_key_is_needed(key: WrappingKey) -> None:
    """Whoever holds only the ML-KEM key or only the X25519 key opens nothing."""
    other = WrappingKey.generate()
    wrapped = wrap(SECRET, key.public_bytes, info=_info())
    for mine, foreign in ((key, other), (other, key)):
        with pytest.raises(MalformedMessage):
            WrappingKey(mine._mlkem, foreign._x25519).unwrap(wrapped, info=_info())


def test_altered_or_cut_wrapped_key_is_refused(key: WrappingKey) -> None:
    """A flipped bit anywhere, any truncation, and a trailing byte are refused."""
    wrapped = wrap(SECRET, key.public_bytes, info=_info())
    altered = [wrapped[:i] + bytes([wrapped[i] ^ 1]) + wrapped[i + 1 :] for i in range(0, len(wrapped), 29)]
    cut = [wrapped[:end] for end in (*range(0, len(wrapped), 97), len(wrapped) - 1)]
    for hostile in (*altered, *cut, wrapped + b"\x00"):
        with pytest.raises(MalformedMessage):
            key.unwrap(hostile, info=_info())


@pytest.mark.parametrize("length", [0, 1, 1184, PUBLIC_KEY_BYTES - 1, PUBLIC_KEY_BYTES + 1])
def test_public_key_of_another_length_is_refused(key: WrappingKey, length: int) -> None:
    """The length of a public key from a peer is exact."""
    with pytest.raises(MalformedMessage, match=f"public key: expected 1216 bytes .*, got {length}"):
        wrap(SECRET, (key.public_bytes * 2)[:length], info=_info())


def test_public_key_that_is_none_is_refused(key: WrappingKey) -> None:
    """Coefficients beyond ML-KEM's modulus, and points of low order on X25519, are refused."""
    unreduced = b"\xff" * 1184 + key.public_bytes[1184:]
    low_order = key.public_bytes[:1184] + bytes(32)
    for hostile in (unreduced, low_order, bytes(PUBLIC_KEY_BYTES)):
        with pytest.raises(MalformedMessage, match=r"public key [0-9a-f]{64}: expected reduced"):
            wrap(SECRET, hostile, info=_info())


def test_digest_is_that_of_the_public_bytes(key: WrappingKey) -> None:
    """What a node registers is plain SHA-256, so that anyone can recompute it."""
    assert len(key.public_bytes) == PUBLIC_KEY_BYTES
    assert key.digest == public_key_digest(key.public_bytes) == hashlib.sha256(key.public_bytes).digest()


def test_repr_shows_no_private_key(key: WrappingKey) -> None:
    """A key in a log line or a traceback gives nothing away."""
    assert repr(key) == f"WrappingKey(public digest {key.digest.hex()})"


def test_saved_key_is_private_and_comes_back(key: WrappingKey, tmp_path: Path) -> None:
    """A key file is its owner's, holds no plain key, and opens with the password."""
    path = tmp_path / "keys" / "wrapping.key"
    key.save(path, "correct horse", iterations=WORK)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key._x25519.private_bytes_raw() not in path.read_bytes()
    loaded = WrappingKey.load(path, "correct horse")
    assert loaded.public_bytes == key.public_bytes
    assert loaded.unwrap(wrap(SECRET, key.public_bytes, info=_info()), info=_info()) == SECRET


def test_saving_with_the_default_cost(key: WrappingKey, tmp_path: Path) -> None:
    """The default cost is scrypt's 2^17, and such a file opens too."""
    path = tmp_path / "wrapping.key"
    key.save(path, "correct horse")
    assert split_fields(path.read_bytes(), "")[2] == (1 << 17).to_bytes(8)
    assert WrappingKey.load(path, "correct horse").digest == key.digest


def test_wrong_password_names_the_file(key: WrappingKey, tmp_path: Path) -> None:
    """A wrong password is said to be one, with the file's name."""
    key.save(tmp_path / "wrapping.key", "correct horse", iterations=WORK)
    with pytest.raises(ConfigurationError, match=r"wrapping\.key: expected the password .*, got another one"):
        WrappingKey.load(tmp_path / "wrapping.key", "battery staple")


def test_saving_never_overwrites(key: WrappingKey, tmp_path: Path) -> None:
    """A key that exists is not lost to a second start."""
    (tmp_path / "wrapping.key").write_bytes(b"old")
    with pytest.raises(ConfigurationError, match=r"wrapping\.key: expected no file there"):
        key.save(tmp_path / "wrapping.key", "correct horse", iterations=WORK)
    assert (tmp_path / "wrapping.key").read_bytes() == b"old"


def test_damaged_key_file_is_refused(key: WrappingKey, tmp_path: Path) -> None:
    """No truncation, no trailing byte and no flipped bit is taken for a key."""
    path = tmp_path / "wrapping.key"
    key.save(path, "correct horse", iterations=WORK)
    raw = path.read_bytes()
    cut = [raw[:end] for end in (*range(0, len(raw), 61), len(raw) - 1)]
    altered = [raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :] for i in range(0, len(raw), 61)]
    for damaged in (*cut, raw + b"\x00", *altered, raw[:-1] + bytes([raw[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(ConfigurationError, match=r"wrapping\.key: expected"):
            WrappingKey.load(path, "correct horse")


@pytest.mark.parametrize("cost", [0, 1, 3, 1 << 21, 1 << 40])
def test_key_file_may_not_ask_for_any_amount_of_memory(key: WrappingKey, tmp_path: Path, cost: int) -> None:
    """A cost that is no power of two, or beyond a gibibyte of memory, is refused before it is spent."""
    path = tmp_path / "wrapping.key"
    key.save(path, "correct horse", iterations=WORK)
    fields: list[bytes | int] = list(split_fields(path.read_bytes(), ""))
    fields[2] = cost
    path.write_bytes(encode_fields(*fields))
    with pytest.raises(ConfigurationError, match=f"expected a wrapping key, got .*cost {cost}"):
        WrappingKey.load(path, "correct horse")


def test_missing_key_file_says_how_to_make_one(tmp_path: Path) -> None:
    """A key that is not there is answered with the command that makes one."""
    with pytest.raises(
        ConfigurationError, match=r"expected a wrapping key .*fedproof node init.*No such file"
    ):
        WrappingKey.load(tmp_path / "wrapping.key", "x")


def test_root_over_wrapped_keys_is_pinned() -> None:
    """The root over wrapped keys binds each ciphertext to its node; it stands on ledgers."""
    wrapped = [(Address(b"\x0a" * 20), b"one"), (Address(b"\x0b" * 20), b"two"), (Address(b"\x0c" * 20), b"")]

    def leaf(node: bytes, ciphertext: bytes) -> bytes:
        head = (20).to_bytes(4) + node + len(ciphertext).to_bytes(4)
        return hashlib.sha256(b"\x00" + head + ciphertext).digest()

    left = hashlib.sha256(b"\x01" + leaf(*wrapped[0]) + leaf(*wrapped[1])).digest()
    assert wrapped_keys_root(wrapped) == hashlib.sha256(b"\x01" + left + leaf(*wrapped[2])).digest()


@pytest.mark.parametrize("order", [(1, 0), (0, 0), (0, 1, 1)])
def test_wrapped_keys_out_of_order_are_refused(order: tuple[int, ...]) -> None:
    """Each node has one wrapped key, ascending, so that one set has one root."""
    wrapped = [(Address(b"\x0a" * 20), b"one"), (Address(b"\x0b" * 20), b"two")]
    with pytest.raises(
        MalformedMessage, match="wrapped keys: expected them ascending by node, each once, got 0x"
    ):
        wrapped_keys_root([wrapped[i] for i in order])
