"""JSON-RPC over HTTP to an endpoint that nobody has to trust: its answers are bounded in size and in time."""

from __future__ import annotations

import io
import json
import math
import time
from http.client import HTTPException, HTTPResponse
from socket import socket
from typing import Any, NoReturn, cast

from requests import Session
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as NotConnected
from requests.exceptions import RequestException
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from web3 import HTTPProvider
from web3.exceptions import BadResponseFormat
from web3.types import RPCEndpoint, RPCResponse

MOST_ANSWER_BYTES = 32 << 20
"""Some 30,000 events of 1 KiB: 2,000 are asked for at once, and after a quiet time more may come."""

PATIENCE = 3
"""How many times as long as its longest pause a whole answer may take."""

MOST_VALUES = 1 << 20
"""An event has a dozen. Three bytes of JSON, such as an empty list, may take seventy of memory."""

_BUFFER_BYTES = 1 << 16


class EndpointProvider(HTTPProvider):
    """What web3 asks an endpoint through.

    An answer that is too large or too slow, and one that is no JSON-RPC, is none. No error names more of the
    address than its host.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        """Nothing is sent yet.

        Args:
            url: an ``http://`` or ``https://`` address.
            timeout_s: for the connection, and for each pause of an answer.
        """
        session = Session()
        # A few hundred compressed KiB may swell to hundreds of MiB.
        session.headers["Accept-Encoding"] = "identity"
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter())
        super().__init__(
            url, request_kwargs={"timeout": timeout_s}, session=session, exception_retry_configuration=None
        )

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Return an answer, which may be an error of JSON-RPC.

        Raises:
            RequestException: there is none.
            BadResponseFormat: it is no JSON-RPC.
        """
        try:
            return super().make_request(method, params)
        except RequestException as error:
            # From None: those before quote the address, which may hold a password or a provider's key.
            raise NotConnected(_explain(error)) from None

    @staticmethod
    def decode_rpc_response(raw_response: bytes) -> RPCResponse:
        """Return an answer's bytes as JSON-RPC.

        Raises:
            BadResponseFormat: they are not.
        """
        if raw_response.count(b",") >= MOST_VALUES:
            raise BadResponseFormat(f"expected at most {MOST_VALUES} values, got more")
        try:
            answer = json.loads(raw_response.decode(), parse_float=_parse_float, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise BadResponseFormat(f"expected JSON, got another answer: {error}") from error
        if not isinstance(answer, dict) or not answer.keys() & {"result", "error"}:
            raise BadResponseFormat("expected an object with a result or an error, got other JSON")
        return cast("RPCResponse", answer)


def _parse_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse("infinity")


def _refuse(constant: str) -> NoReturn:
    # NaN is neither above nor below a number: it sorts anywhere, and no limit holds it.
    raise ValueError(f"{constant} is no JSON")


def _explain(error: BaseException) -> str:
    """Return why there was no answer, in the words of the innermost error, which knows no address."""
    if isinstance(error, RequestException) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    name = type(error).__name__
    is_theirs = isinstance(error, RequestException)  # an OSError, too, and it may quote the address
    return f"{name}: {error}" if isinstance(error, OSError | HTTPException) and not is_theirs else name


class _Answer(HTTPResponse):
    """An answer whose every byte, those of its headers too, comes out of a `_Bounded`."""

    def __init__(self, sock: socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Bounded(cast("Any", self.fp).detach(), sock), _BUFFER_BYTES)

    def begin(self) -> None:
        super().begin()
        if set(self.headers.get_all("Content-Encoding", ())) - {"identity"}:
            raise HTTPException("expected an answer that is not compressed, as asked for, got one that is")
        if 300 <= self.status < 400:
            raise HTTPException(f"expected an answer, got HTTP status {self.status}, a redirection")


class _Bounded(io.RawIOBase):
    """So many of a socket's bytes, and for so long."""

    def __init__(self, raw: io.RawIOBase, sock: socket) -> None:
        self._raw = raw
        self._sock = sock
        self._pause_s = sock.gettimeout() or 10.0
        self._deadline = time.monotonic() + PATIENCE * self._pause_s
        self._left = MOST_ANSWER_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"expected a whole answer within {PATIENCE * self._pause_s:g} s, got a part")
        # The socket's own timeout is for one read: a byte at a time would never be too slow.
        self._sock.settimeout(min(self._pause_s, left_s))
        count = self._raw.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise HTTPException(f"expected an answer of at most {MOST_ANSWER_BYTES} bytes, got a longer one")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Connection(HTTPConnection):
    response_class = _Answer


class _TlsConnection(HTTPSConnection):
    response_class = _Answer


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    """Speaks HTTP over connections whose answers are bounded, through a proxy as well."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager
