"""Whatever byte of the evidence is altered or lost, the audit refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.ledger.events import AggregatePublished
from fedproof.store import ObjectStore
from tests.auditor.world import World, checks_of

EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def shared(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store that each example takes back to how it was."""
    copy = tmp_path_factory.mktemp("flipped") / "store"
    shutil.copytree(world.store, copy)
    return copy


def files_of(store: Path) -> list[Path]:
    """Return everything that is stored, in a fixed order of kinds and sizes."""
    found = [path for path in store.rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: (path.relative_to(store).parts[0], path.stat().st_size, path.name))


@EXAMPLES
@given(data=st.data())
def test_any_altered_byte_is_refused(world: World, shared: Path, data: st.DataObject) -> None:
    """One byte of any stored file, changed in any way, makes a check fail."""
    path = data.draw(st.sampled_from(files_of(shared)), label="file")
    sound = path.read_bytes()
    position = data.draw(st.integers(0, len(sound) - 1), label="byte")
    change = data.draw(st.integers(1, 255), label="change")
    altered = bytearray(sound)
    altered[position] ^= change
    path.write_bytes(altered)
    try:
        assert checks_of(world.audit(shared)), f"{path}: byte {position} was altered unnoticed"
    finally:
        path.write_bytes(sound)


@EXAMPLES
@given(data=st.data())
def test_any_truncated_file_is_refused(world: World, shared: Path, data: st.DataObject) -> None:
    """A stored file that lost its end makes a check fail."""
    path = data.draw(st.sampled_from(files_of(shared)), label="file")
    sound = path.read_bytes()
    path.write_bytes(sound[: data.draw(st.integers(0, len(sound) - 1), label="length")])
    try:
        assert checks_of(world.audit(shared)), f"{path}: the loss of its end went unnoticed"
    finally:
        path.write_bytes(sound)


@EXAMPLES
@given(data=st.data())
def test_any_altered_statement_is_refused(batched: World, data: st.DataObject) -> None:
    """Signed statements of which a byte was changed, or the end was lost, make a check fail."""
    path = data.draw(st.sampled_from(sorted((batched.store / "statements").iterdir())), label="file")
    sound = path.read_bytes()
    position = data.draw(st.integers(0, len(sound) - 1), label="byte")
    change = data.draw(st.integers(0, 255), label="change")
    rest = bytes([sound[position] ^ change]) + sound[position + 1 :] if change else b""
    path.write_bytes(sound[:position] + rest)
    try:
        checks = checks_of(batched.audit())
        assert checks & {9, 11}, f"{path}: byte {position} was altered unnoticed"
    finally:
        path.write_bytes(sound)


def test_any_lost_file_is_noticed(world: World, store: Path) -> None:
    """Each kind of file that a finished round rests on is missed when it is gone."""
    target = ObjectStore(store)
    kinds = [
        target.header_path(world.commitment(1, 0).update_root),
        target.header_path(world.find(AggregatePublished, round=1).aggregate_root),
        target.object_path(world.leaves(2, 1)[0]),
        target.object_path(world.sum_leaves(2)[1]),
        store / "epochs" / "1",
        *(store / "keys").iterdir(),
    ]
    for path in kinds:
        sound = path.read_bytes()
        path.unlink()
        assert checks_of(world.audit(store)), f"{path}: its loss went unnoticed"
        path.write_bytes(sound)
    assert not checks_of(world.audit(store))
