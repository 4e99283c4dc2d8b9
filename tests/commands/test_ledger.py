"""`fedproof ledger`, and writes that are only rehearsed, at a desk with a real chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests
import typer
from typer.testing import CliRunner

from fedproof.cli import app
from fedproof.commands.options import count_majority
from fedproof.devchain.server import DevChainServer
from fedproof.digests import Digest, as_address, checksum_address
from fedproof.errors import ConfigurationError, DigestMismatch, LedgerError, Reverted, WrongContract
from fedproof.ledger.client import Ledger
from fedproof.ledger.outbox import SendingRules
from fedproof.ledger.receipts import BatchReceipt, load_receipt, save_receipt
from fedproof.ledger.signer import KeystoreSigner
from fedproof.merkle import compute_path, compute_root, leaf_digest
from tests.office import Office, chain, office, password, run, run_json, write_policy

__all__ = ["chain", "office", "password"]  # fixtures

DIGEST = Digest(b"\x01" * 32)


def test_an_endpoint_named_twice_counts_once() -> None:
    """More than half of the endpoints have to agree, however they are spelled."""
    urls = ["http://one.example", "http://ONE.example:80/", "http://two.example", "http://three.example"]
    assert [count_majority(urls[:count]) for count in (1, 2, 3, 4)] == [1, 1, 2, 2]


def test_a_rehearsal_sends_nothing(office: Office) -> None:
    """With --dry-run a write says what it would cost, and the ledger stays as it was."""
    dry = run_json(
        "deploy", *office.signed, "--rpc-url", office.url, "--aggregator", office.node.address, "--dry-run"
    )
    assert dry["gas"] > 1_000_000
    assert not office.book.exists()
    office.deploy()
    office.register()
    before = run_json("ledger", "show", "--address-book", office.book)
    rehearsed = run_json("admin", "admit", office.node.address, *office.located, "--dry-run")
    assert rehearsed["dry_run"] is True
    assert run_json("ledger", "show", "--address-book", office.book) == before
    done = run_json("admin", "admit", office.node.address, *office.located)
    assert done["gas"] <= rehearsed["gas"] <= 2 * done["gas"]


def test_a_rehearsal_is_refused_as_the_transaction_would_be(office: Office) -> None:
    """What the contract refuses is named without a transaction."""
    office.deploy()
    with pytest.raises(Reverted, match="NotAdmitted"):
        run("admin", "epoch", "--key-maker", office.node.address, *office.located, "--dry-run")


def test_a_role_is_handed_over(office: Office) -> None:
    """A new admin is granted, the old one renounces, and from then on only the new one admits."""
    office.deploy()
    office.register()
    run("admin", "grant", "admin", office.node.address, *office.located)
    run("admin", "renounce", "admin", *office.located)
    shown = run_json("ledger", "show", "--address-book", office.book)
    assert shown["admin"] == [office.node.address]
    with pytest.raises(Reverted, match=r"AccessControlUnauthorizedAccount\(.*needed_role=admin\)"):
        run("admin", "admit", office.node.address, *office.located)


def test_what_is_done_is_not_done_twice(office: Office) -> None:
    """Members, roles and epochs may be asked for again: the second time, nothing is sent."""
    office.deploy()
    with pytest.raises(LedgerError, match="expected a node that has registered"):
        run("admin", "admit", office.node.address, *office.located)
    office.register()
    for words in (
        ("admit", office.node.address),
        ("suspend", office.node.address),
        ("admit", office.node.address),
        ("grant", "aggregator", office.node.address),
        ("revoke", "aggregator", office.node.address),
        ("epoch", "--key-maker", office.node.address),
        ("renounce", "admin"),
    ):
        assert run_json("admin", *words, *office.located)["gas"] > 21_000
        again = run_json("admin", *words, *office.located)
        assert again["already"] is True
        assert "transaction" not in again


def test_who_holds_a_role_is_said(office: Office) -> None:
    """Whoever revokes the role of an account that does not have it, learns who does."""
    office.deploy()
    revoked = run_json("admin", "revoke", "aggregator", office.node.address, *office.located)
    assert (revoked["already"], revoked["held_by"]) == (True, [office.admin.address])
    assert revoked["account"] == office.node.address


def test_another_chain_is_refused(office: Office) -> None:
    """A contract at the same address of another chain than the address book's is neither read nor written."""
    office.deploy()
    office.book.write_text(json.dumps(json.loads(office.book.read_text()) | {"chain_id": 1}))
    with pytest.raises(WrongContract, match="expected chain 1, as the address book says, got 31337"):
        run("ledger", "show", "--address-book", office.book)
    with pytest.raises(WrongContract, match="expected chain 1"):
        run("admin", "grant", "aggregator", office.node.address, *office.located)
    assert not list(office.folder.glob("*outbox-1.sqlite"))


