"""A caller that does not stop: it is refused, the others are served, and the chain is left in peace."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from fedproof_aggregator.allowance import CALL_BURST, HEAVY, REQUESTS_PER_CLIENT

from fedproof.errors import LedgerUnreachable
from fedproof.ledger.events import FailureReason
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.world import World, refusal
from tests.chain import make_digest

METHODS = wire.DESCRIPTOR.services_by_name["Aggregation"].methods
LOOK = "eth_getBlockByNumber"
ATTEMPTS = 3  # of a look at the chain in memory


@pytest.fixture
def stopped(batching: World) -> World:
    """A world in which no time passes for whoever has made too many calls."""
    batching.clock = lambda: 1000.0
    batching.restart()
    return batching


def use_up(world: World) -> None:
    """Let the first node make as many calls as it may, all of them refused for what they bring."""
    stub = world.stub(0)
    for _ in range(CALL_BURST // HEAVY):
        code, _ = refusal(lambda: stub.PutPublicKey(wire.PutPublicKeyRequest()))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


def count_looks(world: World) -> int:
    return world.federation.chain.provider.requests.count(LOOK)


class Queue:
    """A lock that knows how many have come to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.came = threading.Semaphore(0)

    def __enter__(self) -> None:
        self.came.release()
        self._lock.acquire()

    def __exit__(self, *_error: object) -> None:
        self._lock.release()


def test_every_method_is_counted(stopped: World) -> None:
    """Whatever is called beyond the limit is refused, before the message is looked at."""
    use_up(stopped)
    stub = stopped.stub(0)
    for method in METHODS:
        request = getattr(wire, method.input_type.name)()

        def call(name: str = method.name, request: object = request) -> None:
            answer = getattr(stub, name)(iter([request]) if name == "Upload" else request)
            if isinstance(answer, Iterator):
                list(answer)

        code, message = refusal(call)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED, method.name
        assert message.startswith("expected at most 500 calls a second under one certificate")


def test_others_are_served_and_the_caller_is_after_its_pause(stopped: World) -> None:
    """The limit is one certificate's own, over all its connections, and passes."""
    use_up(stopped)
    update = stopped.make_update(1)
    request = wire.PutCommitmentRequest(round=1, commitment=stopped.sign_update(1, update))
    _, message = refusal(lambda: stopped.stub(0).PutCommitment(request))
    assert message.endswith(f"one like this counting as {HEAVY}; try again in 0.10 s")
    stopped.stub(1).PutCommitment(request)
    assert stopped.standing(1) == wire.GetUploadResponse(next_chunk=0, complete=False)
    assert stopped.upload(1, update).chunks == 3


def test_a_caller_is_served_again_once_it_has_paused(batching: World) -> None:
    """The time that the refusal names is enough."""
    now = 1000.0
    batching.clock = lambda: now
    batching.restart()
    use_up(batching)
    signed = batching.sign_update(0, batching.make_update(0))
    refusal(lambda: batching.put_commitment(signed))
    now += 0.1
    batching.put_commitment(signed)
    assert list(batching.journal.find_commitments(1)) == [batching.node(0).address]


