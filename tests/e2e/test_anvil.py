"""A federation on a chain that is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedproof.ledger.endpoint import Endpoint
from fedproof.local import LocalFederation
from tests.foundry import run_anvil

from .conftest import audit, follow, make_plan, of_kind

pytestmark = pytest.mark.e2e


def test_a_federation_runs_and_is_audited_on_anvil(tmp_path: Path) -> None:
    """The same processes, given anvil's URL, finalise a round there, and the audit holds."""
    # Blocks come by themselves, as on a real chain: nodes draw chunks from the block after the sum's.
    with run_anvil(tmp_path, "--block-time", "1") as url:
        Endpoint.connect(url, attempts=8)
        with LocalFederation(tmp_path / "run", make_plan(rounds=1, rpc_url=url)) as federation:
            federation.prepare()
            federation.start()
            events = follow(federation)
            assert [event["attestations"] for event in of_kind(events, "finalised")] == [3]
            report = audit(federation.folder)
            assert report.returncode == 0, report.stdout + report.stderr
