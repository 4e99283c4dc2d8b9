"""What nodes sign instead of sending transactions: each check that stands before the journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from fedproof.digests import checksum_address
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.federation import ATTEST_WINDOW_S, POLICY
from tests.aggregator.world import World, refusal
from tests.chain import make_digest

Refusal = tuple[grpc.StatusCode, str]
CONTRACTS = "; a node that is a contract commits by a transaction"


def put(world: World, index: int, *, number: int = 1, **changes: Any) -> Callable[[], None]:
    """Return a call that hands over a node's signed commitment, signed with other fields where asked."""
    signed = world.sign_update(index, world.make_update(index), **changes)
    return lambda: world.put_commitment(signed, number=number)


def count_signed(world: World) -> int:
    return len(world.journal.find_commitments(1))


def where(world: World, index: int) -> str:
    return f"round 1: commitment of {checksum_address(world.node(index).address)}"


# Commitments


def test_a_signed_commitment_is_taken_once(batching: World) -> None:
    """The same again is fine, also with another nonce: then the first signature stays."""
    put(batching, 0)()
    first = batching.journal.find_commitments(1)
    put(batching, 0)()
    put(batching, 0, nonce=1)()
    assert batching.journal.find_commitments(1) == first
    assert list(first) == [batching.node(0).address]


def test_a_second_commitment_is_refused(batching: World) -> None:
    """Another root, or another count of examples, is never taken instead of the first."""
    put(batching, 0)()
    before = batching.journal.find_commitments(1)
    for changes in ({"update_root": make_digest("another")}, {"examples": 7}):
        code, message = refusal(put(batching, 0, **changes))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert f"{where(batching, 0)}: expected the one of root" in message
    assert batching.journal.find_commitments(1) == before


def test_a_commitment_of_nobody_in_the_cohort_is_refused(batching: World) -> None:
    """A node that is not admitted may sign what it likes."""
    assert refusal(put(batching, 3)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{where(batching, 3)}: expected a node of the cohort, it is none{CONTRACTS}",
    )
    assert count_signed(batching) == 0


@pytest.mark.parametrize("examples", [0, POLICY.rounds.max_examples + 1])
def test_a_commitment_of_a_weight_that_the_policy_forbids_is_refused(batching: World, examples: int) -> None:
    """One below the least and one above the most; both limits themselves are taken."""
    code, message = refusal(put(batching, 0, examples=examples))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == f"{where(batching, 0)}: expected 1 to 1000 examples, got {examples}{CONTRACTS}"
    put(batching, 0, examples=1)()
    put(batching, 1, examples=POLICY.rounds.max_examples)()
    assert count_signed(batching) == 2


@pytest.mark.parametrize("spoil", ["other key", "other round", "cut", "too long", "empty"])
def test_a_commitment_that_its_node_did_not_sign_is_refused(batching: World, spoil: str) -> None:
    """A signature of another key, over another round, or of another form is none."""
    signed = batching.sign_update(0, batching.make_update(0))
    message = batching.describe().describe_commitment(
        batching.node(0).address, update_root=signed.update_root, examples=signed.examples, nonce=0
    )
    if spoil == "other key":
        signed.signature = batching.node(1).sign(message)
    elif spoil == "other round":
        message["message"]["round"] = 2
        signed.signature = batching.node(0).sign(message)
    else:
        signed.signature = {"cut": signed.signature[:-1], "too long": bytes(4097), "empty": b""}[spoil]
    code, text = refusal(lambda: batching.put_commitment(signed))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith(where(batching, 0))
    assert count_signed(batching) == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"node": bytes(19)}, "expected an address"),
        ({"update_root": bytes(31)}, "expected a digest of 32 bytes"),
        ({"nonce": 1 << 63}, "expected a nonce below 2^63"),
    ],
)
def test_a_malformed_commitment_is_refused(batching: World, changes: dict[str, Any], expected: str) -> None:
    """Lengths and ranges are checked before the signature is."""
    signed = batching.sign_update(0, batching.make_update(0))
    for name, value in changes.items():
        setattr(signed, name, value)
    code, message = refusal(lambda: batching.put_commitment(signed))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert expected in message


def test_without_batching_no_signed_commitment_is_taken(world: World) -> None:
    """In such a policy a node is told to commit by a transaction."""
    assert refusal(put(world, 0)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "round 1: commitment: the policy has no batching: commit by a transaction",
    )


def test_after_the_anchoring_no_signed_commitment_is_taken(batching: World) -> None:
    """What came before it is anchored; a node that comes later has to commit by a transaction."""
    batching.deliver_signed(0)
    batching.pass_deadline(by_s=-ATTEST_WINDOW_S - 10)
    assert batching.daemon.step()
    assert batching.of_kind("anchored")[0]["count"] == 1
    assert refusal(put(batching, 1)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "round 1: commitment: the batch is anchored already: commit by a transaction",
    )


def test_a_commitment_to_a_round_that_is_not_open_is_refused(batching: World) -> None:
    """One that is not on the ledger, and one that is sealed."""
    assert refusal(put(batching, 0, number=2))[0] is grpc.StatusCode.NOT_FOUND
    batching.deliver(0, 1, 2)
    assert batching.daemon.step()
    assert refusal(put(batching, 0)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "round 1: expected an open round, it is in phase SEALED",
    )


