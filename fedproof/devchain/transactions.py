"""Which transactions the development chain takes. Its refusals read like those of go-ethereum."""

from __future__ import annotations

import rlp.exceptions
from eth.abc import SignedTransactionAPI, StateAPI
from eth.exceptions import UnrecognizedTransactionType
from eth.vm.forks.prague import PragueVM
from eth.vm.forks.prague.state import PragueTransactionExecutor
from eth_keys.exceptions import BadSignature
from eth_utils.address import to_checksum_address
from eth_utils.exceptions import ValidationError

from fedproof.devchain.documents import Header
from fedproof.devchain.refusal import InvalidParameters, Refusal

BLOB_TYPE = 3


def decode_transaction(raw: bytes, *, chain_id: int) -> SignedTransactionAPI:
    """Return a signed transaction for this chain, whose sender is recovered.

    Raises:
        InvalidParameters: the bytes are no transaction.
        Refusal: it is signed for another chain, or of a type that is not served.
    """
    if raw[:1] == bytes([BLOB_TYPE]):
        raise Refusal("transaction type not supported: blob transactions (type 3)")
    try:
        transaction = PragueVM.get_transaction_builder().decode(raw)
        transaction.validate()
    except (rlp.exceptions.RLPException, ValidationError, UnrecognizedTransactionType, IndexError) as error:
        raise InvalidParameters(f"expected a signed transaction, got {len(raw)} bytes: {error}") from error
    if transaction.chain_id != chain_id:
        raise Refusal(f"invalid chain id for signer: have {transaction.chain_id} want {chain_id}")
    try:
        transaction.check_signature_validity()
    except (ValidationError, BadSignature) as error:
        raise Refusal(f"invalid sender: {error}") from error
    return transaction


def compute_floor_gas(transaction: SignedTransactionAPI) -> int:
    """Return the least gas limit that a transaction may have (EIP-7623 included)."""
    floor = PragueTransactionExecutor.calc_data_floor_gas(transaction, gas_used=0, gas_refund=0)
    return max(transaction.intrinsic_gas, floor)


def verify_executable(transaction: SignedTransactionAPI, state: StateAPI, header: Header) -> None:
    """Check that a block may include a transaction, whether or not its execution then succeeds.

    Raises:
        Refusal: nonce, gas or balance do not allow it.
    """
    sender = to_checksum_address(transaction.sender)
    nonce = state.get_nonce(transaction.sender)
    if transaction.nonce < nonce:
        raise Refusal(f"nonce too low: next nonce {nonce}, tx nonce {transaction.nonce} (address {sender})")
    if transaction.nonce > nonce:
        # Without a queue for later nonces, a client learns of its gap at once.
        raise Refusal(f"nonce too high: next nonce {nonce}, tx nonce {transaction.nonce} (address {sender})")
    if transaction.gas > header.gas_limit:
        raise Refusal(f"exceeds block gas limit: tx gas {transaction.gas}, limit {header.gas_limit}")
    floor = compute_floor_gas(transaction)
    if transaction.gas < floor:
        raise Refusal(f"intrinsic gas too low: gas {transaction.gas}, minimum needed {floor}")
    if transaction.max_fee_per_gas < header.base_fee_per_gas:
        raise Refusal(
            "max fee per gas less than block base fee: "
            f"maxFeePerGas {transaction.max_fee_per_gas}, baseFee {header.base_fee_per_gas}"
        )
    if transaction.max_priority_fee_per_gas > transaction.max_fee_per_gas:
        raise Refusal(
            "max priority fee per gas higher than max fee per gas: "
            f"{transaction.max_priority_fee_per_gas} above {transaction.max_fee_per_gas}"
        )
    cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
    balance = state.get_balance(transaction.sender)
    if balance < cost:
        raise Refusal(
            f"insufficient funds for gas * price + value: address {sender} have {balance} want {cost}"
        )