def test_bad_signatures_have_the_chain_asked_a_bounded_number_of_times(stopped: World) -> None:
    """Each may be one of a contract's (EIP-1271), which only the chain can tell."""
    stopped.deliver(0, 1, 2)
    for _ in range(2):
        assert stopped.daemon.step()
    stopped.restart()
    signed = wire.SignedAttestation(node=stopped.node(1).address, signature=b"what a contract takes")
    stub = stopped.stub(0)
    stopped.federation.chain.provider.requests.clear()
    request = wire.PutAttestationRequest(round=1, model_digest=make_digest("model"), attestation=signed)
    codes = [refusal(lambda: stub.PutAttestation(request))[0] for _ in range(3 * CALL_BURST // HEAVY)]
    assert codes.count(grpc.StatusCode.INVALID_ARGUMENT) == CALL_BURST // HEAVY
    assert codes[-1] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stopped.federation.chain.provider.requests.count("eth_call") <= CALL_BURST // HEAVY


def test_one_certificate_keeps_a_bounded_number_of_threads_waiting_for_the_chain(batching: World) -> None:
    """While the chain does not answer, one request too many is refused, and others are served."""
    batching.view.refresh()
    address = batching.address
    answer = threading.Event()
    queue = Queue()
    batching.view._peers = queue  # type: ignore[assignment]
    batching.federation.chain.provider.interrupts[LOOK] = lambda: answer.wait(30)
    stub = batching.stub(0)
    calls = [stub.GetBatch.future(wire.GetBatchRequest(round=1)) for _ in range(REQUESTS_PER_CLIENT)]
    assert all(queue.came.acquire(timeout=10) for _ in calls)
    code, message = refusal(lambda: stub.GetFederation(wire.GetFederationRequest()))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (
        message == f"expected at most {REQUESTS_PER_CLIENT} requests at once under one certificate; try again"
    )
    assert batching.standing(1) == wire.GetUploadResponse(next_chunk=0, complete=False)
    assert batching.address == address
    answer.set()
    for call in calls:
        assert refusal(call.result)[0] is grpc.StatusCode.FAILED_PRECONDITION
    stub.GetFederation(wire.GetFederationRequest())


def wait_together(world: World, peers: int, *, outages: int) -> list[bool]:
    """Let peers ask for a look while one is under way; return which of them got one that succeeded."""
    asked, answer = threading.Event(), threading.Event()
    queue = Queue()
    world.view._peers = queue  # type: ignore[assignment]

    def keep_waiting() -> None:
        asked.set()
        assert answer.wait(10)
        world.federation.chain.provider.outages = outages

    def ask(_peer: int) -> bool:
        try:
            world.view.refresh_for_peer()
        except LedgerUnreachable:
            return False
        return True

    world.federation.chain.provider.interrupts[LOOK] = keep_waiting
    with ThreadPoolExecutor(peers + 1) as threads:
        first = threads.submit(world.view.refresh)
        assert asked.wait(10)
        found = [threads.submit(ask, peer) for peer in range(peers)]
        assert all(queue.came.acquire(timeout=10) for _ in range(peers))
        answer.set()
        first.result()
        return [each.result() for each in found]


def test_requests_share_a_look_at_the_chain(world: World) -> None:
    """Those that come while one is under way are all served by the next, whatever their number."""
    world.view.refresh()
    world.federation.chain.provider.requests.clear()
    assert wait_together(world, 8, outages=0) == [True] * 8
    assert count_looks(world) == 2


def test_requests_share_a_look_that_fails(world: World) -> None:
    """A chain that does not answer is not asked once for each that waits for it."""
    world.view.refresh()
    assert wait_together(world, 8, outages=ATTEMPTS) == [False] * 8
    world.view.refresh_for_peer()


def test_a_request_sees_what_came_before_it(world: World) -> None:
    """A look that is shared has begun after each request that it serves."""
    for index in range(3):
        world.committed_update(index)
        world.view.refresh_for_peer()
        record = world.view.find_round(1)
        assert record is not None
        assert len(record.commitments) == index + 1


def test_requests_have_the_chain_looked_at_now_and_then(world: World) -> None:
    """In a row, one look comes a twentieth of a second after the other."""
    world.view.refresh_for_peer()
    started = time.monotonic()
    for _ in range(3):
        world.view.refresh_for_peer()
    assert time.monotonic() - started >= 0.1


def test_a_round_that_is_over_is_not_looked_at_again(batching: World) -> None:
    """What was read of it says whether there is anything to give."""
    batching.pass_deadline()
    batching.federation.aggregator.fail(1, FailureReason.TOO_FEW_CONTRIBUTORS)
    batching.view.refresh()
    stub = batching.stub(0)
    batching.federation.chain.provider.requests.clear()
    for _ in range(3):
        code, _ = refusal(lambda: stub.GetBatch(wire.GetBatchRequest(round=1)))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert batching.federation.chain.provider.requests == []
