"""Configuration files: each refusal names file, key, what was expected and what came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from fedproof.config import (
    AddressBook,
    ChainConfig,
    HexDigest,
    Section,
    TlsConfig,
    load_address_book,
    load_config,
    parse_document,
)
from fedproof.errors import ConfigurationError

CONTRACT = "0x" + "c0" * 20
BOOK = {
    "chain_id": 31337,
    "contract": CONTRACT,
    "rpc_url": "http://127.0.0.1:8545",
    "admin": "0x" + "ad" * 20,
    "aggregator": "0x" + "a9" * 20,
    "block": 3,
}


DAEMON_KEYS = "digest, hosts, log, name, settings, state_dir, verify, wait_s"


class Verify(Section):
    """A table with a union."""

    chunks: Literal["all"] | Annotated[int, Field(ge=1)] = 3


class Daemon(Section):
    """A configuration with each kind of field that daemons have."""

    name: Annotated[str, Field(min_length=1)]
    state_dir: Path = Path("state")
    log: Path | None = None
    wait_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    hosts: tuple[str, ...] = ()
    digest: HexDigest | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    verify: Verify = Verify()


def _write(folder: Path, text: str) -> Path:
    path = folder / "daemon.toml"
    path.write_text(text)
    return path


def _refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as refusal:
        load_config(_write(folder, text), Daemon)
    return str(refusal.value).replace(str(folder / "daemon.toml"), "FILE")


def test_document_becomes_the_schema(tmp_path: Path) -> None:
    """Each kind of field arrives with its type."""
    text = f"""
        name = "node-1"
        log = "logs/node.jsonl"
        wait_s = 2
        hosts = ["localhost", "::1"]
        digest = "0x{"ab" * 32}"
        verify.chunks = "all"
        [settings]
        shard = 1
    """
    config = load_config(_write(tmp_path, text), Daemon)
    assert config == Daemon(
        name="node-1",
        state_dir=tmp_path / "state",
        log=tmp_path / "logs/node.jsonl",
        wait_s=2.0,
        hosts=("localhost", "::1"),
        digest=b"\xab" * 32,
        settings={"shard": 1},
        verify=Verify(chunks="all"),
    )


def test_document_may_hold_bytes() -> None:
    """A document made by a program gives digests and addresses as they are."""
    document = BOOK | {"contract": b"\xc0" * 20}
    assert parse_document(document, AddressBook, where="book").contract == b"\xc0" * 20


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """Paths, defaults included, do not depend on the working directory; absolute ones stay."""
    config = load_config(_write(tmp_path, f'name = "n"\nlog = "{tmp_path}/x/../y"'), Daemon)
    assert config.state_dir == tmp_path / "state"
    assert config.log == tmp_path / "x/../y"


def test_unknown_key_lists_the_known_ones_and_the_nearest(tmp_path: Path) -> None:
    """A misspelt key is answered with the spelling that was probably meant."""
    assert _refusal(tmp_path, 'name = "n"\nstate_dri = "s"') == (
        f"FILE: state_dri: unknown key (expected one of: {DAEMON_KEYS}); did you mean 'state_dir'?"
    )


def test_unknown_key_in_a_table_is_named_with_its_table(tmp_path: Path) -> None:
    """The known keys are those of the table that the unknown one stands in."""
    assert _refusal(tmp_path, 'name = "n"\nverify.zzz = 1') == (
        "FILE: verify.zzz: unknown key (expected one of: chunks)"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("wait_s = 0", "FILE: wait_s: expected greater than 0, got 0"),
        ("wait_s = nan", "FILE: wait_s: expected a finite number, got nan"),
        ('wait_s = "2"', "FILE: wait_s: expected a number, got '2'"),
        ("wait_s = 1979-05-27", "FILE: wait_s: expected a number, got '1979-05-27'"),
        ("hosts = 7", "FILE: hosts: expected an array, got 7"),
        ("hosts = [7]", "FILE: hosts.0: expected a string, got 7"),
        ("log = true", "FILE: log: expected a string, got True"),
        ("verify = 1", "FILE: verify: expected a table, got 1"),
        ('digest = "0x12"', "FILE: digest: expected a digest of 0x and 64 hex digits, got '0x12'"),
        (
            f'digest = "0x{"ab " * 32}"',
            "FILE: digest: expected a digest of 0x and 64 hex digits, got '0xab ab ab a... ab ab ab ab '",
        ),
        ("digest = 5", "FILE: digest: expected a digest of 0x and 64 hex digits, got 5"),
        (
            "verify.chunks = 0",
            "FILE: verify.chunks: expected 'all', got 0\n"
            "FILE: verify.chunks: expected greater than or equal to 1, got 0",
        ),
    ],
)
def test_wrong_value_names_key_expected_and_got(tmp_path: Path, line: str, message: str) -> None:
    """A value of the wrong type or out of range is named; nothing is converted silently."""
    assert _refusal(tmp_path, f'name = "n"\n{line}') == message


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    """Nobody has to run the program once for each mistake."""
    assert _refusal(tmp_path, 'wait_s = -1\nx = ""').splitlines() == [
        "FILE: name: expected a value, got none: the key is missing",
        "FILE: wait_s: expected greater than 0, got -1",
        f"FILE: x: unknown key (expected one of: {DAEMON_KEYS})",
    ]


def test_long_value_is_shortened(tmp_path: Path) -> None:
    """A message stays readable whatever came."""
    assert len(_refusal(tmp_path, f'name = "n"\nwait_s = "{"x" * 10_000}"')) < 200


@pytest.mark.parametrize("raw", [b"name = ", b"name = '\xff'", b"a = 1\na = 2"])
def test_broken_toml_names_the_file(tmp_path: Path, raw: bytes) -> None:
    """Text that is not TOML is refused by name."""
    (tmp_path / "daemon.toml").write_bytes(raw)
    with pytest.raises(ConfigurationError, match=r"daemon\.toml: expected TOML, got: "):
        load_config(tmp_path / "daemon.toml", Daemon)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(ConfigurationError, match=r"daemon\.toml: expected a TOML file, got: No such file"):
        load_config(tmp_path / "daemon.toml", Daemon)


def _chain(folder: Path, text: str) -> ChainConfig:
    return load_config(_write(folder, text), ChainConfig)


def test_chain_from_a_contract_address(tmp_path: Path) -> None:
    """The contract may be given by address."""
    chain = _chain(tmp_path, f'rpc_url = "http://x"\ncontract = "{CONTRACT}"\nkeystore = "wallet.json"')
    assert chain.keystore == tmp_path / "wallet.json"
    assert chain.password_file is None
    assert chain.resolve() == ("http://x", b"\xc0" * 20, None)


def test_chain_from_an_address_book(tmp_path: Path) -> None:
    """The contract may be given by the file that the deployment wrote; the endpoint in the file gives way."""
    (tmp_path / "book.json").write_text(json.dumps(BOOK))
    assert _chain(tmp_path, 'address_book = "book.json"\nkeystore = "w"').resolve() == (
        "http://127.0.0.1:8545",
        b"\xc0" * 20,
        BOOK["chain_id"],
    )
    text = 'rpc_url = "http://other"\naddress_book = "book.json"\nkeystore = "w"'
    assert _chain(tmp_path, text).resolve().rpc_url == "http://other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected one of the keys contract and address_book, got both or neither"),
        (f'contract = "{CONTRACT}"\naddress_book = "b"', "got both or neither"),
        (f'contract = "{CONTRACT}"', "expected the key rpc_url beside contract, got none"),
        ('contract = "0x12"', "contract: expected an address of 0x and 40 hex digits, got '0x12'"),
    ],
)
def test_chain_names_exactly_one_contract(tmp_path: Path, text: str, message: str) -> None:
    """Neither, both, or an address without an endpoint is refused."""
    with pytest.raises(ConfigurationError, match=message):
        _chain(tmp_path, f'keystore = "w"\n{text}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "book.json: expected an address book .*, got: No such file"),
        ("{", "book.json: expected JSON, got: "),
        ("[]", "book.json: : expected a table, got "),
        (json.dumps(BOOK | {"contract": "0x"}), "book.json: contract: expected an address"),
        (
            json.dumps(BOOK | {"chain_id": 0}),
            "book.json: chain_id: expected greater than or equal to 1, got 0",
        ),
        (json.dumps(BOOK | {"x": 0}), "book.json: x: unknown key"),
    ],
)
def test_broken_address_book_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    """What is wrong with an address book is said with its path."""
    if text is not None:
        (tmp_path / "book.json").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_address_book(tmp_path / "book.json")


def test_tls_section(tmp_path: Path) -> None:
    """The three PEM files are found beside the configuration."""
    tls = load_config(_write(tmp_path, 'ca = "ca.crt"\ncertificate = "tls.crt"\nkey = "tls.key"'), TlsConfig)
    assert (tls.ca, tls.certificate, tls.key) == tuple(tmp_path / x for x in ("ca.crt", "tls.crt", "tls.key"))
