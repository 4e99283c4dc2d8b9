"""Replaying events: the state that they leave behind, and each way in which they can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from fedproof.digests import Address, Digest, checksum_address
from fedproof.errors import HistoryBroken
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import (
    AGGREGATOR_ROLE,
    DEFAULT_ADMIN_ROLE,
    LEAF_TOO,
    Event,
    ExclusionReason,
    FailureReason,
    MemberStatus,
    OnChainPolicy,
    Phase,
    RoundSealed,
    Subject,
    UpdateCommitted,
)
from fedproof.ledger.history import History
from fedproof.ledger.rounds import Batch, Commitment, Dispute, Proposal
from fedproof.ledger.statements import RoundStatements
from tests.chain import Federation, MemoryChain, make_digest

NOT_UPLOADED = ExclusionReason.NOT_UPLOADED
MODEL, OTHER = make_digest("model"), make_digest("another model")


@pytest.fixture(scope="module")
def lived() -> Federation:
    """A federation that has seen every kind of event, but for a predecessor, and has retired."""
    federation = Federation(MemoryChain())
    federation.admit_all()
    federation.adopt_policy(batching=True, privacy_cost=3, privacy_budget=12)
    federation.publish_epoch()
    admin, aggregator, nodes = federation.admin, federation.aggregator, federation.nodes
    nodes[2].approve_policy(1, make_digest("policy"))
    # 1: one is excluded, two sign, and the excluded one attests another model afterwards.
    aggregator.open_round(1)
    federation.commit(0, 1, 2)
    federation.pass_deadline()
    aggregator.seal(1, {**dict.fromkeys(federation.addresses(0, 2), 0), nodes[1].address: NOT_UPLOADED})
    aggregator.publish_aggregate(1, make_digest("sum"))
    aggregator.finalise(1, MODEL, {node.address: sign(federation, node, 1) for node in (nodes[0], nodes[2])})
    nodes[1].attest(1, OTHER)
    admin.release_checkpoint(make_digest("file"))
    admin.suspend(nodes[1].address)
    nodes[2].rotate_keys(make_digest("new wrapping"), make_digest("new certificate"))
    federation.outsider.register(make_digest("late wrapping"), make_digest("late certificate"))
    admin.admit(federation.outsider.address)
    federation.publish_epoch(2)
    # 2: fails while it is open.
    aggregator.open_round(2)
    federation.commit(3, number=2)
    aggregator.fail(2, FailureReason.TOO_FEW_CONTRIBUTORS)
    # 3: two in the batch, of whom one commits as well, and a third by transaction; a result is proposed.
    aggregator.open_round(3)
    aggregator.anchor_commitments(3, make_digest("batch"), 2)
    federation.commit(2, 3, number=3)
    aggregator.seal(3, {nodes[2].address: LEAF_TOO, nodes[3].address: 0})
    aggregator.publish_aggregate(3, make_digest("sum 3"))
    aggregator.propose_result(3, OTHER, make_digest("attestations"), 2)
    federation.pass_deadline()
    federation.outsider.finalise(3, OTHER)
    # 4: disputed. Then one leaves, a role changes hands, and the ledger retires.
    aggregator.open_round(4)
    aggregator.seal(4, dict.fromkeys(federation.commit(0, 2, 3, number=4), 0))
    nodes[3].dispute(4, Subject.CHUNK, 7)
    nodes[3].leave()
    admin.revoke_role(AGGREGATOR_ROLE, aggregator.address)
    admin.retire()
    return federation


def sign(federation: Federation, node: Ledger, number: int) -> bytes:
    """Return a node's signature under the usual model."""
    statements = RoundStatements(
        chain_id=node.chain_id,
        contract=federation.contract,
        round=number,
        base_model=make_digest("genesis"),
        cohort=(),
    )
    return node.sign(statements.describe_attestation(node.address, MODEL))


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
        assert record.status is on_chain.status
        if record.status is MemberStatus.ADMITTED:
            assert record.first_round == on_chain.boundary
    late, rotated = (history.members[lived.nodes[index].address] for index in (3, 2))
    assert late.wrapping_key_digest == make_digest("late wrapping")
    assert late.status is MemberStatus.LEFT
    assert rotated.certificate_digest == make_digest("new certificate")
    assert history.members[lived.nodes[1].address].status is MemberStatus.SUSPENDED
    assert list(history.admitted) == lived.addresses(0, 2)
    assert history.membership == lived.admin.state().membership == 6
    assert history.roles == {DEFAULT_ADMIN_ROLE: {lived.admin.address}, AGGREGATOR_ROLE: set()}
    assert history.is_retired


