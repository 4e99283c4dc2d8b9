"""Valid and nearly valid inputs to begin with. `python -m tests.fuzz.seeds` writes those that are missing."""

from __future__ import annotations

import gzip
import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from eth_account import Account

from fedproof.digests import encode_fields
from fedproof.keys.tls import make_authority
from fedproof.keys.wrapping import wrap
from fedproof.model import Model, encode_clips, save_model
from tests.fuzz import files, keys
from tests.fuzz.registry import CORPUS
from tests.fuzz.samples import AGGREGATE, LAYOUT, NODES, POLICY, UPDATE, make_header, make_wrapped_keys

Seeds = Iterator[tuple[str, str, bytes]]
"""Target, name, input."""


def of_documents() -> Seeds:
    """Yield what `tests.fuzz.documents` begins with."""
    yield "canonical_fields", "valid", encode_fields("tag", b"\xff", 258, 1.5)
    yield "canonical_fields", "valid_nothing", b""
    yield "canonical_fields", "huge_length", b"\xff\xff\xff\xff"
    yield "layout", "valid", LAYOUT.encode()
    yield "layout", "name_twice", LAYOUT.encode() + LAYOUT.encode()[22:]
    yield "clips", "valid", encode_clips((0.25, 5e-324, 1e300))
    for name, clip in (("nan", math.nan), ("infinity", math.inf), ("zero", 0.0), ("minus", -1.0)):
        yield "clips", name, struct.pack(">dd", 0.25, clip)
    yield "policy", "valid", POLICY.canonical()
    yield "policy", "trailing_byte", POLICY.canonical() + b"\0"
    yield "policy_toml", "valid", POLICY.dump_toml().encode()
    yield "policy_toml", "valid_odd_name", replace(POLICY, name='"\\\u00e9\U0001f9ec').dump_toml().encode()
    yield "update_manifest", "valid", UPDATE.encode()
    yield "update_manifest", "aggregate", AGGREGATE.encode()
    yield "aggregate_manifest", "valid", AGGREGATE.encode()
    yield "aggregate_manifest", "update", UPDATE.encode()
    for name, manifest in (("valid_update", UPDATE), ("valid_aggregate", AGGREGATE)):
        yield "header", name, make_header(manifest.encode()).SerializeToString()
    yield "header", "digest_too_few", make_header(UPDATE.encode(), chunks=1).SerializeToString()


def of_chunks() -> Seeds:
    """Yield what `tests.fuzz.chunks` begins with."""
    for name in ("update_chunk", "aggregate_chunk"):
        yield name, "valid_one_frame", b"\x01\x01\x00\x00"
        yield name, "valid_sixteen_frames", b"\x10\x01\x00\x00\x02\x00\x00\x00"
        yield name, "seventeen_frames", b"\x11\x01"
        yield name, "all_ones", b"\x01\xff"
        yield name, "bytes_too_few", b"\x00" + bytes(100)
    yield "update_chunk", "valid_zeros", b"\x02\x00"
    yield "aggregate_chunk", "in_the_clear", b"\x02\x00"


def of_keys() -> Seeds:
    """Yield what `tests.fuzz.keys` begins with."""
    sealed = wrap(keys.SECRET, keys.KEY.public_bytes, info=keys.INFO)
    yield "hpke_open", "valid", sealed
    yield "hpke_open", "cut", sealed[:-1]
    yield "hpke_open", "for_another_node", wrap(keys.SECRET, keys.KEY.public_bytes, info=b"")
    yield "public_key", "valid", keys.KEY.public_bytes
    yield "public_key", "not_reduced", b"\xff" * 1216
    yield "public_key", "point_of_low_order", keys.KEY.public_bytes[:-32] + bytes(32)
    yield "wrapped_keys", "valid", make_wrapped_keys(*NODES)
    yield "wrapped_keys", "out_of_order", make_wrapped_keys(*reversed(NODES))
    yield "wrapped_keys", "twice", make_wrapped_keys(NODES[0], NODES[0])
    yield "stored_keys", "valid", make_wrapped_keys(*NODES)
    yield "stored_header", "valid", make_header(UPDATE.encode()).SerializeToString()


def of_files() -> Seeds:
    """Yield what `tests.fuzz.files` begins with."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = Model(np.arange(6, dtype=np.float32), (0.25, 0.5))
        save_model(folder / "model", LAYOUT, model)
        saved = (folder / "model").read_bytes()
        yield "model_file", "valid", saved
        yield "model_file", "value_too_many", saved + bytes(4)
        yield "model_file", "other_value", saved[:-1] + b"\x01"
        keys.KEY.save(folder / "key", files.PASSWORD, iterations=2)
        yield "wrapping_key_file", "valid", (folder / "key").read_bytes()
        pem = make_authority(folder / "authority", "authority").certificate.read_bytes()
        yield "certificate", "valid", pem
    for kdf, cost in (("scrypt", 2), ("pbkdf2", 1)):
        keystore = Account.encrypt(bytes(31) + b"\x01", files.PASSWORD, kdf=kdf, iterations=cost)
        yield "wallet", f"valid_{kdf}", json.dumps(keystore).encode()
    yield "wallet", "deep", b"[" * 2000
    zeros, ones = "0x" + "00" * 20, "0x" + "11" * 20
    book = {"chain_id": 1, "contract": ones, "rpc_url": "http://x", "admin": zeros, "aggregator": ones}
    yield "address_book", "valid", json.dumps(book | {"block": 0}).encode()
    yield "address_book", "key_missing", json.dumps(book).encode()
    items = bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 2, 3) + bytes(range(12))
    yield "idx", "valid", items
    yield "idx", "valid_compressed", gzip.compress(items, mtime=0)
    yield "idx", "many_items", bytes([0, 0, 8, 3]) + struct.pack(">III", 2**32 - 1, 2, 3)


SOURCES: tuple[Callable[[], Seeds], ...] = (of_documents, of_chunks, of_keys, of_files)


def main() -> None:
    """Write the seeds that are missing: some are drawn at random, and need not change."""
    for source in SOURCES:
        for name, what, raw in source():
            path = CORPUS / name / what
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(raw)


if __name__ == "__main__":
    main()
