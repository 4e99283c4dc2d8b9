"""Tests of the Merkle tree."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.digests import Digest
from fedproof.merkle import compute_root, leaf_digest

PROPERTY = settings(derandomize=True, deadline=None, max_examples=100)
# The leaves and roots that Certificate Transparency's implementations test against.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def root_by_definition(leaves: Sequence[bytes]) -> bytes:
    """Return the root as RFC 6962, section 2.1 defines it, by recursion."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = root_by_definition(leaves[:split]), root_by_definition(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@pytest.mark.parametrize(("count", "root"), ROOTS.items())
def test_public_vectors(count: int, root: str) -> None:
    """The usual eight leaves give the usual roots."""
    assert compute_root([leaf_digest(leaf) for leaf in LEAVES[:count]]).hex() == root


@PROPERTY
@given(st.lists(st.binary(max_size=8), max_size=70))
def test_root_is_the_recursive_definition(leaves: list[bytes]) -> None:
    """Building level by level gives the tree that the RFC defines by recursion."""
    assert compute_root([leaf_digest(leaf) for leaf in leaves]) == root_by_definition(leaves)


@PROPERTY
@given(st.lists(st.binary(max_size=2), min_size=2, max_size=20), st.data())
def test_order_counts(leaves: list[bytes], data: st.DataObject) -> None:
    """Another order of the leaves gives another root."""
    shuffled = data.draw(st.permutations(leaves))
    roots = [compute_root([leaf_digest(leaf) for leaf in order]) for order in (leaves, shuffled)]
    assert (roots[0] == roots[1]) == (leaves == shuffled)


def test_a_node_is_no_leaf() -> None:
    """The bytes of an inner node, passed off as a leaf, do not give the same root."""
    left, right = leaf_digest(b"a"), leaf_digest(b"b")
    assert compute_root([left, right]) != leaf_digest(left + right)


def test_the_sequence_is_left_alone() -> None:
    """Computing a root does not change the caller's list."""
    digests: list[Digest] = [leaf_digest(leaf) for leaf in LEAVES]
    compute_root(digests)
    assert digests == [leaf_digest(leaf) for leaf in LEAVES]