def test_a_signed_update_can_be_uploaded(batching: World) -> None:
    """A signature is as good as a transaction, and counts for its own root only."""
    update = batching.signed_update(0)
    assert batching.upload(0, update).update_root == update.root
    assert batching.standing(0).complete
    batching.signed_update(1)
    code, _ = refusal(lambda: batching.upload(1, batching.make_update(1, examples=7)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal(lambda: batching.upload(2, batching.make_update(2)))[0] is code


def test_signed_statements_survive_a_restart(batching: World) -> None:
    """What was acknowledged is in the journal, and the same again is still fine."""
    put(batching, 0)()
    before = batching.journal.find_commitments(1)
    batching.restart()
    assert batching.journal.find_commitments(1) == before
    put(batching, 0)()
    assert refusal(put(batching, 0, examples=7))[0] is grpc.StatusCode.FAILED_PRECONDITION


# Attestations


@pytest.fixture
def summed(world: World) -> World:
    """A round whose sum is published, in a policy without batching."""
    world.deliver(0, 1, 2)
    for _ in range(2):
        assert world.daemon.step()
    return world


def test_a_signed_attestation_is_taken_once(summed: World) -> None:
    """The same again is fine; another model is refused, and the first one stays."""
    model = summed.attest_signed(0)
    summed.attest_signed(0)
    node = summed.node(0).address
    code, message = refusal(lambda: summed.attest_signed(0, model="another"))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert message == (
        f"round 1: attestation of {checksum_address(node)}: expected the one of {model.hex()} again, "
        f"got {make_digest('another').hex()}"
    )
    summed.restart()
    assert {node: model for node, (model, _) in summed.journal.find_attestations(1).items()} == {node: model}


def test_an_attestation_of_nobody_in_the_cohort_is_refused(summed: World) -> None:
    """A node that is not admitted may sign what it likes."""
    code, message = refusal(lambda: summed.attest_signed(3))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected a node of the cohort, it is none" in message


def test_an_attestation_that_its_node_did_not_sign_is_refused(summed: World) -> None:
    """Another node's signature, or one of another model, attests nothing."""
    model = make_digest("model")
    forged = wire.SignedAttestation(
        node=summed.node(0).address, signature=summed.sign_model(1, model).signature
    )
    for signed, said in ((forged, model), (summed.sign_model(0, model), make_digest("another"))):
        code, message = refusal(lambda signed=signed, said=said: summed.put_attestation(signed, said))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert message.endswith("expected its signature, got another")
    assert not summed.journal.find_attestations(1)


def test_a_malformed_attestation_is_refused(summed: World) -> None:
    """Node and model have their lengths."""
    signed = summed.sign_model(0, make_digest("model"))
    for node, model in ((bytes(21), make_digest("model")), (signed.node, b"model")):
        request = wire.PutAttestationRequest(
            round=1,
            model_digest=model,
            attestation=wire.SignedAttestation(node=node, signature=signed.signature),
        )
        code, _ = refusal(lambda request=request: summed.stub().PutAttestation(request))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_an_attestation_in_another_phase_is_refused(world: World) -> None:
    """Before the sum is published there is nothing to attest, and after the end nothing to add."""

    def attest() -> Refusal:
        return refusal(lambda: world.attest_signed(0))

    def expected(phase: str) -> Refusal:
        message = f"round 1: expected a round whose sum is published, it is in phase {phase}"
        return grpc.StatusCode.FAILED_PRECONDITION, message

    assert attest() == expected("OPEN")
    world.deliver(0, 1, 2)
    assert world.daemon.step()
    assert attest() == expected("SEALED")
    assert world.daemon.step()
    world.attest(1, 2)
    assert attest() == expected("FINALISED")


def test_a_batch_and_a_proposal_are_given_only_where_there_is_one(summed: World) -> None:
    """Who asks for what was never anchored or proposed is told the phase."""
    stub = summed.stub()
    for call, what in (
        (lambda: stub.GetBatch(wire.GetBatchRequest(round=1)), "an anchored batch"),
        (lambda: stub.GetProposal(wire.GetProposalRequest(round=1)), "a proposed result"),
    ):
        assert refusal(call) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            f"round 1: expected {what}, it is in phase AGGREGATED",
        )
    assert refusal(lambda: stub.GetBatch(wire.GetBatchRequest(round=9)))[0] is grpc.StatusCode.NOT_FOUND


def test_the_ledger_is_asked_about_an_attestation_that_is_not_of_the_nodes_key(summed: World) -> None:
    """The node may be a contract (EIP-1271); where the ledger cannot be asked, it is to try again."""
    model = make_digest("model")
    signed = summed.sign_model(0, model)
    signed.signature = b"what a contract takes"
    summed.view.refresh()
    summed.link.down.add("eth_call")
    assert refusal(lambda: summed.put_attestation(signed, model))[0] is grpc.StatusCode.UNAVAILABLE
    summed.link.down.clear()
    assert refusal(lambda: summed.put_attestation(signed, model))[0] is grpc.StatusCode.INVALID_ARGUMENT
