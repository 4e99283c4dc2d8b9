"""The commands: what init leaves behind, and how register and run answer what is wrong."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
import tomlkit
from cryptography import x509
from eth_account import Account
from fedproof_node.cli import app
from fedproof_node.config import load_node_config
from typer.testing import CliRunner, Result

from fedproof.digests import as_address, checksum_address
from fedproof.errors import (
    ConfigurationError,
    FedproofError,
    LedgerUnreachable,
    NetworkError,
    PolicyMismatch,
    WrongContract,
)
from fedproof.keys.tls import certificate_digest, make_authority
from fedproof.keys.wallet import load_wallet
from fedproof.keys.wrapping import WrappingKey
from fedproof.ledger.events import FailureReason, MemberApplied
from fedproof.policy import Policy
from tests.chain import make_digest
from tests.node.site import PASSWORD, TOY, Site


def invoke(*arguments: object, password: str | None = PASSWORD) -> Result:
    environment = {"FEDPROOF_PASSWORD": password or ""}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def refusal(result: Result) -> FedproofError:
    """Return what the root command would print as its one message."""
    assert isinstance(result.exception, FedproofError), result.output
    return result.exception


def test_init_makes_everything_a_node_needs(tmp_path: Path) -> None:
    """Keys that open with the password, a certificate of the authority, and a configuration that loads."""
    make_authority(tmp_path / "authority", "authority")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    folder = tmp_path / "hospital"
    result = invoke(
        "init", folder, "--name", "hospital", "--task", TOY, "--task-setting", "hospital=2",
        "--task-setting", "label=north wing", "--target", "localhost:7443", "--authority",
        tmp_path / "authority", "--policy", tmp_path / "policy.toml", "--address-book",
        tmp_path / "book.json", "--codec-processes", "2", "--password-file", tmp_path / "password", "--json",
        password=None,
    )  # fmt: skip
    assert result.exception is None, result.output
    printed = json.loads(result.stdout)
    config = load_node_config(folder / "node.toml")
    assert printed == {
        "address": load_wallet(config.chain.keystore, PASSWORD).address,
        "config": str(folder / "node.toml"),
    }
    assert WrappingKey.load(config.wrapping_key, PASSWORD).public_bytes
    assert config.task.settings == {"hospital": 2, "label": "north wing"}
    assert config.codec_processes == 2
    assert config.policy.resolve() == (tmp_path / "policy.toml").resolve()
    assert config.chain.password_file is not None
    certificate = x509.load_pem_x509_certificate(config.tls.certificate.read_bytes())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(config.tls.ca.read_bytes()))
    for path in (config.chain.keystore, config.wrapping_key, config.tls.key, folder / "node.toml"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    again = invoke(
        "init", folder, "--name", "x", "--task", TOY, "--target", "x:1", "--address-book", "book.json"
    )
    assert "expected a new or empty folder" in str(refusal(again))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected one of --contract and --address-book"),
        (["--address-book", "b", "--contract", "0x" + "00" * 20], "got both or neither"),
        (["--contract", "0x" + "00" * 20], "expected --rpc-url beside --contract"),
        (["--address-book", "b", "--task-setting", "novalue"], "expected KEY=VALUE, got 'novalue'"),
    ],
)
def test_init_refuses_and_leaves_nothing(tmp_path: Path, options: list[str], message: str) -> None:
    """A mistake is named before any key is made."""
    folder = tmp_path / "node"
    result = invoke("init", folder, "--name", "x", "--task", TOY, "--target", "x:1", *options)
    assert message in str(refusal(result))
    assert not folder.exists()


def test_init_needs_a_password(tmp_path: Path) -> None:
    """Without a password there are no keys."""
    result = invoke(
        "init", tmp_path / "node", "--name", "x", "--task", TOY, "--target", "x:1", "--address-book", "b",
        password=None,
    )  # fmt: skip
    assert "expected a password, got none" in str(refusal(result))


def test_register_is_idempotent_and_the_policy_is_checked(site: Site) -> None:
    """Registering twice is one transaction, and no node runs under another policy than the ledger's."""
    site.write_config()
    for _ in range(2):
        result = invoke("register", "--config", site.config)
        assert result.exception is None, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == ["registered"]
    assert events[0]["gas"] == 0
    key = WrappingKey.load(site.folder / "wrapping.key", PASSWORD)
    assert site.aggregator.servicer.public_keys == {key.digest: key.public_bytes}
    applied = [
        event
        for event in site.admin.events(0, site.admin.block_number())
        if isinstance(event, MemberApplied) and event.node == site.address
    ]
    assert [(event.wrapping_key_digest, event.certificate_digest) for event in applied] == [
        (key.digest, certificate_digest(site.folder / "node" / "tls.crt"))
    ]

    site.register_and_admit()
    other = Policy.parse(site.policy.canonical().replace(b"site", b"tise"))
    (site.folder / "policy.toml").write_text(other.dump_toml())
    mismatch = refusal(invoke("run", "--config", site.config))
    assert isinstance(mismatch, PolicyMismatch)
    assert site.policy.digest.hex() in str(mismatch)
    assert other.digest.hex() in str(mismatch)
    (site.folder / "policy.toml").write_text(site.policy.dump_toml())


