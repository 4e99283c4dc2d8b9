"""Objections: what calls for one, what does not, and by when it is on the ledger."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from fedproof_node.journal import Stage
from hexbytes import HexBytes

from fedproof.digests import ZERO_DIGEST, Address, as_address, checksum_address
from fedproof.errors import LedgerError, NetworkError
from fedproof.ledger.client import Receipt
from fedproof.ledger.events import Phase, Subject
from fedproof.ledger.rounds import Dispute
from fedproof.ledger.statements import RoundStatements, SignedAttestation, hash_typed
from fedproof.wire import aggregation_pb2 as wire
from tests.auditor.batched import describe_wallet
from tests.chain import ABI, make_digest
from tests.node.test_batches import WINDOW_S, pass_half_window, record_of, refuse
from tests.node.world import Node, World

MakeWorld = Callable[..., World]
LONG_WINDOW_S = 320


def forge_leaf(leaves: list[SignedAttestation]) -> None:
    leaves[0] = SignedAttestation(leaves[0].node, leaves[1].signature)


def forge_sum(sums: list[bytes]) -> None:
    sums[0] = sums[0][:-1] + bytes([sums[0][-1] ^ 1])


def play_to_sum(world: World, *, forge: Callable[[list[bytes]], None] | None = None) -> None:
    """Take round 1 to its published sum, without a look of the nodes."""
    world.begin_epoch()
    world.open_round(1)
    world.settle()
    world.anchor(1)
    world.seal(1)
    world.aggregate(1, forge=forge)


def play_to_proposal(world: World, *, spoil: Callable[[list[SignedAttestation]], None] | None = None) -> None:
    """Take round 1 to a proposal that no node has looked at; nor at the batch, in a new process."""
    play_to_sum(world)
    world.settle()
    world.propose(1, spoil=spoil)
    for node in world.nodes:
        node.stop()


@pytest.fixture
def proposed(make_world: MakeWorld) -> World:
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    play_to_proposal(world)
    return world


# Said until it is heard


class Deceived:
    """An endpoint's receipts of disputes that never reached the chain."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[object, ...]] = []
        self._block = node.ledger.block(1).hash
        monkeypatch.setattr(node.ledger, "dispute", self.dispute)

    def dispute(self, *arguments: object) -> Receipt:
        self.told.append(arguments)
        return Receipt(self._block, 1, 50_000, ())


