"""Calls of the ledger, written so that they can be played again, and those that histories begin with."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from eth_utils.crypto import keccak

from fedproof.digests import ZERO_DIGEST, Address, Digest
from fedproof.ledger.events import AGGREGATOR_ROLE, OnChainPolicy, Subject
from tests.contracts.model import NOBODY
from tests.contracts.signing import ADMIN, AGGREGATOR, NODES, OUTSIDER

DIGESTS = tuple(Digest(keccak(text=f"digest {number}")) for number in range(3))
POLICY = OnChainPolicy(
    digest=DIGESTS[0],
    min_contributors=2,
    attestation_quorum=3,
    max_examples=1000,
    commit_window=100,
    aggregate_window=50,
    attest_window=30,
    batching=False,
    privacy_cost=0,
    privacy_budget=0,
)
START = 1000
"""Unix time at which histories begin."""

BEGINNINGS = ("direct", "batched", "aggregated", "aggregated", "aggregated", "retired", "deployed")
"""Stages where histories begin: mostly in the last part of a round, which is seldom reached otherwise."""


@dataclass(frozen=True, slots=True)
class Call:
    """Somebody calls a function at a Unix time; `constructor` deploys a ledger, for the next calls."""

    sender: Address
    now: int
    function: str
    arguments: tuple[Any, ...] = ()

    def __str__(self) -> str:
        """Return the call as one writes it down, to be played again."""
        arguments = "".join(f"{_spell(argument)}, " for argument in self.arguments).rstrip()
        return f'Call({_spell(self.sender)}, {self.now}, "{self.function}", ({arguments}))'


def make_stages() -> dict[str, list[Call]]:
    """Return the calls that lead to where histories begin, by name."""
    deployed = [Call(ADMIN, START, "constructor", (ADMIN, AGGREGATOR, NOBODY))]
    admitted = [
        call
        for node in NODES[:5]
        for call in (Call(node, START, "register", DIGESTS), Call(ADMIN, START, "admit", (node,)))
    ]
    epoch = [
        Call(ADMIN, START, "requestEpoch", NODES[:1]),
        Call(NODES[0], START, "publishEpoch", (1, *DIGESTS[:2], 5)),
    ]
    batching = replace(POLICY, batching=True, privacy_cost=2, privacy_budget=4)
    direct, batched = (
        [*deployed, *admitted, Call(ADMIN, START, "adoptPolicy", (policy, DIGESTS[0])), *epoch]
        for policy in (POLICY, batching)
    )
    aggregated = [
        *batched,
        Call(AGGREGATOR, START, "openRound", (1,)),
        *(Call(node, START, "commit", (1, DIGESTS[1], 7)) for node in NODES[:3]),
        Call(AGGREGATOR, START, "anchorCommitments", (1, DIGESTS[0], 2)),
        Call(AGGREGATOR, START, "seal", (1, NODES[:3], bytes(3))),
        Call(AGGREGATOR, START, "publishAggregate", (1, DIGESTS[2])),
    ]
    retired = [*batched, Call(ADMIN, START, "retire")]
    return {
        "direct": direct,
        "batched": batched,
        "aggregated": aggregated,
        "retired": retired,
        "deployed": deployed,
    }


def _spell(value: object) -> str:
    match value:
        case bytes() if value in _NAMES:
            return _NAMES[value]
        case bytes():
            return f'bytes.fromhex("{value.hex()}")'
        case tuple():
            return "({})".format("".join(f"{_spell(item)}, " for item in value).rstrip())
        case Subject():
            return f"Subject.{value.name}"
        case OnChainPolicy():
            terms = (
                item.name for item in fields(value) if getattr(value, item.name) != getattr(POLICY, item.name)
            )
            return "replace({})".format(
                ", ".join(["POLICY", *(f"{term}={_spell(getattr(value, term))}" for term in terms)])
            )
    return repr(value)


_NAMES: dict[bytes, str] = {
    NOBODY: "NOBODY",
    ZERO_DIGEST: "ZERO_DIGEST",
    ADMIN: "ADMIN",
    AGGREGATOR: "AGGREGATOR",
    OUTSIDER: "OUTSIDER",
    AGGREGATOR_ROLE: "AGGREGATOR_ROLE",
    **{node: f"NODES[{index}]" for index, node in enumerate(NODES)},
    **{digest: f"DIGESTS[{index}]" for index, digest in enumerate(DIGESTS)},
}
