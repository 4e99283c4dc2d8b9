"""Every fuzz target, registered under its name."""

from __future__ import annotations

from tests.fuzz import chunks, documents, files, keys
from tests.fuzz.registry import TARGETS, Target

__all__ = ["TARGETS", "Target", "chunks", "documents", "files", "keys"]
