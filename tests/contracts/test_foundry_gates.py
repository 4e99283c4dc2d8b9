"""What the gates around Foundry let pass; forge itself runs in `make contracts-test`."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """scripts/test_contracts.py, with one committed gas figure."""
    monkeypatch.syspath_prepend(SCRIPTS)
    module = importlib.import_module("test_contracts")
    (tmp_path / "Gas.json").write_text(json.dumps({"commit": "35000"}))
    monkeypatch.setattr(module, "SNAPSHOTS", tmp_path)
    return module


def test_the_committed_gas_passes(gates: ModuleType) -> None:
    """The same figures are no drift."""
    gates.check_gas({"Gas": {"commit": 35_000}})


@pytest.mark.parametrize(
    ("measured", "named"),
    [
        ({"Gas": {"commit": 34_999}}, "Gas: commit: expected 35000, measured 34999"),
        ({"Gas": {}}, "Gas: commit: expected 35000, measured none"),
        ({}, "Gas: commit: expected 35000, measured none"),
        ({"Gas": {"commit": 35_000, "seal": 1}}, "Gas: seal: expected none, measured 1"),
    ],
)
def test_any_drift_of_gas_is_named(
    gates: ModuleType, measured: dict[str, dict[str, int]], named: str
) -> None:
    """One gas less, a figure removed and one added are all refused, by name."""
    with pytest.raises(SystemExit, match=named):
        gates.check_gas(measured)


def test_missed_lines_and_branches_are_named(gates: ModuleType) -> None:
    """A line that never ran, and a branch that was never taken or never reached, each with its place."""
    lcov = "SF:A.sol\nDA:1,7\nDA:2,0\nBRDA:3,0,0,1\nBRDA:4,1,1,0\nend_of_record\nSF:B.sol\nBRDA:5,2,0,-\n"
    assert list(gates.find_missed(lcov)) == ["  A.sol:2", "  A.sol:4 branch 1", "  B.sol:5 branch 0"]
