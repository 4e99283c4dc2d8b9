"""Where fuzz targets are found by name."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from tests.fuzz.registry import TARGETS, Target

# Those that are quick to import first: a fuzzer that looks for one target imports no more than it has to.
_MODULES: Final = ("documents", "chunks", "keys", "files", "workers", "chain", "wire")


def find_target(name: str) -> Target | None:
    """Return the target of that name, if there is one."""
    for module in _MODULES:
        import_module(f"tests.fuzz.{module}")
        if name in TARGETS:
            return TARGETS[name]
    return None


def all_targets() -> dict[str, Target]:
    """Return every target by name."""
    for module in _MODULES:
        import_module(f"tests.fuzz.{module}")
    return TARGETS
