"""Wallets and passwords."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from fedproof.errors import ConfigurationError
from fedproof.keys.wallet import create_wallet, load_wallet, read_password

WORK = 2  # scrypt's cost: these keys protect nothing


def test_wallet_comes_back(tmp_path: Path) -> None:
    """The account in a keystore is the one that was made, and only its owner may read the file."""
    path = tmp_path / "keys" / "wallet.json"
    account = create_wallet(path, "correct horse", iterations=WORK)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert account.key.hex() not in path.read_text()
    loaded = load_wallet(path, "correct horse")
    assert (loaded.address, loaded.key) == (account.address, account.key)


def test_default_work_factor_is_strong(tmp_path: Path) -> None:
    """Without a choice a guess costs scrypt's 2^17, and opening it 128 MiB."""
    create_wallet(tmp_path / "wallet.json", "correct horse")
    crypto = json.loads((tmp_path / "wallet.json").read_text())["crypto"]
    assert (crypto["kdf"], crypto["kdfparams"]["n"]) == ("scrypt", 1 << 17)


@pytest.mark.parametrize("iterations", [2, 1 << 14, 1 << 18])
def test_keystore_of_any_cost_opens(tmp_path: Path, iterations: int) -> None:
    """What a keystore cost to make is its own business: older and other tools' ones open."""
    account = create_wallet(tmp_path / "wallet.json", "correct horse", iterations=iterations)
    assert load_wallet(tmp_path / "wallet.json", "correct horse").address == account.address


def test_keystore_of_another_tool_opens() -> None:
    """The test vector of the Web3 Secret Storage definition (PBKDF2) is an ordinary wallet."""
    account = load_wallet(Path(__file__).with_name("web3_secret_storage_v3.json"), "testpassword")
    assert account.key.hex() == "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"


def test_wallet_is_never_overwritten(tmp_path: Path) -> None:
    """A key that exists is not lost to a second call."""
    path = tmp_path / "wallet.json"
    create_wallet(path, "correct horse", iterations=WORK)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"wallet\.json: expected no file there"):
        create_wallet(path, "correct horse", iterations=WORK)
    assert path.read_bytes() == before


def test_wrong_password_names_the_file(tmp_path: Path) -> None:
    """A wrong password is said to be one, with the file's name."""
    create_wallet(tmp_path / "wallet.json", "correct horse", iterations=WORK)
    with pytest.raises(ConfigurationError, match=r"wallet\.json: expected the password .*, got another one"):
        load_wallet(tmp_path / "wallet.json", "battery staple")


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff\xfe", b"[]", b"{}", b'"x"', b'{"version": 1}', b'{"version": 3, "crypto": {"kdf": "x"}}'],
)
def test_file_that_is_no_keystore_is_named(tmp_path: Path, raw: bytes) -> None:
    """Anything else in the file is refused with its path."""
    (tmp_path / "wallet.json").write_bytes(raw)
    with pytest.raises(ConfigurationError, match=r"wallet\.json: expected a keystore .*, got another file"):
        load_wallet(tmp_path / "wallet.json", "x")


def test_missing_keystore_says_how_to_make_one(tmp_path: Path) -> None:
    """A wallet that is not there is answered with the command that makes one."""
    with pytest.raises(ConfigurationError, match=r"expected a keystore .*fedproof keys wallet.*No such file"):
        load_wallet(tmp_path / "wallet.json", "x")


@pytest.mark.parametrize("text", ["pass word", "pass word\n", "pass word\r\n", "pass word\nsecond line"])
def test_password_is_the_first_line_of_the_file(tmp_path: Path, text: str) -> None:
    """A trailing newline is not part of the password; spaces are."""
    (tmp_path / "password").write_text(text, newline="")
    assert read_password(tmp_path / "password", environment={"FEDPROOF_PASSWORD": "other"}) == "pass word"


def test_password_from_the_environment() -> None:
    """Without a file, the variable counts."""
    assert read_password(None, environment={"FEDPROOF_PASSWORD": "pass word"}) == "pass word"


@pytest.mark.parametrize("environment", [{}, {"FEDPROOF_PASSWORD": ""}])
def test_missing_password_explains_both_ways(environment: dict[str, str]) -> None:
    """Without a password the message names the option and the variable."""
    with pytest.raises(ConfigurationError, match=r"--password-file.*FEDPROOF_PASSWORD"):
        read_password(None, environment=environment)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "expected a password on the first line, got an empty one"),
        (b"\nx", "expected a password on the first line, got an empty one"),
        (b"\xff", "expected a password in UTF-8"),
        (None, "expected a file with the password on its first line, got: No such file"),
    ],
)
def test_unusable_password_file_is_named(tmp_path: Path, raw: bytes | None, message: str) -> None:
    """An empty or missing file is not the empty password."""
    if raw is not None:
        (tmp_path / "password").write_bytes(raw)
    with pytest.raises(ConfigurationError, match=f"password: {message}"):
        read_password(tmp_path / "password", environment={})
