"""How often, and with which pauses, a call to the aggregator is made again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import grpc

from fedproof.errors import FedproofError, MissingObject, NetworkError, PeerError

Result = TypeVar("Result")

LONGEST_PAUSE_S: Final = 5.0

# The same request may succeed later.
_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        # The ledger does not back the request: the aggregator's view of it may be behind ours.
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call is tried.

    Attributes:
        attempts: calls in a row without progress.
        first_pause_s: pause after the first failure; it doubles from one failure to the next.
        longest_pause_s: where the doubling stops.
        call_s: time limit of one unary call.
        stream_s: time limit of one stream; a stream that it cuts goes on where it was.
        awaits_connection: whether a unary call waits, within its time limit, for the aggregator to be back.
            Otherwise it fails while the aggregator is away, and until the channel has looked for it again.
        over: nothing is tried again once it is set.
    """

    attempts: int = 8
    first_pause_s: float = 0.2
    longest_pause_s: float = LONGEST_PAUSE_S
    call_s: float = 20.0
    stream_s: float = 900.0
    awaits_connection: bool = False
    over: threading.Event = field(default_factory=threading.Event, compare=False)

    def pause_s(self, failures: int) -> float:
        """Return the pause after so many failures in a row."""
        return float(min(self.longest_pause_s, self.first_pause_s * 2 ** (failures - 1)))

    def retry(self, call: Callable[[], Result], what: str) -> Result:
        """Return what the call returns, after as many attempts as it takes.

        Raises:
            NetworkError: none of them found the aggregator.
        """
        failures = 0
        while True:
            try:
                return call()
            except NetworkError as error:
                failures += 1
                self.pause(failures, what, error)

    def pause(self, failures: int, what: str, error: NetworkError) -> None:
        """Wait before the next attempt.

        Raises:
            NetworkError: that was the last one, or it is over; names the call, the attempts and the last
                failure.
        """
        if failures >= self.attempts or self.over.wait(self.pause_s(failures)):
            raise NetworkError(f"{what}: given up after {failures} attempts; the last: {error}") from error


def translate_error(error: grpc.RpcError, target: str, what: str) -> FedproofError:
    """Return gRPC's error as ours: NetworkError where the same request may succeed later.

    Args:
        error: what the call raised.
        target: whom it was made to.
        what: which call.
    """
    if not isinstance(error, grpc.Call):
        return NetworkError(f"aggregator {target}: {what}: {error}")
    code = error.code()
    message = f"aggregator {target}: {what}: {code.name}: {error.details()}"
    if code in _PASSING:
        return NetworkError(message)
    return MissingObject(message) if code is grpc.StatusCode.NOT_FOUND else PeerError(message)
