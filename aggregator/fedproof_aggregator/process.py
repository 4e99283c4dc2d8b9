"""The aggregator's process: builds what the configuration says, connects it, and ends it in order."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from structlog.typing import FilteringBoundLogger

from fedproof.config import load_address_book
from fedproof.digests import checksum_address
from fedproof.errors import ConfigurationError
from fedproof.keys.wallet import read_password
from fedproof.ledger.client import Ledger
from fedproof.ledger.connection import open_ledger, open_signer
from fedproof.ledger.doctor import warn_about_finality
from fedproof.ledger.events import AGGREGATOR_ROLE
from fedproof.memory import share_one_heap
from fedproof.policy import Policy
from fedproof.store import ObjectStore
from fedproof_aggregator.allowance import Allowance
from fedproof_aggregator.config import AggregatorConfig
from fedproof_aggregator.daemon import Daemon
from fedproof_aggregator.intake import Intake
from fedproof_aggregator.journal import Journal
from fedproof_aggregator.keyrelay import KeyRelay
from fedproof_aggregator.outlet import Outlet
from fedproof_aggregator.retention import Retention
from fedproof_aggregator.rounds import Parts
from fedproof_aggregator.server import (
    DOWNLOAD_PATIENCE_S,
    STREAMS_AT_WORK,
    UPLOAD_PATIENCE_S,
    compute_threads,
    start_server,
)
from fedproof_aggregator.service import AggregationService
from fedproof_aggregator.statements import Statements
from fedproof_aggregator.summation import Summation
from fedproof_aggregator.terms import TermsShelf, verify_policy
from fedproof_aggregator.turnstile import Turnstile
from fedproof_aggregator.view import LedgerView


def run_aggregator(config: AggregatorConfig, *, logger: FilteringBoundLogger) -> None:
    """Serve and drive rounds until SIGTERM or Ctrl-C, or to the last round, where the configuration says so.

    Raises:
        ConfigurationError: a file cannot be used, the state is another federation's, the account lacks the
            aggregator's role, or the address cannot be bound.
        PolicyMismatch: the ledger has adopted another policy.
        LedgerError: the chain cannot be reached at the start, or the contract is another one.
    """
    share_one_heap()
    policy = Policy.load(config.policy)
    with locked(config.state_dir):
        ledger = connect_ledger(config)
        first_block = load_address_book(config.chain.address_book).block if config.chain.address_book else 0
        view = LedgerView(ledger, first_block=first_block, finality=config.chain.finality)
        adopted = view.policy()
        if adopted is not None:
            verify_policy(policy, adopted, path=config.policy)
            warn_about_finality(ledger, config.chain.finality, logger)
        store = ObjectStore(config.store_dir)
        store.discard_partial()
        journal = Journal(
            config.state_dir / "state.sqlite", chain_id=ledger.chain_id, contract=ledger.contract
        )
        summation = Summation(view=view, store=store, processes=config.codec_processes)
        try:
            shelf = TermsShelf(policy, store=store)
            key_relay = KeyRelay(view=view, store=store)
            statements = Statements(ledger=ledger, view=view, journal=journal, store=store)
            retention = Retention(
                ledger, view=view, store=store, shelf=shelf, finality=config.chain.finality, logger=logger
            )
            parts = Parts(ledger, view, store, journal, shelf, statements, key_relay, summation)
            serve(config, policy, parts, retention, logger=logger)
        finally:
            summation.stop()
            journal.close()


def serve(
    config: AggregatorConfig,
    policy: Policy,
    parts: Parts,
    retention: Retention,
    *,
    logger: FilteringBoundLogger,
) -> None:
    """Run the gRPC server, the loop and the retention beside each other, and end them."""
    daemon = Daemon(config, policy, parts, logger=logger)
    service = AggregationService(
        view=parts.view,
        outlet=Outlet(view=parts.view, store=parts.store, statements=parts.statements, retention=retention),
        intake=Intake(
            view=parts.view,
            store=parts.store,
            journal=parts.journal,
            shelf=parts.shelf,
            statements=parts.statements,
            summation=parts.summation,
        ),
        key_relay=parts.key_relay,
        statements=parts.statements,
        uploads=Turnstile(STREAMS_AT_WORK, patience_s=UPLOAD_PATIENCE_S),
        downloads=Turnstile(STREAMS_AT_WORK, patience_s=DOWNLOAD_PATIENCE_S),
        policy_digest=policy.digest,
        logger=logger,
        on_progress=daemon.wake,
    )
    with stopping_on_signals(daemon):
        threads = compute_threads(policy.codec.max_contributors)
        server = start_server(service, config.listen, tls=config.tls, threads=threads, allowance=Allowance())
        logger.info("serving", address=server.address)
        try:
            with retention.running():
                daemon.run()
        finally:
            server.stop(config.shutdown_grace_s)
            logger.info("stopped")


def connect_ledger(config: AggregatorConfig) -> Ledger:
    """Return the ledger, signing as the aggregator.

    Raises:
        ConfigurationError: the keystore cannot be used, or its account lacks the aggregator's role.
        LedgerError: the chain cannot be reached, or the contract is another one.
    """
    signer = open_signer(config.chain, lambda: read_password(config.chain.password_file))
    ledger = open_ledger(config.chain, signer, state_dir=config.state_dir)
    if not ledger.has_role(AGGREGATOR_ROLE, ledger.address):
        raise ConfigurationError(
            f"{config.chain.keystore or config.chain.signer_url}: expected an account that holds the "
            f"aggregator's role in the contract {checksum_address(ledger.contract)}, "
            f"got {checksum_address(ledger.address)}"
        )
    return ledger


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second aggregator out of a state folder while the first one runs.

    Raises:
        ConfigurationError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"{folder}: expected a state folder that nobody uses, another aggregator runs on it"
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def stopping_on_signals(daemon: Daemon) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the loop after its step; a second one ends the process at once."""

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        daemon.stop()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
