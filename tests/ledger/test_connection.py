"""From the section [chain] of a configuration to a ledger that sends."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomlkit

from fedproof.config import AddressBook, ChainConfig, load_config
from fedproof.digests import Address, as_address, checksum_address
from fedproof.errors import ConfigurationError
from fedproof.keys.wallet import create_wallet
from fedproof.ledger.client import Ledger
from fedproof.ledger.connection import OUTBOX_FILE, open_ledger, open_signer
from fedproof.ledger.deploy import deploy_federation
from fedproof.ledger.signer import KeystoreSigner, RemoteSigner
from tests.chain import make_account, make_digest
from tests.ledger.anvil import Anvil, Proxy, honest, proxied

ADMIN = make_account(1)
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def book(anvil: Anvil, tmp_path_factory: pytest.TempPathFactory) -> AddressBook:
    """A federation whose admin signs with a key here, and whose aggregator is an account of anvil's."""
    anvil.fund(ADMIN.address)
    return deploy_federation(
        anvil.url,
        ADMIN,
        aggregator=as_address(anvil.request("eth_accounts")[1], "test"),
        output=tmp_path_factory.mktemp("book") / "address-book.json",
    )


def write(folder: Path, **keys: object) -> Path:
    """Return a configuration file with these keys."""
    path = folder / "chain.toml"
    path.write_text(tomlkit.dumps(keys))
    return path


def configure(folder: Path, book: AddressBook, **keys: object) -> ChainConfig:
    """Return a section that names the contract and these keys."""
    named = {"rpc_url": book.rpc_url, "contract": checksum_address(book.contract), **keys}
    return load_config(write(folder, **named), ChainConfig)


def test_a_keystore_signs(anvil: Anvil, book: AddressBook, tmp_path: Path) -> None:
    """The outbox lies in the state folder, and holds what was sent."""
    account = create_wallet(tmp_path / "wallet.json", PASSWORD, iterations=2)
    anvil.fund(account.address)
    chain = configure(tmp_path, book, keystore="wallet.json", finality=0)
    signer = open_signer(chain, lambda: PASSWORD)
    assert isinstance(signer, KeystoreSigner)
    ledger = open_ledger(chain, signer, state_dir=tmp_path / "state")
    ledger.register(make_digest("wrapping"), make_digest("certificate"))
    (sending,) = ledger.outbox.sendings()
    assert sending.what == f"register by {account.address}"
    assert (tmp_path / "state" / OUTBOX_FILE).exists()


def test_a_remote_signer_signs(anvil: Anvil, book: AddressBook, tmp_path: Path) -> None:
    """No keystore is opened, and anvil signs for its account."""
    account = anvil.request("eth_accounts")[0]
    chain = configure(
        tmp_path, book, signer_url=anvil.url, signer_account=account, outbox="elsewhere/box.sqlite"
    )
    signer = open_signer(chain, lambda: pytest.fail("no password is needed"))
    assert isinstance(signer, RemoteSigner)
    ledger = open_ledger(chain, signer, state_dir=tmp_path / "state")
    receipt = ledger.register(make_digest("wrapping"), make_digest("certificate"))
    assert len(receipt.events) == 1
    assert ledger.address == as_address(account, "test")
    assert (tmp_path / "elsewhere" / "box.sqlite").exists()


def test_what_names_no_number_may_be_meant_anew(anvil: Anvil, book: AddressBook, tmp_path: Path) -> None:
    """Only a call that names its round or epoch is taken for the one before it."""
    account = create_wallet(tmp_path / "wallet.json", PASSWORD, iterations=2)
    anvil.fund(account.address)
    chain = configure(tmp_path, book, keystore="wallet.json")
    signer = open_signer(chain, lambda: PASSWORD)

    def open_again() -> Ledger:
        return open_ledger(chain, signer, state_dir=tmp_path / "state")

    for _ in range(2):
        open_again().register(make_digest("wrapping"), make_digest("certificate"))
    sendings = open_again().outbox.sendings()
    assert [sending.nonce for sending in sendings] == [0, 1]
    assert len({sending.key for sending in sendings}) == 2


def test_several_endpoints_are_used(anvil: Anvil, book: AddressBook, tmp_path: Path) -> None:
    """A list of addresses, of which so many have to agree, is read as such."""
    create_wallet(tmp_path / "wallet.json", PASSWORD, iterations=2)
    with proxied(anvil.url) as first, proxied(anvil.url) as second:
        keys = {"rpc_url": [first.url, second.url], "agreement": 2, "keystore": "wallet.json"}
        chain = configure(tmp_path, book, **keys)
        open_ledger(chain, open_signer(chain, lambda: PASSWORD), state_dir=tmp_path).latest_block()
        assert isinstance(first, Proxy)
        assert first.twist is honest
        assert "eth_getBlockByNumber" in first.requests
        assert "eth_getBlockByNumber" in second.requests


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "expected one of the keys keystore and signer_url, got both or neither"),
        ({"keystore": "a", "signer_url": "http://b"}, "keystore and signer_url, got both or neither"),
        ({"signer_url": "http://b"}, "expected the keys signer_url and signer_account together"),
        ({"keystore": "a", "agreement": 0}, "agreement: "),
        ({"keystore": "a", "finality": -1}, "finality: "),
        ({"keystore": "a", "finality": "soon"}, "finality: "),
        ({"keystore": "a", "rpc_url": []}, "rpc_url: "),
        ({"keystore": "a", "max_fee_gwei": 0.0}, "max_fee_gwei: "),
        ({"keystore": "a", "max_tip_gwei": 0.0}, "max_tip_gwei: "),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, keys: dict[str, object], message: str) -> None:
    """Each message names the file and the key."""
    named = {"rpc_url": "http://a", "contract": checksum_address(Address(b"\x05" * 20)), **keys}
    with pytest.raises(ConfigurationError, match=rf"chain\.toml: .*{message}"):
        load_config(write(tmp_path, **named), ChainConfig)
