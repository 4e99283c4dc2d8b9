"""The product writes tests/vectors, reads them back, and refuses what no reader may take."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedproof.codec import Codec, CodecParameters, SecretKey
from fedproof.codec.quantise import apply_mean, check_finite, quantise
from fedproof.codec.scaling import Scaling
from fedproof.digests import Digest, decode_float, decode_int, decode_text, split_fields
from fedproof.errors import ConfigurationError, DigestMismatch, MalformedMessage, UpdateRefused
from fedproof.keys.wrapping import WrappingKey
from fedproof.ledger.statements import decode_batch, decode_proposal, encode_leaves
from fedproof.manifest import AggregateManifest, UpdateManifest, verify_base, verify_header
from fedproof.merkle import verify_path
from fedproof.model import ModelLayout, decode_clips, load_model
from fedproof.policy import Policy

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors"

Vectors = dict[str, Any]


def load(section: str) -> Vectors:
    """Return a section's vectors."""
    vectors: Vectors = json.loads((VECTORS / f"{section}.json").read_text())
    return vectors


def read(name: str) -> bytes:
    """Return a file beside the vectors."""
    return (VECTORS / name).read_bytes()


def list_refused(section: str, name: str = "refused") -> list[Any]:
    """Return what a section wants refused, each as a parameter that is called by its reason."""
    return [pytest.param(vector, id=vector["why"]) for vector in load(section)[name]]


def read_fields(raw: bytes, types: list[str]) -> list[object]:
    """Return the values in fields of these types, as every document's parser does."""
    fields = split_fields(raw, "fields")
    if len(fields) != len(types):
        raise MalformedMessage(f"expected {len(types)} fields, got {len(fields)}")
    decoders: dict[str, Callable[[bytes, str], object]] = {
        "bytes": lambda field, _what: field,
        "text": decode_text,
        "integer": decode_int,
        "float": decode_float,
    }
    return [decoders[kind](field, "field") for kind, field in zip(types, fields, strict=True)]


def test_the_product_writes_these_vectors() -> None:
    """What the generator writes is what is committed, and what was drawn once still holds what it should."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_vectors.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_documents_are_read_back() -> None:
    """Policies, layouts and manifests are what their bytes stand for."""
    for vector in load("policy")["policies"]:
        assert Policy.parse(bytes.fromhex(vector["canonical"])).canonical().hex() == vector["canonical"]
    for vector in load("model")["models"]:
        assert ModelLayout.parse(bytes.fromhex(vector["layout"])).encode().hex() == vector["layout"]
    for vector in load("manifests")["updates"]:
        assert UpdateManifest.parse(bytes.fromhex(vector["encoded"])).encode().hex() == vector["encoded"]
    for vector in load("manifests")["aggregates"]:
        assert AggregateManifest.parse(bytes.fromhex(vector["encoded"])).encode().hex() == vector["encoded"]


def test_signed_statements_are_read_back() -> None:
    """A batch's document holds the leaves that are signed, and each path leads to the root on the ledger."""
    vectors = load("statements")
    batch = decode_batch(bytes.fromhex(vectors["batch"]["document"]))
    proposal = decode_proposal(bytes.fromhex(vectors["proposal"]["document"]))
    for leaves, section in ((batch, vectors["batch"]), (proposal, vectors["proposal"])):
        assert encode_leaves(leaves).hex() == section["document"]
        assert [each.leaf().hex() for each in leaves] == section["leaves"]
        for index, path in enumerate(section["paths"]):
            siblings = [Digest(bytes.fromhex(each)) for each in path]
            leaf, root = leaves[index].leaf(), Digest(bytes.fromhex(section["root"]))
            verify_path(root, size=len(leaves), index=index, leaf=leaf, path=siblings)


def test_model_files_are_read_back(tmp_path: Path) -> None:
    """A model file holds the values, the clips and the digest that it stands beside."""
    for vector in load("model")["models"]:
        path = tmp_path / "model"
        path.write_bytes(bytes.fromhex(vector["file"]))
        layout, model = load_model(path)
        assert layout.encode().hex() == vector["layout"]
        assert model.flat.astype("<f4").tobytes().hex() == vector["flat"]
        assert model.compute_digest(layout.digest).hex() == vector["model_digest"]


