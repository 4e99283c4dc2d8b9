"""Which of several endpoints is asked first."""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog
from structlog.typing import FilteringBoundLogger

from fedproof.ledger.endpoint import Endpoint

_FIRST_REST_S = 15.0
_LAST_REST_S = 600.0


class Roster:
    """Who is asked first: an endpoint that failed rests for a while, then longer, and is named in the log."""

    def __init__(self, members: Sequence[Endpoint]) -> None:
        self._members = tuple(members)
        self._resting: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._log: FilteringBoundLogger = structlog.get_logger()

    def awake(self) -> list[Endpoint]:
        """Return those that do not rest, the preferred one first."""
        now = time.monotonic()
        return [member for member in self._members if self._resting.get(member.url, 0.0) <= now]

    def in_order(self) -> list[Endpoint]:
        """Return all, those that rest last."""
        awake = self.awake()
        return awake + [member for member in self._members if member not in awake]

    def praise(self, member: Endpoint) -> None:
        """Note that an endpoint answered: its next rest is short again."""
        self._failures.pop(member.url, None)

    def rest(self, member: Endpoint, event: str, reason: str) -> None:
        """Ask an endpoint last for a while, and log why."""
        failures = self._failures[member.url] = self._failures.get(member.url, 0) + 1
        rest_s = min(_LAST_REST_S, _FIRST_REST_S * 2.0 ** (failures - 1))
        self._resting[member.url] = time.monotonic() + rest_s
        self._log.warning(event, endpoint=member.url, reason=reason, asked_last_for_s=rest_s)
