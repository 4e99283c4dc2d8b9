"""What commands print: readable lines, or one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import typer


def report(facts: Mapping[str, object], *, as_json: bool) -> None:
    """Print facts by name. Bytes and paths appear as text."""
    plain = {key: _spell(value) for key, value in facts.items()}
    if as_json:
        typer.echo(json.dumps(plain, default=_spell, ensure_ascii=False))
        return
    width = max(map(len, plain), default=0) + 2
    for key, value in plain.items():
        typer.echo(f"{key:<{width}}{value}")


def warn_aside() -> None:
    """Let what the ledger's client logs go to stderr, out of what a command prints."""
    import structlog

    # Not the stream itself: it may be another one by the time that something is logged.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def _spell(value: object) -> object:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value if isinstance(value, str | int | float | None | list | dict) else str(value)
