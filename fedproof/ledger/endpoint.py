"""A chain's JSON-RPC endpoint: bounded retries, and errors translated."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Literal, TypeVar

from requests.exceptions import RequestException
from web3 import Web3
from web3.exceptions import BadResponseFormat, ContractLogicError, Web3Exception
from web3.middleware import ExtraDataToPOAMiddleware
from web3.providers import BaseProvider

from fedproof.errors import ConfigurationError, LedgerError, LedgerUnreachable
from fedproof.ledger.answers import as_int64, quote
from fedproof.ledger.reverts import decode_revert
from fedproof.ledger.transport import EndpointProvider
from fedproof.ledger.url import hide_secrets

Answer = TypeVar("Answer")

# py_ecc, which comes with eth-account, lets Python recurse 100,000 deep: then an answer of nothing but
# brackets overruns the stack of the C code that parses it. py-evm, in the development chain, needs this much.
sys.setrecursionlimit(min(sys.getrecursionlimit(), 12 * 1024))

_NO_ANSWER = (RequestException, BadResponseFormat, json.JSONDecodeError)
_OTHER_FORM = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)


class Endpoint:
    """A connection to one endpoint.

    Attributes:
        web3: the connection itself.
        url: what messages call it: its address, without what may be a secret.
        receipt_timeout_s: how long a transaction may take until it is mined.
        members: how many endpoints answer as this one.
        agreement: how many of them have to say the same where it matters.
    """

    members = 1
    agreement = 1

    def __init__(
        self,
        web3: Web3,
        *,
        url: str,
        attempts: int = 6,
        backoff_s: float = 0.25,
        receipt_timeout_s: float = 120.0,
    ) -> None:
        self.web3 = web3
        self.url = url
        self._attempts = attempts
        self._backoff_s = backoff_s
        self.receipt_timeout_s = receipt_timeout_s

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        name: str | None = None,
        timeout_s: float = 10.0,
        attempts: int = 6,
        receipt_timeout_s: float = 120.0,
    ) -> Endpoint:
        """Return an endpoint over HTTP; nothing is sent yet.

        Args:
            url: an ``http://`` or ``https://`` address.
            name: what messages call it; by default its scheme, host and port.
            timeout_s: for the connection, and for each pause of an answer; a whole one may take thrice it.
            attempts: requests that are made before the endpoint counts as unreachable.
            receipt_timeout_s: how long a transaction may take until it is mined.

        Raises:
            ConfigurationError: another kind of address.
        """
        shown = hide_secrets(url)
        if not shown.startswith(("http://", "https://")):
            raise ConfigurationError(f"rpc_url: expected an http:// or https:// address, got {shown}")
        web3 = make_web3(EndpointProvider(url, timeout_s=timeout_s))
        return cls(web3, url=name or shown, attempts=attempts, receipt_timeout_s=receipt_timeout_s)

    @cached_property  # it never changes, and every transaction needs it
    def chain_id(self) -> int:
        """The chain's EIP-155 number.

        Raises:
            LedgerError: as `ask`.
        """
        return self.agree("eth_chainId", lambda web3: as_int64(web3.eth.chain_id, "eth_chainId"))

    def ask(self, what: str, request: Callable[[], Answer]) -> Answer:
        """Return what a request answers, after as many attempts as it takes.

        Args:
            what: the request's purpose, for messages.
            request: the request; it must be safe to repeat.

        Raises:
            LedgerUnreachable: no answer after all attempts.
            Reverted: the contract refused.
            LedgerError: the endpoint answered with another error.
        """
        started = time.monotonic()
        pause_s = self._backoff_s
        for attempt in range(1, self._attempts + 1):
            try:
                with reading_answer(f"{self.url}: {what}"):
                    return request()
            except _NO_ANSWER as error:
                if attempt == self._attempts:
                    raise LedgerUnreachable(
                        f"{self.url}: expected an answer to {what}, got none in {attempt} attempts over "
                        f"{time.monotonic() - started:.1f} s (last: {quote(error)}); "
                        "is the chain running?"
                    ) from error
            except ContractLogicError as error:
                raise decode_revert(_revert_data(error), what=f"{self.url}: {what}") from error
            except Web3Exception as error:
                raise LedgerError(f"{self.url}: {what}: {_rpc_message(error)}") from error
            time.sleep(pause_s)
            pause_s *= 2
        raise LedgerUnreachable(f"{self.url}: expected at least one attempt, got {self._attempts}")

    def agree(self, what: str, request: Callable[[Web3], Answer]) -> Answer:
        """Return what as many endpoints as have to agree answer alike: what this one answers.

        Args:
            what: the request's purpose, for messages.
            request: the request, to be made through the connection that it is given.

        Raises:
            LedgerError: as `ask`.
        """
        return self.ask(what, lambda: request(self.web3))

    def confirm(self, what: str, request: Callable[[Web3], Answer | None]) -> Answer | None:
        """Return what as many endpoints as have to agree answer alike, or None while too few do.

        For what comes to be, such as a receipt: None is what an endpoint answers that does not know it yet.

        Raises:
            LedgerError: as `ask`.
        """
        return self.ask(what, lambda: request(self.web3))

    def broadcast(self, what: str, request: Callable[[Web3], object]) -> int:
        """Make a request of every endpoint, and return how many took it: this one did.

        Raises:
            LedgerError: as `ask`.
        """
        self.ask(what, lambda: request(self.web3))
        return 1

    def poll(self, _what: str, request: Callable[[Endpoint], Answer]) -> list[Answer]:
        """Return what each endpoint answers.

        Raises:
            LedgerError: as `ask`.
        """
        return [request(self)]

    def reach(self, what: str, request: Callable[[Endpoint], int]) -> int:
        """Return the highest number that as many endpoints as have to agree reach.

        Raises:
            LedgerError: as `poll`.
        """
        numbers = self.poll(what, lambda member: as_int64(request(member), what))
        return sorted(numbers, reverse=True)[self.agreement - 1]

    def height(self, tag: Literal["latest", "finalized"] = "latest") -> int:
        """Return the newest block's number, or that of the newest which the chain says is final.

        Raises:
            LedgerError: as `ask`.
        """
        if tag == "latest":
            what = "eth_blockNumber"
            return self.ask(what, lambda: as_int64(self.web3.eth.block_number, what))
        what = "eth_getBlockByNumber"
        return self.ask(what, lambda: as_int64(self.web3.eth.get_block(tag)["number"], what))

    def distrust(self, _reason: str) -> bool:
        """Return whether there is another endpoint to ask when answers do not add up: there is not."""
        return False


def make_web3(provider: BaseProvider) -> Web3:
    """Return a connection that takes what real chains answer."""
    web3 = Web3(provider)
    # Proof-of-authority chains put more into a block's header than web3 takes otherwise.
    web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
    # It asks for the chain's number before each call, to compare one that our calls do not carry.
    web3.middleware_onion.remove("validation")
    # It follows an answer to any address that the endpoint names (EIP-3668), within this machine's network.
    provider.global_ccip_read_enabled = False
    return web3


@contextmanager
def reading_answer(where: str) -> Iterator[None]:
    """Translate what reading an answer raises when it is JSON, but not as the chain's interface has it.

    Raises:
        LedgerError: it is not.
    """
    try:
        yield
    except (Web3Exception, *_NO_ANSWER):
        raise
    except _OTHER_FORM as error:
        raise LedgerError(
            f"{where}: expected an answer as Ethereum's JSON-RPC has it, got another: "
            f"{type(error).__name__}: {quote(error)}"
        ) from error


def _revert_data(error: ContractLogicError) -> bytes:
    data = error.data
    if isinstance(data, str) and data.startswith("0x"):
        try:
            return bytes.fromhex(data[2:])
        except ValueError:
            pass
    return b""


def _rpc_message(error: Web3Exception) -> str:
    """Return what the endpoint said, without web3's rendering of the whole response."""
    response = getattr(error, "rpc_response", None) or {}
    said = response.get("error") if isinstance(response, dict) else None
    message = said.get("message") if isinstance(said, dict) else None
    return quote(message if isinstance(message, str) else error)
