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


@pytest.mark.parametrize(("text", "said"), [(None, "all"), ("2-3", "2-3"), ("2-", "2-"), ("4", "4-4")])
def test_a_selection_says_what_it_is(text: str | None, said: str) -> None:
    """Reports name the selection."""
    assert str(parse_rounds(text)) == said
