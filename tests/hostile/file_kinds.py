"""Kinds of malformed files: models, wrapping keys, keystores, images, and what an aggregator stores."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fedproof.digests import ZERO_DIGEST, encode_fields
from fedproof.errors import ConfigurationError, DigestMismatch
from fedproof.keys.tls import certificate_digest
from fedproof.keys.wallet import load_wallet
from fedproof.keys.wrapping import WrappingKey
from fedproof.model import Model, encode_clips, load_model, save_model
from fedproof.store import ObjectStore
from fedproof.tasks.idx import load_idx
from tests.fuzz.keys import KEY
from tests.fuzz.samples import LAYOUT, UPDATE, make_header, make_wrapped_keys
from tests.hostile.document_kinds import spoil, table
from tests.hostile.kind import Kind

PASSWORD = "hostile"
_FOLDER = TemporaryDirectory()
_IDX = bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 2, 3) + bytes(range(12))


@cache
def model_file() -> bytes:
    """Return the file of a small model."""
    path = Path(_FOLDER.name) / "model"
    save_model(path, LAYOUT, Model(np.arange(6, dtype=np.float32), (0.25, 0.5)))
    return path.read_bytes()


@cache
def wrapping_key_file() -> bytes:
    """Return the file of a wrapping key, under the cheapest password that scrypt knows."""
    path = Path(_FOLDER.name) / "wrapping.key"
    KEY.save(path, PASSWORD, iterations=2)
    return path.read_bytes()


def parse_model(raw: bytes) -> object:
    """Load bytes as a model file."""
    return load_model(_write(raw))


def parse_wrapping_key(raw: bytes) -> object:
    """Load bytes as a wrapping key."""
    return WrappingKey.load(_write(raw), PASSWORD)


def kinds() -> Iterator[Kind]:
    """Yield every kind."""
    yield from _of_models()
    yield from _of_stores()
    yield from _of_keys()
    yield from _of_images()


def _of_models() -> Iterator[Kind]:
    raw = model_file()
    values = raw[-24:]
    head = raw[:-24]
    count = "expected 6 values of 4 bytes and 2 clips, got "
    rows = {
        "empty": ("no byte at all", b"", "expected a fedproof.model-file.v1 file"),
        "other_file": ("something else", b"\x89PNG\r\n\x1a\n" + bytes(100), "expected a model file"),
        "pickle": (
            "a pickle that torch would run",
            b"\x80\x04cos\nsystem\n(S'true'\ntR.",
            "expected a model file",
        ),
        "value_missing": ("a value too few", raw[:-4], count + "20 bytes"),
        "value_too_many": ("a value too many", raw + bytes(4), count + "28 bytes"),
        "byte_missing": ("a byte too few", raw[:-1], count + "23 bytes"),
        "no_values": ("no values", head, count + "0 bytes"),
        "layout_huge": ("a layout of 2^32 - 1 bytes", raw[:28] + b"\xff" * 4 + raw[32:], "without layout"),
        "unknown_tag": (
            "a tag of nobody's",
            spoil(head, 0, "fedproof.model-file.v2") + values,
            "expected a fed",
        ),
        "digest_cut": ("a digest of 31 bytes", spoil(head, 2, bytes(31)) + values, "file, got one beginning"),
        "clip_missing": (
            "one clip for two groups",
            spoil(head, 3, 0.25) + values,
            count + "24 bytes and 1 clips",
        ),
        "clips_cut": ("15 bytes of clips", spoil(head, 3, bytes(15)) + values, "floats of 8 bytes, got 15"),
        "no_layout": ("an empty layout", spoil(head, 1, b"") + values, "expected 'fedproof.layout.v1' first"),
    }
    yield from table("model_file", parse_model, rows)
    other = encode_clips((0.25, 0.75))
    damaged = {
        "other_value": (
            "another value",
            raw[:-1] + b"\x7f",
            "expected model [0-9a-f]{64}, got .* the file is damaged",
        ),
        "other_digest": (
            "another digest",
            spoil(head, 2, ZERO_DIGEST) + values,
            "expected model 0{64}, got ",
        ),
        "other_clips": ("other clips", spoil(head, 3, other) + values, "expected model [0-9a-f]{64}, got "),
    }
    yield from table("model_file", parse_model, damaged, DigestMismatch)


def _of_stores() -> Iterator[Kind]:
    header = make_header(UPDATE.encode()).SerializeToString()
    headers = {
        "cut": ("one byte short", header[:-1], "expected a serialised Header, got other bytes"),
        "endless_varint": (
            "a varint of eleven bytes",
            b"\x08" + b"\xff" * 11,
            "expected a serialised Header",
        ),
        "short_digest": (
            "a chunk digest of 31 bytes",
            header[:-34] + b"\x12\x1f" + bytes(31),
            "a digest of 32 bytes",
        ),
    }
    yield from table(
        "stored_header", partial(_read_store, read=_read_header, name="headers/" + "00" * 32), headers
    )
    yield Kind(
        "stored_header_of_another_root",
        "a header under another's name",
        header,
        partial(_read_store, read=_read_header, name="headers/" + "00" * 32),
        DigestMismatch,
        "expected root 0{64}, got ",
    )
    keys = make_wrapped_keys()
    epochs = {
        "cut": ("cut within a key", make_wrapped_keys(UPDATE.node)[:-1], "expected serialised wrapped keys"),
        "of_another_epoch": ("the keys of another epoch", keys, "expected the keys of epoch 2, got epoch 1"),
    }
    yield from table("stored_keys", partial(_read_store, read=_read_keys, name="epochs/2"), epochs)


def _of_keys() -> Iterator[Kind]:
    raw = wrapping_key_file()
    scrypt = encode_fields("fedproof.wrapping-key.v1", b"", 1 << 40, bytes(16), bytes(12), bytes(112))
    keys = {
        "empty": ("no byte at all", b"", "expected a wrapping key, got another file"),
        "field_missing": ("no ciphertext", raw[:-116], "expected 6 fields, got 5"),
        "unknown_tag": (
            "a tag of nobody's",
            spoil(raw, 0, "fedproof.wrapping-key.v2"),
            "it begins b'fedproof.wrapping",
        ),
        "cost_bomb": ("scrypt with 1 PiB", scrypt, "with the scrypt cost 1099511627776"),
        "cost_0": ("scrypt with n = 0", spoil(raw, 2, 0), "with the scrypt cost 0"),
        "cost_no_power": ("scrypt with n = 3", spoil(raw, 2, 3), "with the scrypt cost 3"),
        "cost_cut": (
            "a cost of 4 bytes",
            spoil(raw, 2, b"1234"),
            "scrypt cost: expected an integer of 8 bytes",
        ),
        "nonce_short": (
            "a nonce of 7 bytes",
            spoil(raw, 4, bytes(7)),
            "expected a wrapping key, got another file",
        ),
        "other_public_key": ("another public key", spoil(raw, 1, bytes(1216)), "expected the password"),
        "ciphertext_cut": ("half a ciphertext", spoil(raw, 5, bytes(56)), "expected the password"),
    }
    yield from table("wrapping_key", parse_wrapping_key, keys, ConfigurationError)
    wallets = {
        "empty": ("no byte at all", b"", "expected a keystore"),
        "no_json": ("no JSON", b"{", "expected a keystore"),
        "list": ("a list", b"[]", "a JSON list"),
        "no_crypto": ("another document", b'{"version": 3}', "expected a keystore"),
        "crypto_text": ("text for a table", b'{"version": 3, "crypto": "none"}', "expected a keystore"),
        "later_version": ("a version to come", b'{"version": 4, "crypto": {}}', "expected a keystore"),
        "deep": ("arrays 500 deep", b"[" * 500, "expected a keystore"),
    }
    yield from table("keystore", lambda raw: load_wallet(_write(raw), PASSWORD), wallets, ConfigurationError)
    begin, end = b"-----BEGIN CERTIFICATE-----\n", b"\n-----END CERTIFICATE-----\n"
    certificates = {
        "empty": ("no byte at all", b"", "expected a certificate in PEM"),
        "no_base64": ("no base64", begin + b"!!!!" + end, "expected a certificate in PEM"),
        "no_certificate": ("other DER", begin + b"MAMCAQE=" + end, "expected a certificate in PEM"),
    }
    yield from table(
        "certificate", lambda raw: certificate_digest(_write(raw)), certificates, ConfigurationError
    )


def _of_images() -> Iterator[Kind]:
    bomb = gzip.compress(_IDX[:8] + struct.pack(">II", 1 << 20, 1 << 20) + bytes(64 << 20), mtime=0)
    rows = {
        "empty": ("no byte at all", b"", "got an empty file"),
        "header_cut": ("within the header", _IDX[:10], "expected a header of 16 bytes, got 10"),
        "other_type": ("floats", bytes([0, 0, 13, 3]) + _IDX[4:], "expected an IDX file of unsigned bytes"),
        "other_shape": (
            "items of 3 x 2",
            _IDX[:8] + struct.pack(">II", 3, 2) + _IDX[16:],
            r"items of shape \(2, 3\)",
        ),
        "no_items": ("no item", _IDX[:4] + bytes(4) + _IDX[8:], "expected at least one item"),
        "values_cut": ("one byte short", _IDX[:-1], "expected 12 bytes of values for 2 of 2 items, got 11"),
        "trailing_byte": ("one byte long", _IDX + b"\0", "expected nothing after the 2 items"),
        "gzip_cut": ("cut gzip", gzip.compress(_IDX, mtime=0)[:-9], "expected a readable IDX file"),
        "gzip_spoilt": (
            "spoilt gzip",
            gzip.compress(_IDX, mtime=0)[:10] + b"\xff" * 20,
            "expected a readable IDX",
        ),
        "gzip_bomb": ("64 MiB of zeros in 64 KiB", bomb, "items of shape"),
    }
    yield from table(
        "idx", lambda raw: load_idx(_write(raw), item_shape=(2, 3), max_items=50), rows, ConfigurationError
    )


def _read_store(raw: bytes, *, read: Callable[[ObjectStore], object], name: str) -> object:
    path = Path(_FOLDER.name) / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(raw)
    return read(ObjectStore(Path(_FOLDER.name)))


def _read_header(store: ObjectStore) -> object:
    return store.get_header(ZERO_DIGEST)


def _read_keys(store: ObjectStore) -> object:
    return store.get_wrapped_keys(2)


def _write(raw: bytes) -> Path:
    path = Path(_FOLDER.name) / "file"
    path.write_bytes(raw)
    return path
