"""Fetching what an audit needs from a chain. Nothing is believed here; the checks come later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from eth_typing import BlockNumber, ChecksumAddress
from web3.types import BlockIdentifier

from fedproof.digests import Address, Digest, checksum_address
from fedproof.errors import LedgerError, LedgerUnreachable
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.client import Ledger
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.events import Event
from fedproof.ledger.reader import BlockRef
from fedproof_auditor.checks import verify_code
from fedproof_auditor.findings import CheckFailed, Failure

Progress = Callable[[str, int, int], None]
"""Told what is under way, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEvidence:
    """What a chain says of one contract as of one block.

    Attributes:
        block: which all of it is about, however far the chain has grown meanwhile.
        now: the Unix time until which whoever keeps the store may have deleted updates: that of the chain's
            newest block, however old the audited one is, or the auditor's if that is earlier.
        timestamps: of each block that holds an event.
        hash_at: returns the contract's history hash after a block.
    """

    url: str
    chain_id: int
    contract: Address
    block: BlockRef
    now: int
    code: bytes
    history_hash: Digest
    head_model: Digest
    events: tuple[Event, ...]
    timestamps: Mapping[int, int]
    hash_at: Callable[[int], Digest]


def fetch_code(endpoint: Endpoint, contract: Address, *, at_block: int | None = None) -> bytes:
    """Return the code at an address; empty where there is no contract.

    Raises:
        LedgerUnreachable: the endpoint does not answer.
    """
    eth, address = endpoint.web3.eth, cast("ChecksumAddress", checksum_address(contract))
    block: BlockIdentifier = "latest" if at_block is None else BlockNumber(at_block)
    return bytes(endpoint.ask("eth_getCode", lambda: eth.get_code(address, block)))


def fetch_evidence(
    endpoint: Endpoint,
    contract: Address,
    *,
    at_block: int | None,
    from_block: int,
    now: int,
    progress: Progress,
) -> LedgerEvidence:
    """Return what the chain says, as of one block.

    Args:
        endpoint: the chain.
        contract: the federation's.
        at_block: the newest block by default.
        from_block: the contract has no events before it; should it have some, check 2 fails.
        now: the Unix time by the auditor's own clock, which no endpoint can set forward.
        progress: told about blocks whose timestamps are read.

    Raises:
        CheckFailed: check 1, the contract is another one; or check 2, its logs are none of its events.
        LedgerUnreachable: the endpoint does not answer.
    """
    code = fetch_code(endpoint, contract, at_block=at_block)
    verify_code(code)
    ledger = Ledger(endpoint, contract)
    newest = ledger.latest_block()
    block = newest if at_block is None else ledger.block(at_block)
    try:
        events = tuple(ledger.events(from_block, block.number))
    except LedgerUnreachable:
        raise
    except LedgerError as error:
        failure = Failure(check=2, field="events", expected="those that the contract emits", got=str(error))
        raise CheckFailed(failure) from error
    numbers = sorted({event.block_number for event in events})
    timestamps = {}
    for done, number in enumerate(numbers):
        progress("reading the ledger", done, len(numbers))
        timestamps[number] = ledger.block(number).timestamp
    progress("reading the ledger", len(numbers), len(numbers))
    return LedgerEvidence(
        url=endpoint.url,
        chain_id=ledger.chain_id,
        contract=contract,
        block=block,
        now=min(newest.timestamp, now),
        code=code,
        history_hash=ledger.history_hash(at_block=block.number),
        head_model=_fetch_head_model(endpoint, contract, block.number),
        events=events,
        timestamps=timestamps,
        hash_at=lambda number: ledger.history_hash(at_block=number),
    )


def verify_pinned(endpoint: Endpoint, block: BlockRef) -> None:
    """Check 2: the audited block is still part of the chain.

    Raises:
        CheckFailed: the chain was reorganised meanwhile, so what was read may belong to two histories.
        LedgerUnreachable: the endpoint does not answer.
    """
    number = BlockNumber(block.number)
    now = endpoint.ask("eth_getBlockByNumber", lambda: endpoint.web3.eth.get_block(number))
    if bytes(now["hash"]) != block.hash:
        raise CheckFailed(
            Failure(
                check=2,
                field=f"block {block.number}",
                expected=f"hash 0x{block.hash.hex()} throughout the audit",
                got=f"0x{bytes(now['hash']).hex()}: the chain was reorganised; audit again",
            )
        )


def fetch_gas(endpoint: Endpoint, transaction_hash: Digest) -> int:
    """Return the gas that a mined transaction used.

    Raises:
        LedgerUnreachable: the endpoint does not answer.
    """
    eth = endpoint.web3.eth
    receipt = endpoint.ask(
        "eth_getTransactionReceipt", lambda: eth.get_transaction_receipt(cast("Any", transaction_hash))
    )
    return int(receipt["gasUsed"])


def _fetch_head_model(endpoint: Endpoint, contract: Address, block: int) -> Digest:
    return Digest(bytes(_view(endpoint, contract, block, "headModel")))


def _view(endpoint: Endpoint, contract: Address, block: int, name: str, *arguments: object) -> Any:
    abi = cast("Any", load_artifact().abi)
    bound = endpoint.web3.eth.contract(address=cast("ChecksumAddress", checksum_address(contract)), abi=abi)
    call = bound.functions[name](*arguments)
    return endpoint.ask(name, lambda: call.call(block_identifier=BlockNumber(block)))