def test_a_kept_sum_is_decrypted() -> None:
    """The stored ciphertexts of a round decrypt to its sums, whatever version of SEAL made them."""
    vectors = load("round")
    policy = Policy.parse(bytes.fromhex(vectors["policy"]))
    codec = Codec(policy.codec_parameters())
    decryptor = codec.make_decryptor(SecretKey(bytes.fromhex(vectors["secret_key"])))
    total = codec.sum_chunks([read(update["chunk"]) for update in vectors["updates"]])
    assert total == read(vectors["aggregate"]["chunk"])
    sums = codec.decrypt_chunk(total, decryptor, contributors=3, index=0, length=policy.update_length)
    assert sums.tolist() == vectors["aggregate"]["sums"]


def test_a_kept_wrapped_key_is_opened(tmp_path: Path) -> None:
    """A wrapping key's file opens with its password, and a key that was wrapped for it with that key."""
    vectors = load("wrapped_keys")
    path = tmp_path / "key"
    path.write_bytes(read(vectors["file"]))
    key = WrappingKey.load(path, vectors["password"])
    assert key.public_bytes.hex() == vectors["public_key"]
    secret = key.unwrap(read(vectors["wrapped"]), info=bytes.fromhex(vectors["info"]))
    assert secret.hex() == vectors["secret"]


@pytest.mark.parametrize("vector", list_refused("fields"))
def test_other_fields_are_refused(vector: Vectors) -> None:
    """Bytes that are not exactly the fields of a document are no document."""
    with pytest.raises(MalformedMessage):
        read_fields(bytes.fromhex(vector["encoded"]), vector["types"])


@pytest.mark.parametrize(
    ("parse", "key", "vector"),
    [
        pytest.param(parse, key, vector, id=f"{section}: {vector['why']}")
        for parse, section, name, key in (
            (ModelLayout.parse, "layout", "refused", "layout"),
            (lambda raw: decode_clips(raw, "clips"), "model", "refused_clips", "clips"),
            (Policy.parse, "policy", "refused", "canonical"),
            (decode_batch, "statements", "refused", "document"),
            (UpdateManifest.parse, "manifests", "refused_updates", "encoded"),
            (AggregateManifest.parse, "manifests", "refused_aggregates", "encoded"),
        )
        for vector in load(section)[name]
    ],
)
def test_malformed_documents_are_refused(parse: Callable[[bytes], object], key: str, vector: Vectors) -> None:
    """Bytes that no writer writes are refused, whatever is wrong with them."""
    raw = bytes.fromhex(vector[key])
    with pytest.raises(MalformedMessage):
        parse(raw)


@pytest.mark.parametrize("vector", list_refused("model"))
def test_other_model_files_are_refused(vector: Vectors, tmp_path: Path) -> None:
    """A file that is not the model of its digest is refused."""
    path = tmp_path / "model"
    path.write_bytes(bytes.fromhex(vector["file"]))
    with pytest.raises((MalformedMessage, DigestMismatch)):
        load_model(path)


@pytest.mark.parametrize("vector", list_refused("manifests", "refused_bases"))
def test_clips_of_another_base_are_refused(vector: Vectors) -> None:
    """A manifest whose values and clips are not its base model's is refused, although it is well-formed."""
    manifest = UpdateManifest.parse(bytes.fromhex(vector["encoded"]))
    with pytest.raises(DigestMismatch):
        verify_base(manifest, layout_digest=Digest(bytes.fromhex(load("manifests")["layout_digest"])))


@pytest.mark.parametrize("vector", list_refused("manifests", "refused_headers"))
def test_other_headers_are_refused(vector: Vectors) -> None:
    """A header that is not the root's, or whose manifest counts other chunks, is refused."""
    digests = [Digest(bytes.fromhex(each)) for each in vector["chunk_digests"]]
    with pytest.raises((MalformedMessage, DigestMismatch)):
        verify_header(bytes.fromhex(vector["encoded"]), digests, root=Digest(bytes.fromhex(vector["root"])))


