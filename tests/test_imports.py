"""Imports point one way: each role imports the library, the library imports no role, no role another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "fedproof"
ROLES = {
    "fedproof_node": ROOT / "node" / "fedproof_node",
    "fedproof_aggregator": ROOT / "aggregator" / "fedproof_aggregator",
    "fedproof_auditor": ROOT / "auditor" / "fedproof_auditor",
}
# Tasks, the process that runs them, and the baselines that the demo compares with.
MAY_LOAD_TORCH = ("fedproof/task.py", "fedproof/tasks/", "fedproof/training.py", "fedproof/baselines.py")
MAY_SPEAK_GRPC = ("fedproof/wire/", "node/", "aggregator/")


def _imports(folder: Path) -> Iterator[tuple[str, str]]:
    """Return each import below a folder: the file, and the first name of what it imports."""
    for path in sorted(folder.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield file, node.module.partition(".")[0]


def test_library_imports_no_role() -> None:
    """The library stands alone."""
    assert [found for found in _imports(LIBRARY) if found[1] in ROLES] == []


@pytest.mark.parametrize("role", ROLES)
def test_role_imports_no_other_role(role: str) -> None:
    """Each role installs without the others."""
    assert [found for found in _imports(ROLES[role]) if found[1] in ROLES.keys() - {role}] == []


@pytest.mark.parametrize(
    ("libraries", "allowed"),
    [
        ({"torch"}, MAY_LOAD_TORCH),
        ({"grpc", "grpc_health"}, MAY_SPEAK_GRPC),
    ],
)
def test_heavy_library_stays_where_it_belongs(libraries: set[str], allowed: tuple[str, ...]) -> None:
    """Daemons and auditors do without torch, and auditors without gRPC."""
    found = [each for folder in (LIBRARY, *ROLES.values()) for each in _imports(folder)]
    assert [each for each in found if each[1] in libraries and not each[0].startswith(allowed)] == []
