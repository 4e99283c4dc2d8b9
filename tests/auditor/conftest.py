"""Three federations for all tests of the auditor; each test gets a copy of its evidence to damage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.auditor.batched import BatchedBuilder
from tests.auditor.disputed import DisputedBuilder
from tests.auditor.world import Builder, World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The finished federation, its chain still served."""
    builder = Builder(tmp_path_factory.mktemp("audited"))
    try:
        yield builder.build()
    finally:
        builder.close()


@pytest.fixture(scope="session")
def batched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A finished federation whose nodes signed, its chain still served."""
    builder = BatchedBuilder(tmp_path_factory.mktemp("batched"))
    try:
        yield builder.build()
    finally:
        builder.close()


@pytest.fixture(scope="session")
def disputed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A federation of which every round fails by an objection, its chain still served."""
    builder = DisputedBuilder(tmp_path_factory.mktemp("disputed"))
    try:
        yield builder.build()
    finally:
        builder.close()


@pytest.fixture
def store(world: World, tmp_path: Path) -> Path:
    """A copy of the store, for one test to damage."""
    copy = tmp_path / "store"
    shutil.copytree(world.store, copy)
    return copy


@pytest.fixture
def batched_store(batched: World, tmp_path: Path) -> Path:
    """A copy of the other federation's store, for one test to damage."""
    copy = tmp_path / "store"
    shutil.copytree(batched.store, copy)
    return copy
