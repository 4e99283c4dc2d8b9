"""Whether a chain and what stands on it can be relied on: one finding after another, each with advice."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from eth_typing import ChecksumAddress

from fedproof.config import AddressBook
from fedproof.digests import Address, checksum_address
from fedproof.errors import FedproofError
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.client import Ledger
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.history import History

# Enough for some hundred transactions at 10 gwei.
_LOW_BALANCE_WEI = 50_000_000_000_000_000
_MOST_SKEW_S = 30.0
_WEI_PER_ETHER = 10**18


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        advice: what to do, where it is not fine.
    """

    check: str
    is_fine: bool
    found: str
    advice: str = ""


def examine(book: AddressBook, endpoint: Endpoint, wallets: Iterable[Address]) -> Iterator[Finding]:
    """Yield the findings in this order; 1 and 2 end the examination where they are not fine.

    1. The endpoint answers, for the chain of the address book.
    2. The code at the contract's address is the artifact's.
    3. The events add up to the running hash.
    4. Each account that holds a role, and each wallet asked for, can pay for transactions.
    5. The chain's clock is not ahead of ours.
    6. The chain names a finalized block.
    """
    try:  # 1
        chain_id = endpoint.chain_id
    except FedproofError as error:
        yield Finding("endpoint", False, str(error), "start the chain, or name another --rpc-url")
        return
    yield Finding("endpoint", True, endpoint.url)
    advice = f"the address book is of chain {book.chain_id}: name an endpoint of that chain"
    yield Finding("chain id", chain_id == book.chain_id, str(chain_id), advice)
    try:  # 2
        ledger = Ledger(endpoint, book.contract)
    except FedproofError as error:
        yield Finding("code", False, str(error), "take the address book of this federation and version")
        return
    size = len(load_artifact().deployed_bytecode)
    where = checksum_address(book.contract)
    yield Finding("code", True, f"{size} bytes at {where}, the artifact's")
    newest = ledger.latest_block()
    accounts = {book.admin, book.aggregator, *wallets}
    started = time.monotonic()
    try:  # 3
        history = History(from_block=book.block)
        ledger.catch_up(history, to_block=newest.number)
        seconds = time.monotonic() - started
        found = f"{history.event_count} events up to block {newest.number} add up, read in {seconds:.1f} s"
        yield Finding("history", True, found)
        accounts = {*wallets}.union(*history.roles.values())
    except FedproofError as error:
        advice = "the endpoint leaves events out or alters them: name another --rpc-url"
        yield Finding("history", False, str(error), advice)
    for account in sorted(accounts):  # 4
        balance = _fetch_balance(endpoint, account)
        found = f"{checksum_address(account)} has {balance / _WEI_PER_ETHER:.4f} ether"
        yield Finding("balance", balance >= _LOW_BALANCE_WEI, found, "send it some: transactions cost gas")
    ahead_s = newest.timestamp - time.time()  # 5
    found = f"{ahead_s:.0f} s ahead" if ahead_s > 0 else f"the newest block is {-ahead_s:.0f} s old"
    advice = "set this machine's clock: the chain's decides about deadlines"
    yield Finding("clock", ahead_s <= _MOST_SKEW_S, found, advice)
    try:  # 6
        final = ledger.final_block("finalized").number
        yield Finding("finality", True, f"block {final} is final, {newest.number - final} before the newest")
    except FedproofError as error:
        advice = "set `finality` in the section [chain] to a number of blocks"
        yield Finding("finality", False, f"the chain names no finalized block: {error}", advice)


def _fetch_balance(endpoint: Endpoint, account: Address) -> int:
    address = cast("ChecksumAddress", checksum_address(account))
    return int(endpoint.ask("eth_getBalance", lambda: endpoint.web3.eth.get_balance(address)))
