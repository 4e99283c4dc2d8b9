"""What one certificate may ask for: the limits in pairs, each for itself, in bounded memory."""

from __future__ import annotations

import grpc
import pytest
from fedproof_aggregator.allowance import (
    CALL_BURST,
    CALLS_PER_S,
    HEAVY,
    HEAVY_CALLS,
    MOST_CLIENTS,
    Pace,
    Slots,
)
from fedproof_aggregator.refusal import Refused

from fedproof.wire import aggregation_pb2 as wire

NODE, OTHER = b"a node", b"another"


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(per_s=4, burst=8, clock=clock)


def refused(pace: Pace, client: bytes, *, weight: int = 1) -> str:
    with pytest.raises(Refused) as caught:
        pace.spend(client, weight=weight)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    return str(caught.value)


def test_a_burst_is_served_and_one_call_more_is_told_when_to_come_again(pace: Pace, clock: Clock) -> None:
    """As many as the burst; the next one is refused until the time that it was told, and not after it."""
    for _ in range(8):
        pace.spend(NODE)
    assert refused(pace, NODE) == (
        "expected at most 4 calls a second under one certificate; try again in 0.25 s"
    )
    clock.now += 0.125
    assert refused(pace, NODE).endswith("try again in 0.13 s")
    clock.now += 0.125
    pace.spend(NODE)
    refused(pace, NODE)


def test_refused_calls_do_not_put_the_next_one_off(pace: Pace, clock: Clock) -> None:
    """Whoever goes on calling is served at the pace all the same."""
    for _ in range(8):
        pace.spend(NODE)
    for _ in range(100):
        refused(pace, NODE)
    clock.now += 1
    for _ in range(4):
        pace.spend(NODE)
    refused(pace, NODE)


def test_a_pause_gives_no_more_than_the_burst(pace: Pace, clock: Clock) -> None:
    """What is not used up is not saved for ever."""
    pace.spend(NODE)
    clock.now += 1e6
    for _ in range(8):
        pace.spend(NODE)
    refused(pace, NODE)


def test_clients_are_counted_apart(pace: Pace) -> None:
    """What one has used up does not cost another."""
    for _ in range(8):
        pace.spend(NODE)
    refused(pace, NODE)
    for _ in range(8):
        pace.spend(OTHER)


def test_a_heavy_call_counts_as_many(pace: Pace, clock: Clock) -> None:
    """It is refused where there is room for light ones only, and the message says what it counts as."""
    pace.spend(NODE, weight=4)
    pace.spend(NODE)
    assert refused(pace, NODE, weight=4) == (
        "expected at most 4 calls a second under one certificate, one like this counting as 4; "
        "try again in 0.25 s"
    )
    pace.spend(NODE)
    clock.now += 0.5
    pace.spend(NODE, weight=4)
    refused(pace, NODE)


def test_clients_take_bounded_memory(pace: Pace) -> None:
    """However many there are, only so many are kept, and not those are dropped that keep calling."""
    for _ in range(8):
        pace.spend(NODE)
    for number in range(2 * MOST_CLIENTS):
        pace.spend(number.to_bytes(32, "big"))
        if number % 1000 == 0:
            refused(pace, NODE)
    assert len(pace._full_at) == MOST_CLIENTS
    refused(pace, NODE)


def test_a_node_stays_far_below_the_limits(clock: Clock) -> None:
    """In a minute of looks at the tests' interval, with downloads and more of its own than any round asks."""
    pace = Pace(per_s=CALLS_PER_S, burst=CALL_BURST, clock=clock)
    for turn in range(60 * 20):
        clock.now += 0.05
        for _other in range(15):  # keys and downloads
            pace.spend(NODE)
        if turn % 20 == 0:
            # A commitment, an upload, a batch, an attestation: a round a second.
            for _ in range(4):
                pace.spend(NODE, weight=HEAVY)


def test_heavy_calls_are_calls_of_the_service() -> None:
    """Each name is one that the proto has."""
    assert {method.name for method in wire.DESCRIPTOR.services_by_name["Aggregation"].methods} > HEAVY_CALLS


def test_so_many_at_once_and_no_more() -> None:
    """The last one that may be under way is let in, the next one is not, and another client is."""
    slots = Slots(2, "requests")
    with slots.hold(NODE):
        with slots.hold(NODE):
            with pytest.raises(Refused, match="at most 2 requests at once under one certificate; try again"):
                slots.hold(NODE).__enter__()
            with slots.hold(OTHER):
                pass
        with slots.hold(NODE):
            pass


def test_a_call_that_fails_gives_its_slot_back() -> None:
    """Whatever ends a call, the next one may begin, and nothing is kept of a client that has none."""
    slots = Slots(1, "requests")
    for _ in range(3):
        with pytest.raises(OSError, match="disk"), slots.hold(NODE):
            raise OSError("disk")
    slots.await_none(0)
    assert not slots._held
