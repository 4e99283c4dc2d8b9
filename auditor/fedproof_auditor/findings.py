"""What an audit finds: one failure for each thing that does not hold, under the number of its check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum

from fedproof.digests import Address, checksum_address
from fedproof.errors import FedproofError
from fedproof.ledger.events import ExclusionReason, FailureReason

CHECKS: Mapping[int, str] = {
    1: "the code on chain is the committed artifact's",
    2: "no event is missing, altered or out of order (commitments: once sealed, in any order)",
    3: "the policy documents are those that the ledger adopted",
    4: "rounds follow the state machine, each on the last finalised model",
    5: "committers and attesters belonged to the cohort, acted once, in time",
    6: "epochs: context as the policy implies, keys wrapped for the members",
    7: "each update's header is the committed one and says what the ledger says",
    8: "each stored chunk is the committed one, well-formed and nobody's copy",
    9: "contributors and excluded are those who committed, and enough",
    10: "each published sum is that of the stored ciphertexts, without a key",
    11: "attestations agree, reach the quorum, and name the finalised model",
    12: "the head model on chain is the last finalised one",
}
"""Each check's number and what it shows; `fedproof_auditor.verify` says what each one compares."""

NameBook = Mapping[Address, str]
"""Names that people gave to addresses; an address without one stands for itself."""


def spell_node(node: Address, names: NameBook) -> str:
    """Return a node's name, or its address where nobody named it."""
    return names.get(node) or checksum_address(node)


def spell_reason(reason: int, kind: type[ExclusionReason] | type[FailureReason]) -> str:
    """Return the name of a reason code; the ledger takes any code, so some have none."""
    return kind(reason).name.lower() if reason in list(kind) else f"reason {reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One thing that does not hold.

    Attributes:
        check: number of the check.
        field: what was compared.
        expected: what should have been there.
        got: what was there.
        round: in which round, if in one.
        node: whose, if a node's.
        chunk: index of the chunk, if it is about one.
    """

    check: int
    field: str
    expected: str
    got: str
    round: int | None = None
    node: Address | None = None
    chunk: int | None = None

    def describe(self, names: NameBook) -> str:
        """Return the failure in words, without the check's number."""
        places = []
        if self.round is not None:
            places.append(f"round {self.round}")
        if self.node is not None:
            places.append(spell_node(self.node, names))
        if self.chunk is not None:
            places.append(f"chunk {self.chunk}")
        return f"{', '.join([*places, self.field])}: expected {self.expected}, got {self.got}"


class CheckFailed(FedproofError):
    """A check does not hold; carries what it found."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return f"check {self.failure.check}: {self.failure.describe({})}"


def require_equal(
    got: object,
    expected: object,
    *,
    check: int,
    field: str,
    round_number: int | None = None,
    node: Address | None = None,
    chunk: int | None = None,
) -> None:
    """Raise CheckFailed unless two values are equal."""
    if got != expected:
        raise CheckFailed(
            Failure(
                check=check,
                field=field,
                expected=spell(expected),
                got=spell(got),
                round=round_number,
                node=node,
                chunk=chunk,
            )
        )


def spell(value: object) -> str:
    """Return a value as messages show it: bytes in hexadecimal, phases and the like by name."""
    match value:
        case bytes() if len(value) == 20:
            return checksum_address(Address(value))
        case bytes():
            return "0x" + value.hex()
        case IntEnum():
            return value.name.lower()
        case None:
            return "nothing"
        case _:
            return str(value)


@dataclass(slots=True)
class Findings:
    """What the checks have found so far.

    Attributes:
        failures: in the order in which they were found.
    """

    failures: list[Failure] = field(default_factory=list)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the failure that comes from inside instead of raising it, so that the audit goes on."""
        try:
            yield
        except CheckFailed as error:
            self.failures.append(error.failure)

    def expect(self, holds: object, otherwise: Failure) -> None:
        """Keep the failure unless something holds."""
        if not holds:
            self.failures.append(otherwise)

    def require(
        self,
        holds: bool,
        check: int,
        field: str,
        *,
        expected: object,
        got: object,
        round_number: int | None = None,
        node: Address | None = None,
    ) -> None:
        """Keep what differs, spelled out, unless something holds."""
        if not holds:
            self.failures.append(
                Failure(
                    check=check,
                    field=field,
                    expected=spell(expected),
                    got=spell(got),
                    round=round_number,
                    node=node,
                )
            )

    def of(self, check: int) -> list[Failure]:
        """Return one check's failures, by round and chunk."""
        return sorted((each for each in self.failures if each.check == check), key=_place)

    def first(self) -> Failure | None:
        """Return the failure to begin with: that of the lowest check, in the earliest round.

        A check often fails because of what an earlier one is about: no sum is right when a chunk is wrong.
        """
        return min(self.failures, key=lambda each: (each.check, *_place(each)), default=None)


def _place(failure: Failure) -> tuple[int, int]:
    return failure.round or 0, -1 if failure.chunk is None else failure.chunk
