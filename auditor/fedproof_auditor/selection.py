"""Which rounds' stored evidence an audit looks at."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedproof.errors import ConfigurationError

_PATTERN = re.compile(r"(\d+)?(-)?(\d+)?")


@dataclass(frozen=True, slots=True)
class RoundSelection:
    """Rounds from `first` to `last`, both included; no end when `last` is 0."""

    first: int = 1
    last: int = 0

    def __contains__(self, number: int) -> bool:
        return self.first <= number and (not self.last or number <= self.last)

    def __str__(self) -> str:
        if (self.first, self.last) == (1, 0):
            return "all"
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last or ''}"

    def verify_opened(self, newest: int) -> None:
        """Check that the ledger has each round that is named; an open end names none.

        Args:
            newest: the ledger's last round; 0 if none was opened.

        Raises:
            ConfigurationError: one is missing: the audit would look at less than was asked for.
        """
        if self != RoundSelection() and max(self.first, self.last) > newest:
            known = f"1 to {newest}" if newest else "(it has none)"
            raise ConfigurationError(f"--rounds: expected some of the ledger's rounds {known}, got {self}")


def parse_rounds(text: str | None) -> RoundSelection:
    """Return the rounds that ``7``, ``3-5``, ``3-`` or ``-5`` stand for; all of them for nothing.

    Raises:
        ConfigurationError: the text is none of these, or selects no round.
    """
    if text is None:
        return RoundSelection()
    match = _PATTERN.fullmatch(text.strip())
    if match is None or not (match[1] or match[3]):
        raise ConfigurationError(f"--rounds: expected something like 7, 3-5, 3- or -5, got {text!r}")
    first = int(match[1] or 1)
    last = int(match[3] or 0) if match[2] else first
    if first < 1 or (match[3] and last < first):
        raise ConfigurationError(f"--rounds: expected rounds from 1 on, ascending, got {text!r}")
    return RoundSelection(first, last)
