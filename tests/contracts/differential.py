"""A history, made on the contract and on the model side by side: each call has to end the same on both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import astuple
from functools import cache
from random import Random
from typing import Any

from fedproof.digests import Address, as_address
from fedproof.errors import Reverted
from fedproof.ledger.events import Event, MemberStatus, OnChainPolicy, Phase
from fedproof.ledger.standing import Member, Privacy, Round, State
from tests.contracts.calls import BEGINNINGS, Call, make_stages
from tests.contracts.evm import Machine
from tests.contracts.histories import Author
from tests.contracts.model import Model, Refused
from tests.contracts.signing import NODES, OUTSIDER, WALLET, WALLET_CODE

MOST_CALLS = 60

Outcome = Sequence[Event] | tuple[str, tuple[object, ...]]
"""The events of a call, or the name and arguments of the custom error that refuses it."""


class Pair:
    """The contract and the model, after the same calls.

    Attributes:
        models: every ledger that was deployed, by its address.
    """

    def __init__(self) -> None:
        self._machine = Machine()
        self._machine.place(WALLET, WALLET_CODE)
        self.models: dict[Address, Model] = {}

    @property
    def model(self) -> Model:
        """The ledger that was deployed last."""
        return self.models[self._machine.contract]

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        """Undo, on leaving, whatever happened since entering."""
        kept = self.models
        self.models = deepcopy(kept)
        try:
            with self._machine.rolled_back():
                yield
        finally:
            self.models = kept

    def make(self, call: Call) -> Outcome:
        """Make a call on both and return how it ended.

        Raises:
            AssertionError: it ended in different ways.
        """
        make = self._deploy if call.function == "constructor" else self._call
        by_model, by_contract = make(call)
        assert by_model == by_contract, f"the model: {by_model}\nthe contract: {by_contract}"
        return by_contract

    def act(self, sender: Address, function: str, *arguments: Any, at: int) -> Sequence[Any]:
        """Make a call at a Unix time and return its events.

        Raises:
            Refused: the contract and the model refuse it.
            AssertionError: they differ.
        """
        outcome = self.make(Call(sender, at, function, arguments))
        if isinstance(outcome, tuple):
            name, values = outcome
            raise Refused(name, *values)
        return outcome

    def view(self, view: str, *about: Address) -> Any:
        """Return what the contract answers, as the client would."""
        return read_answer(view, self._machine.view(view, *about))

    def compare_views(self) -> None:
        """Ask both for all that there is to see.

        Raises:
            AssertionError: they answer differently.
        """
        for (view, *about), by_model in answer_all(self.model).items():
            by_contract = self.view(view, *about)
            assert by_model == by_contract, (
                f"{view}{about}\nthe model: {by_model}\nthe contract: {by_contract}"
            )

    def _deploy(self, call: Call) -> tuple[Outcome, Outcome]:
        address = Address(b"\xfe" * 19 + bytes([len(self.models)]))
        model = Model(address)
        *people, predecessor = call.arguments
        with_model = (*people, self.models.get(predecessor))
        by_model = _try(lambda: model.call(call.sender, call.now, "constructor", with_model))
        by_contract = _try(
            lambda: self._machine.deploy(address, call.sender, call.now, arguments=call.arguments)
        )
        if self._machine.contract == address:
            self.models[address] = model
        return by_model, by_contract

    def _call(self, call: Call) -> tuple[Outcome, Outcome]:
        encoded = [astuple(value) if isinstance(value, OnChainPolicy) else value for value in call.arguments]
        return (
            _try(lambda: self.model.call(call.sender, call.now, call.function, call.arguments)),
            _try(lambda: self._machine.call(call.sender, call.now, call.function, encoded)),
        )


def play_random(seed: str, tally: Counter[str]) -> None:
    """Play a random history, the same for the same seed.

    Args:
        seed: which history.
        tally: counts the calls that were accepted, by function, and refused, by error.

    Raises:
        AssertionError: the model and the contract differ; says after which calls, of which each is needed.
    """
    random = Random(seed)
    stage = random.choice(BEGINNINGS)
    calls: list[Call] = []

    def write_calls(pair: Pair) -> Iterator[Call]:
        author = Author(random, now=pair.model.now)
        for _ in range(random.randint(1, MOST_CALLS)):
            calls.append(author.write_call(pair.model))
            yield calls[-1]

    try:
        _play(stage, write_calls, tally)
    except AssertionError:
        shortest = _shorten(stage, calls)
        script = "".join(f"    {call},\n" for call in shortest)
        try:
            play(stage, shortest)
        except AssertionError as difference:
            raise AssertionError(f"{difference}\nafter play({stage!r}, [\n{script}])") from None


def play(stage: str, calls: Sequence[Call]) -> Counter[str]:
    """Play a history that is written down, and return the tally.

    Raises:
        AssertionError: the model and the contract differ.
    """
    tally: Counter[str] = Counter()
    _play(stage, lambda _: iter(calls), tally)
    return tally


def _play(stage: str, write_calls: Callable[[Pair], Iterator[Call]], tally: Counter[str]) -> None:
    pair = prepare(stage)
    with pair.rolled_back():
        for call in write_calls(pair):
            outcome = pair.make(call)
            tally[f"refused {outcome[0]}" if isinstance(outcome, tuple) else f"accepted {call.function}"] += 1
        pair.compare_views()


def _shorten(stage: str, calls: list[Call]) -> list[Call]:
    """Return the calls without those that are not needed to end in a difference."""
    # Seconds; Hypothesis, which draws what follows anew, took minutes and kept more.
    kept = calls
    for index in reversed(range(len(calls))):
        fewer = kept[:index] + kept[index + 1 :]
        try:
            play(stage, fewer)
        except AssertionError:
            kept = fewer
    return kept if kept == calls else _shorten(stage, kept)


@cache
def prepare(stage: str) -> Pair:
    """Return a pair that stands where histories begin; it is everybody's, so what one does is rolled back."""
    pair = Pair()
    for call in make_stages()[stage]:
        outcome = pair.make(call)
        assert not isinstance(outcome, tuple), f"{stage}: {call}: {outcome}"
    return pair


