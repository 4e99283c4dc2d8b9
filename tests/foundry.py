"""Foundry's tools: anvil, a chain that is not ours, and cast, a client that is not ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedproof import anvil
from fedproof.errors import ConfigurationError


def find_tool(name: str) -> str:
    """Return the path of anvil or cast, or skip; in CI its absence is a failure."""
    try:
        return anvil.find_foundry_tool(name)
    except ConfigurationError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@contextmanager
def run_anvil(_home: Path, *options: str) -> Iterator[str]:
    """Run an anvil on a free port and yield its URL."""
    find_tool("anvil")
    with anvil.run_anvil(*options) as url:
        yield url
