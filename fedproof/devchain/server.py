"""The development chain over HTTP, and the heartbeat that mines an empty block when nobody sends anything."""

from __future__ import annotations

import ipaddress
import socket
import socketserver
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import structlog

from fedproof.devchain.backend import DevChain
from fedproof.devchain.methods import Methods
from fedproof.devchain.rpc import Rpc
from fedproof.errors import ConfigurationError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8545
DEFAULT_BLOCK_TIME_S = 1.0
MAX_BODY = 16 * 1024 * 1024

CATCH_UP_INTERVAL_S = 2.0
"""Empty blocks come this slowly while the chain is ahead of the clock: each adds one second to its time."""


def compute_wait_s(*, idle_s: float, lead_s: float, is_empty: bool, block_time_s: float) -> float:
    """Return in how many seconds an empty block is due; due now, when not above zero.

    Nodes wait for the block after a publication, so a block with transactions is followed by an empty one in
    any case. Others wait until they no longer take the chain's time ahead of the clock, or come slowly.

    Args:
        idle_s: for how long no block has been mined.
        lead_s: in how many seconds the next block would not be ahead of the clock.
        is_empty: whether the last block holds no transaction.
        block_time_s: the usual interval.
    """
    usual = block_time_s - idle_s
    return max(usual, min(lead_s, CATCH_UP_INTERVAL_S - idle_s)) if is_empty else usual


class DevChainServer:
    """Serves one chain until it is closed.

    Attributes:
        url: where it is served.
    """

    def __init__(
        self,
        chain: DevChain,
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        block_time_s: float = DEFAULT_BLOCK_TIME_S,
    ) -> None:
        """Listen, and start to serve.

        Args:
            chain: from now on touched by this server only.
            host: the address to listen on.
            port: 0 picks a free one.
            block_time_s: how long after a block an empty one follows; 0 for never.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        self._chain = chain
        self._rpc = Rpc(Methods(chain))
        self._block_time_s = block_time_s
        self._stopping = threading.Event()
        self._log = structlog.get_logger()
        try:
            self._http = _HttpServer(host, port, self._rpc)
        except OSError as error:
            raise ConfigurationError(
                f"expected a free address to listen on, got {host}:{port}: {error.strerror}"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._http.server_address[1]}"
        self._threads = [
            threading.Thread(target=self._http.serve_forever, args=(0.05,), name="devchain-http")
        ]
        if block_time_s > 0 and not chain.read_only:
            self._threads.append(threading.Thread(target=self._beat, name="devchain-heartbeat"))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Answer what was asked, and stop."""
        self._stopping.set()
        self._http.shutdown()
        self._http.hang_up()
        self._http.server_close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> DevChainServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _beat(self) -> None:
        wait_s = 0.0
        while not self._stopping.wait(max(0.0, wait_s)):
            with self._rpc.lock:
                wait_s = self._compute_wait_s()
                if wait_s > 0:
                    continue
                try:
                    self._chain.mine()
                except OSError as error:
                    # Transactions meet the same full disk, and tell their senders.
                    self._log.error("journal_failed", reason=error.strerror)
                    wait_s = self._block_time_s
                    continue
                wait_s = self._compute_wait_s()

    def _compute_wait_s(self) -> float:
        return compute_wait_s(
            idle_s=self._chain.idle_s(),
            lead_s=self._chain.lead_s(),
            is_empty=not self._chain.head.transactions,
            block_time_s=self._block_time_s,
        )


class _HttpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    # Not daemons, so that closing the server waits for the answers under way.
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, host: str, port: int, rpc: Rpc) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.rpc = rpc
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)
        self.is_loopback = _is_loopback(host)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients come and go
            structlog.get_logger().exception("connection_failed", client=client_address)

    def hang_up(self) -> None:
        """Make every connection end after the answer under way, if any."""
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RD)
                except OSError:
                    continue  # the client was faster


class _Handler(BaseHTTPRequestHandler):
    server: _HttpServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for head and body

    def do_POST(self) -> None:
        refusal = self._refuse_browser()
        if refusal:
            self._respond(HTTPStatus.FORBIDDEN, refusal)
            return
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self._respond(HTTPStatus.LENGTH_REQUIRED, f"expected a Content-Length, got {length!r}")
            return
        if int(length) > MAX_BODY:
            self._respond(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MAX_BODY} bytes, got {length}"
            )
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return
        self._write(HTTPStatus.OK, "application/json", self.server.rpc.answer(body))

    def do_GET(self) -> None:
        self._respond(HTTPStatus.METHOD_NOT_ALLOWED, "expected a POST with a JSON-RPC request, got a GET")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: clients poll many times a second."""

    def _refuse_browser(self) -> str:
        # A page from elsewhere could otherwise drive the chain of whoever looks at it: directly, which
        # browsers own up to in Origin, or under a name that it has pointed at this address (DNS rebinding).
        origin = self.headers.get("Origin")
        if origin is not None and not _is_loopback(_parse_host(origin)):
            return f"expected no request from a page of another machine, got one from {origin!r}"
        host = _parse_host(f"//{self.headers.get('Host', '')}")
        if self.server.is_loopback and not _is_loopback(host):
            return f"expected localhost or a loopback address in the header Host, got {host!r}"
        return ""

    def _respond(self, status: HTTPStatus, text: str) -> None:
        # The body was not read, so the connection is of no further use.
        self.close_connection = True
        self._write(status, "text/plain; charset=utf-8", text.encode() + b"\n")

    def _write(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _parse_host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
