"""Logs: one JSON object a line for machines, readable lines on a terminal; daemons' on standard output."""

from __future__ import annotations

import json as json_module
import logging
import math
import numbers
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

_FIRST_KEYS = ("time", "level", "role", "name", "event")


def configure_logs(role: str, name: str, *, json: bool | None = None) -> FilteringBoundLogger:
    """Set this process's logs up, and return its logger; `structlog.get_logger` returns the same anywhere.

    Args:
        role: ``node`` or ``aggregator``; stands in every line.
        name: which one; stands in every line.
        json: JSON lines, or readable ones; when None, JSON unless standard output is a terminal.
    """
    is_json = not sys.stdout.isatty() if json is None else json

    def name_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {"role": role, "name": name, **event}

    last: list[Processor] = [
        _drop_controls,
        structlog.dev.ConsoleRenderer(timestamp_key="time", colors=sys.stdout.isatty()),
    ]
    if is_json:
        last = [structlog.processors.format_exc_info, _order_keys, _render_json]
    structlog.configure(
        processors=[
            name_process,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _spell_values,
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def log_aside() -> None:
    """Let what is logged go to standard error as readable lines, out of what a command prints."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _spell_values,
            _drop_controls,
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        # Not the stream itself: it may be another one by the time that something is logged.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def _spell_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _spell(value) for key, value in event.items()}


def _spell(value: object) -> object:
    """Return the value as JSON has it: bytes as hex, numpy's numbers as Python's, NaN as text."""
    spelt = value
    match value:
        case bytes():
            spelt = "0x" + value.hex()
        case bool():
            pass
        case numbers.Integral():
            spelt = int(value)
        case numbers.Real():
            # JSON has no NaN; a diverged loss must not make the line unreadable.
            spelt = float(value) if math.isfinite(value) else str(float(value))
        case Mapping():
            spelt = {str(key): _spell(each) for key, each in value.items()}
        case list() | tuple():
            spelt = [_spell(each) for each in value]
        case Path():
            spelt = str(value)
    return spelt


def _drop_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A message may quote a peer, who must not reach the terminal with escape sequences or line breaks."""

    def plain(character: str) -> str:
        return (
            character
            if character.isprintable()
            else " "
            if character.isspace()
            else "\N{REPLACEMENT CHARACTER}"
        )

    return {
        key: "".join(map(plain, value)) if isinstance(value, str) else value for key, value in event.items()
    }


def _order_keys(_logger: WrappedLogger, _method: str, event: EventDict) -> Mapping[str, Any]:
    return {key: event[key] for key in (*_FIRST_KEYS, *(key for key in event if key not in _FIRST_KEYS))}


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return json_module.dumps(event, default=str)
