"""How long a fresh client takes to derive a federation's whole state from its events, and how much memory.

Plays rounds on an anvil of its own: ten nodes commit by their own transactions and sign their attestations,
which the aggregator's transaction carries. Then a process of its own reads the chain as every daemon does at
its start, and compares its running hash with the contract's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import requests
from eth_abi.abi import encode
from eth_account import Account
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak
from web3 import HTTPProvider, Web3

from fedproof.anvil import run_anvil
from fedproof.digests import Digest, as_address
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.client import Ledger
from fedproof.ledger.history import History
from fedproof.ledger.statements import RoundStatements, hash_typed

NODES = 10
QUORUM = 6
ROUNDS_AT_ONCE = 20
WINDOW_S = 10_000_000


def main() -> int:
    """Measure, and print a table or one JSON object."""
    arguments = _parse_arguments()
    if arguments.read:
        print(json.dumps(_read(*arguments.read)))
        return 0
    options = ("--no-mining", "--order", "fifo", "--gas-limit", "2000000000", "--prune-history", "8")
    with run_anvil(*options, "--disable-code-size-limit", "--accounts", str(NODES + 2)) as url:
        chain = _Chain(url)
        results: list[dict[str, Any]] = []
        marks = iter(sorted({arguments.rounds // 10, arguments.rounds // 2, arguments.rounds}))
        mark = next(marks)
        for done in chain.play(arguments.rounds):
            print(f"\rplayed {done:,} of {arguments.rounds:,} rounds ", end="", file=sys.stderr, flush=True)
            if done >= mark:
                results.append(_measure(url, chain.contract))
                mark = next(marks, arguments.rounds + 1)
    print(file=sys.stderr)
    if arguments.json:
        print(json.dumps(results))
    else:
        for row in results:
            print(
                f"{row['rounds']:>7,} rounds  {row['events']:>9,} events  {row['seconds']:6.1f} s  "
                f"{row['peak_mib']:>5} MiB"
            )
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10_000, help="rounds to play (default: 10000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--read", nargs=2, metavar=("URL", "CONTRACT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(url: str, contract: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--read", url, contract]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def _read(url: str, contract: str) -> dict[str, Any]:
    ledger = Ledger.connect(url, as_address(contract, "contract"), timeout_s=60)
    started = time.monotonic()
    history = History()
    ledger.catch_up(history)
    return {
        "rounds": len(history.rounds),
        "events": history.event_count,
        "seconds": time.monotonic() - started,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


class _Chain:
    """A federation on an anvil that mines when it is told to, and signs for its accounts."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._web3 = Web3(HTTPProvider(url))
        artifact = load_artifact()
        accounts: list[Any] = list(self._web3.eth.accounts)
        self._admin, self._aggregator, *rest = accounts
        self._nodes = sorted(rest[:NODES], key=lambda address: bytes.fromhex(address[2:]))
        self._keys = _derive_keys(self._nodes)
        self._functions = self._web3.eth.contract(abi=artifact.abi)
        self._nonces = dict.fromkeys([self._admin, self._aggregator, *self._nodes], 0)
        self.contract = ""
        data = artifact.bytecode + encode(["address"] * 3, [self._admin, self._aggregator, bytes(20)])
        (sent,) = self._send([self._describe(self._admin, "0x" + data.hex(), to=None)])
        self.contract = str(self._web3.eth.get_transaction_receipt(sent)["contractAddress"])

    def play(self, rounds: int) -> Iterator[int]:
        """Found the federation and play rounds; yield how many there are."""
        self._send(list(self._found()))
        membership = self._call("state")[2]
        maker = self._nodes[0]
        self._send(
            [
                self._transact(self._admin, "requestEpoch", maker),
                self._transact(maker, "publishEpoch", 1, _digest("context"), _digest("keys"), membership),
            ]
        )
        for first in range(1, rounds + 1, ROUNDS_AT_ONCE):
            last = min(first + ROUNDS_AT_ONCE - 1, rounds)
            for number in range(first, last + 1):
                self._send(list(self._round(number)))
            yield last
        if (number := self._call("currentRound")[0]) != rounds:
            raise SystemExit(
                f"expected {rounds} rounds on the chain, got {number}: a transaction was refused"
            )

    def _found(self) -> Iterator[dict[str, Any]]:
        for node in self._nodes:
            yield self._transact(node, "register", _digest("wrapping", node), _digest("tls", node), bytes(32))
            yield self._transact(self._admin, "admit", node)
        policy = (_digest("policy"), 2, QUORUM, 1000, WINDOW_S, WINDOW_S, WINDOW_S, False, 0, 0)
        yield self._transact(self._admin, "adoptPolicy", policy, _digest("genesis"))

    def _round(self, number: int) -> Iterator[dict[str, Any]]:
        yield self._transact(self._aggregator, "openRound", number)
        for node in self._nodes:
            yield self._transact(node, "commit", number, _digest("update", number, node), 100)
        yield self._transact(self._aggregator, "seal", number, self._nodes, bytes(NODES))
        yield self._transact(self._aggregator, "publishAggregate", number, _digest("sum", number))
        model = _digest("model", number)
        signatures = [self._sign(number, node, model) for node in self._nodes]
        yield self._transact(self._aggregator, "finalise", number, model, self._nodes, signatures)

    def _sign(self, number: int, node: str, model: bytes) -> bytes:
        statements = RoundStatements(
            chain_id=31337,
            contract=as_address(self.contract, "contract"),
            round=number,
            base_model=Digest(bytes(32)),
            cohort=(),
        )
        message = statements.describe_attestation(as_address(node, "node"), Digest(model))
        signature: bytes = self._keys[node].sign_msg_hash(hash_typed(message)).to_bytes()
        return signature[:64] + bytes([27 + signature[64]])

    def _transact(self, sender: str, name: str, *arguments: Any) -> dict[str, Any]:
        data = self._functions.encode_abi(name, args=arguments)
        return self._describe(sender, data, to=self.contract)

    def _describe(self, sender: str, data: str, *, to: str | None) -> dict[str, Any]:
        nonce = self._nonces[sender]
        self._nonces[sender] += 1
        call = {"from": sender, "data": data, "nonce": hex(nonce), "gas": hex(8_000_000)}
        return call if to is None else {**call, "to": to}

    def _send(self, calls: Sequence[dict[str, Any]]) -> list[Any]:
        """Hand transactions over and mine them in one block, in this order."""
        answers = self._post([("eth_sendTransaction", [call]) for call in calls])
        refused = [answer["error"]["message"] for answer in answers if "result" not in answer]
        if refused:
            raise SystemExit(f"anvil: {refused[0]}")
        self._post([("evm_mine", [])])
        return [answer["result"] for answer in answers]

    def _post(self, requests_: Iterable[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
        body: Any = [
            {"jsonrpc": "2.0", "id": index, "method": method, "params": parameters}
            for index, (method, parameters) in enumerate(requests_)
        ]
        answers: list[dict[str, Any]] = self._session.post(self._url, json=body, timeout=120).json()
        return sorted(answers, key=lambda answer: int(answer["id"]))

    def _call(self, name: str) -> Any:
        bound = self._web3.eth.contract(
            address=Web3.to_checksum_address(self.contract), abi=load_artifact().abi
        )
        return bound.functions[name]().call()


def _derive_keys(addresses: Sequence[str]) -> dict[str, PrivateKey]:
    """Return the keys of anvil's accounts, which follow from the mnemonic that every anvil has."""
    Account.enable_unaudited_hdwallet_features()
    mnemonic = "test test test test test test test test test test test junk"
    accounts = [
        Account.from_mnemonic(mnemonic, account_path=f"m/44'/60'/0'/0/{index}") for index in range(NODES + 2)
    ]
    found = {account.address: PrivateKey(bytes(account.key)) for account in accounts}
    return {address: found[address] for address in addresses}


def _digest(*parts: object) -> bytes:
    return keccak(text=" ".join(map(str, parts)))


if __name__ == "__main__":
    sys.exit(main())
