"""Replaying events: the state that they leave behind, and each way in which they can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from fedproof.digests import Address, Digest
from fedproof.errors import HistoryBroken
from fedproof.ledger.events import (
    AGGREGATOR_ROLE,
    DEFAULT_ADMIN_ROLE,
    Event,
    ExclusionReason,
    FailureReason,
    MemberStatus,
    OnChainPolicy,
    Phase,
    RoundSealed,
)
from fedproof.ledger.history import History
from fedproof.ledger.rounds import Commitment
from tests.chain import Federation, MemoryChain, make_digest


@pytest.fixture(scope="module")
def lived() -> Federation:
    """A federation after a finalised round with an excluded node, and a failed one."""
    federation = Federation(MemoryChain())
    federation.admit_all()
    federation.adopt_policy()
    federation.publish_epoch()
    aggregator, nodes = federation.aggregator, federation.nodes
    aggregator.open_round(1)
    federation.commit(0, 1, 2)
    federation.pass_deadline()
    aggregator.seal(1, federation.addresses(0, 2), [(nodes[1].address, ExclusionReason.NOT_UPLOADED)])
    aggregator.publish_aggregate(1, make_digest("sum"))
    nodes[0].attest(1, make_digest("model"))
    nodes[2].attest(1, make_digest("model"))
    aggregator.finalise(1, make_digest("model"))
    nodes[1].attest(1, make_digest("another model"))
    federation.admin.suspend(nodes[1].address)
    federation.outsider.register(make_digest("late wrapping"), make_digest("late certificate"))
    federation.admin.admit(federation.outsider.address)
    aggregator.open_round(2)
    federation.commit(3, number=2)
    aggregator.fail(2, FailureReason.TOO_FEW_CONTRIBUTORS)
    return federation


@pytest.fixture(scope="module")
def events(lived: Federation) -> list[Event]:
    """Every event of that life."""
    return lived.admin.events(0, lived.admin.block_number())


@pytest.fixture(scope="module")
def history_hash(lived: Federation) -> Digest:
    """What the contract says that they hash to."""
    return lived.admin.history_hash()


@pytest.fixture(scope="module")
def history(events: list[Event], history_hash: Digest) -> History:
    """The replay of them all."""
    history = History()
    history.extend(events)
    history.verify(history_hash)
    return history


def test_a_copy_goes_on_by_itself(events: list[Event], history: History) -> None:
    """At every event, what is replayed into a copy leaves the history that it was made of as it was."""
    passed = History()
    for event in events:
        before = vars(passed.copy())
        following = passed.copy()
        following.extend([event])
        assert vars(passed) == before
        assert vars(following) != before
        passed = following
    assert vars(passed) == vars(history)


def test_replay_of_members_and_roles(lived: Federation, history: History) -> None:
    """Standings and keys are as the contract has them."""
    for node in lived.nodes:
        on_chain, record = lived.admin.member(node.address), history.members[node.address]
        assert (record.status, record.first_round) == (on_chain.status, on_chain.first_round)
    late = history.members[lived.outsider.address]
    assert late.wrapping_key_digest == make_digest("late wrapping")
    assert history.members[lived.nodes[1].address].status is MemberStatus.SUSPENDED
    assert list(history.admitted) == lived.addresses(0, 2, 3)
    assert history.roles == {
        DEFAULT_ADMIN_ROLE: {lived.admin.address},
        AGGREGATOR_ROLE: {lived.aggregator.address},
    }


def test_replay_of_policy_and_epoch(lived: Federation, history: History) -> None:
    """Policies and epochs are as the contract has them."""
    assert history.policies == {1: lived.admin.policy()}
    epoch = history.current_epoch
    assert epoch is not None
    assert (epoch.number, epoch.key_maker) == (1, lived.nodes[0].address)
    assert (epoch.context_digest, epoch.wrapped_keys_root) == (make_digest("context"), make_digest("keys"))
    assert history.key_maker is None


def test_replay_of_a_finalised_round(lived: Federation, history: History) -> None:
    """A round's record holds all that happened in it."""
    record = history.rounds[1]
    nodes = lived.addresses(0, 1, 2)
    assert (record.phase, record.base_model, record.result) == (
        Phase.FINALISED,
        make_digest("genesis"),
        make_digest("model"),
    )
    assert record.cohort == set(nodes)
    assert record.commitments == {
        node: Commitment(make_digest(f"update 1 {index}"), 100 + index) for index, node in enumerate(nodes)
    }
    assert list(record.contributors) == lived.addresses(0, 2)
    assert record.excluded == {nodes[1]: ExclusionReason.NOT_UPLOADED}
    assert record.unaccounted == ()
    assert record.aggregate_root == make_digest("sum")
    model, other = make_digest("model"), make_digest("another model")
    assert record.attestations == {nodes[0]: model, nodes[1]: other, nodes[2]: model}
    assert None not in (record.sealed_block, record.aggregated_block, record.ended_block)
    assert (record.failure, record.failed_in, record.deadline) == (None, None, 0)


