"""Fees: what a transaction offers, and what it never does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from eth_account.signers.local import LocalAccount

from fedproof.errors import LedgerError
from tests.ledger.anvil import Answer, Anvil, proxied
from tests.ledger.test_outbox import GWEI, call, count, open_outbox, states


def test_a_chain_without_a_base_fee_is_refused(anvil: Anvil, wallet: LocalAccount) -> None:
    """Leaving out the base fee makes nothing dear: a price that is all tip is not offered."""

    def omit(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        answer = ask()
        if request["method"] == "eth_getBlockByNumber":
            answer["result"].pop("baseFeePerGas")
        return {**answer, "result": hex(499 * GWEI)} if request["method"] == "eth_gasPrice" else answer

    with proxied(anvil.url) as proxy:
        proxy.twist = omit
        outbox = open_outbox(proxy.url, wallet, max_tip_gwei=2)
        with pytest.raises(LedgerError, match=r"expected a chain with a base fee \(EIP-1559\)"):
            outbox.send(call(), what="test")
        assert states(outbox) == []
    assert count(anvil, wallet) == 0
