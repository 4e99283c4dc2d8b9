"""In which order tests run, and what none leaves behind for the next one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

# A shell's background jobs ignore Ctrl-C, and so would the processes that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first the files that take longest, or a worker would end with one of them alone."""
    items.sort(
        key=lambda item: (item.get_closest_marker("e2e") is None, item.path.parent != Path(__file__).parent)
    )


@pytest.fixture(autouse=True)
def _restore_logs() -> Iterator[None]:
    """Undo `configure_logs`, which binds the whole process to the standard output of one test."""
    yield
    structlog.reset_defaults()