def test_a_ledger_retires_and_a_successor_goes_on(office: Office, tmp_path: Path) -> None:
    """The successor starts from the retired ledger's head, and the retired one records nothing more."""
    first = office.deploy()
    write_policy(tmp_path / "policy.toml")
    run("admin", "policy", tmp_path / "policy.toml", *office.located)
    (tmp_path / "model").write_bytes(b"weights")
    assert run_json("admin", "release", tmp_path / "model", *office.located)["gas"] > 21_000
    head = run_json("admin", "retire", *office.located)["head_model"]
    assert "retired" in run("ledger", "show", "--address-book", office.book)
    with pytest.raises(Reverted, match="WrongPhase"):
        office.register()
    with pytest.raises(ConfigurationError, match=f"predecessor: expected {first['contract']} as asked for"):
        office.deploy("--predecessor", first["contract"])  # into the first one's address book
    second = tmp_path / "second.json"
    run(
        "deploy", *office.signed, "--rpc-url", office.url, "--aggregator", office.admin.address,
        "--output", second, "--predecessor", first["contract"],
    )  # fmt: skip
    shown = run_json("ledger", "show", "--address-book", second)
    assert (shown["head_model"], shown["predecessor"]) == (head, first["contract"])


def test_the_past_can_be_asked_about(office: Office) -> None:
    """As of an earlier block, a member stands as it stood then."""
    office.deploy()
    office.register()
    block = run_json("admin", "admit", office.node.address, *office.located)["block"]
    run("admin", "suspend", office.node.address, *office.located)

    def status(*options: object) -> str:
        shown = run_json("ledger", "show", "--address-book", office.book, *options)
        return str(shown["members"][0]["status"])

    assert (status("--at-block", block), status()) == ("admitted", "suspended")
    with pytest.raises(ConfigurationError, match=r"--at-block: expected .*, the block of the contract's"):
        status("--at-block", -5)


def test_the_doctor_finds_nothing_wrong(office: Office) -> None:
    """On a chain as it should be, every check is fine and the status is 0."""
    office.deploy()
    text = run("ledger", "doctor", "--address-book", office.book)
    assert not [line for line in text.splitlines() if line.startswith("BAD")]
    for check in (
        "endpoint",
        "chain id",
        "code",
        "history",
        "parties",
        "balance",
        "clock",
        "finality",
        "windows",
    ):
        assert f"ok   {check}" in text


def test_the_doctor_compares_finality_with_the_windows(
    office: Office, chain: DevChainServer, tmp_path: Path
) -> None:
    """With blocks that come slowly, waiting for some of them is too long for the adopted policy's windows."""
    office.deploy()
    write_policy(tmp_path / "policy.toml")
    run("admin", "policy", tmp_path / "policy.toml", *office.located)
    for method, *parameters in (("evm_increaseTime", 10_000), ("evm_mine",)):
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        assert "result" in requests.post(chain.url, json=request, timeout=10).json()

    def examine(finality: str) -> str:
        arguments = ["ledger", "doctor", "--address-book", str(office.book), "--finality", finality]
        return CliRunner().invoke(app, arguments).stdout

    assert "BAD  windows     finality = 3: a block counts after" in examine("3")
    assert "commit_window_s = 60, aggregate_window_s = 60, attest_window_s = 60" in examine("3")
    assert "ok   windows     finality = 0" in examine("0")
    assert 'ok   windows     finality = "finalized"' in examine("finalized")
    for refused in ("soon", "-1", "1.5", ""):
        with pytest.raises(ConfigurationError, match="expected latest, finalized or a number of blocks"):
            run("ledger", "doctor", "--address-book", office.book, "--finality", refused)


