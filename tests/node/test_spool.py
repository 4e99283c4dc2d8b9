"""What lies in a spool is either what was put there, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedproof_node.spool import Spool, load_update, spool_update

from fedproof.digests import Address, Digest
from fedproof.errors import DigestMismatch, MissingObject
from fedproof.manifest import UpdateManifest, compute_header_root
from fedproof.merkle import leaf_digest

CHUNKS = [b"first", b"second", b"third"]
MANIFEST = UpdateManifest(
    chain_id=1,
    contract=Address(b"\x01" * 20),
    round=1,
    node=Address(b"\x02" * 20),
    epoch=1,
    policy_digest=Digest(b"\x03" * 32),
    base_model=Digest(b"\x04" * 32),
    base_values=Digest(b"\x05" * 32),
    clips=(0.5,),
    parameters=10,
    chunks=3,
    examples=1,
)


def test_update_survives_a_restart(tmp_path: Path) -> None:
    """What is spooled comes back under its root, with header, leaves and chunks."""
    made = spool_update(Spool(tmp_path, 1, "update"), MANIFEST, iter(CHUNKS))
    assert made.root == compute_header_root(MANIFEST.encode(), [leaf_digest(chunk) for chunk in CHUNKS])
    loaded = load_update(Spool(tmp_path, 1, "update"), made.root)
    assert (loaded.root, loaded.leaves, loaded.sizes) == (made.root, made.leaves, (5, 6, 5))
    assert list(loaded.chunks(1)) == [(1, b"second"), (2, b"third")]


def test_second_attempt_replaces_the_first(tmp_path: Path) -> None:
    """Chunks that a crash left behind do not get into the next update."""
    spool = Spool(tmp_path, 1, "update")
    spool.write_chunk(1, b"longer than the second")
    spool.write_chunk(7, b"left behind")
    made = spool_update(spool, MANIFEST, CHUNKS)
    assert list(load_update(spool, made.root).chunks(0)) == list(enumerate(CHUNKS))


def test_cleared_spool_leaves_nothing(tmp_path: Path) -> None:
    """Neither its folder nor the round's stays, unless the round's other spool is in there."""
    update, aggregate = Spool(tmp_path, 1, "update"), Spool(tmp_path, 1, "aggregate")
    spool_update(update, MANIFEST, CHUNKS)
    aggregate.write_chunk(0, b"sum")
    update.clear()
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["aggregate"]
    aggregate.clear()
    aggregate.clear()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["header", "000001.chunk"])
def test_lost_file_is_named(tmp_path: Path, name: str) -> None:
    """A file that is gone is a missing object, named by its path."""
    made = spool_update(Spool(tmp_path, 1, "update"), MANIFEST, CHUNKS)
    (made.spool.folder / name).unlink()
    with pytest.raises(MissingObject, match=name.replace(".", r"\.")):
        load_update(Spool(tmp_path, 1, "update"), made.root)


@pytest.mark.parametrize("name", ["header", "000001.chunk"])
def test_altered_file_is_refused(tmp_path: Path, name: str) -> None:
    """A file with one flipped bit is refused, a header at once and a chunk before it is sent."""
    made = spool_update(Spool(tmp_path, 1, "update"), MANIFEST, CHUNKS)
    path = made.spool.folder / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises((DigestMismatch, MissingObject)):
        list(load_update(Spool(tmp_path, 1, "update"), made.root).chunks(0))


def test_another_root_is_refused(tmp_path: Path) -> None:
    """A whole update of another root than the journal's is not committed to."""
    spool_update(Spool(tmp_path, 1, "update"), MANIFEST, CHUNKS)
    with pytest.raises(DigestMismatch, match="expected root " + "05" * 32):
        load_update(Spool(tmp_path, 1, "update"), Digest(b"\x05" * 32))
