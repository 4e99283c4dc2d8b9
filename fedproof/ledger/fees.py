"""What a transaction offers for its gas, in wei, as JSON-RPC's fields (EIP-1559)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import NamedTuple

from web3 import Web3
from web3.exceptions import Web3RPCError
from web3.types import RPCEndpoint

from fedproof.errors import LedgerError
from fedproof.ledger.answers import as_int64
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.finality import find_final_tag

_DEFAULT_TIP = 10**9
_GWEI = 10**9

Fees = Mapping[str, int]


class Ceilings(NamedTuple):
    """Most that a unit of gas may cost, in wei: base fee and tip together, and the tip alone."""

    fee: int
    tip: int


def suggest_fees(endpoint: Endpoint, *, ceilings: Ceilings) -> Fees:
    """Return the fee fields of a transaction that is to be mined soon.

    Args:
        endpoint: asked for the newest block's base fee, and for a usual tip: several agree on the one, and
            of the other their median counts, so that one that lies makes nothing dear, or too cheap to mine.
        ceilings: most that it may offer.

    Raises:
        LedgerError: it costs more now, the chain has no base fee, or the endpoint does not answer.
    """
    tag = find_final_tag(endpoint, "latest")

    def request(web3: Web3) -> int | None:
        base_fee = web3.eth.get_block(tag).get("baseFeePerGas")
        return None if base_fee is None else as_int64(base_fee, "base fee")

    base_fee = endpoint.agree("eth_getBlockByNumber", request)
    if base_fee is None:
        # A price without one is all tip, and whether it is a usual one cannot be told.
        raise LedgerError(
            f"{endpoint.url}: expected a chain with a base fee (EIP-1559), its newest block names none"
        )
    tip = _find_median(endpoint, "eth_maxPriorityFeePerGas", _request_tip)
    _verify(tip, ceilings.tip, "max_tip_gwei", where=f"{endpoint.url}: tip")
    _verify(base_fee + tip, ceilings.fee, "max_fee_gwei", where=f"{endpoint.url}: base fee and tip")
    # The base fee grows by an eighth a block at most: twice as much lasts for six full blocks.
    return {"maxFeePerGas": min(2 * base_fee + tip, ceilings.fee), "maxPriorityFeePerGas": tip}


def raise_fees(fees: Fees, suggested: Fees, *, ceilings: Ceilings, where: str) -> Fees:
    """Return the fees of a transaction that is to replace another one of its nonce.

    Pools take a replacement whose every fee is an eighth higher, or less than that.

    Args:
        fees: the other one's.
        suggested: what a new transaction would offer.
        ceilings: most that it may offer.
        where: what a message begins with.

    Raises:
        LedgerError: they would be above a ceiling.
    """
    raised = {key: max(suggested[key], fee + fee // 8 + 1) for key, fee in fees.items()}
    _verify(raised["maxFeePerGas"], ceilings.fee, "max_fee_gwei", where=where)
    _verify(raised["maxPriorityFeePerGas"], ceilings.tip, "max_tip_gwei", where=where)
    return raised


def _find_median(endpoint: Endpoint, what: str, request: Callable[[Endpoint], int]) -> int:
    """Return the median of what the endpoints answer; of an even number, the lower one of the middle."""
    answers = endpoint.poll(what, lambda member: as_int64(member.ask(what, lambda: request(member)), what))
    return statistics.median_low(answers)


def _request_tip(endpoint: Endpoint) -> int:
    # Not by web3's own property: where the method is missing, that one warns and asks for past fees.
    try:
        tip = endpoint.web3.manager.request_blocking(RPCEndpoint("eth_maxPriorityFeePerGas"), [])
    except Web3RPCError:
        return _DEFAULT_TIP
    return int(tip, 16) if isinstance(tip, str) else int(tip)


def _verify(offer: int, ceiling: int, key: str, *, where: str) -> None:
    if offer > ceiling:
        raise LedgerError(
            f"{where}: expected at most {ceiling / _GWEI:g} gwei a unit of gas, the configured ceiling "
            f"({key}), got {offer / _GWEI:g}"
        )