def test_replay_of_a_failed_round(lived: Federation, history: History) -> None:
    """A failed round says where and why, and the head model stays."""
    record = history.current_round
    assert record is not None
    assert (record.number, record.phase, record.failed_in) == (2, Phase.FAILED, Phase.OPEN)
    assert record.failure == FailureReason.TOO_FEW_CONTRIBUTORS
    assert record.cohort == set(lived.addresses(0, 2, 3))
    assert history.head_model == record.base_model == make_digest("model") == lived.admin.head_model()


def test_replay_in_pieces(events: list[Event], history_hash: Digest) -> None:
    """However the events are cut, the history is the same."""
    pieces = History()
    for event in events:
        pieces.extend([event])
    pieces.verify(history_hash)


def test_a_missing_event_is_noticed(events: list[Event], history_hash: Digest) -> None:
    """Whichever event is left out, the history breaks."""
    for index in range(len(events)):
        assert _is_broken(events[:index] + events[index + 1 :], history_hash), events[index]


def test_exchanged_events_are_noticed(events: list[Event], history_hash: Digest) -> None:
    """Whichever neighbours change places, the history breaks, also when their positions are adapted."""
    for index in range(len(events) - 1):
        first, second = events[index : index + 2]
        assert _is_broken([*events[:index], second, first, *events[index + 2 :]], history_hash)
        moved = [_at_place_of(second, first), _at_place_of(first, second)]
        assert _is_broken([*events[:index], *moved, *events[index + 2 :]], history_hash), (first, second)


def test_a_repeated_event_is_noticed(events: list[Event], history_hash: Digest) -> None:
    """No event counts twice."""
    for index, event in enumerate(events):
        assert _is_broken([*events[: index + 1], event, *events[index + 1 :]], history_hash)


def test_an_altered_event_is_noticed(events: list[Event], history_hash: Digest) -> None:
    """Whichever argument of whichever event differs, the history breaks."""
    position = {field.name for field in fields(Event)}
    for index, event in enumerate(events):
        for field in fields(event):
            if field.name in position:
                continue
            altered = replace(event, **{field.name: _alter(getattr(event, field.name))})
            assert _is_broken([*events[:index], altered, *events[index + 1 :]], history_hash), altered


def test_a_broken_history_names_the_event(events: list[Event]) -> None:
    """The message names block, log and event, and what was expected."""
    sealed = next(index for index, event in enumerate(events) if isinstance(event, RoundSealed))
    with pytest.raises(
        HistoryBroken,
        match=r"block \d+, log 0, AggregatePublished: expected round 1 to be SEALED, it is OPEN",
    ):
        History().extend(events[:sealed] + events[sealed + 1 :])


def test_a_node_that_the_seal_forgets_is_named(events: list[Event], lived: Federation) -> None:
    """A committed node that is neither counted nor excluded stands out."""
    forgetful = [
        replace(event, excluded=(), reasons=()) if isinstance(event, RoundSealed) else event
        for event in events
    ]
    history = History()
    history.extend(forgetful)
    assert list(history.rounds[1].unaccounted) == lived.addresses(1)


def _is_broken(events: list[Event], history_hash: Digest) -> bool:
    history = History()
    try:
        history.extend(events)
        history.verify(history_hash)
    except HistoryBroken:
        return True
    return False


def _at_place_of(event: Event, other: Event) -> Event:
    return replace(event, block_number=other.block_number, log_index=other.log_index)


def _alter(value: object) -> object:
    flip: Callable[[bytes], bytes] = lambda raw: bytes([raw[0] ^ 1]) + raw[1:]  # noqa: E731 - used once, below
    match value:
        case bytes():
            return flip(value)
        case OnChainPolicy():
            return replace(value, attest_window=value.attest_window + 1)
        case Phase():
            return Phase((value + 1) % len(Phase))
        case int():
            return value + 1
        case tuple() if value and isinstance(value[0], bytes):
            return (*value[:-1], Address(flip(value[-1])))
        case tuple() if value:
            return (*value[:-1], value[-1] + 1)
    raise TypeError(f"no other value for {value!r}")