def test_replay_of_policy_and_epoch(lived: Federation, history: History) -> None:
    """Policies and epochs are as the contract has them."""
    assert history.policies[1].digest == lived.admin.policy_digest()
    assert history.approvals == {1: {lived.nodes[2].address}}
    state = lived.admin.state()
    for name in ("min_contributors", "attestation_quorum", "max_examples", "commit_window", "batching"):
        assert getattr(history.policies[1], name) == getattr(state, name)
    epoch = history.current_epoch
    assert epoch is not None
    assert (epoch.number, epoch.key_maker, epoch.membership) == (2, lived.nodes[0].address, 5)
    assert (epoch.context_digest, epoch.wrapped_keys_root) == (make_digest("context"), make_digest("keys"))
    assert history.key_maker is None
    assert history.is_epoch_stale == state.is_epoch_stale
    assert history.privacy_spent == lived.admin.privacy().spent == 12


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
    assert record.aggregate_root == make_digest("sum")
    assert record.attestations == {nodes[0]: MODEL, nodes[1]: OTHER, nodes[2]: MODEL}
    assert record.signers == {nodes[0], nodes[2]}
    assert None not in (record.sealed_block, record.aggregated_block, record.ended_block)
    assert (record.failure, record.failed_in, record.deadline) == (None, None, 0)


def test_replay_of_a_failed_round(lived: Federation, history: History) -> None:
    """A failed round says where and why, and the head model stays."""
    record = history.rounds[2]
    assert (record.number, record.phase, record.failed_in) == (2, Phase.FAILED, Phase.OPEN)
    assert record.failure == FailureReason.TOO_FEW_CONTRIBUTORS
    assert record.cohort == set(lived.addresses(0, 2, 3))
    assert record.base_model == history.rounds[3].base_model == MODEL


def test_replay_of_a_batched_round(lived: Federation, history: History) -> None:
    """A batch and a proposal are on record, and who committed in both ways."""
    record = history.rounds[3]
    assert record.batch == Batch(make_digest("batch"), 2)
    assert list(record.contributors) == lived.addresses(2, 3)
    assert record.doubled == set(lived.addresses(2))
    assert record.proposal == Proposal(OTHER, make_digest("attestations"), 2)
    assert (record.phase, record.result) == (Phase.FINALISED, OTHER)
    assert history.head_model == OTHER == lived.admin.head_model()


def test_replay_of_a_disputed_round(lived: Federation, history: History) -> None:
    """A dispute says who found what wrong, and failed the round."""
    record = history.current_round
    assert record is not None
    assert record.dispute == Dispute(lived.nodes[3].address, Subject.CHUNK, 7)
    assert (record.phase, record.failed_in, record.failure) == (
        Phase.FAILED,
        Phase.SEALED,
        FailureReason.DISPUTE,
    )


def test_replay_in_pieces(events: list[Event], history_hash: Digest) -> None:
    """However the events are cut, the history is the same."""
    pieces = History()
    for event in events:
        pieces.extend([event])
    pieces.verify(history_hash)


def test_a_missing_event_is_noticed(events: list[Event], history_hash: Digest) -> None:
    """Whichever event is left out, the history breaks, but for commitments of an unsealed round."""
    for index in range(len(events)):
        if _is_uncovered(events[index]):
            continue
        assert _is_broken(events[:index] + events[index + 1 :], history_hash), events[index]


def test_exchanged_events_are_noticed(events: list[Event], history_hash: Digest) -> None:
    """Whichever neighbours change places, the history breaks, also when their positions are adapted."""
    for index in range(len(events) - 1):
        first, second = events[index : index + 2]
        assert _is_broken([*events[:index], second, first, *events[index + 2 :]], history_hash)
        moved = [_at_place_of(second, first), _at_place_of(first, second)]
        if UpdateCommitted in (type(first), type(second)):
            continue  # a commitment's place among its round's other events says nothing
        assert _is_broken([*events[:index], *moved, *events[index + 2 :]], history_hash), (first, second)


def test_a_repeated_event_is_noticed(events: list[Event], history_hash: Digest) -> None:
    """No event counts twice."""
    for index, event in enumerate(events):
        assert _is_broken([*events[: index + 1], event, *events[index + 1 :]], history_hash)


def test_an_altered_event_is_noticed(events: list[Event], history_hash: Digest) -> None:
    """Whichever argument of whichever event differs, the history breaks."""
    position = {field.name for field in fields(Event)}
    for index, event in enumerate(events):
        if _is_uncovered(event):
            continue
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
    """A seal that leaves a committed node out is none that the contract takes."""
    forgetful = [
        replace(event, nodes=event.nodes[:-1], reasons=event.reasons[:-1])
        if isinstance(event, RoundSealed)
        else event
        for event in events
    ]
    with pytest.raises(HistoryBroken, match=f"{checksum_address(lived.nodes[2].address)} is missing"):
        History().extend(forgetful)


def _is_uncovered(event: Event) -> bool:
    return isinstance(event, UpdateCommitted) and event.round == 2


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
            return flip(value) if value else b"\x01"
        case OnChainPolicy():
            return replace(value, attest_window=value.attest_window + 1)
        case Phase():
            return Phase((value + 1) % len(Phase))
        case Subject():
            return Subject((value + 1) % len(Subject))
        case int():
            return value + 1
        case tuple() if value:
            return (*value[:-1], Address(flip(value[-1])))
        case tuple():
            return (Address(bytes(20)),)
    raise TypeError(f"no other value for {value!r}")
