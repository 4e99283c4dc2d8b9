"""Tests of the Merkle tree."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.digests import Digest
from fedproof.errors import DigestMismatch
from fedproof.merkle import compute_path, compute_root, leaf_digest, verify_path

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


# The paths that Certificate Transparency's implementations test against: size, index, siblings.
PATHS = [
    (1, 0, []),
    (
        8,
        0,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        8,
        5,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (3, 2, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        5,
        1,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
SIZES = st.integers(min_value=1, max_value=70)


def path_by_definition(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the path as RFC 9162, section 2.1.3.1 defines it, by recursion."""
    if len(leaves) == 1:
        return []
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < split:
        return [*path_by_definition(leaves[:split], index), root_by_definition(leaves[split:])]
    return [*path_by_definition(leaves[split:], index - split), root_by_definition(leaves[:split])]


@pytest.mark.parametrize(("size", "index", "siblings"), PATHS)
def test_public_paths(size: int, index: int, siblings: list[str]) -> None:
    """The usual leaves have the usual paths."""
    path = compute_path([leaf_digest(leaf) for leaf in LEAVES[:size]], index)
    assert [sibling.hex() for sibling in path] == siblings


@PROPERTY
@given(SIZES, st.data())
def test_path_is_the_recursive_definition_and_leads_to_the_root(size: int, data: st.DataObject) -> None:
    """Each leaf's path is the one that the RFC defines, and proves the leaf."""
    index = data.draw(st.integers(0, size - 1))
    leaves = [bytes([number]) for number in range(size)]
    digests = [leaf_digest(leaf) for leaf in leaves]
    path = compute_path(digests, index)
    assert list(path) == path_by_definition(leaves, index)
    verify_path(compute_root(digests), size=size, index=index, leaf=leaves[index], path=path)


@PROPERTY
@given(SIZES, st.data())
def test_a_path_proves_one_leaf_at_one_index(size: int, data: st.DataObject) -> None:
    """Another index, another leaf, a path that is cut, longer or altered: none leads to the root."""
    index = data.draw(st.integers(0, size - 1))
    digests = [leaf_digest(bytes([number])) for number in range(size)]
    root, path = compute_root(digests), compute_path(digests, index)
    forged = [(other, bytes([index]), path) for other in range(-1, size + 1) if other != index]
    forged += [(index, bytes([size]), path), (index, bytes([index]), (*path, digests[0]))]
    forged += [(index, bytes([index]), path[:cut]) for cut in range(len(path))]
    forged += [(index, bytes([index]), (*path[:at], root, *path[at + 1 :])) for at in range(len(path))]
    for claimed, leaf, siblings in forged:
        with pytest.raises(DigestMismatch, match=f"leaf {claimed} of {size}: expected "):
            verify_path(root, size=size, index=claimed, leaf=leaf, path=siblings)


def test_another_size_is_another_path_or_index() -> None:
    """The last leaf of a tree of three cannot be shown with the sizes two and five."""
    digests = [leaf_digest(leaf) for leaf in LEAVES[:3]]
    root, path = compute_root(digests), compute_path(digests, 2)
    for size in (2, 5):
        with pytest.raises(DigestMismatch):
            verify_path(root, size=size, index=2, leaf=LEAVES[2], path=path)


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_path_of_a_leaf_that_is_not_there(index: int) -> None:
    """An index outside the tree is refused."""
    with pytest.raises(IndexError, match=f"expected a leaf from 0 to 2, got {index}"):
        compute_path([leaf_digest(leaf) for leaf in LEAVES[:3]], index)
