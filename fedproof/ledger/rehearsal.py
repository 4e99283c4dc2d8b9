"""A ledger on which nothing is sent: the chain is asked whether a transaction would pass, and its gas."""

from __future__ import annotations

from typing import Any

from fedproof.digests import ZERO_DIGEST, checksum_address
from fedproof.ledger.client import Ledger, Receipt
from fedproof.ledger.transactions import estimate_gas


class Rehearsal(Ledger):
    """Estimates each transaction in place of sending it.

    A receipt then holds the estimated gas, no transaction hash, no block and no events. What the contract
    would refuse, it refuses here as well.
    """

    def _send(self, name: str, *arguments: Any) -> Receipt:
        sender = checksum_address(self.outbox.signer.address)
        data = self._contract.encode_abi(name, args=arguments)
        call: Any = {"from": sender, "to": self._address, "data": data}
        gas = estimate_gas(self._endpoint, call, what=f"{name} by {sender}")
        return Receipt(transaction_hash=ZERO_DIGEST, block_number=0, gas_used=gas, events=())
