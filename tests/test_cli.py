"""The command line as an operator meets it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from fedproof.cli import app
from fedproof.commands.plugins import GROUP, add_plugin
from fedproof.digests import as_address
from fedproof.errors import ConfigurationError, FedproofError, LedgerUnreachable, Reverted, WrongContract
from fedproof.keys.tls import certificate_digest
from fedproof.keys.wallet import create_wallet
from fedproof.keys.wrapping import public_key_digest
from fedproof.model import Model
from fedproof.policy import Policy
from fedproof.training import describe_task
from tests.office import (
    PASSWORD,
    Office,
    chain,
    office,
    password,
    run,
    run_json,
    write_policy,
)

__all__ = ["chain", "office", "password"]  # fixtures

TASK = "fedproof.tasks.breast_cancer:BreastCancer"
# Nothing of this may be loaded before a command needs it: together they take seconds.
HEAVY = {
    "torch",
    "grpc",
    "tenseal",
    "web3",
    "eth",
    "eth_tester",
    "eth_account",
    "numpy",
    "cryptography",
}


def run_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process."""
    return subprocess.run(
        [sys.executable, "-m", "fedproof", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command of our own with its path; plug-ins are somebody else's."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        elif not command.context_settings.get("ignore_unknown_options"):
            yield (*path, name), command


COMMANDS = dict(leaves(typer.main.get_command(app)))


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("command", [(), ("admin",), ("deploy",), ("policy", "new"), ("codec", "plan")])
def test_help_loads_nothing_heavy(command: tuple[str, ...]) -> None:
    """Help comes at once, without the libraries that take seconds to load."""
    script = (
        "import sys; from fedproof.cli import app\n"
        f"try: app({[*command, '--help']})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print('loaded:', *sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(result.stdout.partition("loaded:")[2].split())
    assert loaded & HEAVY == set()


def test_root_help_shows_every_command() -> None:
    """`fedproof --help` names our commands and the installed plug-ins."""
    text = run("--help")
    for name in (
        "devchain",
        "keys",
        "policy",
        "codec",
        "deploy",
        "admin",
        "version",
        "node",
        "aggregator",
        "audit",
    ):
        assert name in text


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_teaches(path: tuple[str, ...]) -> None:
    """Every command's help shows an example of itself."""
    words = " ".join(run(*path, "--help").split())
    assert f"Example: fedproof {' '.join(path)}" in words


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_password_on_the_command_line(path: tuple[str, ...]) -> None:
    """No command takes a password itself, which other users of the machine could read."""
    options = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    assert {option for option in options if "password" in option} <= {"--password-file"}


def test_refusal_is_one_line_and_status_2(tmp_path: Path) -> None:
    """What fedproof refuses ends with one message on standard error, status 2, and no traceback."""
    missing = tmp_path / "none.toml"
    result = run_process("policy", "show", missing)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f"error: {missing}: expected a TOML file, got: No such file or directory\n"


def test_wrong_usage_is_status_2() -> None:
    """An unknown option is named, with status 2."""
    result = run_process("version", "--jsn")
    assert result.returncode == 2
    assert "--jsn" in result.stderr


def test_version() -> None:
    """The version is that of the package."""
    from fedproof import __version__

    assert run_json("version")["fedproof"] == __version__


# Plug-ins


def make_plugin(folder: Path, name: str, source: str) -> None:
    """Install a distribution with one plug-in into a folder."""
    (folder / f"{name}_plugin.py").write_text(source)
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {name}_plugin:app\n")


def test_plugin_is_found_and_gets_everything(tmp_path: Path) -> None:
    """An installed plug-in is a command; its arguments, its help and its exit status are its own."""
    source = (
        "import typer\napp = typer.Typer()\n"
        "@app.command()\ndef show(place: str, days: int = 1) -> None:\n"
        "    'Tell the weather.'\n    print(place, days)\n    raise typer.Exit(7)\n"
        "@app.command()\ndef fail() -> None:\n"
        "    from fedproof.errors import NetworkError\n    raise NetworkError('no weather')\n"
    )
    make_plugin(tmp_path, "weather", source)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = run_process("weather", "show", "--days", "3", "Oslo", PYTHONPATH=path)
    assert (result.stdout, result.returncode) == ("Oslo 3\n", 7)
    result = run_process("weather", "show", "--help", PYTHONPATH=path)
    assert "fedproof weather show" in result.stdout
    result = run_process("weather", "fail", PYTHONPATH=path)
    assert (result.stderr, result.returncode) == ("error: no weather\n", 2)


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        (
            "node",
            "nosuchlibrary",
            "fedproof node needs, in a clone of fedproof: pip install '.[node]' (no module 'nosuchlibrary')",
        ),
        ("node", "fedproof.nothing", "fedproof node cannot be loaded: no module 'fedproof.nothing'"),
        ("other", "nosuchlibrary", "fedproof other cannot be loaded: no module 'nosuchlibrary'"),
    ],
)
def test_plugin_whose_libraries_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, missing: str, message: str
) -> None:
    """A role whose extra is not installed says how to install it, and only when it is used."""
    module = f"plugin_{name}_{missing.replace('.', '_')}"
    (tmp_path / f"{module}.py").write_text(f"import {missing}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    root = typer.Typer()
    root.command()(lambda: None)
    add_plugin(root, EntryPoint(name=name, value=f"{module}:app", group=GROUP))
    assert CliRunner().invoke(root, ["--help"]).exit_code == 0
    result = CliRunner().invoke(root, [name, "run"])
    assert isinstance(result.exception, ConfigurationError)
    assert str(result.exception) == message


# Keys


def test_keys(tmp_path: Path, password: Path) -> None:
    """Wallet, wrapping key, authority and certificate are made, and what is public of them is printed."""
    made = run_json("keys", "wallet", tmp_path / "wallet.json", "--password-file", password)
    keystore = json.loads((tmp_path / "wallet.json").read_text())
    assert as_address(made["address"], "address").hex() == keystore["address"].removeprefix("0x").lower()
    made = run_json("keys", "wrapping", tmp_path / "wrapping.key", "--password-file", password)
    assert made["digest"] == "0x" + public_key_digest(bytes.fromhex(made["public_key"][2:])).hex()
    run("keys", "tls-authority", tmp_path / "authority")
    issue = (
        "keys",
        "tls-certificate",
        tmp_path / "node",
        "--authority",
        tmp_path / "authority",
        "--name",
        "node",
    )
    made = run_json(*issue)
    assert made["digest"] == "0x" + certificate_digest(tmp_path / "node" / "tls.crt").hex()

    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for again in (("keys", "tls-authority", tmp_path / "authority"), issue):
        with pytest.raises(ConfigurationError, match="not overwritten"):
            run(*again)
    assert {path: path.read_bytes() for path in before} == before


def test_password_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file, FEDPROOF_PASSWORD counts; without either, the message names both."""
    monkeypatch.delenv("FEDPROOF_PASSWORD", raising=False)
    with pytest.raises(ConfigurationError, match=r"--password-file.*FEDPROOF_PASSWORD"):
        run("keys", "wallet", tmp_path / "wallet.json")
    assert not (tmp_path / "wallet.json").exists()


# A federation's operator


def test_operator(office: Office) -> None:
    """Deploy, admit, adopt a policy, ask for a key, suspend: each does it, and the status shows it."""
    book = office.deploy()
    assert json.loads(office.book.read_text())["contract"] == book["contract"]
    assert office.deploy()["contract"] == book["contract"]
    status = ("ledger", "show", "--address-book", office.book)
    assert run_json(*status)["members"] == []
    assert "none opened" in run(*status)

    ledger = office.register()
    node = office.node.address
    assert run_json(*status)["members"][0]["status"] == "applied"
    admitted = run_json("admin", "admit", node, *office.located)
    assert admitted["admitted"] == node
    assert admitted["gas"] > 21_000
    assert run_json("admin", "admit", node, *office.located) == {"admitted": node, "already": True}

    policy = write_policy(office.folder / "policy.toml")
    adopt = ("admin", "policy", office.folder / "policy.toml", *office.located)
    assert run_json(*adopt)["version"] == 1
    assert "transaction" not in run_json(*adopt)
    ledger.approve_policy(1, policy.digest)
    assert run_json(*status)["members"][0]["approved_policy"]
    write_policy(office.folder / "policy.toml", max_examples=2000)
    assert run_json(*adopt)["version"] == 2
    assert not run_json(*status)["members"][0]["approved_policy"]

    assert run_json("admin", "epoch", "--key-maker", node, *office.located)["epoch"] == 1
    facts = run_json(*status)
    assert (facts["policy_version"], facts["key_maker"], facts["round"]) == (2, node, None)
    assert facts["policy"] != "0x" + policy.digest.hex()
    assert [(each["node"], each["status"]) for each in facts["members"]] == [(node, "admitted")]
    text = " ".join(run(*status).split())
    assert "the next one awaited from" in text
    assert "admitted" in text

    run("admin", "suspend", node, *office.located)
    assert run_json(*status)["members"][0]["status"] == "suspended"


def test_wrong_password(office: Office, password: Path) -> None:
    """A wrong password names the keystore, and nothing is sent."""
    password.write_text("wrong\n")
    with pytest.raises(
        ConfigurationError, match=r"admin\.json: expected the password that the keystore was made"
    ):
        office.deploy()
    assert not office.book.exists()


def test_only_the_admin_admits(office: Office, password: Path) -> None:
    """A wallet without the role is refused by the contract, and the message names what it refused."""
    office.deploy()
    office.register()
    options = ("--keystore", office.folder / "node.json", "--password-file", password)
    with pytest.raises(Reverted, match="AccessControlUnauthorizedAccount"):
        run("admin", "admit", office.node.address, *options, "--address-book", office.book)


def test_address_without_code(office: Office) -> None:
    """An address book whose address holds no contract is refused."""
    office.deploy()
    book = json.loads(office.book.read_text())
    office.book.write_text(json.dumps({**book, "contract": "0x" + "11" * 20}))
    with pytest.raises(WrongContract):
        run("ledger", "show", "--address-book", office.book)


def test_no_test_ether(office: Office, password: Path) -> None:
    """A wallet without ether is told so, by the chain."""
    create_wallet(office.folder / "poor.json", PASSWORD, iterations=2)
    options = ("--keystore", office.folder / "poor.json", "--password-file", password)
    with pytest.raises(FedproofError, match="insufficient funds"):
        run("deploy", *options, "--aggregator", office.admin.address, "--rpc-url", office.url)


def test_unreachable_chain(tmp_path: Path, password: Path, free_port: int) -> None:
    """A chain that does not answer is tried a few times, and the message says where and how often."""
    create_wallet(tmp_path / "admin.json", PASSWORD, iterations=2)
    options = (
        "--keystore",
        tmp_path / "admin.json",
        "--password-file",
        password,
        "--output",
        tmp_path / "book",
    )
    url = f"http://127.0.0.1:{free_port}"
    with pytest.raises(LedgerUnreachable, match=rf"{url}: expected an answer .* got none in 4 attempts"):
        run("deploy", *options, "--aggregator", "0x" + "11" * 20, "--rpc-url", url)
    assert not (tmp_path / "book").exists()


# Policies


def test_new_policy(tmp_path: Path) -> None:
    """A policy names the model that the task builds under the seed, and shows again what was written."""
    path = tmp_path / "policy.toml"
    settings = tmp_path / "task.toml"
    settings.write_text("hospital = 0\nhospitals = 4\n")
    options = ("--task-config", settings, "--task-setting", "hospitals=3", "--seed", 9, "--bits", 12)
    options += ("--retention-days", 30)
    made = run_json("policy", "new", "--task", TASK, "--output", path, *options)
    policy = Policy.load(path)
    assert made["digest"] == "0x" + policy.digest.hex()
    assert (policy.name, policy.model.seed, policy.codec.bits) == ("BreastCancer", 9, 12)
    assert (policy.evidence.retention_days, made["retention_days"]) == (30, 30)
    shown = run_json("policy", "show", path)
    assert {**shown, "policy": str(path)} == made
    document = tomllib.loads(path.read_text())
    for section in ("codec", "rounds", "training", "privacy", "evidence"):
        assert document[section].items() <= shown.items()
    with pytest.raises(ConfigurationError, match="not overwritten"):
        run("policy", "new", "--task", TASK, "--output", path, *options)


def test_policy_options_of_the_codec(tmp_path: Path) -> None:
    """What travels, and under which clips, can be chosen; the policy says what an update then costs.

    The first model's digest covers its clips, which are all the policy's.
    """
    path = tmp_path / "policy.toml"
    options = ("--clip", 0.5, "--clip-margin", 8, "--keep-one-in", 4, "--error-feedback")
    made = run_json(
        "policy", "new", "--task", TASK, "--task-setting", "hospital=0", "--output", path, *options
    )
    policy = Policy.load(path)
    codec = policy.codec
    assert (codec.clip, codec.clip_margin, codec.keep_one_in, codec.error_feedback) == (0.5, 8.0, 4, True)
    assert (made["parameters"], made["values_per_update"]) == (530, 133)
    # One frame: 4096 coefficients of 49 bits, and a seed.
    assert (made["chunks"], made["bytes_per_update"]) == (1, 4096 * 49 // 8 + 64)
    layout, flat = describe_task(TASK, {"hospital": 0}, seed=7)
    genesis = Model(flat, (0.5,) * 4).compute_digest(layout.digest)
    assert (policy.model.genesis, made["genesis"]) == (genesis, "0x" + genesis.hex())
    assert {name: made[name] for name in ("clip", "clip_margin", "keep_one_in", "error_feedback")} == {
        "clip": 0.5,
        "clip_margin": 8.0,
        "keep_one_in": 4,
        "error_feedback": True,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clip-margin", "0.5"], r"codec.clip_margin: expected 0 .* or 1 to 1024, got 0\.5"),
        (["--keep-one-in", "0"], "codec.keep_one_in: expected greater than or equal to 1, got 0"),
        (["--bits", "40"], "codec.bits: expected .*24, got 40"),
        (["--min-contributors", "9", "--max-contributors", "8"], "rounds.min_contributors: expected at most"),
        (["--task-setting", "hospital"], "--task-setting: expected KEY=VALUE, got 'hospital'"),
        (["--task-config", "none.toml"], "none.toml: expected a TOML file"),
    ],
)
def test_policy_that_cannot_be(tmp_path: Path, options: list[str], message: str) -> None:
    """A mistake is named before any model is built, and nothing is written."""
    with pytest.raises(ConfigurationError, match=message):
        run("policy", "new", "--task", "no.such:Task", "--output", tmp_path / "policy.toml", *options)
    assert not (tmp_path / "policy.toml").exists()


def test_policy_of_an_unknown_task(tmp_path: Path) -> None:
    """A task that cannot be found is named."""
    with pytest.raises(ConfigurationError, match="no_such_module"):
        run("policy", "new", "--task", "no_such_module:Task", "--output", tmp_path / "policy.toml")
