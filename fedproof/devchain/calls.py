"""Execution that leaves no trace: `eth_call` and `eth_estimateGas`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eth.abc import ComputationAPI, StateAPI
from eth.exceptions import Revert
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth.vm.spoof import SpoofTransaction
from eth_abi.abi import decode as decode_abi
from eth_abi.exceptions import DecodingError
from eth_typing import Address
from eth_utils.address import to_checksum_address
from eth_utils.exceptions import ValidationError

from fedproof.devchain.refusal import ExecutionReverted, Refusal
from fedproof.devchain.transactions import compute_floor_gas

ERROR_STRING_SELECTOR = bytes.fromhex("08c379a0")
"""Of Error(string), which require and revert with a text use."""

ESTIMATE_ERROR = 0.015
"""How far above the least gas limit an estimate may be; go-ethereum's choice."""
CALL_STIPEND = 2300


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call that nobody signed.

    Attributes:
        to: the callee; empty for a contract's creation.
        gas: the gas limit asked for; 0 for as much as a block has.
    """

    sender: Address
    to: Address
    gas: int
    value: int
    data: bytes


def execute_call(state: StateAPI, request: CallRequest) -> bytes:
    """Return what a call returns.

    Args:
        state: of a block whose base fee is zero, as a call pays nothing for its gas.

    Raises:
        ExecutionReverted: the contract reverted.
        Refusal: the call cannot be made, or failed otherwise.
    """
    computation = _run(state, request, gas=_cap_gas(state, request))
    _raise_if_failed(computation)
    return bytes(computation.output)


def estimate_gas(state: StateAPI, request: CallRequest) -> int:
    """Return a gas limit that lets a call succeed, at most 1.5 percent above the least one.

    Raises:
        ExecutionReverted: the contract reverted.
        Refusal: no gas limit lets the call succeed.
    """
    high = _cap_gas(state, request)
    floor = compute_floor_gas(_spoof(state, request, gas=high))
    computation = _run(state, request, gas=high)
    _raise_if_failed(computation)
    used = high - computation.get_gas_remaining()
    low = max(used, floor) - 1
    # A callee gets at most 63 of 64 parts of the gas left (EIP-150), so what was used may be too little.
    guess = max((used + CALL_STIPEND) * 64 // 63, floor)
    for limit in (max(used, floor), guess):
        if low < limit < high:
            if _run(state, request, gas=limit).is_success:
                high = limit
                break
            low = limit
    while high - low > 1 and (high - low) / high > ESTIMATE_ERROR:
        middle = (high + low) // 2
        if _run(state, request, gas=middle).is_success:
            high = middle
        else:
            low = middle
    return high


def _cap_gas(state: StateAPI, request: CallRequest) -> int:
    limit: int = state.gas_limit
    return min(request.gas, limit) if request.gas else limit


def _spoof(state: StateAPI, request: CallRequest, *, gas: int) -> Any:
    unsigned = PragueTransactionBuilder.new_unsigned_dynamic_fee_transaction(
        chain_id=state.execution_context.chain_id,
        nonce=state.get_nonce(request.sender),
        max_priority_fee_per_gas=0,
        max_fee_per_gas=0,
        gas=gas,
        to=request.to,
        value=request.value,
        data=request.data,
        access_list=(),
    )
    return SpoofTransaction(unsigned, from_=request.sender)


def _run(state: StateAPI, request: CallRequest, *, gas: int) -> ComputationAPI:
    transaction = _spoof(state, request, gas=gas)
    intrinsic = transaction.intrinsic_gas
    if gas < intrinsic:
        raise Refusal(f"intrinsic gas too low: gas {gas}, minimum needed {intrinsic}")
    balance = state.get_balance(request.sender)
    if balance < request.value:
        raise Refusal(
            f"insufficient funds for transfer: address {to_checksum_address(request.sender)} "
            f"have {balance} want {request.value}"
        )
    snapshot = state.snapshot()
    try:
        return state.apply_transaction(transaction)
    except ValidationError as error:
        raise Refusal(str(error)) from error
    finally:
        state.revert(snapshot)


def _raise_if_failed(computation: ComputationAPI) -> None:
    if computation.is_success:
        return
    if isinstance(computation.error, Revert):
        output = bytes(computation.output)
        raise ExecutionReverted(_describe_revert(output), output=output)
    raise Refusal(f"execution failed: {type(computation.error).__name__}: {computation.error}")


def _describe_revert(output: bytes) -> str:
    if output.startswith(ERROR_STRING_SELECTOR):
        try:
            (reason,) = decode_abi(["string"], output[len(ERROR_STRING_SELECTOR) :])
        except DecodingError:
            return "execution reverted"
        return f"execution reverted: {reason}"
    return "execution reverted"
