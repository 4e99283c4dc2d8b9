"""The ledger as far as this node has read it."""

from __future__ import annotations

from fedproof.ledger.finality import Follower as LedgerWatch

__all__ = ["LedgerWatch"]
