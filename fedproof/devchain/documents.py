"""Blocks, transactions, receipts and logs as Ethereum's JSON-RPC shows them (ethereum/execution-apis)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rlp
from eth.abc import BlockAPI, ReceiptAPI, SignedTransactionAPI
from eth_utils.crypto import keccak

Document = dict[str, Any]
Header = Any
"""Of the Prague fork. py-evm's interface covers every fork, so it has most of these fields optional."""

BLOOM_BYTES = 256
DYNAMIC_FEE_TYPE = 2
SET_CODE_TYPE = 4


def quantity(number: int) -> str:
    """Return an integer as JSON-RPC has it: 0x and no leading zeros."""
    return hex(number)


def data(raw: bytes) -> str:
    """Return bytes as JSON-RPC has them: 0x and two digits each."""
    return "0x" + raw.hex()


def word(number: int) -> str:
    """Return an integer as 32 bytes of data."""
    return data(number.to_bytes(32))


def header_document(header: Header) -> Document:
    """Return what a block's header says, as a part of the block's document."""
    return {
        "number": quantity(header.block_number),
        "hash": data(header.hash),
        "parentHash": data(header.parent_hash),
        "nonce": data(header.nonce),
        "sha3Uncles": data(header.uncles_hash),
        "logsBloom": data(header.bloom.to_bytes(BLOOM_BYTES)),
        "transactionsRoot": data(header.transaction_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipt_root),
        "miner": data(header.coinbase),
        "difficulty": quantity(header.difficulty),
        "totalDifficulty": quantity(0),
        "extraData": data(header.extra_data),
        "mixHash": data(header.mix_hash),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "baseFeePerGas": quantity(header.base_fee_per_gas),
        "withdrawalsRoot": data(header.withdrawals_root),
        "blobGasUsed": quantity(header.blob_gas_used),
        "excessBlobGas": quantity(header.excess_blob_gas),
        "parentBeaconBlockRoot": data(header.parent_beacon_block_root),
        "requestsHash": data(header.requests_hash),
        "uncles": [],
        "withdrawals": [],
    }


def pending_document(header: Header) -> Document:
    """Return the block that would be mined now: empty, and without the fields that mining decides."""
    undecided = {"hash": None, "nonce": None, "miner": None}
    return {**header_document(header), **undecided, "size": quantity(0), "transactions": []}


def compute_block_size(block: BlockAPI) -> int:
    """Return how many bytes a block takes on the wire."""
    return len(rlp.encode(block))


def transaction_document(block: BlockAPI, index: int) -> Document:
    """Return a mined transaction."""
    transaction: Any = block.transactions[index]  # the interface leaves out what some types lack
    type_id = transaction.type_id or 0
    document: Document = {
        "type": quantity(type_id),
        "hash": data(transaction.hash),
        "nonce": quantity(transaction.nonce),
        "blockHash": data(block.hash),
        "blockNumber": quantity(block.number),
        "transactionIndex": quantity(index),
        "from": data(transaction.sender),
        "to": data(transaction.to) if transaction.to else None,
        "value": quantity(transaction.value),
        "gas": quantity(transaction.gas),
        "gasPrice": quantity(compute_gas_price(transaction, block.header)),
        "input": data(transaction.data),
        "r": quantity(transaction.r),
        "s": quantity(transaction.s),
    }
    if type_id == 0:
        return {**document, "chainId": quantity(transaction.chain_id), "v": quantity(transaction.v)}
    document |= {
        "chainId": quantity(transaction.chain_id),
        "v": quantity(transaction.y_parity),
        "yParity": quantity(transaction.y_parity),
        "accessList": [
            {"address": data(address), "storageKeys": [word(slot) for slot in slots]}
            for address, slots in transaction.access_list
        ],
    }
    if type_id >= DYNAMIC_FEE_TYPE:
        document |= {
            "maxFeePerGas": quantity(transaction.max_fee_per_gas),
            "maxPriorityFeePerGas": quantity(transaction.max_priority_fee_per_gas),
        }
    if type_id == SET_CODE_TYPE:
        document["authorizationList"] = [
            {
                "chainId": quantity(grant.chain_id),
                "address": data(grant.address),
                "nonce": quantity(grant.nonce),
                "yParity": quantity(grant.y_parity),
                "r": quantity(grant.r),
                "s": quantity(grant.s),
            }
            for grant in transaction.authorization_list
        ]
    return document


def receipt_documents(block: BlockAPI, receipts: Sequence[ReceiptAPI]) -> list[Document]:
    """Return the receipts of a block's transactions, in order."""
    documents = []
    gas_before = 0
    logs_before = 0
    for index, (transaction, receipt) in enumerate(zip(block.transactions, receipts, strict=True)):
        place: Document = {
            "transactionHash": data(transaction.hash),
            "transactionIndex": quantity(index),
            "blockHash": data(block.hash),
            "blockNumber": quantity(block.number),
        }
        logs = [
            {
                **place,
                "blockTimestamp": quantity(block.header.timestamp),
                "logIndex": quantity(logs_before + position),
                "address": data(log.address),
                "topics": [word(topic) for topic in log.topics],
                "data": data(log.data),
                "removed": False,
            }
            for position, log in enumerate(receipt.logs)
        ]
        documents.append(
            {
                **place,
                "type": quantity(transaction.type_id or 0),
                "from": data(transaction.sender),
                "to": data(transaction.to) if transaction.to else None,
                "contractAddress": None if transaction.to else data(compute_contract_address(transaction)),
                "cumulativeGasUsed": quantity(receipt.gas_used),
                "gasUsed": quantity(receipt.gas_used - gas_before),
                "effectiveGasPrice": quantity(compute_gas_price(transaction, block.header)),
                # Since Byzantium the field holds the status: one byte 1, or nothing (EIP-658).
                "status": quantity(int.from_bytes(receipt.state_root)),
                "logsBloom": data(receipt.bloom.to_bytes(BLOOM_BYTES)),
                "logs": logs,
            }
        )
        gas_before = receipt.gas_used
        logs_before += len(logs)
    return documents


def compute_gas_price(transaction: SignedTransactionAPI, header: Header) -> int:
    """Return the price per gas that a transaction pays in a block (EIP-1559).

    For legacy transactions both of its fee fields are the gas price.
    """
    price: int = min(
        transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas + header.base_fee_per_gas
    )
    return price


def compute_contract_address(transaction: SignedTransactionAPI) -> bytes:
    """Return the address of the contract that a transaction creates."""
    return keccak(rlp.encode([transaction.sender, transaction.nonce]))[12:]
