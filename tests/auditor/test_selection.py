"""Which rounds an option selects."""

from __future__ import annotations

import pytest
from fedproof_auditor.selection import parse_rounds

from fedproof.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (None, (1, 1000), ()),
        ("7", (7,), (6, 8)),
        ("3-5", (3, 5), (2, 6)),
        ("3-", (3, 1000), (2,)),
        ("-5", (1, 5), (6,)),
        (" 4-4 ", (4,), (3, 5)),
    ],
)
def test_a_range_selects_its_rounds(
    text: str | None, inside: tuple[int, ...], outside: tuple[int, ...]
) -> None:
    """Both ends belong to a range, and an open end has no limit."""
    selection = parse_rounds(text)
    assert all(number in selection for number in inside)
    assert not any(number in selection for number in outside)


@pytest.mark.parametrize("text", ["", "-", "a-b", "5-3", "0", "1-2-3", "1,2"])
def test_other_text_is_refused(text: str) -> None:
    """What is no range, or an empty one, is refused with an example."""
    with pytest.raises(ConfigurationError, match="--rounds"):
        parse_rounds(text)


@pytest.mark.parametrize(("text", "said"), [(None, "all"), ("2-3", "2-3"), ("2-", "2-"), ("4", "4")])
def test_a_selection_says_what_it_is(text: str | None, said: str) -> None:
    """Reports name the selection."""
    assert str(parse_rounds(text)) == said


@pytest.mark.parametrize(
    ("text", "newest"), [(None, 0), (None, 2), ("1-", 0), ("2", 2), ("2-", 2), ("-2", 2), ("1-2", 2)]
)
def test_rounds_of_the_ledger_may_be_selected(text: str | None, newest: int) -> None:
    """Every round up to the newest may be named; all of them may be none."""
    parse_rounds(text).verify_opened(newest)


@pytest.mark.parametrize(
    ("text", "newest", "message"),
    [
        ("7", 2, "--rounds: expected some of the ledger's rounds 1 to 2, got 7"),
        ("3", 2, "rounds 1 to 2, got 3"),
        ("3-", 2, "rounds 1 to 2, got 3-"),
        ("1-3", 2, "rounds 1 to 2, got 1-3"),
        ("-3", 2, "rounds 1 to 2, got 1-3"),
        ("1", 0, r"rounds \(it has none\), got 1"),
    ],
)
def test_a_round_that_the_ledger_does_not_have_is_refused(text: str, newest: int, message: str) -> None:
    """A mistyped range must not pass as an audit, not even where part of it is there."""
    with pytest.raises(ConfigurationError, match=message + "$"):
        parse_rounds(text).verify_opened(newest)
