"""The contract and its model agree; `python -m tests.contracts.campaign` plays many more histories."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.contracts.calls import Call
from tests.contracts.differential import play, play_random
from tests.contracts.histories import FUNCTIONS
from tests.contracts.model import Model
from tests.contracts.signing import ADMIN, NODES

HISTORIES = 80


def play_all() -> Counter[str]:
    """Play the histories that every test run plays, and return the tally."""
    tally: Counter[str] = Counter()
    for number in range(HISTORIES):
        play_random(f"test/{number}", tally)
    return tally


def test_random_histories_end_the_same() -> None:
    """Each call is refused for the same reason or leaves the same events, and all views answer the same."""
    tally = play_all()
    assert [name for name in FUNCTIONS if not tally[f"accepted {name}"]] == []


def test_a_difference_is_told_by_the_calls_that_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of the two lacks a rule, what comes out is a history in which every call is needed."""
    monkeypatch.setattr(Model, "dispute", lambda *_: None)
    with pytest.raises(AssertionError, match=r"after play\('\w+', \[") as found:
        play_all()
    told = str(found.value)
    assert "the model: []" in told
    assert told.count("Call(") == told.count('"dispute"') == 1


def test_a_history_that_is_written_down_is_played() -> None:
    """What is told of a difference can be pasted into a test."""
    tally = play(
        "direct",
        [
            Call(ADMIN, 1000, "suspend", (NODES[1],)),
            Call(ADMIN, 1000, "suspend", (NODES[1],)),
        ],
    )
    assert tally == {"accepted suspend": 1, "refused NotAdmitted": 1}


def test_who_has_no_key_can_be_a_node() -> None:
    """In this history the admin itself is one and is to sign; it ends the same on both."""
    play_random("0/84589", Counter())
