"""How vectors are written down, and what of them is drawn once and kept."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Json: TypeAlias = Mapping[str, "Json"] | Sequence["Json"] | str | int | float | bool | None
Entry: TypeAlias = dict[str, Json]

_LINE: Final = 150


def spell_floats(values: Iterable[float]) -> str:
    """Return floats as the hexadecimal of their binary64, big-endian, one after another."""
    return b"".join(struct.pack(">d", value) for value in values).hex()


def spell_integers(values: npt.NDArray[np.int64] | Iterable[int]) -> list[int]:
    """Return integers as JSON numbers; each is below 2^53."""
    return [int(value) for value in values]


def spell_hex(values: Iterable[bytes]) -> list[str]:
    """Return each of several byte strings in hexadecimal."""
    return [value.hex() for value in values]


def dump(section: Json) -> bytes:
    """Return a section as the bytes of its file."""
    return (_spell(section, "") + "\n").encode()


def _spell(value: Json, indent: str) -> str:
    """Return JSON with what fits one line on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + len(indent) <= _LINE or isinstance(value, str | int | float) or not value:
        return line
    deeper = indent + " "
    if isinstance(value, Mapping):
        entries = [f"{json.dumps(key)}: {_spell(each, deeper)}" for key, each in value.items()]
        opening, closing = "{}"
    else:
        entries = [_spell(each, deeper) for each in value]
        opening, closing = "[]"
    return opening + "\n" + ",\n".join(deeper + entry for entry in entries) + f"\n{indent}{closing}"


class Kept:
    """Outcomes of randomness: drawn when there are none, and from then on those in the folder.

    Attributes:
        taken: the bytes of every file that was asked for, by its name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.taken: dict[str, bytes] = {}

    def take(self, name: str, draw: Callable[[], bytes]) -> bytes:
        """Return the bytes of the file of that name, drawing them if there is no such file."""
        path = self._folder / name
        self.taken[name] = path.read_bytes() if path.is_file() else draw()
        return self.taken[name]
