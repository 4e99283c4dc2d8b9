"""What no test leaves behind for the next one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _restore_logs() -> Iterator[None]:
    """Undo `configure_logs`, which binds the whole process to the standard output of one test."""
    yield
    structlog.reset_defaults()
