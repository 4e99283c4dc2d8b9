"""A reader in another language, which shares no code with the product, agrees with it on every vector."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
VECTORS = HERE.parent / "vectors"
OLDEST_NODE = 18


def find_node() -> str:
    """Return the path of Node.js 18 or later, or skip; in CI its absence is a failure."""
    found = shutil.which("node")
    reason = "node is absent"
    if found is not None:
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
        if int(version.lstrip("v").partition(".")[0]) >= OLDEST_NODE:
            return found
        reason = f"node is {version.strip()}"
    reason += f"; the verifier needs Node.js {OLDEST_NODE} or later"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the verifier over a folder of vectors."""
    command = [find_node(), str(HERE / "verify.mjs"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_vector_holds() -> None:
    """Each file of vectors is read, and everything in it holds."""
    done = verify(VECTORS)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert {line.partition(":")[0] for line in done.stdout.splitlines()} == {
        path.name for path in VECTORS.glob("*.json")
    }


def test_the_verifier_notices_a_difference(tmp_path: Path) -> None:
    """An altered vector, an altered file beside one, and a file that it does not know do not pass."""
    copy = tmp_path / "vectors"
    shutil.copytree(VECTORS, copy)
    vectors = json.loads((copy / "round.json").read_text())
    vectors["aggregate"]["sums"][3] += 1
    (copy / "round.json").write_text(json.dumps(vectors))
    for name in ("chunk-sum.bin", "wrapping-key.bin"):
        data = bytearray((copy / name).read_bytes())
        data[1300] ^= 1
        (copy / name).write_bytes(data)
    (copy / "unknown.json").write_text("{}")
    done = verify(copy)
    assert done.returncode == 1
    failing = {line.partition(":")[0] for line in done.stdout.splitlines() if ": FAILS: " in line}
    assert failing == {"round.json", "chunks.json", "wrapped_keys.json", "unknown.json"}
