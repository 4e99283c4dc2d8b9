"""Whether a chain and what stands on it can be relied on: one finding after another, each with advice."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from eth_typing import ChecksumAddress
from structlog.typing import FilteringBoundLogger

from fedproof.config import AddressBook
from fedproof.digests import Address, checksum_address
from fedproof.errors import FedproofError, LedgerError
from fedproof.ledger.answers import as_uint256
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import verify_parties
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.finality import Finality, find_final_tag
from fedproof.ledger.reader import BlockRef

# Enough for some hundred transactions at 10 gwei.
_LOW_BALANCE_WEI = 50_000_000_000_000_000
_MOST_SKEW_S = 30.0
_WEI_PER_ETHER = 10**18
# Anvil, Hardhat and `geth --dev`: blocks are final later than they are there, but none is dropped.
_DEVELOPMENT_CHAINS = frozenset({31337, 1337})
# Whose mean time is taken for that of the blocks to come.
_MEASURED_BLOCKS = 100
# To see and to be seen, within half of a window.
_LAGS_PER_WINDOW = 4
_WHERE = "in the section [chain] of each daemon"


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


def examine(
    book: AddressBook, endpoint: Endpoint, wallets: Iterable[Address], *, finality: Finality = "latest"
) -> Iterator[Finding]:
    """Yield the findings in this order; 1, 2 and 7 end the examination where they are not fine.

    1. The endpoint answers, for the chain of the address book.
    2. The code at the contract's address is the artifact's.
    3. The events add up to the running hash.
    4. The first of them give the roles to those whom the address book names.
    5. Each account that holds a role, and each wallet asked for, can pay for transactions; for a role that a
       contract holds, such as a multisig wallet, whoever calls that pays.
    6. The chain's clock is not ahead of ours.
    7. The chain does not drop blocks that count.
    8. Blocks count soon enough for the windows of the adopted policy.

    Args:
        book: where the contract should be.
        endpoint: of the chain.
        wallets: accounts that have to pay, too.
        finality: which blocks count for the daemons.
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
    newest, wallets = ledger.latest_block(), {*wallets}
    accounts = {book.admin, book.aggregator} | wallets
    started = time.monotonic()
    try:  # 3
        history = ledger.replay(from_block=book.block, to_block=newest.number)
        seconds = time.monotonic() - started
        found = f"{history.event_count} events up to block {newest.number} add up, read in {seconds:.1f} s"
        yield Finding("history", True, found)
        accounts = wallets.union(*history.roles.values())
    except FedproofError as error:
        advice = "the endpoint leaves events out or alters them: name another --rpc-url"
        yield Finding("history", False, str(error), advice)
    try:  # 4
        verify_parties(book, ledger.events(book.block, book.block), where=where)
        yield Finding("parties", True, "admin and aggregator were, to begin with, those of the address book")
    except FedproofError as error:
        yield Finding("parties", False, str(error), "ask the operator for this federation's address book")
    for account in sorted(accounts):  # 5
        if account not in wallets and _has_code(endpoint, account):
            continue
        balance = _fetch_balance(endpoint, account)
        found = f"{checksum_address(account)} has {balance / _WEI_PER_ETHER:.4f} ether"
        yield Finding("balance", balance >= _LOW_BALANCE_WEI, found, "send it some: transactions cost gas")
    ahead_s = newest.timestamp - time.time()  # 6
    found = f"{ahead_s:.0f} s ahead" if ahead_s > 0 else f"the newest block is {-ahead_s:.0f} s old"
    advice = "set this machine's clock: the chain's decides about deadlines"
    yield Finding("clock", ahead_s <= _MOST_SKEW_S, found, advice)
    yield from examine_finality(ledger, finality)  # 7, 8


