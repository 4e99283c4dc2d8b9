"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fedproof.ledger.url import drop_doubles

DEFAULT_RPC_URL = "http://127.0.0.1:8545"
DEFAULT_BOOK = Path("address-book.json")

ATTEMPTS = 4
"""Requests to an endpoint that does not answer, within two seconds: somebody sits in front of a command."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Keystore = Annotated[
    Path, typer.Option("--keystore", help="Encrypted key that signs, as `fedproof keys wallet` writes it.")
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        help="File with the password on its first line; without it, $FEDPROOF_PASSWORD.",
    ),
]
AddressBookFile = Annotated[
    Path, typer.Option("--address-book", help="Where the contract is, as `fedproof deploy` wrote it.")
]
RpcUrl = Annotated[
    list[str] | None,
    typer.Option(
        "--rpc-url",
        help="The chain's endpoint, if not the address book's. Given several times, more than half have to "
        "agree.",
    ),
]


def count_majority(urls: Sequence[str]) -> int:
    """Return how many of some endpoints, of which one may be named twice, are more than half."""
    return len(drop_doubles(urls)) // 2 + 1
