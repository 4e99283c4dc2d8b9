"""Models lie under their digests, and only what has the digest is used."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fedproof_node.models import ModelShelf

from fedproof.digests import Digest
from fedproof.errors import DigestMismatch, MissingObject
from fedproof.model import Model, ModelLayout, TensorSpec

LAYOUT = ModelLayout((TensorSpec("w", (4,), "float32"),))


def make_model(value: float, *, clip: float = 0.5) -> Model:
    return Model(np.full(4, value, dtype=np.float32), (clip,))


def test_model_comes_back(tmp_path: Path) -> None:
    """A saved model is loaded bit for bit, with its clips; other clips make another model."""
    shelf = ModelShelf(tmp_path, LAYOUT)
    digest = shelf.save(make_model(0.1))
    assert digest == shelf.digest(make_model(0.1)) != shelf.digest(make_model(0.1, clip=0.25))
    loaded = shelf.load(digest)
    assert loaded.flat.tobytes() == make_model(0.1).flat.tobytes()
    assert loaded.clips == (0.5,)


def test_unknown_model_is_missing(tmp_path: Path) -> None:
    """A digest without a file is named."""
    with pytest.raises(MissingObject, match="00" * 32):
        ModelShelf(tmp_path, LAYOUT).load(Digest(bytes(32)))


def test_another_model_under_the_name_is_refused(tmp_path: Path) -> None:
    """A file that somebody put there is used only if it has the digest that its name says."""
    shelf = ModelShelf(tmp_path, LAYOUT)
    wanted, other = shelf.save(make_model(0.1)), shelf.save(make_model(0.2))
    shutil.copy(shelf.path(other), shelf.path(wanted))
    with pytest.raises(DigestMismatch, match=f"expected model {wanted.hex()}, got {other.hex()}"):
        shelf.load(wanted)


def test_model_of_another_layout_is_refused(tmp_path: Path) -> None:
    """A file of another architecture is not used, though its digest is right; both layouts are named."""
    other = ModelLayout((TensorSpec("w", (2, 2), "float32"),))
    digest = ModelShelf(tmp_path, other).save(make_model(0.1))
    message = f"expected a model of the layout {LAYOUT.digest.hex()}, got one of {other.digest.hex()}"
    with pytest.raises(DigestMismatch, match=message):
        ModelShelf(tmp_path, LAYOUT).load(digest)


def test_model_is_read_once(tmp_path: Path) -> None:
    """What was saved or loaded last comes back as it is in memory; anything else comes from the disk."""
    shelf = ModelShelf(tmp_path, LAYOUT)
    first, second = make_model(0.1), make_model(0.2)
    digests = shelf.save(first), shelf.save(second)
    assert shelf.load(digests[1]) is second
    loaded = shelf.load(digests[0])
    assert loaded is not first
    assert shelf.load(digests[0]) is loaded


def test_prune_keeps_what_it_is_told(tmp_path: Path) -> None:
    """Only the models to keep stay."""
    shelf = ModelShelf(tmp_path, LAYOUT)
    digests = [shelf.save(make_model(value)) for value in (1, 2, 3)]
    shelf.prune(digests[1:])
    assert [shelf.holds(digest) for digest in digests] == [False, True, True]
