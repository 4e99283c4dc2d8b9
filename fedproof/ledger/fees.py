"""What a transaction offers for its gas, in wei, as JSON-RPC's fields: EIP-1559 where there is a base fee."""

from __future__ import annotations

from collections.abc import Mapping

from web3.exceptions import Web3RPCError
from web3.types import RPCEndpoint

from fedproof.errors import LedgerError
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.transactions import as_int64

_DEFAULT_TIP = 10**9
_GWEI = 10**9

Fees = Mapping[str, int]


def suggest_fees(endpoint: Endpoint, *, ceiling: int) -> Fees:
    """Return the fee fields of a transaction that is to be mined soon.

    Args:
        endpoint: asked for the newest block's base fee, and for a usual tip.
        ceiling: most that a unit of gas may cost, in wei.

    Raises:
        LedgerError: it costs more now, or the endpoint does not answer.
    """
    eth = endpoint.web3.eth
    base = endpoint.ask("eth_getBlockByNumber", lambda: eth.get_block("latest").get("baseFeePerGas"))
    if base is None:
        price = as_int64(endpoint.ask("eth_gasPrice", lambda: eth.gas_price), "gas price")
        _verify_ceiling(price, ceiling, where=f"{endpoint.url}: gas price")
        return {"gasPrice": price}

    def request() -> int:
        # Not by web3's own property: where the method is missing, that one warns and asks for past fees.
        try:
            tip = endpoint.web3.manager.request_blocking(RPCEndpoint("eth_maxPriorityFeePerGas"), [])
        except Web3RPCError:
            return _DEFAULT_TIP
        return int(tip, 16) if isinstance(tip, str) else int(tip)

    base_fee = as_int64(base, "base fee")
    tip = as_int64(endpoint.ask("eth_maxPriorityFeePerGas", request), "tip")
    _verify_ceiling(base_fee + tip, ceiling, where=f"{endpoint.url}: base fee and tip")
    # The base fee grows by an eighth a block at most: twice as much lasts for six full blocks.
    return {"maxFeePerGas": min(2 * base_fee + tip, ceiling), "maxPriorityFeePerGas": tip}


def raise_fees(fees: Fees, suggested: Fees, *, ceiling: int, where: str) -> Fees:
    """Return the fees of a transaction that is to replace another one of its nonce.

    Pools take a replacement whose every fee is an eighth higher, or less than that.

    Args:
        fees: the other one's.
        suggested: what a new transaction would offer.
        ceiling: most that a unit of gas may cost, in wei.
        where: what a message begins with.

    Raises:
        LedgerError: they would be above the ceiling.
    """
    raised = {key: max(suggested.get(key, 0), fee + fee // 8 + 1) for key, fee in fees.items()}
    _verify_ceiling(max(raised.values()), ceiling, where=where)
    return raised


def _verify_ceiling(fee: int, ceiling: int, *, where: str) -> None:
    if fee > ceiling:
        raise LedgerError(
            f"{where}: expected at most {ceiling / _GWEI:g} gwei a unit of gas, the configured ceiling "
            f"(max_fee_gwei), got {fee / _GWEI:g}"
        )
