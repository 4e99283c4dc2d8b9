"""What no test leaves behind for the next one."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import structlog

# A shell's background jobs ignore Ctrl-C, and so would the processes that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _restore_logs() -> Iterator[None]:
    """Undo `configure_logs`, which binds the whole process to the standard output of one test."""
    yield
    structlog.reset_defaults()
