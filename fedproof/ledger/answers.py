"""What an endpoint's answers are made of: numbers and hashes, and words that a message may quote.

For use within a request: there what is neither counts as the failure of the endpoint that said it.
"""

from __future__ import annotations

from fedproof.digests import Digest
from fedproof.errors import LedgerError

_MOST_QUOTED = 300


def as_int64(number: object, what: str) -> int:
    """Return a number that an endpoint answered, if it is one that a file can hold.

    Raises:
        LedgerError: it is not.
    """
    return _as_number(number, what, bits=63)


def as_uint256(number: object, what: str) -> int:
    """Return a number that an endpoint answered, if it is one that the chain can hold.

    Raises:
        LedgerError: it is not.
    """
    return _as_number(number, what, bits=256)


def as_hash(raw: object, what: str) -> Digest:
    """Return the hash that an endpoint answered, if it is one.

    Raises:
        LedgerError: it is not.
    """
    if not isinstance(raw, bytes) or len(raw) != 32:
        raise LedgerError(f"{what}: expected a hash of 32 bytes, got another answer")
    return Digest(bytes(raw))


def quote(said: object) -> str:
    """Return what another party said for a message: cut, and without what a terminal would obey."""
    text = str(said)[:_MOST_QUOTED]
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)[:_MOST_QUOTED]


def _as_number(number: object, what: str, *, bits: int) -> int:
    # Not what only equals a number, such as True, and none that is too long to print.
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << bits:
        raise LedgerError(f"{what}: expected a number from 0 to 2^{bits} - 1, got another answer")
    return number
