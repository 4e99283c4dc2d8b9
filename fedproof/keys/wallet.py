"""Wallets: the secp256k1 key that a role signs its transactions with, in an encrypted keystore file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from eth_account import Account
from eth_account.signers.local import LocalAccount

from fedproof.errors import ConfigurationError
from fedproof.files import PRIVATE, read_whole, write_new

PASSWORD_VARIABLE = "FEDPROOF_PASSWORD"  # noqa: S105 - a variable's name
SCRYPT_N = 1 << 17  # OWASP's minimum. Opening a wallet takes a daemon 1 KiB of memory times this
# What json and eth-keyfile raise over something else; the latter asserts where it should refuse.
_NO_KEYSTORE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    RecursionError,
)


def create_wallet(path: Path, password: str, *, iterations: int = SCRYPT_N) -> LocalAccount:
    """Write a new key to a new file, encrypted with the password (Web3 Secret Storage, version 3).

    Args:
        path: a file that does not exist yet; only its owner may read it.
        password: not empty.
        iterations: scrypt's cost n, a power of two; 2^17 costs a guess half a second and 128 MiB.

    Raises:
        ConfigurationError: the file exists.
    """
    account: LocalAccount = Account.create()
    keystore = Account.encrypt(account.key, password, kdf="scrypt", iterations=iterations)
    write_new(path, json.dumps(keystore, indent=2).encode() + b"\n", mode=PRIVATE)
    return account


def load_wallet(path: Path, password: str) -> LocalAccount:
    """Return the account in a keystore.

    Raises:
        ConfigurationError: no such file, not a keystore, or a wrong password.
    """
    raw = read_whole(path, "a keystore (`fedproof keys wallet` makes one)")
    try:
        keystore = json.loads(raw)
        if not isinstance(keystore, dict):
            raise TypeError(f"a JSON {type(keystore).__name__}")
        key = Account.decrypt(keystore, password)
    except _NO_KEYSTORE as error:
        if str(error) == "MAC mismatch":
            raise ConfigurationError(
                f"{path}: expected the password that the keystore was made with, got another one"
            ) from error
        raise ConfigurationError(
            f"{path}: expected a keystore (Web3 Secret Storage, version 3), got another file: "
            f"{type(error).__name__}: {error}"
        ) from error
    account: LocalAccount = Account.from_key(key)
    return account


def read_password(file: Path | None, *, environment: Mapping[str, str] = os.environ) -> str:
    """Return the password in a file, or else in the environment variable FEDPROOF_PASSWORD.

    Raises:
        ConfigurationError: neither is given, or it is empty.
    """
    if file is not None:
        try:
            text = read_whole(file, "a file with the password on its first line").decode()
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{file}: expected a password in UTF-8, got other bytes") from error
        password = text.partition("\n")[0].removesuffix("\r")
        if not password:
            raise ConfigurationError(f"{file}: expected a password on the first line, got an empty one")
        return password
    if not environment.get(PASSWORD_VARIABLE):
        raise ConfigurationError(
            "expected a password, got none: name a file that holds it (--password-file, or password_file in "
            f"the configuration) or set the environment variable {PASSWORD_VARIABLE}; it is never taken from "
            "the command line itself, where other users can read it"
        )
    return environment[PASSWORD_VARIABLE]
