"""Malformed bytes of every kind at the parser that decides: refused by name, at once, at no cost."""

from __future__ import annotations

import pytest

from tests.fuzz.registry import LONGEST_MESSAGE
from tests.hostile import chunk_kinds, document_kinds, file_kinds, key_kinds, policy_kinds
from tests.hostile.kind import MOST_BYTES, MOST_SECONDS, Kind, measure

TABLES = (chunk_kinds, document_kinds, policy_kinds, key_kinds, file_kinds)
KINDS = [kind for table in TABLES for kind in table.kinds()]


def refuse(kind: Kind) -> None:
    """Give the parser the bytes, and check its answer."""
    with pytest.raises(kind.error, match=kind.message) as caught:
        kind.parse(kind.raw)
    assert len(str(caught.value)) <= LONGEST_MESSAGE


def test_kinds_are_many_and_told_apart() -> None:
    """At least forty kinds, each with a name of its own."""
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 40


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_malformed_bytes_are_refused(kind: Kind) -> None:
    """The error is the one that the kind calls for, in its class and in its words, and fits a log's line."""
    refuse(kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_refusing_costs_next_to_nothing(kind: Kind) -> None:
    """A millisecond and a mebibyte beyond the bytes themselves."""

    def call() -> None:
        try:
            kind.parse(kind.raw)
        except kind.error:
            return
        raise AssertionError

    cost = measure(call)
    assert cost.seconds <= MOST_SECONDS
    assert cost.peak_bytes <= MOST_BYTES
