"""Fuzz target: what a chain's endpoint answers, which nobody has to trust."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from web3.types import RPCEndpoint, RPCResponse

from fedproof.digests import Address
from fedproof.errors import LedgerError
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.client import Ledger
from fedproof.ledger.endpoint import Endpoint, make_web3
from fedproof.ledger.transport import EndpointProvider
from tests.fuzz.registry import refusing, target

NODE: Final = Address(b"\x01" * 20)


class Answers(EndpointProvider):
    """An endpoint that answers every request with the same bytes.

    Attributes:
        raw: what it answers; while it is empty, what a chain with the contract does.
    """

    raw = b""

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Answer as a chain does, or with the bytes."""
        if self.raw:
            return self.decode_rpc_response(self.raw)
        honest = {"eth_chainId": "0x1", "eth_getCode": "0x" + load_artifact().deployed_bytecode.hex()}
        return {"jsonrpc": "2.0", "id": 1, "result": honest[method]}


@target(max_bytes=4096)
def ledger_answer(raw: bytes) -> None:
    """`Ledger`: an endpoint's answer. The first byte chooses what it was asked."""
    ledger, answers = connect()
    ask = QUESTIONS[raw[0] % len(QUESTIONS)] if raw else QUESTIONS[0]
    answers.raw = raw[1:] or b" "
    with refusing(LedgerError):
        ask(ledger)


QUESTIONS: Final[tuple[Callable[[Ledger], object], ...]] = (
    lambda ledger: ledger.block_number(),
    lambda ledger: ledger.latest_block(),
    lambda ledger: ledger.events(0, 1),
    lambda ledger: ledger.history_hash(),
    lambda ledger: ledger.member(NODE),
    lambda ledger: ledger.round(),
    lambda ledger: ledger.state(),
    lambda ledger: ledger.key_maker(),
)


@cache
def connect() -> tuple[Ledger, Answers]:
    """Return a ledger, and what its endpoint answers."""
    answers = Answers("http://chain")
    endpoint = Endpoint(make_web3(answers), url="http://chain", attempts=1, backoff_s=0.0)
    return Ledger(endpoint, Address(b"\x02" * 20)), answers
