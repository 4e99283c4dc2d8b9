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
from typing import Any, cast

import numpy as np
from eth_account import Account
from eth_utils.abi import event_abi_to_log_topic

from fedproof.codec.messages import Kind
from fedproof.digests import encode_fields
from fedproof.keys.tls import make_authority
from fedproof.keys.wrapping import wrap
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.statements import SignedAttestation, SignedCommitment, encode_leaves
from fedproof.manifest import AggregateManifest
from fedproof.merkle import leaf_digest
from fedproof.model import Model, encode_clips, save_model
from fedproof.wire.aggregation_pb2 import Chunk, DownloadResponse, Header, UploadRequest, UploadStart
from tests.fuzz import files, keys, workers
from tests.fuzz import wire as streams
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
    batch = encode_leaves([SignedCommitment(node, UPDATE.base_model, 7, 9, bytes(65)) for node in NODES])
    proposal = encode_leaves([SignedAttestation(node, bytes(64)) for node in NODES])
    yield "signed_commitments", "valid", batch
    yield "signed_commitments", "attestations", proposal
    yield "signed_commitments", "valid_of_nobody", encode_leaves([])
    yield "signed_attestations", "valid", proposal
    yield "signed_attestations", "commitments", batch
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


def of_workers() -> Seeds:
    """Yield what `tests.fuzz.workers` begins with."""
    done = struct.Struct("<BI")

    def reply(body: bytes, kind: Kind = Kind.DONE) -> bytes:
        return done.pack(kind, len(body)) + body

    chunk = reply(workers.CHUNK)
    yield "worker_reply", "valid_add", b"\x00" + 2 * reply(b"")
    yield "worker_reply", "valid_take", b"\x01" + reply(b"") + reply(bytes(workers.SUM_BYTES))
    yield "worker_reply", "valid_sum", b"\x02" + 3 * reply(b"") + reply(bytes(workers.SUM_BYTES))
    yield "worker_reply", "valid_decode", b"\x03" + reply(bytes(8 * workers.VALUES))
    yield "worker_reply", "valid_encode", b"\x04" + chunk
    yield "worker_reply", "valid_encode_residual", b"\x05" + reply(workers.CHUNK + bytes(4 * workers.VALUES))
    yield "worker_reply", "refusal", b"\x00" + reply(b"text \xff", Kind.MALFORMED_MESSAGE)
    yield "worker_reply", "long_refusal", b"\x00" + reply(b"x" * 5000, Kind.CONFIGURATION_ERROR)
    yield "worker_reply", "sum_lost", b"\x00" + reply(b"", Kind.SUM_LOST)
    yield "worker_reply", "request", b"\x00" + reply(b"", Kind.ADD)
    yield "worker_reply", "unknown_kind", b"\x00\xff" + bytes(4)
    yield "worker_reply", "huge_body", b"\x00" + done.pack(Kind.DONE, 2**32 - 1)
    yield "worker_reply", "silence", b"\x00"
    yield "worker_reply", "sums_too_many", b"\x03" + reply(bytes(8 * workers.VALUES + 8))


def of_streams() -> Seeds:
    """Yield what `tests.fuzz.wire` begins with."""
    start = streams.make_upload()
    chunk = UploadRequest(chunk=Chunk(index=0, data=bytes(100)))
    yield "upload", "valid_header", streams.make_stream(UploadRequest(start=start))
    yield "upload", "bad_chunk", streams.make_stream(UploadRequest(start=start), chunk)
    yield "upload", "chunk_first", streams.make_stream(chunk)
    yield "upload", "two_starts", streams.make_stream(UploadRequest(start=start), UploadRequest(start=start))
    yield "upload", "manifest_of_a_sum", streams.make_stream(UploadRequest(start=_spoil(start, AGGREGATE)))
    data = (b"chunk 0", b"chunk 1")
    manifest = streams.FACTS.aggregate_manifest().encode()
    header = Header(manifest=manifest, chunk_digests=[leaf_digest(each) for each in data])
    parts = [DownloadResponse(chunk=Chunk(index=i, data=each)) for i, each in enumerate(data)]
    yield "download", "valid", streams.make_stream(DownloadResponse(header=header), *parts)
    yield "download", "out_of_order", streams.make_stream(DownloadResponse(header=header), *reversed(parts))
    yield "download", "no_header", streams.make_stream(*parts)


def _spoil(start: UploadStart, manifest: AggregateManifest) -> UploadStart:
    header = Header(manifest=manifest.encode(), chunk_digests=start.header.chunk_digests[:2])
    return UploadStart(round=start.round, node=start.node, header=header)


def of_chains() -> Seeds:
    """Yield what `tests.fuzz.chain` begins with."""

    def answer(question: int, result: object) -> bytes:
        return bytes([question]) + json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()

    word = "0x" + "00" * 31 + "01"
    block = {"number": "0x1", "hash": word, "timestamp": "0x5", "parentHash": word, "extraData": "0x"}
    entry = encode_event(NODES[0])
    yield "ledger_answer", "valid_block_number", answer(0, "0x10")
    yield "ledger_answer", "valid_block", answer(1, block)
    yield "ledger_answer", "valid_no_events", answer(2, [])
    yield "ledger_answer", "valid_event", answer(2, [entry])
    yield "ledger_answer", "event_without_topics", answer(2, [entry | {"topics": []}])
    yield "ledger_answer", "valid_history_hash", answer(3, word)
    yield "ledger_answer", "valid_member", answer(4, word + word[2:] * 3 + "11" * 24 + "00" * 8)
    yield "ledger_answer", "valid_round", answer(5, word + word[2:] * 12)
    yield "ledger_answer", "valid_state", answer(6, word + word[2:] * 12)
    yield "ledger_answer", "valid_key_maker", answer(7, word)
    yield "ledger_answer", "not_a_number", answer(0, "zz")
    yield "ledger_answer", "null", answer(3, None)
    yield "ledger_answer", "many_digits", answer(0, "0x" + "f" * 4000)
    yield "ledger_answer", "deep", b"\x00" + b"[" * 4000
    error = {"code": 3, "message": "execution reverted", "data": "0xzz"}
    yield (
        "ledger_answer",
        "revert",
        b"\x03" + json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode(),
    )


def encode_event(node: bytes) -> dict[str, object]:
    """Return the log of a node's suspension, as an endpoint has it."""
    entry = load_artifact().entries("event")["MemberSuspended"]
    topic = event_abi_to_log_topic(cast("Any", entry))
    hashes = "0x" + "22" * 32
    return {
        "address": "0x" + "02" * 20,
        "topics": ["0x" + topic.hex(), "0x" + "00" * 12 + node.hex()],
        "data": "0x",
        "blockNumber": "0x1",
        "blockHash": hashes,
        "transactionHash": hashes,
        "transactionIndex": "0x0",
        "logIndex": "0x0",
        "removed": False,
    }


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


SOURCES: tuple[Callable[[], Seeds], ...] = (
    of_documents,
    of_chunks,
    of_keys,
    of_files,
    of_workers,
    of_chains,
    of_streams,
)


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
