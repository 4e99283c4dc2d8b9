"""What a run's folder says about where its evidence is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fedproof_auditor.run import load_run

from fedproof.errors import ConfigurationError, FedproofError
from tests.auditor.world import NAMES, World


def write(folder: Path, **changes: object) -> Path:
    """Write a run.json that differs from a sound one as asked."""
    facts = {
        "rpc_url": "http://127.0.0.1:1",
        "chain_id": 5,
        "contract": "0x" + "11" * 20,
        "policy": "policy.toml",
        "store": "aggregator/store",
        "chain": None,
        "nodes": {"0x" + "aA" * 20: "north"},
        **changes,
    }
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


def test_a_run_is_read(world: World) -> None:
    """Paths are relative to the folder, nodes and roles have names, and the deployment's block is known."""
    target = load_run(world.folder)
    assert target.store == world.store
    assert target.policies == (world.folder / "policy.toml",)
    assert target.journal == world.folder / "chain"
    assert target.contract == world.evidence.contract
    assert {target.names[node] for node in world.nodes} == set(NAMES)
    assert set(target.names.values()) == {*NAMES, "admin", "aggregator"}
    assert target.from_block == world.evidence.events[0].block_number


def test_a_run_on_another_chain_has_no_journal(tmp_path: Path) -> None:
    """Other keys are left alone, and without an address book the ledger is read from its beginning."""
    target = load_run(write(tmp_path, command="fedproof", policy_digest="0x00"))
    assert (target.journal, target.from_block, target.chain_id) == (None, 0, 5)


def test_nodes_are_found_by_name_and_by_address(tmp_path: Path) -> None:
    """A name, or an address of any case, finds its node."""
    target = load_run(write(tmp_path))
    assert target.find_node("north") == target.find_node("0x" + "AA" * 20) == b"\xaa" * 20
    with pytest.raises(ConfigurationError, match=r"a node's name \(north\), got 'south'"):
        target.find_node("south")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contract": "0x12"}, "contract: expected an address"),
        ({"chain_id": "5"}, "chain_id: expected"),
        ({"nodes": {"north": "0x"}}, "nodes: expected an address"),
        (
            {"nodes": {"0x" + "aa" * 20: "x", "0x" + "bb" * 20: "x"}},
            "nodes: expected printable names, each once",
        ),
        ({"nodes": {"0x" + "aa" * 20: "\x1b[2J"}}, "nodes: expected printable names"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """A value that cannot be used is refused with file and key."""
    with pytest.raises(FedproofError, match=message) as caught:
        load_run(write(tmp_path, **change))
    assert "run.json" in str(caught.value)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """A folder without run.json, or with something else under that name, is refused."""
    with pytest.raises(ConfigurationError, match=r"run\.json: expected the file that describes a run"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("not json")
    with pytest.raises(ConfigurationError, match=r"run\.json: expected JSON"):
        load_run(tmp_path)
