"""Who stands where, event by event, and where that contradicts the rules: check 5. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fedproof.digests import Address, Digest
from fedproof.ledger.events import (
    Event,
    KeysRotated,
    MemberAdmitted,
    MemberApplied,
    MemberLeft,
    MemberStatus,
    MemberSuspended,
)
from fedproof_auditor.chronicle import RoundRecord
from fedproof_auditor.findings import Findings, spell

MembershipEvent = MemberApplied | MemberAdmitted | MemberSuspended | MemberLeft | KeysRotated

_STANDINGS: Mapping[type[Event], tuple[tuple[MemberStatus, ...], MemberStatus]] = {
    MemberApplied: ((MemberStatus.NONE, MemberStatus.APPLIED, MemberStatus.LEFT), MemberStatus.APPLIED),
    MemberAdmitted: ((MemberStatus.APPLIED, MemberStatus.SUSPENDED), MemberStatus.ADMITTED),
    MemberSuspended: ((MemberStatus.ADMITTED,), MemberStatus.SUSPENDED),
    MemberLeft: ((MemberStatus.ADMITTED,), MemberStatus.LEFT),
    KeysRotated: ((MemberStatus.ADMITTED,), MemberStatus.ADMITTED),
}
"""Where a node may stand when an event of it comes, and where it stands afterwards."""


class Members:
    """The nodes after the events followed so far.

    Attributes:
        changes: how many admissions, suspensions and departures there were.
        wrapping_keys: the digest of the public key that each node named last.
    """

    def __init__(self, findings: Findings) -> None:
        self.changes = 0
        self.wrapping_keys: dict[Address, Digest] = {}
        self._findings = findings
        self._statuses: dict[Address, MemberStatus] = {}

    @property
    def admitted(self) -> frozenset[Address]:
        """The nodes that belong to a round that opens now."""
        return frozenset(node for node, status in self._statuses.items() if status is MemberStatus.ADMITTED)

    def follow(self, event: MembershipEvent, current: RoundRecord | None) -> None:
        """Go on by one event; it has to fit the node's standing, and an admission the newest round."""
        node = event.node
        before, after = _STANDINGS[type(event)]
        status = self._statuses.get(node, MemberStatus.NONE)
        self._findings.require(
            status in before,
            5,
            f"standing before {type(event).__name__}",
            expected=" or ".join(map(spell, before)),
            got=status,
            node=node,
        )
        self._statuses[node] = after
        if isinstance(event, MemberApplied | KeysRotated):
            self.wrapping_keys[node] = event.wrapping_key_digest
        else:
            self.changes += 1
        if isinstance(event, MemberAdmitted):
            # A node of the newest round keeps its place in it; nobody else joins that round.
            keeps_place = current is not None and node in current.cohort
            first = (current.number if current else 0) + (not keeps_place)
            came = event.first_round
            self._findings.require(came == first, 5, "first round", expected=first, got=came, node=node)

    def verify_admitted(self, node: Address, role: str) -> None:
        """Check 5: who plays a role is admitted."""
        status = self._statuses.get(node, MemberStatus.NONE)
        is_admitted = status is MemberStatus.ADMITTED
        what = f"standing of the {role}"
        self._findings.require(is_admitted, 5, what, expected="admitted", got=status, node=node)
