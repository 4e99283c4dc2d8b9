"""The committed artifact is what the sources compile to."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]
CONTRACTS = REPOSITORY / "contracts"
SCRIPT = REPOSITORY / "scripts" / "compile_contracts.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The compile script, as a module."""
    spec = importlib.util.spec_from_file_location("compile_contracts", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_artifact_names_these_sources() -> None:
    """Each source has the digest that the artifact was compiled from."""
    artifact = json.loads((CONTRACTS / "artifacts" / "Federation.json").read_text())
    for name, digest in artifact["sources"].items():
        path = (CONTRACTS / "vendor" if name.startswith("@") else CONTRACTS) / name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, f"{name}: run {SCRIPT.name}"


def test_a_stale_artifact_is_named(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other bytes, a missing artifact and one too many are all stale."""
    monkeypatch.setattr(script, "ARTIFACTS", tmp_path)
    fresh, altered, surplus = (tmp_path / f"{name}.json" for name in ("Fresh", "Altered", "Surplus"))
    for path in (fresh, altered, surplus):
        path.write_text("{}\n")
    expected = {fresh: "{}\n", altered: "{ }\n", tmp_path / "Missing.json": "{}\n"}
    assert list(script.find_stale(expected)) == [altered, tmp_path / "Missing.json", surplus]


def test_sources_are_found_by_relative_names(script: ModuleType) -> None:
    """The compiler sees no path of this machine, and every import is there."""
    sources = script.load_sources("Federation.sol")
    assert all(not name.startswith(("/", "..")) for name in sources)
    assert {"Federation.sol", "interfaces/IFederation.sol"} <= set(sources)
    with pytest.raises(SystemExit, match=r"contracts/Missing\.sol: imported, but it does not exist"):
        script.load_sources("Missing.sol")


def test_without_a_compiler_all_that_was_tried_is_listed(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where neither way works, the message says what was tried and why each failed."""
    monkeypatch.setenv("SOLCX_BINARY_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(script.sys, "executable", "/bin/false")
    with pytest.raises(SystemExit) as stopped:
        script.find_compiler()
    said = str(stopped.value)
    assert f"no solc {script.VERSION}; tried:" in said
    for part in ("py-solc-x: ", "node is not on the PATH", "py-solc-x's download: status 1", "npm is not on"):
        assert part in said
