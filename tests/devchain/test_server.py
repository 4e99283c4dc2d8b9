"""HTTP, and the heartbeat."""

from __future__ import annotations

import concurrent.futures
import http.client
import socket
import threading
import time
from typing import Any

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from fedproof.devchain.backend import DevChain
from fedproof.devchain.journal import Genesis
from fedproof.devchain.server import MAX_BODY, DevChainServer, compute_wait_s
from fedproof.errors import ConfigurationError

CHAIN_ID = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}'
ONE = "0x" + "11" * 20


def test_connection_is_kept(world: Any) -> None:
    """Many requests go over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", int(world.server.url.rpartition(":")[2]), timeout=5)
    for _ in range(3):
        connection.request("POST", "/", CHAIN_ID)
        kept = connection.sock
        response = connection.getresponse()
        assert response.read() == b'{"jsonrpc":"2.0","id":1,"result":"0x7a69"}'
        assert response.headers["Content-Type"] == "application/json"
        assert connection.sock is kept
    connection.close()


@pytest.mark.parametrize("host", ["localhost", "localhost:8545", "127.0.0.1:1", "[::1]:8545", "x.localhost"])
def test_local_names_are_served(world: Any, host: str) -> None:
    """Whatever name of this machine a client uses, it is served."""
    assert world.post(CHAIN_ID, Host=host).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8545", "192.0.2.1", "", "[::1"])
def test_rebound_names_are_refused(world: Any, host: str) -> None:
    """A name that somebody else has pointed at this machine is refused (DNS rebinding)."""
    response = world.post(CHAIN_ID, Host=host)
    assert response.status_code == 403
    assert response.text.startswith("expected localhost or a loopback address in the header Host")


def test_foreign_pages_are_refused(world: Any) -> None:
    """A browser's request from another machine's page is refused, from one of this machine served."""
    for origin in ("https://evil.example", "null"):
        assert world.post(CHAIN_ID, Origin=origin).status_code == 403
    assert world.post(CHAIN_ID, Origin="http://localhost:3000").status_code == 200


def test_bodies_beyond_the_limit_are_refused(world: Any) -> None:
    """A body of exactly the limit is read, one byte more is not."""
    padded = CHAIN_ID.ljust(MAX_BODY)
    assert world.post(padded).json()["result"] == "0x7a69"
    connection = http.client.HTTPConnection("127.0.0.1", int(world.server.url.rpartition(":")[2]), timeout=5)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(MAX_BODY + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_other_methods_and_bodies_without_length(world: Any) -> None:
    """A GET is told to POST; a body of unknown length is refused."""
    get = world.session.get(world.server.url, timeout=5)
    assert (get.status_code, get.headers["Allow"]) == (405, "POST")
    assert world.session.post(world.server.url, data=iter([CHAIN_ID]), timeout=5).status_code == 411


def test_half_a_request(world: Any) -> None:
    """A client that ends in the middle of its request does no harm."""
    port = int(world.server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    assert world.get("eth_chainId") == "0x7a69"


def test_many_clients_at_once(world: Any) -> None:
    """Transactions of several senders at once are all mined, each in a block of its own."""
    accounts = [Account.from_key(bytes([number]) * 32) for number in range(1, 5)]
    for account in accounts:
        world.get("anvil_setBalance", account.address, hex(10**18))
    raws = [world.sign(ONE, account=account, nonce=nonce) for nonce in range(5) for account in accounts]
    by_sender = [raws[i::4] for i in range(4)]

    def send_all(mine: list[str]) -> list[str]:
        return [world.get("eth_sendRawTransaction", raw) for raw in mine]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        hashes = [each for mine in pool.map(send_all, by_sender) for each in mine]
    receipts = [world.get("eth_getTransactionReceipt", each) for each in hashes]
    assert {receipt["status"] for receipt in receipts} == {"0x1"}
    assert sorted(int(receipt["blockNumber"], 16) for receipt in receipts) == list(range(5, 25))


def test_occupied_port(world: Any) -> None:
    """A port that is taken is a configuration error that names it."""
    port = int(world.server.url.rpartition(":")[2])
    with pytest.raises(
        ConfigurationError, match=f"expected a free address to listen on, got 127.0.0.1:{port}"
    ):
        DevChainServer(world.chain, port=port, block_time_s=0)


def test_heartbeat_mines_empty_blocks() -> None:
    """Without any transaction, blocks keep coming, later and later in time."""
    chain = DevChain(Genesis(chain_id=31337, timestamp=int(time.time()) - 3600))
    with DevChainServer(chain, port=0, block_time_s=0.01):
        deadline = time.monotonic() + 10
        while chain.head.number < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
    stamps = [block.header.timestamp for block in chain.blocks[:3]]
    assert stamps == sorted(set(stamps))
    assert len(stamps) == 3
    assert abs(stamps[1] - time.time()) < 10


def test_block_time_zero_means_no_heartbeat(world: Any) -> None:
    """Where a test has the time in its hands, no block comes by itself."""
    assert world.get("eth_blockNumber") == "0x0"
    assert "devchain-heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_publication_is_followed_by_a_block() -> None:
    """After a block with a transaction an empty one comes after the block time, ahead of the clock or not."""
    assert compute_wait_s(idle_s=0.25, lead_s=40.0, is_empty=False, block_time_s=1.0) == 0.75


def test_empty_block_waits_for_the_clock() -> None:
    """An empty block that would be ahead of the clock waits for it, yet not longer than two seconds."""
    assert compute_wait_s(idle_s=0.25, lead_s=0.5, is_empty=True, block_time_s=0.5) == 0.5
    assert compute_wait_s(idle_s=0.25, lead_s=40.0, is_empty=True, block_time_s=0.5) == 1.75
    assert compute_wait_s(idle_s=0.25, lead_s=-1.0, is_empty=True, block_time_s=0.5) == 0.25


@given(lead=st.floats(0, 3600), block_time=st.floats(0.01, 60))
def test_idle_chain_catches_up(lead: float, block_time: float) -> None:
    """A chain that is ahead of the clock and left alone comes back to it: its time goes half as fast."""
    wait = compute_wait_s(idle_s=0.0, lead_s=lead, is_empty=True, block_time_s=block_time)
    assert wait >= min(lead, 2.0)
