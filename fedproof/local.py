"""A whole federation on one machine: every role its own operating-system process, started as its user would.

The demo, the end-to-end tests and the benchmarks share this. It runs commands and reads the log each process
writes; no key or update passes through it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import tomlkit
from eth_account.signers.local import LocalAccount
from web3 import HTTPProvider, Web3
from web3.types import RPCEndpoint

from fedproof.digests import Address, as_address, checksum_address
from fedproof.errors import ConfigurationError, FedproofError
from fedproof.keys.tls import issue_certificate, make_authority
from fedproof.keys.wallet import create_wallet
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import AddressBook, deploy_federation
from fedproof.policy import Policy

Event = dict[str, Any]

START_TIMEOUT_S = 90.0
ONE_ETHER = 10**18


class ProcessFailed(FedproofError):
    """A process of the local federation ended when it should not have."""


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What a local federation consists of.

    Attributes:
        task: ``package.module:Class``.
        nodes: each node's name and the settings of its task.
        rounds: how many rounds the aggregator opens.
        policy: options of ``fedproof policy new``, such as ``{"bits": "15", "error-feedback": True}``.
        rpc_url: a chain to use; a development chain is started when it is None.
        aggregator: settings of the aggregator beside the usual ones.
        chain: likewise of everybody's section ``[chain]``.
    """

    task: str
    nodes: Mapping[str, Mapping[str, object]]
    rounds: int
    policy: Mapping[str, str | bool] = field(default_factory=dict)
    rpc_url: str | None = None
    aggregator: Mapping[str, object] = field(default_factory=dict)
    chain: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class _Running:
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    beginning: int
    """Where in the log this process begins: an earlier one of its name may have written before."""
    offset: int


