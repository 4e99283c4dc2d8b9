"""Every error that fedproof raises on purpose, split by whose fault it is.

    FedproofError
    ├── ConfigurationError      what the user wrote: files, keys, passwords, tasks
    │   ├── PolicyMismatch      the local policy is not the one on the ledger
    │   └── TaskFailed          the user's task raised, or returned what a task may not return
    ├── UpdateRefused           our own update may not be sent (NaN, wrong shape, beyond the codec's bounds)
    ├── PeerError               what another party sent
    │   ├── MalformedMessage    bytes that are not what the format says
    │   ├── DigestMismatch      bytes that are not what the ledger says
    │   ├── WrongSum            a chunk that is not the sum of the committed ones; a node may dispute it
    │   ├── BadLeaf             a batch holds a statement that nobody signed so; a node may dispute it
    │   └── MissingObject       bytes that a store should hold and does not
    ├── LedgerError             the chain
    │   ├── LedgerUnreachable   no endpoint answered, after bounded retries
    │   ├── TransactionRefused  no endpoint takes a transaction, and none has it
    │   ├── WrongContract       no code, or other code, at the address
    │   ├── HistoryBroken       events are missing, altered or out of order
    │   └── Reverted            the contract refused; carries the custom error's name and arguments
    ├── NetworkError            the aggregator did not answer, after bounded retries
    └── WorkerDied              a child process was killed, or crashed
        ├── DeadlyRequest       and the one after it too, over the same request
        └── SumLost             and with it a running sum, which has to be begun anew

A message says what was expected, what came, and where.
"""

from __future__ import annotations

from collections.abc import Mapping


class FedproofError(Exception):
    """The root of all of them; the command line prints its message and exits with status 2."""


class ConfigurationError(FedproofError):
    """A file, key, password or task that the user gave cannot be used."""


class PolicyMismatch(ConfigurationError):
    """The local policy document's digest differs from the ledger's."""


class TaskFailed(ConfigurationError):
    """The user's task raised, or returned what a task may not return; carries its traceback as text."""


class UpdateRefused(FedproofError):
    """Our own update may not be sent."""


class PeerError(FedproofError):
    """Another party sent something that it should not have."""


class MalformedMessage(PeerError):
    """Bytes that are not what the format says."""


class DigestMismatch(PeerError):
    """Bytes that are not what the ledger says."""


class WrongSum(PeerError):
    """A chunk of the published sum is not the sum of the committed chunks.

    Attributes:
        index: which chunk.
    """

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(message)
        self.index = index


class BadLeaf(PeerError):
    """A statement is not signed by whom it names, or not one that its round takes.

    Attributes:
        index: where it stands in its batch; 0 for one that stands in none.
    """

    def __init__(self, message: str, *, index: int = 0) -> None:
        super().__init__(message)
        self.index = index


class MissingObject(PeerError):
    """A store does not hold what it should."""


class LedgerError(FedproofError):
    """The chain refused, or could not be reached."""


class LedgerUnreachable(LedgerError):
    """No endpoint answered, after bounded retries."""


class TransactionRefused(LedgerError):
    """Every endpoint refuses a transaction, and none has it."""


class WrongContract(LedgerError):
    """Another chain, or no code, or other code than the artifact's, at the contract's address."""


class HistoryBroken(LedgerError):
    """Events that do not replay, or do not replay to the contract's history hash."""


class Reverted(LedgerError):
    """The contract refused a call or a transaction.

    Attributes:
        name: the custom error's name, such as ``AlreadyCommitted``; ``Revert`` for any other revert.
        arguments: its arguments by name.
    """

    def __init__(self, message: str, *, name: str, arguments: Mapping[str, object]) -> None:
        super().__init__(message)
        self.name = name
        self.arguments = dict(arguments)


class NetworkError(FedproofError):
    """The aggregator did not answer, after bounded retries."""


class WorkerDied(FedproofError):
    """A child process (training, or adding up) was killed or crashed; a new one can do its work again."""


class DeadlyRequest(WorkerDied):
    """Two processes that had started died over the same request, one after the other."""


class SumLost(WorkerDied):
    """The process that held a running sum is gone, and the sum with it; the next chunk begins it anew."""
