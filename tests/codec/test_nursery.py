"""The process that codec workers come from can be there before the first of them is wanted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fedproof.codec import nursery


@pytest.mark.skipif(not nursery.FORKS, reason="workers are forked on Linux only")
def test_prepared_process_is_the_one_that_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing starts one process, once, and the next worker comes from it."""
    monkeypatch.setattr(nursery, "_server", None)
    nursery.prepare()
    server = nursery._server
    assert server is not None
    nursery.prepare()
    child = nursery.start_worker()
    assert nursery._server is server
    child.close()
    server.close()


def test_worker_imports_no_more_than_it_needs() -> None:
    """What a worker imports takes a quarter of a second; Ethereum's libraries would double that."""
    script = "import fedproof.codec.worker, sys; print('eth_utils' in sys.modules, 'pydantic' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "False False\n"
