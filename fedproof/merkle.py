"""Merkle trees in index order (RFC 6962, section 2.1), with SHA-256.

Leaves and inner nodes are hashed with different first bytes, so neither can pass for the other, and pairs are
not sorted, so a root fixes each leaf's position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fedproof.digests import Digest
from fedproof.errors import DigestMismatch


def leaf_digest(leaf: bytes) -> Digest:
    """Return SHA-256(0x00 || leaf)."""
    state = hashlib.sha256(b"\x00")
    state.update(leaf)
    return Digest(state.digest())


def node_digest(left: Digest, right: Digest) -> Digest:
    """Return SHA-256(0x01 || left || right)."""
    return Digest(hashlib.sha256(b"\x01" + left + right).digest())


def compute_root(leaf_digests: Sequence[Digest]) -> Digest:
    """Return the root over leaves that are hashed already.

    RFC 6962 splits n leaves at the largest power of two below n. Pairing each level from the left, with an
    odd last node moving up as it is, builds the same tree without recursion.

    Args:
        leaf_digests: what `leaf_digest` returned for each leaf, in index order; none gives SHA-256 of b"".
    """
    if not leaf_digests:
        return Digest(hashlib.sha256(b"").digest())
    level = list(leaf_digests)
    while len(level) > 1:
        level = _pair(level)
    return level[0]


def compute_path(leaf_digests: Sequence[Digest], index: int) -> tuple[Digest, ...]:
    """Return the siblings on the way from a leaf to the root, the lowest first.

    RFC 9162, section 2.1.3.1; a node without a sibling moves up as it is and adds nothing.

    Args:
        leaf_digests: what `leaf_digest` returned for each leaf, in index order.
        index: of the leaf, from 0.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaf_digests):
        raise IndexError(f"expected a leaf from 0 to {len(leaf_digests) - 1}, got {index}")
    path = []
    level = list(leaf_digests)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        level, index = _pair(level), index // 2
    return tuple(path)


def verify_path(root: Digest, *, size: int, index: int, leaf: bytes, path: Sequence[Digest]) -> None:
    """Return if a leaf stands at an index of the tree with a root.

    RFC 9162, section 2.1.3.2, in its order and with its names.

    Args:
        root: the tree's.
        size: how many leaves the tree has.
        index: where the leaf should stand, from 0.
        leaf: its bytes, not hashed.
        path: what `compute_path` returned.

    Raises:
        DigestMismatch: it stands elsewhere, or the path is another leaf's.
    """
    where = f"leaf {index} of {size}"
    if not 0 <= index < size:
        raise DigestMismatch(f"{where}: expected an index below the size")
    fn, sn = index, size - 1
    digest = leaf_digest(leaf)
    for sibling in path:
        if sn == 0:
            raise DigestMismatch(f"{where}: expected a shorter path, got {len(path)} siblings")
        if fn & 1 or fn == sn:
            digest = node_digest(sibling, digest)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            digest = node_digest(digest, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise DigestMismatch(f"{where}: expected a longer path, got {len(path)} siblings")
    if digest != root:
        raise DigestMismatch(f"{where}: expected a path to root {root.hex()}, it leads to {digest.hex()}")


def _pair(level: list[Digest]) -> list[Digest]:
    paired = [node_digest(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return paired + level[-1:] if len(level) % 2 else paired
