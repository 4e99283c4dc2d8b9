"""Small files in Fashion-MNIST's format, whose classes can be told apart."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write an IDX file, compressed if its name says so."""
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    raw = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_bars(folder: Path) -> None:
    """Write 600 training and 80 test images: bars whose height is the class."""
    random = np.random.default_rng(4)
    for kind, count in (("train", 600), ("t10k", 80)):
        labels = np.arange(count) % 10
        images = random.integers(0, 40, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[: 2 * label + 4, 8:20] += 200
        suffix = ".gz" if kind == "train" else ""
        write_idx(folder / f"{kind}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{kind}-labels-idx1-ubyte{suffix}", labels)