def _try(make: Callable[[], list[Event]]) -> Outcome:
    try:
        return make()
    except Refused as refused:
        return refused.name, refused.arguments
    except Reverted as reverted:
        return reverted.name, tuple(reverted.arguments.values())


def answer_all(model: Model) -> dict[tuple[Any, ...], object]:
    """Return what the contract's views should answer, by their names and what they are asked about."""
    this, new, old = model.round, model.policy, model.round.terms
    answers: dict[tuple[Any, ...], object] = {
        ("historyHash",): model.history.value,
        ("headModel",): model.head,
        ("policyDigest",): new.digest,
        ("candidate",): model.candidate,
        ("predecessor",): model.predecessor,
        ("keyMaker",): model.key_maker,
        ("privacy",): Privacy(new.privacy_cost, new.privacy_budget, model.spent),
        ("state",): State(
            policy_version=model.version,
            epoch=model.epoch,
            membership=model.membership,
            admitted=len(model.admitted),
            is_epoch_stale=model.membership != model.epoch_membership,
            is_accounted=new.privacy_budget > 0,
            batching=new.batching,
            min_contributors=new.min_contributors,
            attestation_quorum=new.attestation_quorum,
            max_examples=new.max_examples,
            commit_window=new.commit_window,
            aggregate_window=new.aggregate_window,
            attest_window=new.attest_window,
        ),
        ("currentRound",): Round(
            number=this.number,
            phase=this.phase,
            deadline=this.deadline,
            cohort=this.cohort,
            committed=len(this.committed),
            batched=this.batched,
            attested=this.attested,
            min_contributors=old.min_contributors,
            attestation_quorum=old.attestation_quorum,
            max_examples=old.max_examples,
            aggregate_window=old.aggregate_window,
            attest_window=old.attest_window,
            batching=old.batching,
        ),
    }
    for address in (*NODES, OUTSIDER):
        answers["member", address] = Member(*astuple(model.nodes[address]))
        answers["isInCohort", address] = address in this.members
    return answers


def read_answer(view: str, answer: Any) -> object:
    """Return a view's answer as the client would."""
    match view:
        case "predecessor" | "keyMaker":
            return as_address(answer, view)
        case "privacy":
            return Privacy(*answer)
        case "state":
            return State(*answer)
        case "currentRound":
            number, phase, *rest = answer
            return Round(number, Phase(phase), *rest)
        case "member":
            status, *rest = answer
            return Member(MemberStatus(status), *rest)
    return answer
