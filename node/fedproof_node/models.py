"""The models on this node's disk, each under its digest."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from fedproof.digests import Digest
from fedproof.errors import DigestMismatch, MissingObject
from fedproof.model import Model, ModelLayout, load_model, save_model


class ModelShelf:
    """A folder of models of one layout. A file may also be brought by hand: its digest vouches for it.

    The last model that was saved or loaded stays in memory: a round trains on it, applies the sum to it and
    evaluates it, and reads and hashes nothing twice.
    """

    def __init__(self, folder: Path, layout: ModelLayout) -> None:
        """Name the folder; it is made at the first write."""
        self.folder = folder
        self.layout = layout
        self._last: tuple[Digest, Model] | None = None

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
        digest = save_model(self.path(self.digest(model)), self.layout, model)
        self._last = digest, model
        return digest

    def load(self, digest: Digest) -> Model:
        """Return a model.

        Raises:
            MissingObject: it is not here.
            DigestMismatch: the file holds another model, or one of another layout, or is damaged.
        """
        if self._last is not None and self._last[0] == digest:
            return self._last[1]
        path = self.path(digest)
        if not path.exists():
            raise MissingObject(f"{path}: expected the model {digest.hex()}, got no such file")
        layout, model = load_model(path)
        if layout.digest != self.layout.digest:
            raise DigestMismatch(
                f"{path}: expected a model of the layout {self.layout.digest.hex()}, got one of "
                f"{layout.digest.hex()}"
            )
        came = model.compute_digest(layout.digest)
        if came != digest:
            raise DigestMismatch(f"{path}: expected model {digest.hex()}, got {came.hex()}")
        self._last = digest, model
        return model

    def prune(self, keep: Collection[Digest]) -> None:
        """Remove every model but those to keep."""
        names = {self.path(digest).name for digest in keep}
        for path in self.folder.glob("*.model"):
            if path.name not in names:
                path.unlink()
