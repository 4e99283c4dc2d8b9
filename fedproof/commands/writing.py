"""What the commands share that write to the ledger: how they connect, and how they report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedproof.commands.options import ATTEMPTS, count_majority

if TYPE_CHECKING:
    from fedproof.ledger.client import Ledger, Receipt
    from fedproof.ledger.sending import Sending

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Send nothing: say what it would cost, or why it would be refused.")
]


def connect(
    address_book: Path,
    rpc_url: Sequence[str] | None,
    *,
    keystore: Path,
    password_file: Path | None,
    dry_run: bool,
) -> Ledger:
    """Return the ledger, for writing or to rehearse it, once what earlier commands sent is settled.

    Args:
        address_book: where the contract is.
        rpc_url: the endpoints, if not the address book's.
        keystore: whose key signs, with the account's outbox beside it.
        password_file: the keystore's.
        dry_run: whether to rehearse only, which waits for nothing.

    Raises:
        LedgerError: what an earlier command sent is not settled in time.
    """
    from fedproof.config import ChainConfig, load_address_book
    from fedproof.errors import LedgerError
    from fedproof.keys.wallet import read_password
    from fedproof.ledger.connection import open_ledger, open_rehearsal, open_signer
    from fedproof.logs import log_aside

    log_aside()
    outbox = find_outbox(keystore, load_address_book(address_book).chain_id)
    chain = ChainConfig(
        rpc_url=tuple(rpc_url) if rpc_url else None,
        agreement=count_majority(rpc_url or ("one",)),
        address_book=address_book,
        keystore=keystore,
        outbox=outbox,
    )
    signer = open_signer(chain, lambda: read_password(password_file))
    if dry_run:
        return open_rehearsal(chain, signer, attempts=ATTEMPTS)
    ledger = open_ledger(chain, signer, state_dir=keystore.parent, attempts=ATTEMPTS)
    try:
        # Else the command would look at a state that is about to change, and do the same again.
        ledger.outbox.settle(_announce)
    except LedgerError as error:
        raise LedgerError(
            f"nothing new was sent: an earlier transaction of this account is still on its way: {error}. "
            f"Run the command again later; `fedproof ledger outbox {outbox}` lists what was sent"
        ) from error
    return ledger


def _announce(sending: Sending) -> None:
    typer.echo(f"waiting for an earlier transaction: {sending.what}, {sending.state}", err=True)


def find_outbox(keystore: Path, chain_id: int) -> Path:
    """Return where the commands keep what they send with a keystore on a chain: beside it."""
    return keystore.with_name(f"{keystore.name}.outbox-{chain_id}.sqlite")


def show(receipt: Receipt) -> dict[str, object]:
    """Return what a command prints of a transaction, or of its rehearsal."""
    if not any(receipt.transaction_hash):
        return {"dry_run": True, "gas": receipt.gas_used}
    return {"transaction": receipt.transaction_hash, "block": receipt.block_number, "gas": receipt.gas_used}
