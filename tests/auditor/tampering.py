"""What a test does to stored evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedproof.ledger.events import (
    UpdateCommitted,
)
from fedproof.manifest import UpdateManifest
from fedproof.store import ObjectStore
from tests.auditor.world import (
    World,
)


def flip(path: Path, position: int = 1000) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1
    path.write_bytes(data)


def commit_to(
    world: World, store: Path, committer: int, chunks: list[bytes], *, number: int = 1, **changes: object
) -> UpdateCommitted:
    """Store an update of other chunks, or with another manifest, and return the commitment that fits it.

    The round stands in `number`, so that `round` can be one of the changes.
    """
    committed = world.commitment(number, committer)
    target = ObjectStore(store)
    manifest = UpdateManifest.parse(target.get_header(committed.update_root).manifest)
    changed = replace(manifest, **{"chunks": len(chunks), **changes})  # type: ignore[arg-type]
    root = target.put_header(changed.encode(), [target.put(chunk) for chunk in chunks])
    return replace(committed, update_root=root)


def read_chunks(world: World, number: int, node: int) -> list[bytes]:
    """Return the chunks that a node stored for a round."""
    return [ObjectStore(world.store).get(leaf) for leaf in world.leaves(number, node)]