def test_an_objection_is_repeated_until_the_round_is_over(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that shows a receipt of a dispute which never reached the chain silences nobody."""
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    play_to_proposal(world, spoil=forge_leaf)
    victim = world.nodes[0]
    deceived = Deceived(victim, monkeypatch)
    for _ in range(3):
        victim.daemon.watchtower.attend()
    assert deceived.told == [(1, Subject.ATTESTATION, 0)] * 3
    monkeypatch.undo()
    victim.daemon.watchtower.attend()
    assert record_of(world).dispute == Dispute(victim.address, Subject.ATTESTATION, 0)
    assert not victim.daemon.watchtower.attend(), "it is over"


def test_what_the_daemon_found_is_repeated_too(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk that recomputation found to be wrong is disputed in each look."""
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    play_to_sum(world, forge=forge_sum)
    victim = world.nodes[0]
    deceived = Deceived(victim, monkeypatch)
    while victim.daemon.turn():
        pass
    assert victim.journal.entry(1).stage is Stage.REFUSED
    victim.daemon.watchtower.attend()
    assert deceived.told == [(1, Subject.CHUNK, 0)] * 2
    monkeypatch.undo()
    victim.daemon.watchtower.attend()
    assert record_of(world).dispute == Dispute(victim.address, Subject.CHUNK, 0)


# Faults that pass


PASSING = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


@pytest.mark.parametrize("is_late", [False, True], ids=["early", "late"])
def test_one_bad_answer_is_no_reason_to_object(proposed: World, *, is_late: bool) -> None:
    """What a proxy says, or an aggregator that has just been started, is asked about again; also in the
    second half of the window."""
    node = proposed.nodes[0]
    if is_late:
        pass_half_window(proposed)
    for code in PASSING:
        for method in ("GetBatch", "GetProposal"):
            refuse(proposed, method, code, times=1)
        with pytest.raises(NetworkError, match=code.name):
            node.daemon.watchtower.attend()
        assert node.daemon.watchtower.attend(), "it looks again, and finds both sound"
        assert not node.daemon.watchtower.attend()
        node.stop()
    assert record_of(proposed).phase is Phase.PROPOSED
    assert node.transactions == 0


def test_a_daemon_asks_again_too(make_world: MakeWorld) -> None:
    """One answer without a batch does not end a node's part in the round."""
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    play_to_sum(world)
    refuse(world, "GetBatch", grpc.StatusCode.NOT_FOUND, times=1)
    with pytest.raises(NetworkError, match="the leaves are not there yet"):
        world.nodes[0].daemon.turn()
    world.settle()
    assert len(world.attestations(1)) == 3


@pytest.mark.parametrize("method", ["GetBatch", "GetProposal"])
def test_one_subject_keeps_nobody_from_the_other(proposed: World, method: str) -> None:
    """While one is withheld, the other is looked at in the same look."""
    node = proposed.nodes[0]
    refuse(proposed, method, grpc.StatusCode.UNAVAILABLE)
    proposed.servicer.requests.clear()
    with pytest.raises(NetworkError, match=method):
        node.daemon.watchtower.attend()
    asked = {type(request).__name__ for request in proposed.servicer.requests}
    assert asked >= {"GetBatchRequest", "GetProposalRequest"}


def test_a_withheld_batch_is_disputed(proposed: World) -> None:
    """Whoever is shown no leaves under the anchored root by half of the window objects."""
    node = proposed.nodes[0]
    proposed.servicer.batches[1].pop()
    with pytest.raises(NetworkError, match="the leaves are not there yet"):
        node.settle()
    pass_half_window(proposed)
    node.settle()
    assert record_of(proposed).dispute == Dispute(node.address, Subject.COMMITMENT, 0)


# Contracts as nodes


@pytest.fixture
def with_wallet(make_world: MakeWorld) -> tuple[World, Address]:
    """Round 1 is sealed; an organisation's wallet among its nodes signed, and takes no signature any more."""
    world = make_world(batching=True, attest_window_s=WINDOW_S, attestation_quorum=3)
    eth = world.chain.web3.eth
    keys = [make_digest("wrapping key"), make_digest("certificate"), ZERO_DIGEST]
    call = bytes.fromhex(eth.contract(abi=ABI).encode_abi("register", args=keys)[2:])
    payer = eth.accounts[0]
    made = eth.send_transaction({"from": payer, "data": HexBytes(describe_wallet(world.contract, call))})
    wallet = as_address(eth.wait_for_transaction_receipt(made)["contractAddress"], "wallet")
    world.admin.admit(wallet)
    world.begin_epoch()
    world.open_round(1)
    world.settle()
    record = record_of(world)
    statements = RoundStatements(
        world.admin.chain_id, world.contract, 1, record.base_model, record.cohort, world.admin.is_signed_by
    )
    root = make_digest("the wallet's update")
    message = statements.describe_commitment(wallet, update_root=root, examples=1, nonce=1)
    world.servicer.commitments[1, wallet] = wire.SignedCommitment(
        node=wallet, update_root=root, examples=1, nonce=1, signature=hash_typed(message)
    )
    world.servicer.uploads[1, wallet] = [b""] * world.chunks
    world.anchor(1)
    world.seal(1)
    eth.send_transaction({"from": payer, "to": checksum_address(wallet)})
    return world, wallet


def test_a_wallet_that_changed_its_mind_had_signed(with_wallet: tuple[World, Address]) -> None:
    """A contract is asked about its signature as of the block that anchored the batch."""
    world, wallet = with_wallet
    node = world.nodes[0]
    assert node.daemon.watchtower.attend()
    assert not node.daemon.watchtower.attend()
    assert record_of(world).dispute is None
    assert wallet in {each.node for each in world.leaves[1]}


def test_an_endpoint_without_old_state_is_asked_about_now(
    with_wallet: tuple[World, Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody can say what the contract said then, what it says now counts."""
    world, _ = with_wallet
    node = world.nodes[0]
    ask = node.ledger.is_signed_by

    def forget(*question: Any, at_block: int | None = None) -> bool:
        if at_block is not None:
            raise LedgerError(f"block {at_block}: missing trie node")
        return ask(*question)

    monkeypatch.setattr(node.ledger, "is_signed_by", forget)
    node.daemon.watchtower.attend()
    dispute = record_of(world).dispute
    assert dispute is not None
    assert dispute.subject is Subject.COMMITMENT


# By when


@dataclass
class Drag:
    """An aggregator that lets every answer wait for as long as a watchtower does.

    Attributes:
        truths: whether it tells the truth in the end, one after the other; nothing any more after the last.
        told: of which methods it did.
    """

    world: World
    truths: list[bool]
    told: set[str]

    def __call__(self, method: str, context: grpc.ServicerContext) -> None:
        pass_time(self.world, LONG_WINDOW_S // 16)
        if self.truths and self.truths.pop(0):
            self.told.add(method)
            return
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "dragged")


def time_of(world: World) -> int:
    return world.admin.latest_block().timestamp


def pass_time(world: World, seconds: int) -> None:
    world.chain.travel_to(time_of(world) + seconds)
    world.chain.tester.mine_block()


def drag_out(world: World, truths: list[bool]) -> float | None:
    """Return how much of the window is over when the dispute is mined, where the aggregator answers like
    that from just before half of it; none if it proved batch and proposal sound."""
    node, drag = world.nodes[0], Drag(world, truths, set())
    proposed_at = world.admin.round().deadline - LONG_WINDOW_S
    for method in ("GetBatch", "GetProposal"):
        refuse(world, method, grpc.StatusCode.UNAVAILABLE, times=1)
    look(node)
    for method in ("GetBatch", "GetProposal"):
        world.servicer.before[method] = lambda context, method=method: drag(method, context)  # type: ignore[misc]
    while not (is_over := world.admin.round().phase is Phase.FAILED) and len(drag.told) < 2:
        look(node)
        if world.admin.round().phase is not Phase.FAILED:
            pass_time(world, int(node.daemon.watchtower.pause_s))
    world.servicer.before.clear()
    return (time_of(world) - proposed_at) / LONG_WINDOW_S if is_over else None


def look(node: Node) -> None:
    """Look once, as the thread does: what has to be tried again is tried in the next look."""
    with suppress(NetworkError, LedgerError):
        node.daemon.watchtower.attend()


def test_the_last_objection_goes_out_in_time(make_world: MakeWorld) -> None:
    """However an aggregator that withholds something mixes delays and truths, the dispute is mined when at
    most 23/32 of the window are over, and not before half of it."""
    world = make_world(batching=True, attest_window_s=LONG_WINDOW_S)
    play_to_proposal(world)
    world.chain_federation.pass_deadline(by_s=-LONG_WINDOW_S // 2)
    world.chain.tester.mine_block()
    node = world.nodes[0]
    shares: dict[tuple[bool, ...], float | None] = {}
    for truths in itertools.product((True, False), repeat=4):
        node.stop()
        with world.chain.rolled_back():
            shares[truths] = drag_out(world, list(truths))
        node.stop()
    spans = [share for share in shares.values() if share is not None]
    assert min(spans) > 1 / 2
    assert max(spans) <= 23 / 32 + 2 / LONG_WINDOW_S, "a second for each block on the way"
    assert {truths for truths, share in shares.items() if share is None}, "both were proved sound"
