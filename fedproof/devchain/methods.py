"""The JSON-RPC methods of the development chain: those of Ethereum that clients use, and some of anvil's."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from eth_utils.crypto import keccak

from fedproof.devchain.backend import Block, DevChain
from fedproof.devchain.calls import estimate_gas, execute_call
from fedproof.devchain.documents import (
    Document,
    Header,
    data,
    header_document,
    pending_document,
    quantity,
    word,
)
from fedproof.devchain.parameters import (
    find_block,
    parse_address,
    parse_call,
    parse_data,
    parse_log_filter,
    parse_quantity,
    require_block,
)
from fedproof.devchain.refusal import InvalidParameters, MethodNotFound

PRIORITY_FEE = 10**9
"""What is suggested to clients, in wei. Blocks are never full here, so any would do."""

MAX_FEE_HISTORY = 1024


class Methods:
    """The methods of one chain, by name. Not safe for threads, as the chain is not."""

    def __init__(self, chain: DevChain) -> None:
        """Serve this chain."""
        self.chain = chain
        self._snapshots: list[int] = []
        self._table: dict[str, Callable[..., object]] = {
            "web3_clientVersion": self._client_version,
            "web3_sha3": lambda raw: data(keccak(parse_data(raw, "data"))),
            "net_version": lambda: str(chain.chain_id),
            "net_listening": lambda: True,
            "eth_chainId": lambda: quantity(chain.chain_id),
            "eth_syncing": lambda: False,
            "eth_accounts": lambda: [],
            "eth_blockNumber": lambda: quantity(chain.head.number),
            "eth_gasPrice": lambda: quantity(chain.pending_header().base_fee_per_gas + PRIORITY_FEE),
            "eth_maxPriorityFeePerGas": lambda: quantity(PRIORITY_FEE),
            "eth_feeHistory": self._fee_history,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBlockTransactionCountByNumber": self._transaction_count_of,
            "eth_getBlockTransactionCountByHash": self._transaction_count_of_hash,
            "eth_getBlockReceipts": self._block_receipts,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionByBlockNumberAndIndex": self._transaction_by_index,
            "eth_getTransactionByBlockHashAndIndex": self._transaction_by_hash_and_index,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getLogs": self._logs,
            "eth_getBalance": self._balance,
            "eth_getCode": self._code,
            "eth_getStorageAt": self._storage,
            "eth_getTransactionCount": self._nonce,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate_gas,
            "eth_sendRawTransaction": lambda raw: data(chain.send(parse_data(raw, "transaction"))),
            "evm_mine": self._mine,
            "evm_increaseTime": lambda seconds: chain.advance_clock(parse_quantity(seconds, "seconds")),
            "evm_snapshot": self._snapshot,
            "evm_revert": self._revert,
            "anvil_setBalance": self._set_balance,
            "hardhat_setBalance": self._set_balance,
        }

    def call(self, name: str, parameters: Sequence[object]) -> object:
        """Return a method's result, ready for JSON.

        Raises:
            Refusal: the method does not exist, or refuses.
        """
        method = self._table.get(name)
        if method is None:
            raise MethodNotFound(f"the method {name} does not exist on this development chain")
        signature = inspect.signature(method)
        try:
            signature.bind(*parameters)
        except TypeError as error:
            names = ", ".join(signature.parameters) or "none"
            raise InvalidParameters(f"{name}: expected parameters: {names}; got {len(parameters)}") from error
        return method(*parameters)

    # Blocks

    def _block_by_number(self, block: object, full: object = False) -> Document | None:
        if block == "pending":
            return pending_document(self.chain.pending_header())
        return _show_block(find_block(self.chain, block), full=full)

    def _block_by_hash(self, block_hash: object, full: object = False) -> Document | None:
        return _show_block(self._find_by_hash(block_hash), full=full)

    def _transaction_count_of(self, block: object) -> str | None:
        found = find_block(self.chain, block)
        return None if found is None else quantity(len(found.transactions))

    def _transaction_count_of_hash(self, block_hash: object) -> str | None:
        found = self._find_by_hash(block_hash)
        return None if found is None else quantity(len(found.transactions))

    def _block_receipts(self, block: object) -> Sequence[Document] | None:
        # Unlike its siblings, this method takes a hash where they take a number.
        is_hash = isinstance(block, str) and len(block) == 66
        found = self._find_by_hash(block) if is_hash else find_block(self.chain, block)
        return None if found is None else found.receipts

    def _find_by_hash(self, block_hash: object) -> Block | None:
        return self.chain.find_block(parse_data(block_hash, "block hash", length=32))

    # Transactions and logs

    def _transaction(self, transaction_hash: object) -> Document | None:
        place = self.chain.find_transaction(parse_data(transaction_hash, "transaction hash", length=32))
        return None if place is None else place[0].transactions[place[1]]

    def _receipt(self, transaction_hash: object) -> Document | None:
        place = self.chain.find_transaction(parse_data(transaction_hash, "transaction hash", length=32))
        return None if place is None else place[0].receipts[place[1]]

    def _transaction_by_index(self, block: object, index: object) -> Document | None:
        return _pick_transaction(find_block(self.chain, block), index)

    def _transaction_by_hash_and_index(self, block_hash: object, index: object) -> Document | None:
        return _pick_transaction(self._find_by_hash(block_hash), index)

    def _logs(self, filter: object) -> list[Document]:
        wanted = parse_log_filter(self.chain, filter)
        return [log for block in wanted.blocks for log in block.logs if wanted.is_match(log)]

    # State

    def _balance(self, address: object, block: object = "latest") -> str:
        state = self.chain.state(require_block(self.chain, block).header)
        return quantity(state.get_balance(parse_address(address, "address")))

    def _code(self, address: object, block: object = "latest") -> str:
        state = self.chain.state(require_block(self.chain, block).header)
        return data(state.get_code(parse_address(address, "address")))

    def _storage(self, address: object, slot: object, block: object = "latest") -> str:
        state = self.chain.state(require_block(self.chain, block).header)
        return word(state.get_storage(parse_address(address, "address"), parse_quantity(slot, "slot")))

    def _nonce(self, address: object, block: object = "latest") -> str:
        state = self.chain.state(require_block(self.chain, block).header)
        return quantity(state.get_nonce(parse_address(address, "address")))

    # Calls and fees

    def _call(self, transaction: object, block: object = "latest") -> str:
        request = parse_call(transaction)
        return data(execute_call(self.chain.call_state(self._environment(block)), request))

    def _estimate_gas(self, transaction: object, block: object = "pending") -> str:
        request = parse_call(transaction)
        # The estimate is for a transaction that is sent next, so it also sees the next block's time.
        block = "pending" if block == "latest" else block
        return quantity(estimate_gas(self.chain.call_state(self._environment(block)), request))

    def _environment(self, block: object) -> Header:
        return self.chain.pending_header() if block == "pending" else require_block(self.chain, block).header

    def _fee_history(self, count: object, newest: object, percentiles: object = None) -> Document:
        last = require_block(self.chain, newest).number
        length = min(parse_quantity(count, "block count"), MAX_FEE_HISTORY, last + 1)
        blocks = self.chain.blocks[last + 1 - length : last + 1]
        after = (
            self.chain.blocks[last + 1].header
            if last < self.chain.head.number
            else self.chain.pending_header()
        )
        history: Document = {
            "oldestBlock": quantity(last + 1 - length),
            "baseFeePerGas": [
                quantity(header.base_fee_per_gas) for header in [*(b.header for b in blocks), after]
            ],
            "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
        }
        if isinstance(percentiles, list) and percentiles:
            history["reward"] = [_compute_rewards(block, percentiles) for block in blocks]
        return history

    # What only a development chain does

    def _client_version(self) -> str:
        return f"fedproof-devchain/{version('fedproof')}/python{platform.python_version()}"

    def _mine(self) -> str:
        self.chain.mine()
        return quantity(0)

    def _set_balance(self, address: object, balance: object) -> None:
        self.chain.mine(balances={parse_address(address, "address"): parse_quantity(balance, "balance")})

    def _snapshot(self) -> str:
        self._snapshots.append(self.chain.head.number)
        return quantity(len(self._snapshots))

    def _revert(self, snapshot: object) -> bool:
        number = parse_quantity(snapshot, "snapshot")
        if not 1 <= number <= len(self._snapshots):
            return False
        self.chain.revert(self._snapshots[number - 1])
        del self._snapshots[number - 1 :]
        return True


def _show_block(block: Block | None, *, full: object) -> Document | None:
    if not isinstance(full, bool):
        raise InvalidParameters(f"full transactions: expected true or false, got {full!r}")
    if block is None:
        return None
    transactions: list[Any] = list(block.transactions)
    if not full:
        transactions = [transaction["hash"] for transaction in transactions]
    return {**header_document(block.header), "size": quantity(block.size), "transactions": transactions}


def _pick_transaction(block: Block | None, index: object) -> Document | None:
    number = parse_quantity(index, "index")
    return None if block is None or number >= len(block.transactions) else block.transactions[number]


def _compute_rewards(block: Block, percentiles: Sequence[object]) -> list[str]:
    tips = sorted(
        (int(receipt["effectiveGasPrice"], 16) - block.header.base_fee_per_gas, int(receipt["gasUsed"], 16))
        for receipt in block.receipts
    )
    rewards = []
    for percentile in percentiles:
        if not isinstance(percentile, int | float) or not 0 <= percentile <= 100:
            raise InvalidParameters(f"reward percentile: expected 0 to 100, got {percentile!r}")
        below = 0
        reward = 0
        for tip, gas in tips:
            reward = tip
            below += gas
            if below >= block.header.gas_used * percentile / 100:
                break
        rewards.append(quantity(reward))
    return rewards
