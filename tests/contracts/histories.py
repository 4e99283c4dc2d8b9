"""Random histories of a ledger: what its people might do next, mostly right and now and then wrong.

Seven calls of ten take the ledger on from where it stands, so that rounds reach their ends; the rest is any.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

from fedproof.digests import ZERO_DIGEST, Address, Digest
from fedproof.ledger.events import (
    AGGREGATOR_ROLE,
    DEFAULT_ADMIN_ROLE,
    LEAF_TOO,
    FailureReason,
    MemberStatus,
    OnChainPolicy,
    Phase,
    Subject,
)
from tests.contracts.calls import DIGESTS, Call
from tests.contracts.model import NOBODY, Model
from tests.contracts.signing import ADMIN, AGGREGATOR, NODES, ORDER, OUTSIDER, WALLET, hash_attestation, sign

T = TypeVar("T")

PEOPLE = (ADMIN, AGGREGATOR, OUTSIDER, *NODES)
MOST_UINT64 = 2**64 - 1
OF_ADMIN = (
    "admit",
    "suspend",
    "adoptPolicy",
    "requestEpoch",
    "releaseCheckpoint",
    "retire",
    "grantRole",
    "revokeRole",
)
OF_AGGREGATOR = ("openRound", "anchorCommitments", "seal", "publishAggregate", "proposeResult", "fail")
OF_NODES = (
    "register",
    "leave",
    "rotateKeys",
    "approvePolicy",
    "publishEpoch",
    "commit",
    "attest",
    "finalise",
    "dispute",
    "renounceRole",
)
FUNCTIONS = (*OF_NODES, *OF_AGGREGATOR, *OF_ADMIN, "constructor")


class Author:
    """Draws one call after another.

    Attributes:
        now: Unix time of the last call.
        model: the ledger that the next call is for, as it stands.
    """

    model: Model

    def __init__(self, random: Random, *, now: int) -> None:
        self.random, self.now = random, now

    def write_call(self, model: Model) -> Call:
        """Return what may come next on a ledger."""
        self.model = model
        function = self._choose_function()
        sender = self._mostly(self._choose_sender(function), PEOPLE)
        arguments = self._choose_arguments(function, sender)
        self.now = self._choose_time(function)
        return Call(sender, self.now, function, arguments)

    # What happens next

    def _choose_function(self) -> str:
        if self.random.randrange(10) < 7:
            return self.random.choice(self._find_steps())
        return self.random.choice(FUNCTIONS)

    def _find_steps(self) -> Sequence[str]:
        """Return the functions that take the ledger on from where it stands; some more than once."""
        model, this = self.model, self.model.round
        if this.is_under_way and self.now > this.deadline:
            last = ["seal"] if this.phase is Phase.OPEN else ["finalise", "proposeResult"]
            is_lost = this.phase is Phase.SEALED or len(this.committed) + this.batched < 2
            return ["fail", *last * (1 if is_lost else 3)]
        match this.phase:
            case Phase.OPEN:
                can_anchor = this.terms.batching and not this.batched
                rest = ["commit"] * 6 if this.members - this.committed else []
                return ["seal", *rest, *["anchorCommitments"] * can_anchor]
            case Phase.SEALED:
                return ["publishAggregate", "publishAggregate", "publishAggregate", "dispute"]
            case Phase.AGGREGATED:
                return ["attest", "attest", "attest", "finalise", "finalise", "proposeResult"]
            case Phase.PROPOSED:
                return ["finalise", "finalise", "attest", "attest", "dispute"]
        steps = ["adoptPolicy"] if model.version == 0 else []
        if len(model.admitted) < 4:
            steps += ["register", "admit"]
        if model.epoch == 0 or model.membership != model.epoch_membership:
            steps.append("publishEpoch" if model.key_maker in model.admitted else "requestEpoch")
        steps = steps or ["openRound", "openRound", "adoptPolicy"]
        # A retired ledger must not go on, so that is tried as well.
        return [*steps, "constructor"] if this.phase is Phase.RETIRED else steps

    def _choose_sender(self, function: str) -> Address:
        model, this = self.model, self.model.round
        match function:
            case "commit":
                return self._mostly(self._pick(sorted(this.members - this.committed), NODES), NODES)
            case "attest":
                able = self._pick(sorted(this.members - set(this.attestations)), NODES)
                return self._mostly(able, sorted(this.attestations) or NODES)
            case "seal" | "fail" if self.now > this.deadline and self.random.randrange(2):
                return OUTSIDER
            case "dispute":
                return self._pick(sorted(this.members), NODES)
            case "publishEpoch":
                return model.key_maker
            case "leave" | "rotateKeys" | "approvePolicy":
                return self._pick(sorted(model.admitted), NODES)
            case "requestEpoch" if self.random.randrange(2):
                return self._pick(sorted(model.roles[AGGREGATOR_ROLE]), PEOPLE)
            case "renounceRole" | "constructor":
                return self.random.choice(PEOPLE)
        if function in (*OF_ADMIN, *OF_AGGREGATOR):
            role = DEFAULT_ADMIN_ROLE if function in OF_ADMIN else AGGREGATOR_ROLE
            return self._pick(sorted(model.roles[role]), PEOPLE)
        return self.random.choice(NODES)

    def _choose_time(self, function: str) -> int:
        """Return the last time or a little later; now and then, one on either side of a deadline."""
        this = self.model.round
        waits = function in ("seal", "finalise", "fail")
        if not this.deadline or self.random.randrange(20) < (10 if waits else 19):
            return self.now + self.random.choice((0, 1, 3))
        deadlines = (this.deadline, this.overdue, this.deadline - this.terms.attest_window)
        return max(self.now, self.random.choice(deadlines) + self.random.choice((0, 1, -1)))

    # With what

    def _choose_arguments(self, function: str, sender: Address) -> tuple[Any, ...]:
        model, this, random = self.model, self.model.round, self.random
        number = self._near(this.number)
        match function:
            case "constructor":
                people = self._mostly(ADMIN, (NOBODY,)), self._mostly(AGGREGATOR, (NOBODY,))
                return *people, self._mostly(model.address, (NOBODY,))
            case "register":
                return self._digest(), self._digest(), random.choice((*DIGESTS, ZERO_DIGEST))
            case "rotateKeys":
                return self._digest(), self._digest()
            case "admit":
                return (self._find_node(MemberStatus.APPLIED, MemberStatus.SUSPENDED),)
            case "suspend" | "requestEpoch":
                return (self._find_node(MemberStatus.ADMITTED),)
            case "adoptPolicy":
                return self._choose_policy(), self._digest()
            case "approvePolicy":
                return self._near(model.version), self._mostly(model.policy.digest, DIGESTS)
            case "publishEpoch":
                return (
                    self._near(model.epoch + 1),
                    self._digest(),
                    self._digest(),
                    self._near(model.membership),
                )
            case "openRound":
                return (self._near(this.number + 1),)
            case "commit":
                most = this.terms.max_examples
                return number, self._digest(), self._mostly(random.choice((1, most)), (0, most + 1))
            case "anchorCommitments":
                return number, self._digest(), self._near(max(1, this.cohort - len(this.committed)))
            case "seal":
                return number, *self._choose_reasons()
            case "publishAggregate":
                return number, self._digest()
            case "attest":
                return number, self._choose_model()
            case "proposeResult":
                counts = this.terms.attestation_quorum, this.cohort
                return number, self._choose_model(), self._digest(), self._near(random.choice(counts))
            case "finalise":
                return number, *self._choose_signatures(self._choose_model())
            case "dispute":
                return number, random.choice(tuple(Subject)), random.choice((0, 2**32 - 1))
            case "fail":
                return number, self._mostly(random.choice((0, 255)), tuple(FailureReason))
            case "releaseCheckpoint":
                return (self._digest(),)
            case "grantRole" | "revokeRole":
                return random.choice((AGGREGATOR_ROLE, DEFAULT_ADMIN_ROLE)), random.choice(PEOPLE)
            case "renounceRole":
                role = random.choice((AGGREGATOR_ROLE, DEFAULT_ADMIN_ROLE, DIGESTS[0]))
                return role, self._mostly(sender, PEOPLE)
        return ()

    def _choose_policy(self) -> OnChainPolicy:
        random, admitted = self.random, len(self.model.admitted)
        terms: dict[str, Sequence[Any]] = {
            "digest": (*DIGESTS, ZERO_DIGEST),
            "min_contributors": (2, admitted, admitted + 1, 1),
            "attestation_quorum": (admitted // 2 + 1, admitted + 1, admitted // 2, 0),
            "max_examples": (1000, 1, 0),
            "commit_window": (100, 31, 0),
            "aggregate_window": (50, 1, 0),
            "attest_window": (30, 1, 100, 0),
            "batching": (False, True),
            "privacy_cost": (0, 2, MOST_UINT64),
            "privacy_budget": (0, 4, 5, MOST_UINT64),
        }
        chosen = {name: values[0] for name, values in terms.items()}
        chosen["batching"] = random.choice((True, False))
        for name in random.sample(sorted(terms), random.choice((1, 2, 0, 3))):
            chosen[name] = random.choice(terms[name])
        return OnChainPolicy(**chosen)

    def _choose_reasons(self) -> tuple[tuple[Address, ...], bytes]:
        """Return who is named in a seal, and why."""
        random, this = self.random, self.model.round
        named = dict.fromkeys(sorted(this.committed), 0)
        for _ in range(random.choice((0, 0, 0, 0, 1, 2, 4))):
            reason = self._mostly(1, (LEAF_TOO - 1, 0))
            if this.batched:
                reason = random.choice((0, 1, LEAF_TOO - 1, LEAF_TOO, LEAF_TOO + 1, 255))
            reason = self._mostly(reason, (LEAF_TOO, 255))
            anybody = sorted(this.members) or NODES
            named[self._pick([*anybody] if this.batched else sorted(this.committed), anybody)] = reason
        nodes, reasons = tuple(sorted(named)), bytes(named[node] for node in sorted(named))
        match random.randrange(24):
            case 20:
                return nodes[1:], reasons[1:]
            case 21:
                return nodes[::-1], reasons
            case 22:
                return nodes, reasons + b"\0"
            case 23:
                return (*nodes, *nodes[-1:]), reasons + reasons[-1:]
        return nodes, reasons

    def _choose_signatures(self, model: Digest) -> tuple[Digest, tuple[Address, ...], tuple[bytes, ...]]:
        """Return a model, who signed it and how."""
        random, this = self.random, self.model.round
        if random.randrange(4) == 3:
            return model, (), ()
        able = sorted(this.members - set(this.attestations)) or list(NODES)
        count = self._near(this.terms.attestation_quorum - this.attested)
        signers = sorted(random.sample(able, max(0, min(count, len(able)))))
        if random.randrange(10) == 9:
            signers = sorted({*signers, random.choice(NODES)})
        signatures = [sign(node, self._attestation_digest(node, model)) for node in signers]
        if not signers:
            return model, (), ()
        index = random.randrange(len(signers))
        match random.randrange(16):
            case 10:
                signers[index] = OUTSIDER
            case 11:
                signers.reverse()
                signatures.reverse()
            case 12:
                signers.insert(index, signers[index])
                signatures.insert(index, signatures[index])
            case 13:
                signatures.pop()
            case 14 | 15:
                signatures[index] = self._spoil(signers[index], model, signatures[index])
        return model, tuple(signers), tuple(signatures)

    def _spoil(self, signer: Address, model: Digest, signature: bytes) -> bytes:
        """Return a signature that does not count, or the one that does."""
        random, number = self.random, self.model.round.number
        other = random.choice(NODES)
        spoiled = [
            b"",
            sign(signer, hash_attestation(self.model.address, number + 1, signer, model)),
            sign(signer, hash_attestation(OUTSIDER, number, signer, model)),
            sign(signer, self._attestation_digest(other, model)),
            sign(other, self._attestation_digest(signer, model)),
            signature[:-1],
            signature + b"\0",
            signature[:-1] + bytes([signature[-1] - 27 & 0xFF]),
            bytes(65),
        ]
        if signer != WALLET:
            # What the same key might have made instead, with the higher s.
            s, v = int.from_bytes(signature[32:64]), signature[64]
            spoiled.append(signature[:32] + (ORDER - s).to_bytes(32) + bytes([55 - v]))
        return random.choice(spoiled)

    # Values

    def _attestation_digest(self, node: Address, model: Digest) -> Digest:
        return hash_attestation(self.model.address, self.model.round.number, node, model)

    def _choose_model(self) -> Digest:
        usual = self.model.round.candidate or self._digest()
        return self._mostly(self._mostly(usual, DIGESTS), (*DIGESTS, ZERO_DIGEST))

    def _find_node(self, *statuses: MemberStatus) -> Address:
        fitting = [node for node in NODES if self.model.nodes[node].status in statuses]
        return self._mostly(self._pick(fitting, NODES), PEOPLE)

    def _digest(self) -> Digest:
        return self._mostly(self.random.choice(DIGESTS), (ZERO_DIGEST,))

    def _near(self, number: int) -> int:
        return self._mostly(number, (number + 1, max(0, number - 1), 0))

    def _mostly(self, usual: T, others: Sequence[T]) -> T:
        return usual if self.random.randrange(16) < 15 else self.random.choice(others)

    def _pick(self, fitting: Sequence[T], otherwise: Sequence[T]) -> T:
        return self.random.choice(fitting or otherwise)
