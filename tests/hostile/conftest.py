"""The aggregator's world, for bytes that only the ledger can tell to be wrong."""

from __future__ import annotations

from tests.aggregator.conftest import aggregator_certificates, aggregator_federation, fresh, world

__all__ = ["aggregator_certificates", "aggregator_federation", "fresh", "world"]
