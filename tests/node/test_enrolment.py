"""A node's own standing, by its own commands, on a real chain."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fedproof.errors import PolicyMismatch, Reverted
from fedproof.keys.wrapping import WrappingKey
from fedproof.ledger.events import KeysRotated, MemberApplied, MemberStatus, PolicyApproved
from tests.node.site import PASSWORD, Site, open_site
from tests.node.test_cli import invoke, refusal


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A node's folder, a chain and an aggregator."""
    with open_site(tmp_path_factory.mktemp("site")) as site:
        site.write_config()
        yield site


def act(site: Site, *arguments: object) -> list[dict[str, Any]]:
    """Return what a command logged."""
    result = invoke(*arguments, "--config", site.config)
    assert result.exception is None, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def last_event(site: Site, kind: type[Any]) -> Any:
    """Return the newest event of a kind that is about this node."""
    events = site.admin.events(0, site.admin.block_number())
    return [event for event in events if isinstance(event, kind) and event.node == site.address][-1]


def test_a_node_applies_approves_rotates_and_leaves(site: Site, tmp_path: Path) -> None:
    """Each command does one thing on the ledger, and with --dry-run says its gas and does nothing.

    An aggregator that does not run yet is in no command's way.
    """
    metadata = tmp_path / "about.txt"
    metadata.write_text("salt 6d21; hospital A")
    rehearsed = act(site, "register", "--metadata", metadata, "--dry-run")
    assert [event["event"] for event in rehearsed] == ["rehearsal", "registered"]
    assert rehearsed[-1]["gas"] > 21_000
    assert site.admin.member(site.address).status is MemberStatus.NONE

    site.write_config(aggregator__target="localhost:1")
    registered, waiting = act(site, "register", "--metadata", metadata)
    assert registered["event"] == "registered"
    assert "the ledger has this node's keys" in waiting["reason"]
    assert "PutPublicKey: UNAVAILABLE" in waiting["reason"]
    site.write_config()
    applied = last_event(site, MemberApplied)
    assert applied.metadata_digest == hashlib.sha256(metadata.read_bytes()).digest()

    site.admin.admit(site.address)
    with pytest.raises(PolicyMismatch, match="it has adopted none"):
        raise refusal(invoke("approve", "--config", site.config))
    site.admin.adopt_policy(site.policy)
    assert act(site, "approve")[-1]["gas"] > 21_000
    assert last_event(site, PolicyApproved).policy_digest == site.policy.digest
    again = act(site, "approve")[-1]
    assert (again["event"], again["gas"]) == ("approved", 0)

    key = WrappingKey.generate()
    (site.folder / "wrapping.key").unlink()
    key.save(site.folder / "wrapping.key", PASSWORD, iterations=2)
    assert act(site, "register")[0]["event"] == "keys_rotated"
    assert last_event(site, KeysRotated).wrapping_key_digest == key.digest

    assert act(site, "leave", "--dry-run")[-1]["gas"] > 21_000
    assert site.admin.member(site.address).status is MemberStatus.ADMITTED
    act(site, "leave")
    assert site.admin.member(site.address).status is MemberStatus.LEFT
    assert isinstance(refusal(invoke("leave", "--config", site.config)), Reverted)
    act(site, "register")
    assert site.admin.member(site.address).status is MemberStatus.APPLIED
