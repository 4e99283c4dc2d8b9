"""Fuzz targets: files that somebody else may have written, or that a disk has damaged."""

from __future__ import annotations

import atexit
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from fedproof.config import load_address_book
from fedproof.digests import Digest, split_fields
from fedproof.errors import ConfigurationError, DigestMismatch, MalformedMessage
from fedproof.keys.tls import certificate_digest
from fedproof.keys.wallet import load_wallet
from fedproof.keys.wrapping import WrappingKey
from fedproof.manifest import compute_header_root
from fedproof.model import load_model, save_model
from fedproof.store import ObjectStore
from fedproof.tasks.idx import load_idx
from fedproof.wire.aggregation_pb2 import Header
from tests.fuzz.registry import LONGEST_REPORT, refusing, require_same, skip, target

PASSWORD = "fuzz"
# What a guess may cost here; the code under test allows more, which a fuzzer has no time for.
_MOST_COST = 1 << 10


@target(max_bytes=2048)
def model_file(raw: bytes) -> None:
    """`model.load_model`."""
    path = _as_file(raw)
    with refusing(MalformedMessage, DigestMismatch):
        found, model = load_model(path)
    again = path.with_name("again")
    save_model(again, found, model)
    require_same(again.read_bytes(), raw)


@target(max_bytes=2048)
def wallet(raw: bytes) -> None:
    """`wallet.load_wallet`: a keystore in JSON."""
    _skip_costly_keystore(raw)
    with refusing(ConfigurationError):
        account = load_wallet(_as_file(raw), PASSWORD)
    assert len(account.key) == 32


@target(max_bytes=2048)
def wrapping_key_file(raw: bytes) -> None:
    """`WrappingKey.load`."""
    try:
        cost = split_fields(raw, "file")[2]
    except (MalformedMessage, IndexError):
        cost = b""
    if int.from_bytes(cost) > _MOST_COST:
        skip()
    with refusing(ConfigurationError):
        key = WrappingKey.load(_as_file(raw), PASSWORD)
    assert len(key.public_bytes) == 1216


@target(max_bytes=2048)
def certificate(raw: bytes) -> None:
    """`tls.certificate_digest`: a certificate in PEM."""
    with refusing(ConfigurationError):
        assert len(certificate_digest(_as_file(raw))) == 32


@target(max_bytes=1024)
def address_book(raw: bytes) -> None:
    """`config.load_address_book`: what `fedproof deploy` wrote."""
    with refusing(ConfigurationError, longest_message=LONGEST_REPORT):
        book = load_address_book(_as_file(raw))
    assert len(book.contract) == 20


@target(max_bytes=1024)
def idx(raw: bytes) -> None:
    """`idx.load_idx`: images of the Fashion-MNIST task, gzip-compressed or not."""
    with refusing(ConfigurationError):
        items = load_idx(_as_file(raw), item_shape=(2, 3), max_items=50)
    assert 1 <= len(items) <= 50


@target(max_bytes=2048)
def stored_header(raw: bytes) -> None:
    """`ObjectStore.get_header`: a header on an aggregator's disk."""
    try:
        message = Header.FromString(raw)
        root = compute_header_root(message.manifest, [Digest(each) for each in message.chunk_digests])
    except Exception:  # noqa: BLE001 - protobuf's refusal, which the store has to translate
        root = Digest(bytes(32))
    store = ObjectStore(_folder())
    _write(store.header_path(root), raw)
    try:
        with refusing(MalformedMessage, DigestMismatch):
            found = store.get_header(root)
    finally:
        store.header_path(root).unlink()
    assert all(len(each) == 32 for each in found.chunk_digests)


@target(max_bytes=2048)
def stored_keys(raw: bytes) -> None:
    """`ObjectStore.get_wrapped_keys`: wrapped keys on an aggregator's disk."""
    _write(_folder() / "epochs" / "1", raw)
    with refusing(MalformedMessage):
        assert all(len(node) == 20 for node, _ in ObjectStore(_folder()).get_wrapped_keys(1))


def _skip_costly_keystore(raw: bytes) -> None:
    """Skip a keystore whose key derivation asks for more time than there is."""
    try:
        costs = json.loads(raw)["crypto"]["kdfparams"]
        numbers = [costs.get(name, 1) for name in ("n", "r", "p", "c", "dklen")]
        is_cheap = all(number <= _MOST_COST for number in numbers if isinstance(number, int))
    except Exception:  # noqa: BLE001 - it is not even a keystore, so it derives nothing
        return
    if not is_cheap:
        skip()


def scratch_folder() -> Path | None:
    """Return where files are fast, if there is such a place."""
    shared_memory = Path("/dev/shm")
    return shared_memory if shared_memory.is_dir() else None


@cache
def _folder() -> Path:
    folder = TemporaryDirectory(dir=scratch_folder())
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _as_file(raw: bytes) -> Path:
    return _write(_folder() / "file", raw)


def _write(path: Path, raw: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path
