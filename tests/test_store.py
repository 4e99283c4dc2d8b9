"""The object store: written once, verified at each read."""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedproof.digests import Address, Digest
from fedproof.errors import DigestMismatch, MalformedMessage, MissingObject
from fedproof.merkle import compute_root, leaf_digest
from fedproof.store import ObjectStore

NODE = Address(bytes(range(20)))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "store")


def files(store: ObjectStore) -> list[Path]:
    return sorted(path for path in store.root.rglob("*") if path.is_file())


def test_a_chunk_comes_back_under_its_leaf_digest(store: ObjectStore) -> None:
    """What is put under a digest is got under it, at the documented path."""
    digest = store.put(b"chunk")
    assert digest == leaf_digest(b"chunk")
    assert store.has(digest)
    assert store.get(digest) == b"chunk"
    assert files(store) == [store.root / "objects" / digest.hex()[:2] / digest.hex()[2:]]


def test_putting_twice_changes_nothing(store: ObjectStore) -> None:
    """The second put of a chunk leaves the first one's file alone."""
    digest = store.put(b"chunk")
    before = store.object_path(digest).stat()
    assert store.put(b"chunk") == digest
    after = store.object_path(digest).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_staged_chunk_is_there_and_on_the_disk_once_it_is_synced(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be read at once; `sync` syncs its file and its folder, and so does `put` before it returns."""
    synced: list[int] = []
    sync = os.fsync

    def note_sync(descriptor: int) -> None:
        sync(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    def inodes(digest: Digest) -> set[int]:
        path = store.object_path(digest)
        return {path.stat().st_ino, path.parent.stat().st_ino}

    monkeypatch.setattr(os, "fsync", note_sync)
    digests = [leaf_digest(data) for data in (b"one", b"two")]
    for data, digest in zip((b"one", b"two"), digests, strict=True):
        store.stage(data, digest=digest)
        assert store.get(digest) == data
        assert not inodes(digest) & set(synced)
    store.sync(digests)
    assert inodes(digests[0]) | inodes(digests[1]) <= set(synced)
    assert inodes(store.put(b"three")) <= set(synced)


def test_a_chunk_that_the_disk_failed_to_write_is_written_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a sync has failed on once is not believed to be there the next time."""
    digest = leaf_digest(b"chunk")
    store.stage(b"chunk", digest=digest)

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            store.sync([digest])
    assert not store.has(digest)
    with pytest.raises(FileNotFoundError):
        store.sync([digest])
    assert store.get(store.put(b"chunk")) == b"chunk"


@pytest.mark.parametrize("rotten", [b"chunk!", b"chunk", b""], ids=["longer", "flipped", "empty"])
def test_a_rotten_chunk_is_refused_and_healed(store: ObjectStore, rotten: bytes) -> None:
    """A changed file is refused by path and both digests, and putting the true bytes again repairs it."""
    digest = store.put(b"chunx")
    path = store.object_path(digest)
    path.write_bytes(rotten)
    with pytest.raises(DigestMismatch) as refusal:
        store.get(digest)
    assert str(refusal.value) == (
        f"{path}: expected leaf digest {digest.hex()}, got {leaf_digest(rotten).hex()}"
    )
    store.put(b"chunx")
    assert store.get(digest) == b"chunx"


def test_a_missing_object_is_named(store: ObjectStore) -> None:
    """Asking for what was never put names the path that was looked at."""
    digest = leaf_digest(b"absent")
    assert not store.has(digest)
    with pytest.raises(MissingObject, match=f"{digest.hex()[2:]}: expected a stored object, found no file"):
        store.get(digest)
    with pytest.raises(MissingObject, match="headers"):
        store.get_header(digest)
    with pytest.raises(MissingObject, match="keys"):
        store.get_public_key(digest)
    with pytest.raises(MissingObject, match="epochs"):
        store.get_wrapped_keys(1)
    with pytest.raises(MissingObject, match="policies"):
        store.get_policy(digest)


def test_a_write_cut_short_is_never_read(store: ObjectStore) -> None:
    """What a crash left in partial/ is no object, and is discarded at the next start."""
    store.put(b"chunk")
    left = store.root / "partial" / "tmpabc"
    left.write_bytes(b"half a chu")
    store.discard_partial()
    assert not left.exists()
    assert len(files(store)) == 1


def test_many_threads_put_the_same_chunk(store: ObjectStore) -> None:
    """Writers of one object do not disturb one another: the file that one of them has synced stays."""
    data = bytes(100_000)

    def put(_number: int) -> tuple[Digest, int]:
        digest = store.put(data)
        return digest, store.object_path(digest).stat().st_ino

    with ThreadPoolExecutor(8) as pool:
        ((digest, _),) = set(pool.map(put, range(32)))
    assert digest == leaf_digest(data)
    assert store.get(digest) == data
    assert len(files(store)) == 1


def test_a_deleted_chunk_is_gone(store: ObjectStore) -> None:
    """Deleting says how many bytes it freed: none the second time. It can come back; others stay."""
    digest, other = store.put(b"chunk"), store.put(b"another chunk")
    assert store.delete(digest) == 5
    assert (store.has(digest), store.has(other)) == (False, True)
    assert store.delete(digest) == 0
    assert store.put(b"chunk") == digest
    assert store.get(digest) == b"chunk"


def test_stored_headers_are_listed(store: ObjectStore) -> None:
    """By their roots; what else lies beside them is passed over, and there need be none."""
    assert store.list_roots() == []
    roots = {store.put_header(manifest, []) for manifest in (b"one", b"another")}
    (store.root / "headers" / "readme.txt").write_bytes(b"x")
    assert set(store.list_roots()) == roots


def test_a_header_comes_back_under_its_root(store: ObjectStore) -> None:
    """The root is over the manifest and the chunk digests, and the header is read back by it."""
    digests = [leaf_digest(b"a"), leaf_digest(b"b"), leaf_digest(b"c")]
    root = store.put_header(b"manifest", digests)
    assert root == compute_root([leaf_digest(b"manifest"), *digests])
    header = store.get_header(root)
    assert (header.manifest, list(header.chunk_digests)) == (b"manifest", digests)


@pytest.mark.parametrize(
    ("raw", "error", "message"),
    [
        (b"\xff\xff", MalformedMessage, "expected a serialised Header"),
        (b"", DigestMismatch, "expected root"),
        (b"\x12\x03abc", MalformedMessage, "chunk 0: expected a digest of 32 bytes, got 3"),
    ],
    ids=["not a message", "another header", "short digest"],
)
def test_a_rotten_header_is_refused(
    store: ObjectStore, raw: bytes, error: type[Exception], message: str
) -> None:
    """A header file with other bytes is refused for what is wrong with it."""
    root = store.put_header(b"manifest", [leaf_digest(b"a")])
    store.header_path(root).write_bytes(raw)
    with pytest.raises(error, match=message):
        store.get_header(root)


def test_a_public_key_stands_under_its_sha256(store: ObjectStore) -> None:
    """A key is taken and given under its own digest only."""
    digest = Digest(hashlib.sha256(b"key").digest())
    with pytest.raises(DigestMismatch, match="public key"):
        store.put_public_key(digest, b"another")
    assert files(store) == []
    store.put_public_key(digest, b"key")
    assert store.get_public_key(digest) == b"key"
    (store.root / "keys" / digest.hex()).write_bytes(b"yek")
    with pytest.raises(DigestMismatch, match="expected SHA-256"):
        store.get_public_key(digest)


def test_wrapped_keys_come_back_by_epoch(store: ObjectStore) -> None:
    """An epoch's wrapped keys are read back as they were put, and not as another epoch's."""
    keys = ((NODE, b"one"), (Address(bytes([255] * 20)), b"two"))
    store.put_wrapped_keys(3, keys)
    assert store.get_wrapped_keys(3) == keys
    (store.root / "epochs" / "3").rename(store.root / "epochs" / "4")
    with pytest.raises(MalformedMessage, match="expected the keys of epoch 4, got epoch 3"):
        store.get_wrapped_keys(4)
    (store.root / "epochs" / "4").write_bytes(b"\xff")
    with pytest.raises(MalformedMessage, match="expected serialised wrapped keys"):
        store.get_wrapped_keys(4)


def test_a_policy_stands_under_its_digest(store: ObjectStore) -> None:
    """A policy's bytes are taken and given under their own digest only."""
    digest = Digest(hashlib.sha256(b"policy").digest())
    store.put_policy(digest, b"policy")
    assert store.get_policy(digest) == b"policy"
    with pytest.raises(DigestMismatch, match="policy"):
        store.put_policy(digest, b"other")
    (store.root / "policies" / digest.hex()).write_bytes(b"other")
    with pytest.raises(DigestMismatch, match="expected SHA-256"):
        store.get_policy(digest)
