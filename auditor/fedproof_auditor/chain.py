"""Reaching the chain that is audited, or serving it again from a development chain's journal."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

from fedproof.digests import checksum_address
from fedproof.errors import ConfigurationError, LedgerUnreachable
from fedproof.ledger.endpoint import Endpoint
from fedproof_auditor.evidence import fetch_code
from fedproof_auditor.run import Target

JOURNAL_FILE = "blocks.jsonl"
START_TIMEOUT_S = 120.0
_ATTEMPTS = 4
_POLL_S = 0.05
_STOP_TIMEOUT_S = 5.0


@contextmanager
def open_chain(target: Target) -> Iterator[tuple[Endpoint, str]]:
    """Yield an endpoint that serves the target's chain, and a note when it is not the one that was named.

    Raises:
        ConfigurationError: the endpoint serves another chain, and there is no journal.
        LedgerUnreachable: the endpoint does not answer, and there is no journal.
    """
    has_journal = target.journal is not None and (target.journal / JOURNAL_FILE).is_file()
    endpoint = Endpoint.connect(target.rpc_url, attempts=1 if has_journal else _ATTEMPTS)
    try:
        trouble = _find_trouble(endpoint, target)
    except LedgerUnreachable:
        if not has_journal:
            raise
        trouble = f"{endpoint.url} does not answer"
    except ConfigurationError as error:
        if not has_journal:
            raise
        trouble = str(error)
    if trouble and target.journal is not None and has_journal:
        with serve_journal(target.journal) as url:
            yield (
                Endpoint.connect(url),
                f"{trouble}; auditing the chain's journal in {target.journal} instead",
            )
    else:
        yield endpoint, ""  # an address without the contract is what check 1 is about


@contextmanager
def serve_journal(folder: Path) -> Iterator[str]:
    """Serve a copy of a development chain's journal from a process of its own, and yield its URL.

    The process ends with the context, also when that is left by Ctrl-C or SIGTERM. The journal is only read.

    Raises:
        ConfigurationError: the journal cannot be served, or what serves it is not installed.
    """
    if find_spec("eth_tester") is None:  # looked for, not imported: the chain runs in a process of its own
        raise ConfigurationError(
            f"{folder}: expected eth-tester, to serve a development chain's journal, got no such module; "
            "in a clone of fedproof: pip install '.[devchain]'"
        )
    with TemporaryDirectory(prefix="fedproof-audit-") as temporary:
        copy = Path(temporary)
        shutil.copyfile(folder / JOURNAL_FILE, copy / JOURNAL_FILE)
        command = [sys.executable, "-m", "fedproof", "devchain", "--port", "0"]
        command += ["--data-dir", str(copy), "--read-only"]
        with _ending_on_sigterm(), (copy / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us, and we stop it
            )
            try:
                yield _await_url(process, copy / "log", folder)
            finally:
                _stop(process)


def _find_trouble(endpoint: Endpoint, target: Target) -> str:
    """Return why there is nothing to audit at the endpoint, or nothing.

    Raises:
        ConfigurationError: it serves another chain.
        LedgerUnreachable: it does not answer.
    """
    chain_id = endpoint.ask("eth_chainId", lambda: endpoint.web3.eth.chain_id)
    if target.chain_id not in (None, chain_id):
        raise ConfigurationError(f"{endpoint.url}: expected chain {target.chain_id}, got chain {chain_id}")
    address = checksum_address(target.contract)
    if not fetch_code(endpoint, target.contract):
        return f"{endpoint.url}: expected a contract at {address}, got no code"
    return ""


def _await_url(process: subprocess.Popen[bytes], log: Path, folder: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        has_ended = process.poll() is not None
        lines = log.read_bytes().split(b"\n")[:-1]
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a library may print a line of its own
            if isinstance(event, dict) and event.get("event") == "serving":
                return str(event["url"])
        if has_ended:
            said = log.read_text(errors="replace").strip()
            raise ConfigurationError(f"{folder}: expected a development chain's journal, got: {said}")
        time.sleep(_POLL_S)
    raise ConfigurationError(f"{folder}: expected the chain to be served within {START_TIMEOUT_S:.0f} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack, as Ctrl-C does, so that the process above does not outlive us."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears of signals
        return

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
