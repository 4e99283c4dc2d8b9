"""Reading IDX, the format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist/).

Two zero bytes, a byte for the type (8: unsigned bytes, the one these sets use), a byte for the number of
dimensions, each dimension as four bytes big-endian, then the values. Files may be gzip-compressed.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from fedproof.errors import ConfigurationError

UNSIGNED_BYTE = 8
GZIP_MAGIC = b"\x1f\x8b"


def find_idx(folder: Path, name: str) -> Path:
    """Return the path of an IDX file, compressed or not.

    Raises:
        ConfigurationError: the folder holds neither.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise ConfigurationError(f"{folder}: expected {name} or {name}.gz, found neither")


def load_idx(path: Path, *, item_shape: tuple[int, ...], max_items: int) -> NDArray[np.uint8]:
    """Return the file's first items, of shape (items, *item_shape).

    No more is read than the header and the items asked for: what a hostile header claims, or what a
    compressed file would swell to, never reaches memory. That the file then ends where its header says is
    checked as far as all of it was asked for.

    Args:
        path: the file, gzip-compressed if it begins as gzip does.
        item_shape: the shape of one item that the caller expects.
        max_items: how many items to read at most.

    Raises:
        ConfigurationError: the file cannot be read, is cut short or too long, or holds something else.
    """
    try:
        with path.open("rb") as raw:
            compressed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            raw.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if compressed else raw
            return _read_items(stream, str(path), item_shape=item_shape, max_items=max_items)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigurationError(f"{path}: expected a readable IDX file, got: {error}") from error


def _read_items(
    stream: BinaryIO, where: str, *, item_shape: tuple[int, ...], max_items: int
) -> NDArray[np.uint8]:
    dimensions = 1 + len(item_shape)
    expected_magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    header = stream.read(4 + 4 * dimensions)
    if header[:4] != expected_magic:
        raise ConfigurationError(
            f"{where}: expected an IDX file of unsigned bytes in {dimensions} dimensions "
            f"(beginning {expected_magic.hex()}), got {header[:4].hex() or 'an empty file'}"
        )
    if len(header) != 4 + 4 * dimensions:
        raise ConfigurationError(
            f"{where}: expected a header of {4 + 4 * dimensions} bytes, got {len(header)}"
        )
    items, *shape = np.frombuffer(header, ">u4", offset=4).tolist()
    if tuple(shape) != item_shape:
        raise ConfigurationError(f"{where}: expected items of shape {item_shape}, got {tuple(shape)}")
    if items == 0:
        raise ConfigurationError(f"{where}: expected at least one item, got none")
    wanted = min(items, max_items)
    size = wanted * math.prod(item_shape)
    values = stream.read(size)
    if len(values) != size:
        raise ConfigurationError(
            f"{where}: expected {size} bytes of values for {wanted} of {items} items, got {len(values)}"
        )
    if wanted == items and stream.read(1):
        raise ConfigurationError(f"{where}: expected nothing after the {items} items, got more bytes")
    return np.frombuffer(values, np.uint8).reshape(wanted, *item_shape)
