"""The models on this node's disk, each under its digest."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from fedproof.digests import Digest
from fedproof.errors import DigestMismatch, MissingObject
from fedproof.model import Model, ModelLayout, load_model, save_model


class ModelShelf:
    """A folder of models of one layout. A file may also be brought by hand: its digest vouches for it."""

    def __init__(self, folder: Path, layout: ModelLayout) -> None:
        """Name the folder; it is made at the first write."""
        self.folder = folder
        self.layout = layout

    def path(self, digest: Digest) -> Path:
        """Return where a model lies."""
        return self.folder / f"{digest.hex()}.model"

    def holds(self, digest: Digest) -> bool:
        """Return whether a model is here."""
        return self.path(digest).exists()

    def digest(self, model: Model) -> Digest:
        """Return the digest that a model has under this layout."""
        return model.compute_digest(self.layout.digest)

    def save(self, model: Model) -> Digest:
        """Store a model and return its digest. A crash leaves the whole file or none."""
        return save_model(self.path(self.digest(model)), self.layout, model)

    def load(self, digest: Digest) -> Model:
        """Return a model.

        Raises:
            MissingObject: it is not here.
            DigestMismatch: the file holds another model, or is damaged.
        """
        path = self.path(digest)
        if not path.exists():
            raise MissingObject(f"{path}: expected the model {digest.hex()}, got no such file")
        layout, model = load_model(path)
        came = model.compute_digest(layout.digest)
        if came != digest:
            raise DigestMismatch(f"{path}: expected model {digest.hex()}, got {came.hex()}")
        return model

    def prune(self, keep: Collection[Digest]) -> None:
        """Remove every model but those to keep."""
        names = {self.path(digest).name for digest in keep}
        for path in self.folder.glob("*.model"):
            if path.name not in names:
                path.unlink()
