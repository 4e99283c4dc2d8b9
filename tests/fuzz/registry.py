"""What a fuzz target is: a parser that takes bytes, and how its two outcomes are told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fedproof.errors import FedproofError

CORPUS = Path(__file__).parent / "corpus"
"""Kept inputs, `corpus/<target>/<name>`; those named `valid...` parse."""

FOUND = Path(__file__).parent / "found"
"""What fuzzing writes: inputs that reach something new, and those that break something. Git ignores it."""

# A refusal travels in a gRPC status, whose limit is 8 KiB, and stands in logs and journals.
LONGEST_MESSAGE = 1000
# Of a policy and of a configuration each key that is wrong is told.
LONGEST_REPORT = 100_000


@dataclass(frozen=True, slots=True)
class Target:
    """One parser under test.

    Attributes:
        name: also of its folder of kept inputs.
        what: which parser.
        run: takes an input and returns whether the parser took it; raises where the parser is wrong.
        max_bytes: longest input worth trying.
    """

    name: str
    what: str
    run: Callable[[bytes], bool]
    max_bytes: int

    def kept(self) -> list[Path]:
        """Return the kept inputs."""
        return sorted((CORPUS / self.name).glob("*"))


TARGETS: dict[str, Target] = {}


def target(*, max_bytes: int) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Register a function as the target of its name; its docstring says which parser it tries.

    The function returns when the parser took the input and all is well, and leaves by `refusing` or `skip`
    when it did not.
    """

    def register(function: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def run(raw: bytes) -> bool:
            try:
                function(raw)
            except _Refused:
                return False
            return True

        name = function.__name__
        TARGETS[name] = Target(name, str(function.__doc__).partition("\n")[0], run, max_bytes)
        return function

    return register


class _Refused(Exception):
    """The parser refused the input as it should."""


@contextmanager
def refusing(*errors: type[FedproofError], longest_message: int = LONGEST_MESSAGE) -> Iterator[None]:
    """Take these errors, and no other, for a refusal; its message has to fit a log's line."""
    try:
        yield
    except errors as error:
        _check_message(str(error), longest_message)
        raise _Refused from error


def _check_message(message: str, longest: int) -> None:
    assert len(message) <= longest, f"a message of {len(message)} characters"


def require_same(again: bytes, raw: bytes) -> None:
    """Check that what was parsed encodes to the bytes that it came from."""
    assert again == raw, f"parsed {raw[:200].hex()}, which encodes as {again[:200].hex()}"


def skip() -> NoReturn:
    """Pass an input over that is no business of this target's."""
    raise _Refused
