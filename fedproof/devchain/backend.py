"""A development chain in this process: eth-tester's PyEVM backend, kept in a journal.

Every transaction is mined at once, into a block of its own. What clients ask for most (blocks, receipts,
logs) is answered from documents made when a block was mined; the EVM works only for calls and for state.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth.abc import BlockAPI, ReceiptAPI, SignedTransactionAPI, StateAPI
from eth_tester.backends.pyevm.main import PyEVMBackend
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException

from fedproof.devchain.documents import (
    Document,
    Header,
    compute_block_size,
    receipt_documents,
    transaction_document,
)
from fedproof.devchain.journal import BlockRecord, Genesis, Journal, RevertRecord
from fedproof.devchain.refusal import Refusal
from fedproof.devchain.transactions import decode_transaction, verify_executable
from fedproof.errors import ConfigurationError

DEFAULT_CHAIN_ID = 31337
"""The one of anvil and hardhat, which wallets know as a development chain."""

MNEMONIC = "test test test test test test test test test test test junk"
HD_PATH = "m/44'/60'/0'/0"
ACCOUNTS = 10
ACCOUNT_BALANCE = 10_000 * 10**18
"""Ten accounts with 10,000 ether each, the same as anvil's."""

COINBASE = bytes(20)


@dataclass(frozen=True, slots=True)
class Block:
    """A mined block, and the documents that stay the same for as long as it stands.

    Attributes:
        header: what later blocks and calls build on.
    """

    header: Header
    size: int
    transactions: Sequence[Document]
    receipts: Sequence[Document]

    @classmethod
    def from_mined(cls, mined: BlockAPI, receipts: Sequence[ReceiptAPI]) -> Block:
        """Return the block that the EVM has mined."""
        return cls(
            header=mined.header,
            size=compute_block_size(mined),
            transactions=tuple(
                transaction_document(mined, index) for index in range(len(mined.transactions))
            ),
            receipts=tuple(receipt_documents(mined, receipts)),
        )

    @property
    def number(self) -> int:
        """Return the block's height."""
        return int(self.header.block_number)

    @property
    def hash(self) -> bytes:
        """Return the block's hash."""
        return bytes(self.header.hash)

    @property
    def logs(self) -> Sequence[Document]:
        """Return the logs of all transactions, in order."""
        return [log for receipt in self.receipts for log in receipt["logs"]]


