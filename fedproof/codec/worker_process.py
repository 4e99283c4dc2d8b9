"""A daemon's side of one codec worker: requests, replies, and a new process where one died."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fedproof.codec.messages import (
    ERRORS,
    LARGEST_CHUNK,
    REFUSALS,
    START,
    SUM,
    Kind,
    Part,
    receive_message,
    send_message,
)
from fedproof.codec.nursery import Child, start_worker
from fedproof.codec.parameters import CodecParameters
from fedproof.codec.secret_key import SecretKey
from fedproof.errors import (
    ConfigurationError,
    DeadlyRequest,
    FedproofError,
    MalformedMessage,
    WorkerDied,
)

# A request takes some hundredths of a second; a process that is stopped or hangs is replaced.
TIMEOUT_S: Final = 120.0

_LONGEST_TEXT: Final = 1000

_NEED_KEY: Final = {Kind.ENCODE: "encoded", Kind.DECODE: "decoded"}


@dataclass(frozen=True, slots=True)
class Request:
    """One message to a worker.

    Attributes:
        kind: what it asks for.
        parts: its body; not printed, as it may be the key.
        doing: what it does, for the message of an error: "handling node 1, chunk 3".
        reply_bytes: how many bytes the answer has.
    """

    kind: Kind
    parts: tuple[Part, ...] = field(repr=False)
    doing: str
    reply_bytes: int = 0


def make_sum_request(
    kind: Kind,
    number: int,
    count: int = 0,
    *,
    whose: str = "the sum",
    chunk: bytes = b"",
    total_bytes: int = 0,
) -> Request:
    """Return a request about a sum.

    Args:
        kind: what to do with it.
        number: which sum.
        count: how many chunks are in it.
        whose: where the chunk comes from, for the message of an error.
        chunk: what to add, to subtract or to resume from.
        total_bytes: how long the sum is that is taken.

    Raises:
        MalformedMessage: the chunk is larger than any.
    """
    check_size(chunk, whose)
    name = whose.encode()
    reply_bytes = total_bytes if kind is Kind.TAKE else 0
    return Request(kind, (SUM.pack(number, count, len(name)), name, chunk), f"handling {whose}", reply_bytes)


def check_size(chunk: bytes, where: str) -> None:
    """Check that a chunk is not larger than any, before a worker is given it.

    Raises:
        MalformedMessage: it is.
    """
    if len(chunk) > LARGEST_CHUNK:
        raise MalformedMessage(f"{where}: expected at most {LARGEST_CHUNK} bytes, got {len(chunk)}")


class WorkerProcess:
    """A worker, started when it is first asked, and started anew when it dies. Any thread may ask."""

    def __init__(self, parameters: CodecParameters, secret_key: SecretKey | None) -> None:
        self._has_key = secret_key is not None
        key = b"" if secret_key is None else secret_key.reveal()
        start = START.pack(
            parameters.bits, parameters.max_contributors, parameters.coeff_modulus, parameters.values_per_slot
        )
        self._start = Request(Kind.START, (start, key), "starting")
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process's number, while there is one."""
        return None if self._child is None else self._child.pid

    def ask(self, requests: Sequence[Request]) -> memoryview:
        """Return the reply to the last of some requests, which one process answers one after the other.

        If the process dies, all of them are asked once more, of a new one.

        Raises:
            MalformedMessage: the worker refused a peer's bytes; the requests after it are not asked.
            SumLost: a sum is not in the process; likewise.
            UpdateRefused: what is to be encoded may not be sent; likewise.
            ConfigurationError: there is no secret key, or SEAL refuses the parameters.
            DeadlyRequest: the new process died of them as well.
            WorkerDied: one of the two did not start, or this was closed.
        """
        for request in requests:
            if request.kind in _NEED_KEY and not self._has_key:
                raise ConfigurationError(
                    f"codec worker: expected a secret key before anything is {_NEED_KEY[request.kind]}"
                )
        with self._lock:
            try:
                return self._ask(requests)
            except _Died as error:
                had_started = not isinstance(error, _DiedStarting)
            try:
                return self._ask(requests)
            except _Died as error:
                is_deadly = had_started and not isinstance(error, _DiedStarting)
                kind = DeadlyRequest if is_deadly else WorkerDied
                raise kind(f"codec worker: died twice while {error}") from error

    def close(self) -> None:
        """End the process."""
        self._closed = True
        child = self._child
        if child is not None:
            child.kill()
        with self._lock:
            self._discard()

    def _ask(self, requests: Sequence[Request]) -> memoryview:
        if self._child is not None and self._child.has_ended():
            self._discard()  # while it had nothing to do, so no request is to blame
        if self._closed:
            raise WorkerDied(f"codec worker: was closed before {requests[0].doing}")
        if self._child is None:
            self._child = start_worker()
            try:
                self._exchange(self._child.connection, self._start)
            except FedproofError:
                self._discard()
                raise
            except _Died as error:
                raise _DiedStarting(f"starting, before {requests[0].doing}") from error
        for request in requests:
            reply = self._exchange(self._child.connection, request)
        return reply

    def _exchange(self, connection: socket.socket, request: Request) -> memoryview:
        # One for the whole reply: a worker that drips a byte now and then is as good as one that hangs.
        deadline_s = time.monotonic() + TIMEOUT_S
        try:
            connection.settimeout(TIMEOUT_S)  # for all that is sent
            send_message(connection, request.kind, *request.parts)
            kind, body = receive_message(connection, deadline_s=deadline_s)
            if kind is Kind.DONE:
                if len(body) != request.reply_bytes:
                    raise ValueError(f"expected {request.reply_bytes} bytes, got {len(body)}")
                return body
            if kind not in REFUSALS[request.kind]:
                raise ValueError(f"expected no {kind!r} in reply to {request.kind!r}")
            error = ERRORS[kind](str(body[:_LONGEST_TEXT], "utf-8", "replace"))
        except (OSError, EOFError, ValueError, KeyError) as died:
            self._discard()
            raise _Died(request.doing) from died
        except BaseException:
            # A reply may still be under way (Ctrl-C), and the next request would take it for its own.
            self._discard()
            raise
        raise error

    def _discard(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None


class _Died(Exception):
    """The process is gone, or answers what is no reply; carries what it was doing."""


class _DiedStarting(_Died):
    """It has seen no request."""
