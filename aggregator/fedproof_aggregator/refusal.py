"""How the aggregator says no to a peer."""

from __future__ import annotations

import grpc

from fedproof.errors import PeerError


class Refused(PeerError):
    """A request that is not served.

    Attributes:
        code: the gRPC status that the peer sees beside the message.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def malformed(message: str) -> Refused:
    """Return the refusal of bytes that are not what they should be; sending them again does not help."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


def out_of_turn(message: str) -> Refused:
    """Return the refusal of a request that the ledger does not, or not yet, back."""
    return Refused(grpc.StatusCode.FAILED_PRECONDITION, message)


def not_found(message: str) -> Refused:
    """Return the refusal of a request for what is not held."""
    return Refused(grpc.StatusCode.NOT_FOUND, message)
