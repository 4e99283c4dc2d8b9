"""The contract on py-evm without a chain: anybody calls it at any time, ten times as fast as by transactions.

What is left out is what a chain adds and the contract does not see: blocks, nonces, fees. The code, its
storage and the machine are the real ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from eth.abc import ComputationAPI
from eth.constants import BLANK_ROOT_HASH, CREATE_CONTRACT_ADDRESS
from eth.db.atomic import AtomicDB
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.cancun import CancunVM
from eth.vm.message import Message
from eth_abi.abi import decode, encode
from eth_utils.abi import collapse_if_tuple, function_abi_to_4byte_selector

from fedproof.digests import ZERO_DIGEST, Address
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.encoding import decode_event
from fedproof.ledger.events import Event
from fedproof.ledger.reverts import decode_revert
from tests.contracts.signing import ADMIN, AGGREGATOR, CHAIN_ID, WALLET, WALLET_CODE

NOBODY = Address(bytes(20))
GAS = 30_000_000


class _Context(ExecutionContext):
    """A block whose time can be set."""

    now = 0

    @property
    def timestamp(self) -> int:
        return self.now


class Machine:
    """A virtual machine, and the contract that was deployed there last.

    Attributes:
        contract: its address.
    """

    def __init__(self) -> None:
        self._context = _Context(
            coinbase=NOBODY,
            timestamp=0,
            block_number=1,
            difficulty=0,
            mix_hash=ZERO_DIGEST,
            gas_limit=GAS,
            prev_hashes=(),
            chain_id=CHAIN_ID,
            base_fee_per_gas=0,
            excess_blob_gas=0,
        )
        self._state = CancunVM.get_state_class()(AtomicDB(), self._context, BLANK_ROOT_HASH)
        self.contract = NOBODY

    @classmethod
    def with_ledger(cls) -> Machine:
        """Return a machine where the contract and an organisation's wallet stand."""
        machine = cls()
        machine.place(WALLET, WALLET_CODE)
        machine.deploy(Address(b"\xfe" * 20), ADMIN, 1000, (ADMIN, AGGREGATOR, NOBODY))
        return machine

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        """Undo, on leaving, whatever happened since entering."""
        snapshot, contract = self._state.snapshot(), self.contract
        try:
            yield
        finally:
            self._state.revert(snapshot)
            self.contract = contract

    def place(self, address: Address, code: bytes) -> None:
        """Let code stand at an address."""
        self._state.set_code(address, code)

    def deploy(
        self, address: Address, sender: Address, now: int, arguments: Sequence[Address]
    ) -> list[Event]:
        """Deploy the contract, use it from now on, and return its first events.

        Args:
            address: where it shall stand.
            sender: who deploys it.
            now: Unix time.
            arguments: admin, aggregator and predecessor.

        Raises:
            Reverted: it refused.
        """
        data = load_artifact().bytecode + encode(["address"] * 3, arguments)
        creation = Message(GAS, CREATE_CONTRACT_ADDRESS, sender, 0, b"", data, create_address=address)
        found = _read_events(self._run(creation, now, "constructor"))
        self.contract = address
        return found

    def call(self, sender: Address, now: int, function: str, arguments: Sequence[Any]) -> list[Event]:
        """Call the contract and return the events that it caused.

        Raises:
            Reverted: it refused.
        """
        return _read_events(self._run(self._make_message(sender, function, arguments), now, function))

    def view(self, function: str, *arguments: Any) -> Any:
        """Return what a view answers: a value, or the values of a struct."""
        message = self._make_message(NOBODY, function, arguments)
        output = self._run(message, self._context.now, function).output
        (answer,) = decode(_find_function(function)[2], output)
        return answer

    def _make_message(self, sender: Address, function: str, arguments: Sequence[Any]) -> Message:
        selector, inputs, _ = _find_function(function)
        data = selector + encode(inputs, arguments)
        return Message(GAS, self.contract, sender, 0, data, self._state.get_code(self.contract))

    def _run(self, message: Message, now: int, what: str) -> ComputationAPI:
        self._context.now = now
        context = self._state.get_transaction_context_class()(gas_price=0, origin=message.sender)
        kind = self._state.computation_class
        apply = kind.apply_create_message if message.is_create else kind.apply_message
        computation = apply(self._state, message, context)
        if computation.is_error:
            raise decode_revert(computation.output, what=what)
        return computation


def _read_events(computation: ComputationAPI) -> list[Event]:
    return [
        decode_event(
            topics=[topic.to_bytes(32) for topic in topics],
            data=data,
            block_number=0,
            transaction_hash=ZERO_DIGEST,
            log_index=index,
        )
        for index, (_, topics, data) in enumerate(computation.get_log_entries())
    ]


@cache
def _find_function(name: str) -> tuple[bytes, list[str], list[str]]:
    """Return a function's selector, the types that it takes and those that it returns."""
    entry: Any = load_artifact().entries("function")[name]
    inputs, outputs = ([collapse_if_tuple(item) for item in entry[side]] for side in ("inputs", "outputs"))
    return function_abi_to_4byte_selector(entry), inputs, outputs
