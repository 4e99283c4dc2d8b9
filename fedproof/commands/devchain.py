"""`fedproof devchain`: an Ethereum chain for development, shared by the processes of one machine."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from fedproof.commands.plugins import explain_missing_module

ONE_ETHER = 10**18
FUND_ETHER = 10_000


def devchain(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)
    ] = 8545,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder in which blocks are kept, to be served again after a restart.")
    ] = None,
    block_time: Annotated[
        float,
        typer.Option(help="Seconds without a transaction until an empty block is mined; 0 for never.", min=0),
    ] = 1.0,
    chain_id: Annotated[
        int | None, typer.Option(help="Chain id; of an existing chain its own.", show_default="31337", min=1)
    ] = None,
    fund: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Give this address {FUND_ETHER:,} test ether; may be repeated.", metavar="ADDRESS"
        ),
    ] = None,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="Serve the blocks in --data-dir without adding any, for an audit."),
    ] = False,
) -> None:
    """Serve an Ethereum chain for development over JSON-RPC, until Ctrl-C.

    Every transaction is mined at once. Test ether is free: the method `anvil_setBalance` sets any balance,
    and the ten accounts of the mnemonic "test test test test test test test test test test test junk"
    have 10,000 ether each, as with anvil. Nothing here is secret, and nothing of value belongs here.

    Example: `fedproof devchain --port 0 --data-dir runs/mine/chain --fund 0x7099...79C8`

    Example: `fedproof devchain --data-dir runs/mine/chain --read-only`
    """
    with explain_missing_module("fedproof devchain", extra="devchain"):
        from fedproof.devchain.backend import DEFAULT_CHAIN_ID, DevChain
        from fedproof.devchain.server import DevChainServer
    from fedproof.devchain.journal import Genesis, Journal
    from fedproof.digests import as_address
    from fedproof.errors import ConfigurationError
    from fedproof.logs import configure_logs

    accounts = [as_address(address, "--fund") for address in fund or []]
    if read_only and data_dir is None:
        raise ConfigurationError("--read-only: expected --data-dir with a chain to serve, got none")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    log = configure_logs("devchain", "devchain")

    started = time.monotonic()
    genesis = Genesis(chain_id=chain_id or DEFAULT_CHAIN_ID, timestamp=int(time.time()))
    journal = None if data_dir is None else Journal(data_dir, default=genesis, read_only=read_only)
    try:
        if journal is not None:
            genesis = journal.genesis
            if chain_id not in (None, genesis.chain_id):
                raise ConfigurationError(
                    f"--chain-id: expected {genesis.chain_id} as in {journal.path}, got {chain_id}"
                )
            if journal.torn_bytes:
                log.warning(
                    "journal_torn", file=str(journal.path), bytes=journal.torn_bytes, cut_off=not read_only
                )
        chain = DevChain(genesis, journal=journal)
        if chain.head.number:
            log.info("replayed", blocks=chain.head.number, seconds=round(time.monotonic() - started, 3))
        for account in accounts:
            chain.mine(balances={account: FUND_ETHER * ONE_ETHER})
        with DevChainServer(chain, host=host, port=port, block_time_s=block_time) as server:
            log.info("serving", url=server.url, chain_id=genesis.chain_id, block=chain.head.number)
            stop.wait()
        log.info("stopped", block=chain.head.number)
    finally:
        if journal is not None:
            journal.close()
