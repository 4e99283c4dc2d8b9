"""Merkle trees in index order (RFC 6962, section 2.1), with SHA-256.

Leaves and inner nodes are hashed with different first bytes, so neither can pass for the other, and pairs are
not sorted, so a root fixes each leaf's position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fedproof.digests import Digest


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
        paired = [node_digest(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]
