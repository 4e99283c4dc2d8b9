"""A stored chunk over which SEAL crashes is a finding, and not the end of the audit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fedproof.store import ObjectStore
from tests.auditor.world import NAMES, World

# Python runs this at the start of each process of the audit; a codec worker crashes as SEAL might.
CRASH = """
import os, sys
if "fedproof.codec.worker" in sys.orig_argv:
    from fedproof.codec.cipher import CiphertextSum
    add = CiphertextSum.add
    def crash(total, polynomials, seeds):
        if seeds[0].tobytes().hex() == {seed!r}:
            os.abort()
        add(total, polynomials, seeds)
    CiphertextSum.add = crash
"""


def test_a_chunk_that_crashes_seal_is_named(world: World, tmp_path: Path) -> None:
    """The audit goes on, names the chunk, and finds everything else in order."""
    chunk = ObjectStore(world.store).get(world.leaves(2, 1)[0])
    size = world.policy.codec_parameters().update_frame_bytes
    (tmp_path / "sitecustomize.py").write_text(CRASH.format(seed=chunk[size - 64 : size].hex()))
    done = subprocess.run(
        [sys.executable, "-m", "fedproof", "audit", "verify", "--run", str(world.folder), "--json"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    failures = [failure for check in report["checks"] for failure in check["failures"]]
    assert [(each["check"], each["round"], each["node"], each["chunk"]) for each in failures] == [
        (8, 2, NAMES[1], 0),
        (10, 2, None, 0),
    ]
    assert "died twice" in failures[0]["got"]
