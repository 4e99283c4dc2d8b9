"""Every kept input goes through its parser again, on every system, without a fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.registry import CORPUS
from tests.fuzz.targets import all_targets

TARGETS = all_targets()

MOST_BYTES = 400_000


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_are_parsed_or_refused(name: str) -> None:
    """Each input is taken or refused with our own error; those that are named valid are taken."""
    kept = TARGETS[name].kept()
    assert any(path.name.startswith("valid") for path in kept)
    for path in kept:
        was_taken = TARGETS[name].run(path.read_bytes())
        assert was_taken or not path.name.startswith("valid"), path


def test_kept_inputs_belong_to_a_target() -> None:
    """Nothing is kept that nobody tries, and all of it stays small."""
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert sum(_size(folder) for folder in CORPUS.iterdir()) < MOST_BYTES


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
