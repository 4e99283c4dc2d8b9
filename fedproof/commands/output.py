"""What commands print: readable lines, or one JSON object."""

from __future__ import annotations

import json
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


def _spell(value: object) -> object:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value if isinstance(value, str | int | float | None | list | dict) else str(value)