class LocalFederation:
    """Sets up, runs and stops a federation under one folder. Use as a context manager."""

    def __init__(self, folder: Path, plan: LocalPlan) -> None:
        self.folder = folder.resolve()
        self.plan = plan
        self.rpc_url = plan.rpc_url or ""
        self.node_names: dict[str, str] = {}
        self.book: AddressBook | None = None
        self._admin: LocalAccount | None = None
        self._processes: dict[str, _Running] = {}
        # Fixed, so that nodes find the aggregator again after its restart; a test may put a proxy between.
        self.listen_port = self.target_port = _free_port()
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ConfigurationError(f"expected an empty or new folder for the run, got {self.folder}")
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> LocalFederation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def contract(self) -> str:
        """The contract's address, with its checksum."""
        if self.book is None:
            raise ConfigurationError("the federation is not deployed yet: call prepare() first")
        return checksum_address(self.book.contract)

    # Set-up, in the order in which an operator and the participants would do it.

    def prepare(self) -> None:
        """Start the chain, deploy the contract, and let every node join."""
        if self.plan.rpc_url is None:
            self._start_chain()
        operator = self.folder / "aggregator"
        operator.mkdir()
        password = self._write_password(operator / "password")
        self._admin = create_wallet(operator / "admin.json", password)
        aggregator = create_wallet(operator / "wallet.json", password)
        self.issue_certificate(operator, "aggregator")

        policy_path = self.folder / "policy.toml"
        describe = self._command(
            "policy",
            "new",
            "--task",
            self.plan.task,
            "--output",
            str(policy_path),
            *make_policy_options(self.plan),
        )
        inits = {name: self._init_node(name) for name in self.plan.nodes}
        _finish(describe, "fedproof policy new")
        for name, process in inits.items():
            _finish(process, f"fedproof node init ({name})")
            self._configure_chain(name)
        policy = Policy.load(policy_path)

        self.node_names = {
            "0x" + _read_json(self._node_folder(name) / "wallet.json")["address"]: name
            for name in self.plan.nodes
        }
        addresses = [as_address(raw, "wallet.json") for raw in self.node_names]
        self._fund(
            [
                as_address(self._admin.address, "admin"),
                as_address(aggregator.address, "aggregator"),
                *addresses,
            ]
        )
        self.book = deploy_federation(
            self.rpc_url,
            self._admin,
            aggregator=as_address(aggregator.address, "aggregator"),
            output=self.folder / "address-book.json",
        )
        self._write_run()

        registrations = {
            name: self._command("node", "register", "--config", str(self._node_folder(name) / "node.toml"))
            for name in self.plan.nodes
        }
        for name, process in registrations.items():
            _finish(process, f"fedproof node register ({name})")
        ledger = self.admin_ledger()
        for address in addresses:
            ledger.admit(address)
        ledger.adopt_policy(policy)
        ledger.request_epoch(addresses[0])

    def issue_certificate(self, folder: Path, name: str) -> None:
        """Make a TLS key and certificate for this machine, and the authority first if there is none."""
        authority = self.folder / "authority"
        if not authority.exists():
            make_authority(authority, "fedproof local authority")
        issue_certificate(folder, authority, name, hosts=["localhost", "127.0.0.1"])

    def start(self) -> None:
        """Start the aggregator and the nodes."""
        self.start_aggregator()
        for name in self.plan.nodes:
            self.start_node(name)

    def start_aggregator(self) -> None:
        """Start the aggregator's daemon and wait until it serves."""
        self._write_aggregator_config()
        self._spawn(
            "aggregator",
            ["aggregator", "run", "--config", str(self.folder / "aggregator" / "aggregator.toml")],
        )
        self._await_event("aggregator", "serving")

    def start_node(self, name: str) -> None:
        """Start one node's daemon."""
        config = self._node_folder(name) / "node.toml"
        self._spawn(name, ["node", "run", "--config", str(config), "--until-round", str(self.plan.rounds)])

    def admin_ledger(self) -> Ledger:
        """Return a connection that signs as the admin."""
        if self.book is None or self._admin is None:
            raise ConfigurationError("the federation is not deployed yet: call prepare() first")
        return Ledger.connect(self.rpc_url, self.book.contract, account=self._admin)

    # While it runs

    def events(self) -> Iterator[Event]:
        """Yield what the processes have logged since the last call, each event with its process's name."""
        for running in list(self._processes.values()):
            yield from self._read_log(running)

    def is_running(self, name: str) -> bool:
        """Return whether a process is alive."""
        return name in self._processes and self._processes[name].process.poll() is None

    def check_alive(self, *, finished_ok: bool = True) -> None:
        """Raise ProcessFailed if a process has ended with an error."""
        for running in self._processes.values():
            status = running.process.poll()
            if status is not None and not (finished_ok and status == 0):
                raise ProcessFailed(f"{running.name} ended with status {status}\n{self.tail(running.name)}")

    def tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines of a process's logs, for an error message."""
        logs = [self.folder / "logs" / f"{name}.{kind}" for kind in ("jsonl", "err")]
        text = "\n".join(path.read_text(errors="replace") for path in logs if path.exists())
        return "\n".join(text.splitlines()[-lines:])

    def pid(self, name: str) -> int:
        """Return a process's number."""
        return self._processes[name].process.pid

    def kill(self, name: str) -> None:
        """Kill a process as `kill -9` does."""
        self._processes[name].process.kill()
        self._processes[name].process.wait()

    def is_done(self) -> bool:
        """Return whether every node has ended, which each does once the last round is over."""
        return not any(self.is_running(name) for name in self.plan.nodes)

    def stop(self) -> None:
        """Stop every process, the chain last; those that do not heed are killed."""
        for running in reversed(list(self._processes.values())):
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        for running in reversed(list(self._processes.values())):
            try:
                running.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()

    # Parts

    def _start_chain(self) -> None:
        self._spawn("devchain", ["devchain", "--port", "0", "--data-dir", str(self.folder / "chain")])
        self.rpc_url = str(self._await_event("devchain", "serving")["url"])

    def _init_node(self, name: str) -> subprocess.Popen[bytes]:
        folder = self._node_folder(name)
        folder.parent.mkdir(exist_ok=True)
        password_file = self.folder / "nodes" / f"{name}.password"
        self._write_password(password_file)
        command = ["node", "init", str(folder), "--name", name, "--task", self.plan.task]
        command += ["--password-file", str(password_file), "--authority", str(self.folder / "authority")]
        command += ["--policy", str(self.folder / "policy.toml"), "--rpc-url", self.rpc_url]
        command += [
            "--address-book",
            str(self.folder / "address-book.json"),
            "--target",
            f"localhost:{self.target_port}",
        ]
        if len(self.plan.nodes) > (os.cpu_count() or 1):
            command += ["--codec-processes", "1"]  # a process for each core and node would only take memory
        for key, value in self.plan.nodes[name].items():
            command += ["--task-setting", f"{key}={json.dumps(value)}"]
        return self._command(*command)

    def _configure_chain(self, name: str) -> None:
        path = self._node_folder(name) / "node.toml"
        config: Any = tomlkit.parse(path.read_text())
        config["chain"].update(self.plan.chain)
        path.write_text(tomlkit.dumps(config))

    def _write_aggregator_config(self) -> None:
        folder = self.folder / "aggregator"
        path = folder / "aggregator.toml"
        if path.exists():
            return
        config: dict[str, Any] = {
            "name": "aggregator",
            "state_dir": "state",
            "store": "store",
            "policy": "../policy.toml",
            "listen": f"127.0.0.1:{self.listen_port}",
            "rounds": self.plan.rounds,
            "expected_nodes": len(self.plan.nodes),
            **self.plan.aggregator,
            "chain": {
                "rpc_url": self.rpc_url,
                "address_book": "../address-book.json",
                "keystore": "wallet.json",
                "password_file": "password",
                **self.plan.chain,
            },
            "tls": {
                "ca": "../authority/ca.crt",
                "certificate": "tls.crt",
                "key": "tls.key",
            },
        }
        path.write_text(tomlkit.dumps(config))

    def _write_run(self) -> None:
        if self.book is None:
            raise ConfigurationError("the federation is not deployed yet")
        facts = {
            "rpc_url": self.rpc_url,
            "chain_id": self.book.chain_id,
            "contract": checksum_address(self.book.contract),
            "policy": "policy.toml",
            "store": "aggregator/store",
            "chain": "chain" if self.plan.rpc_url is None else None,
            "nodes": self.node_names,
        }
        (self.folder / "run.json").write_text(json.dumps(facts, indent=2) + "\n")

    def _fund(self, addresses: Sequence[Address]) -> None:
        """Give test ether, which devchain and anvil both do for the asking."""
        provider = Web3(HTTPProvider(self.rpc_url)).provider
        for address in addresses:
            answer = provider.make_request(
                RPCEndpoint("anvil_setBalance"), [checksum_address(address), hex(100 * ONE_ETHER)]
            )
            if "error" in answer:
                raise ConfigurationError(
                    f"expected a chain that gives test ether (anvil_setBalance) at {self.rpc_url}, "
                    f"got {answer['error']}"
                )

    def _node_folder(self, name: str) -> Path:
        return self.folder / "nodes" / name

    @staticmethod
    def _write_password(path: Path) -> str:
        password = secrets.token_urlsafe(24)
        path.touch(mode=0o600)
        path.write_text(password + "\n")
        return password

    def _command(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-m", "fedproof", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
        )

    def _spawn(self, name: str, arguments: Sequence[str]) -> None:
        log = self.folder / "logs" / f"{name}.jsonl"
        beginning = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out, (self.folder / "logs" / f"{name}.err").open("ab") as err:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", "fedproof", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=_environment(),
                start_new_session=True,  # Ctrl-C reaches us, and we stop them in order
            )
        previous = self._processes.get(name)
        self._processes[name] = _Running(
            name, process, log, beginning, offset=previous.offset if previous else beginning
        )

    def _await_event(self, name: str, kind: str) -> Event:
        running = self._processes[name]
        ahead = replace(running, offset=running.beginning)  # events() has these still to come
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            for event in self._read_log(ahead):
                if event.get("event") == kind:
                    return event
            if running.process.poll() is not None:
                raise ProcessFailed(f"{name} ended before it was {kind}\n{self.tail(name)}")
            time.sleep(0.05)
        raise ProcessFailed(f"{name} was not {kind} within {START_TIMEOUT_S:.0f} s\n{self.tail(name)}")

    @staticmethod
    def _read_log(running: _Running) -> Iterator[Event]:
        with running.log.open("rb") as log:
            log.seek(running.offset)
            fresh = log.read()
        complete = fresh[: fresh.rfind(b"\n") + 1]
        for line in complete.splitlines(keepends=True):
            running.offset += len(line)
            with contextlib.suppress(json.JSONDecodeError):  # a library may print a line of its own
                event = json.loads(line)
                if isinstance(event, dict):
                    yield {**event, "process": running.name}


def make_policy_options(plan: LocalPlan) -> list[str]:
    """Return the options of `fedproof policy new`: the first node's task settings, and the plan's policy."""
    settings = next(iter(plan.nodes.values()))
    options = [
        part for key, value in settings.items() for part in ("--task-setting", f"{key}={json.dumps(value)}")
    ]
    for key, value in plan.policy.items():
        if isinstance(value, bool):
            options.append(f"--{key}" if value else f"--no-{key}")
        else:
            options += [f"--{key}", value]
    return options


def _finish(process: subprocess.Popen[bytes], what: str) -> None:
    output, _ = process.communicate(timeout=START_TIMEOUT_S)
    if process.returncode != 0:
        raise ProcessFailed(
            f"{what} ended with status {process.returncode}\n{output.decode(errors='replace')}"
        )


def _read_json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    # Every process of this machine's federation gets one thread, as two cores are shared by all of them.
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
