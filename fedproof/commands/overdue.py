"""`fedproof ledger fail`, `seal` and `finalise`: what anybody may do once a round's deadline is long past."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedproof.commands.options import DEFAULT_BOOK, AddressBookFile, Json, Keystore, PasswordFile, RpcUrl
from fedproof.commands.output import report
from fedproof.commands.writing import DryRun, connect, show

if TYPE_CHECKING:
    from fedproof.ledger.client import Ledger
    from fedproof.ledger.rounds import RoundRecord

Number = Annotated[int, typer.Argument(help="The round's number: the newest one's.", metavar="ROUND", min=1)]


def fail(
    number: Number,
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Give up a round that nobody goes on with, so that the next one can open. Any account with gas may.

    The aggregator may at any time; anybody else once the overdue window (`aggregate_window_s`) after the
    phase's deadline has passed. Nodes that run do so by themselves.

    Example: `fedproof ledger fail 7 --keystore wallet.json --dry-run`
    """
    from fedproof.ledger.events import FailureReason

    ledger = connect(address_book, rpc_url, keystore=keystore, password_file=password_file, dry_run=dry_run)
    with _saying_when(number):
        receipt = ledger.fail(number, FailureReason.ABANDONED)
    report({"failed": number, **show(receipt)}, as_json=json)


def finalise(
    number: Number,
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Make a proposed model the head, once the nodes' time to object has passed. Any account with gas may.

    Only a batched round has a proposal; others end by their attestations.

    Example: `fedproof ledger finalise 7 --keystore wallet.json --dry-run`
    """
    from fedproof.errors import LedgerError

    ledger = connect(address_book, rpc_url, keystore=keystore, password_file=password_file, dry_run=dry_run)
    record = _find_round(ledger, address_book, number)
    if record.proposal is None:
        raise LedgerError(
            f"round {number}: expected a proposed result, found none: phase {record.phase.name.lower()}"
        )
    with _saying_when(number):
        receipt = ledger.finalise(number, record.proposal.model_digest)
    report({"finalised": number, "model": record.proposal.model_digest, **show(receipt)}, as_json=json)


def seal(
    number: Number,
    *,
    keystore: Keystore,
    password_file: PasswordFile = None,
    address_book: AddressBookFile = DEFAULT_BOOK,
    rpc_url: RpcUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Close a round with all who committed, once the overdue window has passed. Any account with gas may.

    Of use if the aggregator comes back to add up; otherwise, and where a batch is anchored, `fail` it.

    Example: `fedproof ledger seal 7 --keystore wallet.json --dry-run`
    """
    ledger = connect(address_book, rpc_url, keystore=keystore, password_file=password_file, dry_run=dry_run)
    nodes = _find_round(ledger, address_book, number).commitments
    with _saying_when(number):
        receipt = ledger.seal(number, dict.fromkeys(nodes, 0))
    report({"sealed": number, "contributors": len(nodes), **show(receipt)}, as_json=json)


def _find_round(ledger: Ledger, address_book: Path, number: int) -> RoundRecord:
    from fedproof.config import load_address_book
    from fedproof.errors import LedgerError

    history = ledger.replay(from_block=load_address_book(address_book).block)
    if number not in history.rounds:
        raise LedgerError(f"round {number}: expected one of the ledger's {len(history.rounds)} rounds")
    return history.rounds[number]


@contextmanager
def _saying_when(number: int) -> Iterator[None]:
    """Name the time in words where the contract says that it is too early."""
    from fedproof.errors import LedgerError, Reverted

    try:
        yield
    except Reverted as error:
        if error.name != "DeadlineNotReached":
            raise
        deadline, time = (
            f"{datetime.fromtimestamp(int(str(error.arguments[key])), UTC):%Y-%m-%d %H:%M:%S} UTC"
            for key in ("deadline", "time")
        )
        raise LedgerError(
            f"round {number}: too early: this may be done after {deadline}, and the chain's time is {time}"
        ) from error
