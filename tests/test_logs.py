"""Logs: JSON lines for machines, readable lines for people."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from fedproof.logs import configure_logs


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_line_says_who_and_when(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is one JSON object that begins with time, level, role, name and event."""
    configure_logs("node", "hospital-1").info("committed", round=3, gas=38_000)
    (line,) = _lines(capsys)
    assert list(line) == ["time", "level", "role", "name", "event", "round", "gas"]
    assert datetime.datetime.fromisoformat(line.pop("time")).utcoffset() == datetime.timedelta(0)
    assert line == {
        "level": "info",
        "role": "node",
        "name": "hospital-1",
        "event": "committed",
        "round": 3,
        "gas": 38_000,
    }


def test_every_logger_of_the_process_says_who(capsys: pytest.CaptureFixture[str]) -> None:
    """A module's own logger writes the same kind of line."""
    configure_logs("aggregator", "main")
    structlog.get_logger().bind(round=1).warning("upload_refused")
    (line,) = _lines(capsys)
    assert (line["role"], line["name"], line["level"], line["round"]) == ("aggregator", "main", "warning", 1)


def test_values_that_json_lacks_are_spelt(capsys: pytest.CaptureFixture[str]) -> None:
    """Digests are hex; paths are text; NaN and infinity do not make the line unreadable, however deep."""
    logger = configure_logs("node", "a", json=True)
    history = [float("inf"), {"d": b"\x01"}, True, np.int64(7)]
    logger.info("x", digest=b"\x0a\x0b", path=Path("a/b"), loss=np.float32("nan"), history=history)
    (line,) = _lines(capsys)
    assert line["digest"] == "0x0a0b"
    assert line["path"] == "a/b"
    assert line["loss"] == "nan"
    assert line["history"] == ["inf", {"d": "0x01"}, True, 7]


def test_newlines_stay_within_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What a peer sent cannot forge a second line."""
    configure_logs("node", "a", json=True).error("error", message='x\n{"event": "finalised"}')
    assert [line["event"] for line in _lines(capsys)] == ["error"]


def test_exception_is_in_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback is a field of its event, not lines between the events."""
    logger = configure_logs("node", "a", json=True)
    try:
        raise ValueError("expected 2, got 3")
    except ValueError:
        logger.exception("error", message="no")
    (line,) = _lines(capsys)
    assert "ValueError: expected 2, got 3" in line["exception"]


def test_readable_lines_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    """People get the event and its values, without JSON."""
    configure_logs("node", "hospital-1", json=False).info("committed", round=3, root=b"\x0a")
    text = capsys.readouterr().out
    assert "committed" in text
    assert "round=3" in text
    assert "root=0x0a" in text
    assert "hospital-1" in text
    assert not text.lstrip().startswith("{")


def test_readable_lines_carry_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """What a peer sent reaches the terminal as text: no escape sequences, no forged lines."""
    configure_logs("node", "a", json=False).error("error", message="x\x1b[2Jy\nfinalised")
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert "x\N{REPLACEMENT CHARACTER}[2Jy finalised" in text


def test_terminal_gets_readable_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a choice, a terminal decides."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    configure_logs("node", "a").info("waiting")
    assert not capsys.readouterr().out.startswith("{")


def test_debug_lines_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Only what an operator needs is written."""
    configure_logs("node", "a", json=True).debug("detail")
    assert capsys.readouterr().out == ""