def test_run_ends_after_its_last_round(site: Site) -> None:
    """A whole start with a real training process, and a clean end once the round is over."""
    site.write_config()
    peer = Account.create()
    site.chain.mine(balances={as_address(peer.address, "peer"): 10**20})
    peer_ledger = site.connect(peer)
    site.register_and_admit()
    peer_ledger.register(make_digest("wrapping"), make_digest("certificate"))
    site.admin.admit(as_address(peer.address, "peer"))
    site.admin.request_epoch(as_address(peer.address, "peer"))
    state = site.admin.state()
    peer_ledger.publish_epoch(
        state.epoch + 1, make_digest("context"), make_digest("keys"), membership=state.membership
    )
    number = site.admin.round().number + 1
    site.operator.open_round(number)
    site.operator.fail(number, FailureReason.ABANDONED)
    result = invoke("run", "--config", site.config, "--until-round", number)
    assert result.exception is None, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0]["event"] == "admitted"
    assert {"event": "phase", "round": number, "phase": "done"}.items() <= events[-1].items()
    assert {event["role"] for event in events} == {"node"}


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"chain__rpc_url": "http://127.0.0.1:9"}, LedgerUnreachable, "127.0.0.1:9: expected an answer"),
        ({"chain__keystore": "nothing.json"}, ConfigurationError, "nothing.json: expected a keystore"),
        ({"aggregator__target": "localhost:9"}, NetworkError, "given up after 1 attempts.*localhost:9"),
        ({"task__reference": "tests.node.toy_task:Nothing"}, ConfigurationError, "expected a class Nothing"),
    ],
)
def test_run_names_what_is_wrong(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    kind: type[FedproofError],
    message: str,
) -> None:
    """Each thing that can be missing is named with what was expected and where."""
    site.register_and_admit()
    monkeypatch.setattr("fedproof.ledger.endpoint.time.sleep", lambda _seconds: None)
    site.write_config(**changes)
    error = refusal(invoke("run", "--config", site.config))
    assert isinstance(error, kind)
    assert re.search(message, str(error)), str(error)


def test_run_needs_the_contract(site: Site) -> None:
    """An address without the contract's code is refused."""
    site.write_config()
    document = tomlkit.parse(site.config.read_text())
    document["chain"] = {
        "rpc_url": site.server.url,
        "contract": checksum_address(site.address),
        "keystore": "wallet.json",
    }
    site.config.write_text(tomlkit.dumps(document))
    error = refusal(invoke("run", "--config", site.config))
    assert isinstance(error, WrongContract)


def test_wrong_password_names_the_file(site: Site) -> None:
    """A password that opens nothing is answered with the file that it should have opened."""
    site.write_config()
    error = refusal(invoke("run", "--config", site.config, password="wrong"))
    assert isinstance(error, ConfigurationError)
    assert "wallet.json: expected the password" in str(error)
