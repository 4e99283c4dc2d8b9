"""What comes over HTTP: bounded in size and time, from nowhere else, and no message holds a secret."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from eth_abi.abi import encode
from structlog.testing import capture_logs
from web3.exceptions import BadResponseFormat

from fedproof.errors import LedgerError, LedgerUnreachable
from fedproof.ledger import transport
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.endpoints import connect_endpoints
from fedproof.ledger.transport import EndpointProvider

ANSWER = json.dumps({"jsonrpc": "2.0", "id": 0, "result": "0x5"}).encode()
LONG = b'{"jsonrpc": "2.0", "id": 0, "result": "0x' + b"0" * 100_000 + b'"}'
SECRETS = ("hunter2", "v3", "APIKEY", "token", "abc")

Headers = tuple[tuple[str, str], ...]
Reply = Callable[[BaseHTTPRequestHandler], None]


def send(body: bytes = ANSWER, *, status: int = 200, headers: Headers = (), pause_s: float = 0.0) -> Reply:
    """Return a reply of these bytes, one by one if there is a pause between them."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            handler.send_header(name, value)
        handler.end_headers()
        for start in range(0, len(body), 1 if pause_s else len(body)):
            handler.wfile.write(body[start : start + 1] if pause_s else body)
            threading.Event().wait(pause_s)

    return reply


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    """Send a header that never ends, a byte at a time."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(200):
        handler.wfile.write(b"x")
        threading.Event().wait(0.02)


@contextmanager
def serving(reply: Reply) -> Iterator[str]:
    """Yield the host and port of a server that replies so to everything."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            reply(self)

        do_GET = do_POST

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # a client that went away
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_answer_of_the_greatest_size_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers and all; one byte more is refused, and the endpoint counts as one that does not answer."""
    with serving(send(LONG)) as host:
        monkeypatch.setattr(transport, "MOST_ANSWER_BYTES", len(LONG) + 1000)
        assert Endpoint.connect(f"http://{host}", attempts=1).height() == 0
        monkeypatch.setattr(transport, "MOST_ANSWER_BYTES", len(LONG) - 1)
        with pytest.raises(LedgerUnreachable, match=f"at most {len(LONG) - 1} bytes, got a longer one"):
            Endpoint.connect(f"http://{host}", attempts=1).height()


def test_an_answer_of_many_small_values_is_refused() -> None:
    """As JSON it is within the limit, and as Python's objects it would be twenty times as large."""
    for count, is_fine in ((transport.MOST_VALUES, True), (transport.MOST_VALUES + 1, False)):
        body = b'{"result":[' + b",".join([b"[]"] * count) + b"]}"
        if is_fine:
            assert len(EndpointProvider.decode_rpc_response(body)["result"]) == count
        else:
            with pytest.raises(BadResponseFormat, match="values, got more"):
                EndpointProvider.decode_rpc_response(body)


@pytest.mark.parametrize("encodings", [("gzip",), ("identity", "gzip"), ("identity, gzip",)])
def test_nothing_is_unpacked(encodings: tuple[str, ...]) -> None:
    """A few KiB that swell to many MiB are refused before they do."""
    headers = tuple(("Content-Encoding", encoding) for encoding in encodings)
    with (
        serving(send(gzip.compress(ANSWER), headers=headers)) as host,
        pytest.raises(LedgerUnreachable, match="expected an answer that is not compressed"),
    ):
        Endpoint.connect(f"http://{host}", attempts=1).height()


@pytest.mark.parametrize("reply", [send(pause_s=0.02), drip_headers])
def test_an_answer_that_drips_is_none(reply: Reply) -> None:
    """Each byte comes in time, and the whole does not: there is a limit for it, too."""
    with serving(reply) as host:
        started = time.monotonic()
        with pytest.raises(LedgerUnreachable, match="TimeoutError"):
            Endpoint.connect(f"http://{host}", attempts=1, timeout_s=0.1).height()
        assert 0.25 < time.monotonic() - started < 2.0


