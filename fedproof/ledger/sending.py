"""A call on its way to the chain. Its states:

prepared    signed and on the disk; fewer endpoints than have to agree took it, or nobody.
pending     as many endpoints as have to agree took it.
mined       in a block that may still go.
final       in a block that finality covers.
reverted    in a block that finality covers, and the contract refused.
superseded  another transaction has its nonce for good, or the chain refused it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from fedproof.ledger.finality import Finality
from fedproof.ledger.signer import Signed


@dataclass(frozen=True, slots=True)
class SendingRules:
    """How a wallet's transactions are sent.

    Attributes:
        path: the wallet's outbox file; without one, a crash forgets what was under way.
        finality: which block ends the watch over a transaction that is prepared under these rules.
        replace_after_s: how long one may stay unmined before it is sent again, or its fees are raised.
        max_fee_gwei: most that a unit of gas may cost, base fee and tip together.
        max_tip_gwei: most of it that may be the tip.
    """

    path: Path | None = None
    finality: Finality = "latest"
    replace_after_s: float = 30.0
    max_fee_gwei: float = 500.0
    max_tip_gwei: float = 50.0


class SendingState(StrEnum):
    """What became of a sending; see the module's docstring."""

    PREPARED = "prepared"
    PENDING = "pending"
    MINED = "mined"
    FINAL = "final"
    REVERTED = "reverted"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Version:
    """A sending under certain fees; versions share one nonce, so that only one of them can be mined.

    Attributes:
        fees: the transaction's fee fields, in wei.
        made: the Unix time at which it was signed.
    """

    signed: Signed
    fees: Mapping[str, int]
    made: float


@dataclass(frozen=True, slots=True)
class Sending:
    """One call on its way to the chain.

    Attributes:
        number: which one in the file.
        key: the caller's name for it; of one key at most one sending is neither reverted nor superseded.
        what: its purpose, for messages.
        call: the transaction's fields, except nonce and fees.
        finality: which block ends the watch over it, whoever looks: that of the process which prepared it.
        block: number of the block that it was seen in last.
        versions: newest first; at least one.
    """

    number: int
    key: str
    what: str
    call: Mapping[str, Any]
    nonce: int
    state: SendingState
    finality: Finality
    block: int | None
    versions: tuple[Version, ...]