class DevChain:
    """A chain of blocks. Not safe for threads: whoever shares it holds a lock.

    Attributes:
        read_only: whether blocks can only be read.
    """

    def __init__(
        self, genesis: Genesis, *, journal: Journal | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Begin the chain, or mine it again as the journal has it.

        Args:
            genesis: the chain's first block; with a journal, the journal's.
            journal: where blocks are kept; without one the chain ends with the process.
            clock: seconds since 1970.

        Raises:
            ConfigurationError: the journal's blocks do not come out as they were.
        """
        self.chain_id = genesis.chain_id
        self.read_only = journal is not None and journal.read_only
        self._clock = clock
        self._clock_offset = 0
        self._chain = _build_chain(genesis)
        self._blocks: list[Block] = []
        self._numbers: dict[bytes, int] = {}
        self._places: dict[bytes, tuple[int, int]] = {}
        self._numbers_with_logs: list[int] = []
        self._add(Block.from_mined(self._chain.get_canonical_block_by_number(0), ()))
        self._journal: Journal | None = None  # what is replayed is in the journal already
        if journal is not None:
            self._replay(journal)
            self._journal = journal

    # Reading

    @property
    def head(self) -> Block:
        """Return the last block."""
        return self._blocks[-1]

    @property
    def blocks(self) -> Sequence[Block]:
        """Return all blocks, by number."""
        return self._blocks

    def find_block(self, block_hash: bytes) -> Block | None:
        """Return the block with a hash, if there is one."""
        number = self._numbers.get(block_hash)
        return None if number is None else self._blocks[number]

    def find_transaction(self, transaction_hash: bytes) -> tuple[Block, int] | None:
        """Return the block that holds a transaction, and its index there, if it was mined."""
        place = self._places.get(transaction_hash)
        return None if place is None else (self._blocks[place[0]], place[1])

    def blocks_with_logs(self, first: int, last: int) -> Sequence[Block]:
        """Return the blocks from first to last that hold any log."""
        start = bisect_left(self._numbers_with_logs, first)
        end = bisect_left(self._numbers_with_logs, last + 1)
        return [self._blocks[number] for number in self._numbers_with_logs[start:end]]

    def pending_header(self) -> Header:
        """Return the header of the block that would be mined now, with other randomness than it will have."""
        parent = self.head.header
        # Each block is later than its parent, so several blocks in one second run ahead of the clock.
        timestamp = max(parent.timestamp + 1, int(self._clock()) + self._clock_offset)
        return self._make_header(timestamp=timestamp, mix_hash=os.urandom(32))

    def state(self, header: Header) -> StateAPI:
        """Return the accounts as they are after a block."""
        state: StateAPI = self._chain.get_vm(header).state
        return state

    def call_state(self, header: Header) -> StateAPI:
        """Return the accounts for calls in a block's environment; its base fee is zero, as calls pay none."""
        return self.state(header.copy(base_fee_per_gas=0))

    def idle_s(self) -> float:
        """Return for how long no block has been mined."""
        return time.monotonic() - self._mined_at

    def lead_s(self) -> float:
        """Return in how many seconds the next block's time would no longer be ahead of the clock."""
        return float(self.head.header.timestamp + 1 - self._clock_offset - self._clock())

    # Writing

    def send(self, raw: bytes) -> bytes:
        """Mine a signed transaction and return its hash. It stands in a block even if its execution fails.

        Raises:
            Refusal: no block may include it.
        """
        transaction = decode_transaction(raw, chain_id=self.chain_id)
        if transaction.hash in self._places:
            raise Refusal(f"already known: transaction 0x{transaction.hash.hex()}")
        self.mine(transactions=[transaction])
        return transaction.hash

    def mine(
        self,
        *,
        transactions: Sequence[SignedTransactionAPI] = (),
        balances: Mapping[bytes, int] | None = None,
    ) -> Block:
        """Mine the next block.

        Args:
            transactions: in the order in which they are to be executed.
            balances: accounts to set to a balance in wei before the first transaction.

        Raises:
            Refusal: the block may not include one of the transactions, or the chain is read-only.
        """
        self._require_writable()
        return self._append(self.pending_header(), transactions, tuple((balances or {}).items()))

    def advance_clock(self, seconds: int) -> int:
        """Put the time of the next blocks forward, and return by how much it now is."""
        self._require_writable()
        self._clock_offset += seconds
        return self._clock_offset

    def revert(self, number: int) -> None:
        """Forget every block after this one."""
        self._require_writable()
        if self._journal is not None:
            self._journal.append(RevertRecord(number))
        self._truncate(number)

    # Parts

    def _require_writable(self) -> None:
        if self.read_only:
            raise Refusal("this development chain is served read-only")

    def _make_header(self, *, timestamp: int, mix_hash: bytes) -> Header:
        return self._chain.create_header_from_parent(
            self.head.header, timestamp=timestamp, mix_hash=mix_hash, coinbase=COINBASE
        )

    def _append(
        self,
        header: Header,
        transactions: Sequence[SignedTransactionAPI],
        balances: tuple[tuple[bytes, int], ...],
    ) -> Block:
        # Only py-evm's own database is written before the journal is, by content: a block that is given up
        # leaves nothing behind that a later one could see.
        vm = self._chain.get_vm(header)
        for address, balance in balances:
            vm.state.set_balance(address, balance)
        receipts = []
        for transaction in transactions:
            verify_executable(transaction, vm.state, header)
            try:
                receipt, _ = vm.apply_transaction(header, transaction)
            except ValidationError as error:
                raise Refusal(f"transaction not executable: {error}") from error
            header = vm.add_receipt_to_header(header, receipt)
            receipts.append(receipt)
        filled = vm.set_block_transactions_and_withdrawals(
            vm.get_block(), header, tuple(transactions), receipts
        )
        block = Block.from_mined(vm.mine_block(filled).block, receipts)
        if self._journal is not None:
            # A crash after this line: the block stands, and its sender, who was not told, finds the receipt.
            self._journal.append(
                BlockRecord(
                    number=block.number,
                    timestamp=block.header.timestamp,
                    mix_hash=block.header.mix_hash,
                    balances=balances,
                    transactions=tuple(transaction.encode() for transaction in transactions),
                    hash=block.hash,
                )
            )
        self._add(block)
        return block

    def _add(self, block: Block) -> None:
        self._chain.chaindb.persist_header(block.header)
        self._mined_at = time.monotonic()
        self._blocks.append(block)
        self._numbers[block.hash] = block.number
        for index, receipt in enumerate(block.receipts):
            self._places[bytes.fromhex(receipt["transactionHash"][2:])] = (block.number, index)
        if block.logs:
            self._numbers_with_logs.append(block.number)

    def _truncate(self, number: int) -> None:
        for block in self._blocks[number + 1 :]:
            del self._numbers[block.hash]
            for receipt in block.receipts:
                del self._places[bytes.fromhex(receipt["transactionHash"][2:])]
        del self._blocks[number + 1 :]
        del self._numbers_with_logs[bisect_left(self._numbers_with_logs, number + 1) :]

    def _replay(self, journal: Journal) -> None:
        for record in journal.records:
            if isinstance(record, RevertRecord):
                if not 0 <= record.number <= self.head.number:
                    raise ConfigurationError(
                        f"{journal.path}: expected a revert to a block from 0 to {self.head.number}, "
                        f"got one to {record.number}"
                    )
                self._truncate(record.number)
                continue
            expected = (
                f"{journal.path}: expected block {record.number} to be mined again as 0x{record.hash.hex()}"
            )
            try:
                transactions = [
                    decode_transaction(raw, chain_id=self.chain_id) for raw in record.transactions
                ]
                header = self._make_header(timestamp=record.timestamp, mix_hash=record.mix_hash)
                block = self._append(header, transactions, record.balances)
            except (Refusal, ValidationError, RLPException) as error:
                raise ConfigurationError(f"{expected}, got: {error}") from error
            if (block.number, block.hash) != (record.number, record.hash):
                raise ConfigurationError(f"{expected}, got block {block.number} 0x{block.hash.hex()}")


def _build_chain(genesis: Genesis) -> Any:
    backend = PyEVMBackend.from_mnemonic(
        MNEMONIC,
        genesis_state_overrides={"balance": ACCOUNT_BALANCE},
        num_accounts=ACCOUNTS,
        genesis_parameters=PyEVMBackend.generate_genesis_params(overrides={"timestamp": genesis.timestamp}),
        hd_path=HD_PATH,
    )
    # Each backend makes a chain class of its own, so this changes no other chain.
    backend.chain.chain_id = genesis.chain_id
    return backend.chain