def test_the_doctor_says_what_to_do(office: Office, free_port: int) -> None:
    """A silent endpoint, another chain, a contract that is not there and an empty wallet each get advice."""

    def examine(*options: object) -> str:
        result = CliRunner().invoke(
            app, ["ledger", "doctor", "--address-book", str(office.book), *map(str, options)]
        )
        assert result.exit_code == 1
        return result.stdout

    book = office.deploy()
    assert "start the chain" in examine("--rpc-url", f"http://127.0.0.1:{free_port}")
    assert "send it some" in examine("--wallet", "0x" + "11" * 20)
    known = json.loads(office.book.read_text())
    office.book.write_text(json.dumps({**known, "chain_id": 5}))
    assert "name an endpoint of that chain" in examine()
    office.book.write_text(json.dumps({**known, "contract": "0x" + "11" * 20}))
    assert "take the address book" in examine()
    office.book.write_text(json.dumps({**known, "admin": "0x" + "11" * 20}))
    assert f"got {known['admin']} as admin" in examine()
    assert book["contract"] == known["contract"]


def test_the_outbox_is_listed(office: Office, tmp_path: Path) -> None:
    """What a daemon sent is shown with its state, nonce and transaction."""
    office.deploy()
    contract = as_address(json.loads(office.book.read_text())["contract"], "contract")
    path = tmp_path / "outbox.sqlite"
    ledger = Ledger.connect(
        office.url, contract, account=KeystoreSigner(office.node), rules=SendingRules(path=path)
    )
    receipt = ledger.register(DIGEST, DIGEST)
    (line,) = run("ledger", "outbox", path).splitlines()
    assert line.startswith(("mined", "final"))
    assert f"register by {checksum_address(ledger.address)}" in line
    assert run_json("ledger", "outbox", path)["transaction"] == "0x" + receipt.transaction_hash.hex()
    with pytest.raises(ConfigurationError, match="expected a daemon's outbox, found no file"):
        run("ledger", "outbox", tmp_path / "nothing")
    (tmp_path / "else").write_bytes(b"no database")
    with pytest.raises(ConfigurationError, match="expected an outbox"):
        run("ledger", "outbox", tmp_path / "else")


def make_receipt(leaves: list[bytes], index: int) -> BatchReceipt:
    """Return the receipt of one of several leaves."""
    digests = [leaf_digest(leaf) for leaf in leaves]
    return BatchReceipt(
        round=1,
        root=compute_root(digests),
        size=len(leaves),
        index=index,
        leaf="0x" + leaves[index].hex(),
        path=compute_path(digests, index),
    )


def test_a_receipt_is_read_back(tmp_path: Path) -> None:
    """A receipt on the disk is the one that was written; anything else is refused by its path."""
    receipt = make_receipt([b"a", b"b", b"c"], 2)
    path = tmp_path / "receipts" / "1.json"
    save_receipt(path, receipt)
    assert load_receipt(path) == receipt
    for damage in ('"index": -1', '"index": 70000', '"index": "2"'):
        path.write_text(path.read_text().replace('"index": 2', damage))
        with pytest.raises(ConfigurationError, match=r"1\.json"):
            load_receipt(path)
        save_receipt(path, receipt)
    path.write_text("[")
    with pytest.raises(ConfigurationError, match="expected JSON"):
        load_receipt(path)


def test_a_receipt_without_a_batch_is_refused(office: Office, tmp_path: Path) -> None:
    """A receipt of a round in which nothing was anchored proves nothing."""
    office.deploy()
    path = tmp_path / "1.json"
    save_receipt(path, make_receipt([b"a"], 0))
    with pytest.raises(DigestMismatch, match="the ledger has none"):
        run("ledger", "receipt", path, "--address-book", office.book)


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_every_ledger_command_has_an_example() -> None:
    """Help shows each command in use."""
    group = typer.main.get_command(app)
    commands = group.commands["ledger"].commands  # type: ignore[attr-defined]
    assert sorted(commands) == ["doctor", "fail", "finalise", "outbox", "receipt", "seal", "show"]
    assert all("Example:" in command.help for command in commands.values())