def examine_finality(ledger: Ledger, finality: Finality) -> Iterator[Finding]:
    """Yield the findings in this order; 1 ends the examination where it is not fine.

    1. The chain does not drop blocks that count.
    2. Twice the time until a block counts fits into half of each window of the adopted policy: a step has to
       be seen, and the answer to it to be seen, before nodes give up waiting at half of the window.

    Args:
        ledger: the connection to read.
        finality: which blocks count for the daemons.

    Raises:
        LedgerError: the endpoint does not answer.
    """
    newest = ledger.latest_block()
    keeping = _examine_keeping(ledger, finality, newest)  # 1
    yield keeping
    if keeping.is_fine:
        yield _examine_windows(ledger, finality, newest)  # 2


def warn_about_finality(ledger: Ledger, finality: Finality, log: FilteringBoundLogger) -> None:
    """Log what `examine_finality` finds wrong, for operators who do not ask the doctor.

    Raises:
        LedgerError: the endpoint does not answer.
    """
    for finding in examine_finality(ledger, finality):
        if not finding.is_fine:
            log.warning("finality_unfit", found=finding.found, advice=finding.advice)


def _examine_keeping(ledger: Ledger, finality: Finality, newest: BlockRef) -> Finding:
    if finality not in ("latest", "finalized", 0):
        return Finding("finality", True, f"{_spell(finality)}: so many blocks follow one that counts")
    advice = f"set `finality` {_WHERE} to a number of blocks"
    is_development = finality != "finalized" and ledger.chain_id in _DEVELOPMENT_CHAINS
    try:
        final = ledger.final_block("finalized").number
    except LedgerError as error:
        found = f"{_spell(finality)}: the chain names no finalized block: {error}"
        return Finding("finality", is_development, found, advice)
    # A block may have been mined since, and be final.
    behind = max(0, newest.number - final)
    found = f"{_spell(finality)}: block {final} is final, {behind} before the newest"
    is_kept = finality == "finalized" or behind == 0 or is_development
    return Finding("finality", is_kept, found, f'{advice} or to "finalized": the chain may drop newer ones')


def _examine_windows(ledger: Ledger, finality: Finality, newest: BlockRef) -> Finding:
    lag_s = _measure_lag_s(ledger, finality, newest)
    least_s = math.ceil(_LAGS_PER_WINDOW * lag_s)
    found = f"{_spell(finality)}: a block counts after {lag_s:.0f} s"
    state = ledger.state()
    if state.policy_version == 0:
        return Finding("windows", True, f"{found}; no policy is adopted yet, whose windows need {least_s} s")
    windows = {
        "commit_window_s": state.commit_window,
        "aggregate_window_s": state.aggregate_window,
        "attest_window_s": state.attest_window,
    }
    short = [f"{name} = {window_s}" for name, window_s in windows.items() if window_s < least_s]
    if not short:
        return Finding("windows", True, f"{found}; the policy's shortest window is {min(windows.values())} s")
    found = f"{found}; too late for the policy's {', '.join(short)}"
    advice = f"adopt a policy with at least {least_s} s for each, or set `finality` {_WHERE} to fewer blocks"
    return Finding("windows", False, found, advice)


def _measure_lag_s(ledger: Ledger, finality: Finality, newest: BlockRef) -> float:
    """Return how long after its own time a block counts."""
    if finality == "latest":
        return 0.0
    if finality == "finalized":
        return float(max(0, newest.timestamp - ledger.final_block(finality).timestamp))
    # The first block's time may be anything.
    oldest = ledger.block(max(1, newest.number - _MEASURED_BLOCKS))
    return finality * (newest.timestamp - oldest.timestamp) / max(1, newest.number - oldest.number)


def _spell(finality: Finality) -> str:
    """Return it as in a daemon's configuration."""
    return f"finality = {json.dumps(finality)}"


def _has_code(endpoint: Endpoint, account: Address) -> bool:
    address = cast("ChecksumAddress", checksum_address(account))
    return endpoint.agree("eth_getCode", lambda web3: bool(web3.eth.get_code(address)))


def _fetch_balance(endpoint: Endpoint, account: Address) -> int:
    address = cast("ChecksumAddress", checksum_address(account))
    block = find_final_tag(endpoint, "latest")
    what = "eth_getBalance"
    return endpoint.agree(what, lambda web3: as_uint256(web3.eth.get_balance(address, block), what))
