"""The contract checks inclusion proofs as `fedproof.merkle` does: in index order, position included."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.digests import Digest
from fedproof.errors import DigestMismatch
from fedproof.merkle import compute_path, compute_root, leaf_digest, verify_path
from tests.contracts.evm import Machine

VECTORS = Path(__file__).parents[1] / "vectors" / "merkle.json"


@pytest.fixture(scope="module")
def machine() -> Machine:
    """A ledger, of which only the check is used."""
    return Machine.with_ledger()


def is_proven(root: Digest, *, size: int, index: int, leaf: bytes, path: Sequence[Digest]) -> bool:
    """Return whether Python accepts a proof."""
    try:
        verify_path(root, size=size, index=index, leaf=leaf, path=path)
    except DigestMismatch:
        return False
    return True


def test_every_leaf_of_the_vectors_is_included(machine: Machine) -> None:
    """The trees that other implementations are tested against, leaf by leaf; an empty tree has none."""
    for tree in json.loads(VECTORS.read_text())["trees"]:
        root, leaves = bytes.fromhex(tree["root"]), [bytes.fromhex(leaf) for leaf in tree["leaves"]]
        digests = [Digest(bytes.fromhex(digest)) for digest in tree["leaf_digests"]]
        assert not machine.view("isIncluded", root, len(leaves), len(leaves), b"", [])
        for index, leaf in enumerate(leaves):
            path = compute_path(digests, index)
            assert machine.view("isIncluded", root, len(leaves), index, leaf, path)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(size=st.integers(1, 70), data=st.data())
def test_solidity_and_python_accept_the_same_proofs(machine: Machine, size: int, data: st.DataObject) -> None:
    """A right proof and wrong ones: other positions and sizes, paths cut, longer or in another order."""
    index = data.draw(st.integers(0, size - 1))
    leaf = bytes([index])
    digests = [leaf_digest(bytes([number])) for number in range(size)]
    root, path = compute_root(digests), compute_path(digests, index)
    neighbour = compute_path(digests, data.draw(st.integers(0, size - 1)))
    proofs = [
        (size, index, leaf, path),
        (size, data.draw(st.integers(0, size + 1)), leaf, path),
        (data.draw(st.integers(0, 2 * size + 1)), index, leaf, path),
        (size, index, bytes([size]), path),
        (size, index, leaf, path[: data.draw(st.integers(0, len(path)))]),
        (size, index, leaf, (*path, root)),
        (size, index, leaf, tuple(data.draw(st.permutations(path)))),
        (size, index, leaf, neighbour),
    ]
    for claimed, at, what, siblings in proofs:
        by_python = is_proven(root, size=claimed, index=at, leaf=what, path=siblings)
        assert machine.view("isIncluded", root, claimed, at, what, siblings) == by_python
    assert machine.view("isIncluded", root, *proofs[0])


def test_an_inner_node_is_no_leaf(machine: Machine) -> None:
    """The bytes that an inner node is the hash of do not pass for a leaf of a smaller tree."""
    left, right, third = (leaf_digest(bytes([number])) for number in range(3))
    root = compute_root([left, right, third])
    assert machine.view("isIncluded", root, 3, 2, bytes([2]), compute_path([left, right, third], 2))
    assert not machine.view("isIncluded", root, 2, 0, left + right, [third])
