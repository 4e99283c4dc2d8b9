"""What the development chain answers instead of a result, as JSON-RPC error codes have it.

Refusal                 -32000: a transaction or call that a chain would not take either
├── ExecutionReverted        3: the contract reverted; carries its bytes
├── InvalidParameters   -32602
├── MethodNotFound      -32601
└── InvalidRequest      -32600
"""

from __future__ import annotations

from fedproof.errors import FedproofError


class Refusal(FedproofError):
    """A request that is answered with an error."""

    code = -32000
    data: str | None = None


class ExecutionReverted(Refusal):
    """The contract reverted.

    Attributes:
        data: the revert's bytes in hexadecimal, from which clients decode the custom error.
    """

    code = 3

    def __init__(self, message: str, *, output: bytes) -> None:
        super().__init__(message)
        self.data = "0x" + output.hex()


class InvalidParameters(Refusal):
    """Parameters that are not what the method says."""

    code = -32602


class MethodNotFound(Refusal):
    """A method that this chain does not serve."""

    code = -32601


class InvalidRequest(Refusal):
    """JSON that is not a JSON-RPC 2.0 request."""

    code = -32600