def test_who_drips_is_named_and_passed_over() -> None:
    """As one that fails."""
    with serving(send(pause_s=0.02)) as slow, serving(send()) as quick:
        endpoint = connect_endpoints([f"http://{slow}", f"http://{quick}"], timeout_s=0.1, attempts=1)
        with capture_logs() as logs:
            assert endpoint.height() == 5
    assert [(log["event"], log["endpoint"]) for log in logs] == [("endpoint_silent", f"http://{slow}")]


def test_an_endpoint_leads_nowhere_else() -> None:
    """A redirection might lead to a machine that only this one can reach."""
    asked: list[str] = []

    def note(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        send()(handler)

    with serving(note) as inner:
        headers = (("Location", f"http://{inner}/secret"),)
        with (
            serving(send(status=307, headers=headers)) as host,
            pytest.raises(LedgerUnreachable, match="307"),
        ):
            Endpoint.connect(f"http://{host}", attempts=1).height()
    assert asked == []


def test_no_endpoint_sends_us_to_an_address() -> None:
    """What a contract's refusal may ask of web3 (EIP-3668): to fetch something from wherever it says."""
    asked: list[str] = []

    def note(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        send()(handler)

    with serving(note) as inner:
        sender = "0x" + "11" * 20
        lookup = encode(
            ["address", "string[]", "bytes", "bytes4", "bytes"],
            [sender, [f"http://{inner}/{{sender}}"], b"", b"1234", b""],
        )
        error = {"code": 3, "message": "execution reverted", "data": "0x556f1830" + lookup.hex()}
        body = json.dumps({"jsonrpc": "2.0", "id": 0, "error": error}).encode()
        with serving(send(body)) as host:
            endpoint = Endpoint.connect(f"http://{host}", attempts=1)
            with pytest.raises(LedgerError):
                endpoint.ask("test", lambda: endpoint.web3.eth.call({"to": sender, "data": "0x"}))  # type: ignore[typeddict-item]
    assert asked == []


def refuse(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection."""
    handler.close_connection = True


@pytest.mark.parametrize(
    "reply",
    [
        send(status=401),
        send(status=503),
        send(b"<html>no chain</html>"),
        send(b'{"jsonrpc": "2.0"}'),
        send(json.dumps({"jsonrpc": "2.0", "id": 0, "error": {"code": 1, "message": "no"}}).encode()),
        send(json.dumps({"jsonrpc": "2.0", "id": 0, "result": "zz"}).encode()),
        send(pause_s=0.02),
        refuse,
    ],
)
def test_no_message_holds_a_secret_of_the_address(reply: Reply) -> None:
    """Neither user, password, path nor query: not in an error, not in one before it, not in the log."""
    with serving(reply) as host:
        check_secrets(host)


def test_no_message_of_one_who_is_away_holds_a_secret() -> None:
    """Where nobody listens, and where the name is nobody's."""
    with serving(send()) as host:
        pass
    check_secrets(host)
    check_secrets("nobody.invalid")
    check_secrets(f"{'a' * 70}.invalid")


def check_secrets(host: str) -> None:
    """Ask an endpoint whose address is full of secrets, alone and with two others."""
    url = f"http://me:hunter2@{host}/v3/APIKEY?token=abc"
    urls = [url, f"{url}d", f"{url}e"]
    for endpoint in (
        Endpoint.connect(url, attempts=1, timeout_s=0.1),
        connect_endpoints(urls, agreement=2, attempts=1, timeout_s=0.1),
    ):
        with capture_logs() as logs, pytest.raises(LedgerError) as caught:
            endpoint.height()
        texts = [json.dumps(logs)]
        error: BaseException | None = caught.value
        while error is not None:
            texts.append(f"{error!r} {error}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        text = " ".join(texts)
        assert host in text
        assert [secret for secret in SECRETS if secret in text] == []