def test_codec_parameters_out_of_range_are_refused() -> None:
    """No parameters follow from bits or contributors that no policy may have."""
    for bits, contributors, _ in load("parameters")["refused"]:
        with pytest.raises(ConfigurationError):
            CodecParameters.plan(bits=bits, max_contributors=contributors)


@pytest.mark.parametrize("vector", list_refused("chunks", "refused_updates"))
def test_malformed_update_chunks_are_refused(vector: Vectors) -> None:
    """A chunk of another size, or with a coefficient that is not below q, is refused."""
    chunk = alter(read("chunk-a.bin"), vector["change"])
    with pytest.raises(MalformedMessage):
        make_codec().check_update_chunk(chunk, vector["index"], vector["length"])


@pytest.mark.parametrize("vector", list_refused("chunks", "refused_aggregates"))
def test_malformed_aggregate_chunks_are_refused(vector: Vectors) -> None:
    """A sum's chunk of another size, with such a coefficient, or in the clear is refused."""
    chunk = alter(read("chunk-sum.bin"), vector["change"])
    with pytest.raises(MalformedMessage):
        make_codec().check_aggregate_chunk(chunk, vector["index"], vector["length"])


@pytest.mark.parametrize("vector", list_refused("chunks", "refused_sums"))
def test_impossible_sums_are_refused(vector: Vectors) -> None:
    """A sum that so many contributors cannot reach, or with something in its padding, is refused."""
    codec = make_codec()
    decryptor = codec.make_decryptor(SecretKey(bytes.fromhex(load("chunks")["secret_key"])))
    count, length = vector["contributors"], vector["length"]
    with pytest.raises(MalformedMessage):
        codec.decrypt_chunk(read("chunk-sum.bin"), decryptor, contributors=count, index=0, length=length)


@pytest.mark.parametrize("vector", list_refused("quantisation"))
def test_updates_that_are_not_finite_are_refused(vector: Vectors) -> None:
    """NaN and infinity are never quantised."""
    delta = np.frombuffer(bytes.fromhex(vector["delta"]), dtype="<f4")
    with pytest.raises(UpdateRefused):
        quantise(delta, np.ones(1), limit=127, weight=1.0, rng=np.random.default_rng(1))


@pytest.mark.parametrize("vector", list_refused("next_model"))
def test_models_that_are_not_finite_are_refused(vector: Vectors) -> None:
    """A sum that leads beyond what a float32 holds makes no model."""
    scaling = Scaling(
        (1 << (vector["bits"] - 1)) - 1,
        vector["max_examples"],
        tuple(vector["group_sizes"]),
        decode_clips(bytes.fromhex(vector["clips"]), "clips"),
    )
    positions = np.array(vector["positions"])
    model = apply_mean(
        np.frombuffer(bytes.fromhex(vector["base"]), dtype="<f4"),
        np.array(vector["sums"]),
        scaling.clips_at(positions),
        limit=scaling.limit,
        max_examples=scaling.max_examples,
        total_examples=vector["total_examples"],
    )
    with pytest.raises(UpdateRefused):
        check_finite(model, positions, what="model")


def make_codec() -> Codec:
    """Return the codec of chunks.json."""
    vectors = load("chunks")
    return Codec(CodecParameters.plan(bits=vectors["bits"], max_contributors=vectors["max_contributors"]))


def alter(data: bytes, change: list[Any]) -> bytes:
    """Return bytes with a change that chunks.json describes."""
    kind, *what = change
    match kind:
        case "cut":
            return data[: len(data) - what[0]]
        case "append":
            return data + bytes.fromhex(what[0])
        case "zero":
            return data[: what[0]] + bytes(what[1]) + data[what[0] + what[1] :]
        case _:
            put = bytes.fromhex(what[1])
            return data[: what[0]] + put + data[what[0] + len(put) :]
