"""The chain on which `quorum.py` measures, and the contracts of `benchmarks/quorum/` compiled for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import solcx
from eth_account.signers.local import LocalAccount
from eth_utils.abi import abi_to_signature
from eth_utils.crypto import keccak
from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.exceptions import ContractCustomError

from fedproof.anvil import run_anvil

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))

from compile_contracts import SETTINGS, find_compiler  # noqa: E402 (a script, and scripts are no package)

SOURCES = REPOSITORY / "benchmarks" / "quorum"
# The first with the precompiles of EIP-2537.
HARDFORK = "prague"
# What costs more does not fit into a block of this size.
GAS_LIMIT = 30_000_000
SENT_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain, what can be deployed on it, and the nodes, ascending by address."""

    web3: Web3
    artifacts: Mapping[str, Any]
    nodes: Sequence[LocalAccount]

    @property
    def addresses(self) -> list[str]:
        """The nodes' addresses."""
        return [node.address for node in self.nodes]

    @property
    def portions(self) -> list[slice]:
        """The nodes in portions, each for one transaction."""
        return [slice(start, start + SENT_AT_ONCE) for start in range(0, len(self.nodes), SENT_AT_ONCE)]

    def deploy(self, name: str) -> Contract:
        """Return a new contract that has admitted all nodes."""
        artifact = self.artifacts[name]
        factory = self.web3.eth.contract(abi=artifact["abi"], bytecode=artifact["evm"]["bytecode"]["object"])
        receipt = self.web3.eth.wait_for_transaction_receipt(factory.constructor().transact())
        contract: Contract = factory(receipt["contractAddress"])
        for portion in self.portions:
            self.send(contract.functions.admit(self.addresses[portion]))
        return contract

    def send(self, call: Any) -> int:
        """Return the gas of a call's transaction.

        Raises:
            SystemExit: it was reverted.
        """
        receipt = self.web3.eth.wait_for_transaction_receipt(call.transact({"gas": GAS_LIMIT}))
        if receipt["status"] != 1:
            raise SystemExit(f"{call.fn_name}: reverted after {receipt['gasUsed']} of {GAS_LIMIT} gas")
        return int(receipt["gasUsed"])

    def refuse(self, call: Any, name: str) -> None:
        """Make sure that the contract refuses a call.

        Raises:
            SystemExit: it does not, or with another error than that of this name.
        """
        errors = {
            f"0x{keccak(text=abi_to_signature(item))[:4].hex()}": item["name"]
            for item in call.contract_abi
            if item["type"] == "error"
        }
        try:
            call.call({"gas": GAS_LIMIT})
        except ContractCustomError as error:
            came = errors.get(str(error.data)[:10], str(error.data))
        else:
            came = "no error"
        if came != name:
            raise SystemExit(f"{call.fn_name}: expected {name}, got {came}")


def compile_contracts() -> dict[str, Any]:
    """Return what the compiler makes of each contract."""
    sources = {path.name: {"content": path.read_text(encoding="utf-8")} for path in SOURCES.glob("*.sol")}
    outputs = {"*": {"*": ["abi", "evm.bytecode.object"]}}
    settings = {**SETTINGS, "evmVersion": HARDFORK, "outputSelection": outputs}
    request = {"language": "Solidity", "sources": sources, "settings": settings}
    files = solcx.compile_standard(request, solc_binary=find_compiler())["contracts"].values()
    return {name: artifact for contracts in files for name, artifact in contracts.items()}


@contextmanager
def open_chain() -> Iterator[Web3]:
    """Run an anvil of our own, whose first account sends everything."""
    with run_anvil("--hardfork", HARDFORK, "--gas-limit", str(GAS_LIMIT)) as url:
        web3 = Web3(HTTPProvider(url))
        web3.eth.default_account = web3.eth.accounts[0]
        yield web3
