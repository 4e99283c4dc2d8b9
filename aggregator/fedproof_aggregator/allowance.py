"""What the holder of one certificate may ask for: so many calls a second, and so many at a time.

If a client is malicious, then at most it is refused: nothing is read or looked up for a call beyond these
limits, and whatever it keeps under way, there are threads for the others.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Final

import grpc

from fedproof_aggregator.refusal import Refused, malformed

# More than a node makes: one that recomputes whole rounds over a local line opens up to 300 downloads a
# second, and a key maker with 200 nodes absent asks 300 times a second for their keys.
CALLS_PER_S: Final = 500
# What a node does at once after a pause, many times over. Its watchtower asks once and must not be refused.
CALL_BURST: Final = 2000
# A call that brings something, or asks for a round's signatures, counts as so many: it is hashed or written,
# or the chain is asked about a signature. 40 at once and 10 a second are far beyond a node's retries.
HEAVY: Final = 50
HEAVY_CALLS: Final = frozenset(
    {
        "PutPublicKey",
        "PutWrappedKeys",
        "Upload",
        "PutCommitment",
        "PutAttestation",
        "GetBatch",
        "GetProposal",
    }
)
STREAMS_PER_CLIENT: Final = 8
# A node makes one in its loop and one in its watchtower. Each has a thread while the chain is asked for it.
REQUESTS_PER_CLIENT: Final = 4
# Of each client 32 bytes and a number are kept. The authority signs fewer certificates than that.
MOST_CLIENTS: Final = 4096


class Pace:
    """Counts calls against the clients that make them; for all threads.

    A token bucket for each client, kept as the time when it is full again: the virtual scheduling algorithm
    of ITU-T I.371 (GCRA).
    """

    def __init__(self, *, per_s: int, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with full buckets.

        Args:
            per_s: calls a second that a client may go on making.
            burst: calls that it may make at once after a pause.
            clock: seconds that never go back.
        """
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        # The least recently seen first.
        self._full_at: dict[bytes, float] = {}

    def spend(self, client: bytes, *, weight: int = 1) -> None:
        """Count a call as one, or as so many as it weighs.

        Raises:
            Refused: the client has made too many; says when to come again. This one is not counted.
        """
        with self._lock:
            # A call is the unit of this time, so that whole numbers are added.
            now = self._clock() * self._per_s
            full_at = max(now, self._full_at.pop(client, now))
            missing = full_at - now + weight - self._burst
            self._full_at[client] = full_at if missing > 0 else full_at + weight
            if len(self._full_at) > MOST_CLIENTS:
                # Whoever was quiet for longest has most likely a full bucket, which is as good as none.
                del self._full_at[next(iter(self._full_at))]
        if missing > 0:
            counting = f", one like this counting as {weight}" if weight > 1 else ""
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"expected at most {self._per_s} calls a second under one certificate{counting}; "
                f"try again in {math.ceil(100 * missing / self._per_s) / 100:.2f} s",
            )


class Slots:
    """Counts the calls of one kind that each client has under way; for all threads."""

    def __init__(self, most: int, what: str) -> None:
        """Begin with none.

        Args:
            most: of one client at once.
            what: their kind, as the refusal names it.
        """
        self._most = most
        self._what = what
        self._held: Counter[bytes] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, client: bytes) -> Iterator[None]:
        """Count a call while it lasts.

        Raises:
            Refused: the client has as many under way as it may.
        """
        with self._changed:
            if self._held[client] >= self._most:
                raise Refused(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"expected at most {self._most} {self._what} at once under one certificate; try again",
                )
            self._held[client] += 1
        try:
            yield
        finally:
            with self._changed:
                self._held[client] -= 1
                if not self._held[client]:
                    del self._held[client]
                self._changed.notify_all()

    def await_none(self, timeout_s: float) -> None:
        """Return when none is under way, or after the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held, timeout_s)


class Allowance(grpc.ServerInterceptor):
    """Counts each call of each service against its client's certificate, before its message is awaited."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with no call.

        Args:
            clock: seconds that never go back.
        """
        self._pace = Pace(per_s=CALLS_PER_S, burst=CALL_BURST, clock=clock)
        self._streams = Slots(STREAMS_PER_CLIENT, "streams")
        self._requests = Slots(REQUESTS_PER_CLIENT, "requests")

    def await_idle(self, timeout_s: float) -> None:
        """Return when no stream is left, or after the timeout."""
        self._streams.await_none(timeout_s)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return what counts a call and then has it answered.

        Each takes a stream of requests, even of one: gRPC itself would wait for that one, with a thread for
        each call, before anybody is asked who makes it.
        """
        handler: Any = continuation(handler_call_details)
        if handler is None:
            return None
        serve = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        slots = self._streams if handler.request_streaming or handler.response_streaming else self._requests
        weight = HEAVY if handler_call_details.method.rpartition("/")[2] in HEAVY_CALLS else 1

        def take(requests: Iterator[Any]) -> Any:
            if handler.request_streaming:
                return requests
            request = next(requests, None)
            if request is None:
                raise malformed(f"{handler_call_details.method}: expected a message, got the end of the call")
            return request

        def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with self._counted(context, slots, weight=weight):
                return serve(take(requests), context)

        def answer_often(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            with self._counted(context, slots, weight=weight):
                yield from serve(take(requests), context)

        coding = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(answer_often, *coding)
        return grpc.stream_unary_rpc_method_handler(answer, *coding)

    @contextmanager
    def _counted(self, context: grpc.ServicerContext, slots: Slots, *, weight: int) -> Iterator[None]:
        certificate = b"".join(map(bytes, context.auth_context().get("x509_pem_cert", ())))
        client = sha256(certificate).digest()
        try:
            self._pace.spend(client, weight=weight)
            with slots.hold(client):
                yield
        except Refused as error:
            context.abort(error.code, str(error))
