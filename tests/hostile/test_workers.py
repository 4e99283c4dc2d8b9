"""A codec worker that a peer's bytes have taken over: it can refuse and lie, but not reach the daemon."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from fedproof.codec.messages import Kind
from fedproof.codec.workers import CodecWorkers
from fedproof.errors import FedproofError, MalformedMessage, SumLost, UpdateRefused, WorkerDied
from tests.fuzz.registry import LONGEST_MESSAGE
from tests.fuzz.workers import CHUNK, VALUES, ask_decode, ask_encode, taken_over

HEAD = struct.Struct("<BI")
DIED = "died twice while handling node-1, chunk 0"
DECRYPTING = "died twice while decrypting chunk 0"
ENCRYPTING = "died twice while encrypting chunk 0"


def reply(body: bytes = b"", kind: int = Kind.DONE) -> bytes:
    """Return a worker's reply."""
    return HEAD.pack(kind, len(body)) + body


def ask_add(workers: CodecWorkers) -> None:
    """Have a node's chunk added up."""
    workers.add(0, CHUNK, whose="node-1")


REPLIES: dict[str, tuple[bytes, Callable[[CodecWorkers], None], type[FedproofError], str]] = {
    "silence": (b"", ask_add, WorkerDied, DIED),
    "half_a_head": (b"\x40\x00", ask_add, WorkerDied, DIED),
    "body_cut": (HEAD.pack(Kind.DONE, 10) + b"123", ask_add, WorkerDied, DIED),
    "body_of_4_gib": (HEAD.pack(Kind.DONE, 2**32 - 1), ask_add, WorkerDied, DIED),
    "unknown_kind": (reply(kind=255), ask_add, WorkerDied, DIED),
    "request_for_a_reply": (reply(kind=Kind.ADD), ask_add, WorkerDied, DIED),
    "pickle": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", ask_add, WorkerDied, DIED),
    "sum_lost": (reply(b"no sum", Kind.SUM_LOST), ask_add, WorkerDied, "^no sum$"),
    "refusal": (reply(b"no", Kind.MALFORMED_MESSAGE), ask_add, MalformedMessage, "^no$"),
    "refusal_no_utf_8": (reply(b"\xff", Kind.UPDATE_REFUSED), ask_encode, UpdateRefused, "^\ufffd$"),
    "refusal_long": (reply(b"x" * 60_000, Kind.MALFORMED_MESSAGE), ask_decode, MalformedMessage, "^x+$"),
    "no_sums": (reply(), ask_decode, WorkerDied, DECRYPTING),
    "sums_too_many": (reply(bytes(8 * VALUES + 8)), ask_decode, WorkerDied, DECRYPTING),
    "chunk_too_short": (reply(CHUNK[:-1]), ask_encode, WorkerDied, ENCRYPTING),
    "chunk_too_long": (reply(CHUNK + b"\0"), ask_encode, WorkerDied, ENCRYPTING),
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_malformed_reply_is_refused(name: str) -> None:
    """The error names what the worker was doing, and its text fits a log's line."""
    said, ask, error, message = REPLIES[name]
    with taken_over(said) as workers, pytest.raises(error, match=message) as caught:
        ask(workers)
    assert len(str(caught.value)) <= LONGEST_MESSAGE


ASKED: dict[Kind, tuple[Callable[[CodecWorkers], object], set[Kind]]] = {
    Kind.ADD: (ask_add, {Kind.MALFORMED_MESSAGE, Kind.SUM_LOST}),
    Kind.SUBTRACT: (
        lambda workers: workers.subtract(0, CHUNK, whose="node-1"),
        {Kind.MALFORMED_MESSAGE, Kind.SUM_LOST},
    ),
    Kind.TAKE: (lambda workers: workers.take(0), {Kind.MALFORMED_MESSAGE, Kind.SUM_LOST}),
    Kind.DROP: (lambda workers: workers.drop(0), set()),
    Kind.ENCODE: (ask_encode, {Kind.UPDATE_REFUSED}),
    Kind.DECODE: (ask_decode, {Kind.MALFORMED_MESSAGE}),
}


@pytest.mark.parametrize("asked", ASKED, ids=lambda kind: kind.name)
@pytest.mark.parametrize("said", [kind for kind in Kind if kind > Kind.DONE], ids=lambda kind: kind.name)
def test_an_error_that_does_not_fit_the_request_is_a_death(asked: Kind, said: Kind) -> None:
    """A worker chooses no error that its daemon does not expect there, and so would end of."""
    ask, permitted = ASKED[asked]
    expected = "^no$" if said in permitted else "died twice while"
    with taken_over(reply(b"no", said)) as workers, pytest.raises(FedproofError, match=expected) as caught:
        ask(workers)
    assert said in permitted or (
        isinstance(caught.value, WorkerDied) and not isinstance(caught.value, SumLost)
    )
