"""What `fedproof node init` makes: a folder with configuration, wallet, wrapping key and TLS certificate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from fedproof.digests import Address, as_address
from fedproof.errors import ConfigurationError
from fedproof.files import PRIVATE, PUBLIC, read_whole, write_new
from fedproof.keys.tls import issue_certificate
from fedproof.keys.wallet import create_wallet
from fedproof.keys.wrapping import WrappingKey

CONFIG_NAME = "node.toml"


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What the operator of a new node has decided.

    Attributes:
        task: ``package.module:Class``.
        task_settings: what the class's constructor takes.
        policy: the federation's policy document; need not exist yet.
        target: the aggregator's ``host:port``.
        rpc_url: a chain endpoint; the address book's when None.
        contract: the contract's address as text, or
        address_book: the file that names it; need not exist yet.
        authority: folder of the certificate authority, where this machine may issue from it.
        password_file: read again at each start, when not None.
        codec_processes: processes for the codec's work; 0 is one for each core.
    """

    name: str
    task: str
    task_settings: Mapping[str, object]
    policy: Path
    target: str
    rpc_url: str | None
    contract: str | None
    address_book: Path | None
    authority: Path | None
    password_file: Path | None
    codec_processes: int


def make_node_folder(folder: Path, plan: NodePlan, *, password: str) -> Address:
    """Make a node's folder, which must be new or empty, and return the node's address.

    Raises:
        ConfigurationError: the folder holds something, the plan names no contract, or the authority cannot be
        used.
    """
    if (plan.contract is None) == (plan.address_book is None):
        raise ConfigurationError("expected one of --contract and --address-book, got both or neither")
    if plan.contract is not None and plan.rpc_url is None:
        raise ConfigurationError("expected --rpc-url beside --contract, got none")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder}: expected a new or empty folder, got one that holds files")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    account = create_wallet(folder / "wallet.json", password)
    WrappingKey.generate().save(folder / "wrapping.key", password)
    if plan.authority is not None:
        issue_certificate(folder, plan.authority, plan.name, hosts=["localhost"])
        ca = read_whole(plan.authority / "ca.crt", "the authority's certificate in PEM")
        write_new(folder / "ca.crt", ca, mode=PUBLIC)
    # The configuration last: where it stands, everything that it names stands too.
    write_new(folder / CONFIG_NAME, _write_toml(folder, plan).encode(), mode=PRIVATE)
    return as_address(account.address, "wallet")


def _write_toml(folder: Path, plan: NodePlan) -> str:
    document = tomlkit.document()
    document.add(
        tomlkit.comment("Written by `fedproof node init`; node/node.example.toml explains every key.")
    )
    chain: dict[str, object] = {"keystore": "wallet.json"}
    if plan.rpc_url is not None:
        chain["rpc_url"] = plan.rpc_url
    if plan.contract is not None:
        chain["contract"] = plan.contract
    if plan.address_book is not None:
        chain["address_book"] = _relative(plan.address_book, folder)
    if plan.password_file is not None:
        chain["password_file"] = _relative(plan.password_file, folder)
    document.update(
        {
            "name": plan.name,
            "state_dir": "state",
            "policy": _relative(plan.policy, folder),
            "wrapping_key": "wrapping.key",
            "codec_processes": plan.codec_processes,
            "task": {"reference": plan.task, "settings": dict(plan.task_settings)},
            "chain": chain,
            "aggregator": {"target": plan.target},
            "tls": {"ca": "ca.crt", "certificate": "tls.crt", "key": "tls.key"},
            "verify": {"chunks": 3},
        }
    )
    return tomlkit.dumps(document)


def _relative(path: Path, folder: Path) -> str:
    # Relative paths keep a run's folder movable.
    return os.path.relpath(path.resolve(), folder.resolve())
