"""The loop drives rounds on a real contract, and goes on after a restart at any point."""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from fedproof.digests import checksum_address
from fedproof.errors import LedgerUnreachable, PolicyMismatch
from fedproof.ledger.events import FailureReason, Phase
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.federation import ATTEST_WINDOW_S, POLICY, encrypted, wrapped_keys
from tests.aggregator.world import World, refusal
from tests.chain import AGGREGATE_WINDOW_S, make_digest


@pytest.fixture
def ready(fresh: World) -> World:
    """An aggregator that has everything it needs to open round 1."""
    fresh.store.put_wrapped_keys(1, wrapped_keys(fresh.federation))
    return fresh


def phase(world: World, number: int = 1) -> Phase:
    world.view.refresh()
    record = world.view.find_round(number)
    return Phase.NONE if record is None else record.phase


def settle(world: World, *, most: int = 10) -> None:
    """Take steps until there is nothing to do."""
    for _ in range(most):
        if not world.daemon.step():
            return
    raise AssertionError(f"still moving after {most} steps: {world.logs}")


def kinds(world: World) -> list[str]:
    return [line["event"] for line in world.logs]


def test_a_round_runs_from_its_opening_to_its_end(ready: World) -> None:
    """Open, seal, aggregate, finalise, and the next is opened; each logs what the demo's table needs."""
    settle(ready)
    assert phase(ready) is Phase.OPEN
    ready.deliver(0, 1, 2)
    settle(ready)
    assert phase(ready) is Phase.AGGREGATED
    model = ready.attest_signed(0, 1, 2)
    settle(ready)
    assert phase(ready) is Phase.FINALISED
    assert ready.federation.aggregator.head_model() == model
    assert phase(ready, 2) is Phase.OPEN
    opened, *_, sealed, aggregated, finalised, again = ready.logs
    assert (opened["event"], opened["round"]) == ("round_opened", 1)
    addresses = [checksum_address(ready.node(i).address) for i in range(3)]
    assert (sealed["event"], sealed["contributors"], sealed["excluded"]) == ("sealed", addresses, {})
    assert aggregated["event"] == "aggregated"
    assert aggregated["seconds"] > 0
    assert (finalised["event"], finalised["model"], finalised["attestations"]) == ("finalised", model, 3)
    assert (again["event"], again["round"]) == ("round_opened", 2)
    assert all(line["gas"] > 20_000 for line in (opened, sealed, aggregated, finalised, again))


def test_a_node_that_does_not_commit_is_waited_for_until_the_deadline(world: World) -> None:
    """The two others are sealed after the deadline, without naming it."""
    world.deliver(0, 2)
    settle(world)
    assert phase(world) is Phase.OPEN
    world.pass_deadline(by_s=0)
    settle(world)
    assert phase(world) is Phase.OPEN
    world.pass_deadline()
    settle(world)
    assert phase(world) is Phase.AGGREGATED
    assert world.of_kind("sealed")[0]["excluded"] == {}
    assert len(world.of_kind("sealed")[0]["contributors"]) == 2


def test_an_update_under_way_at_the_deadline_gets_the_grace(world: World) -> None:
    """A committed update may become whole in the seconds after the deadline, and is excluded after them."""
    world.deliver(0, 1)
    late = world.committed_update(2)
    world.pass_deadline(by_s=5)
    settle(world)
    assert phase(world) is Phase.OPEN
    with world.federation.chain.rolled_back():
        world.pass_deadline(by_s=30)
        settle(world)
        assert phase(world) is Phase.AGGREGATED
        node = checksum_address(world.node(2).address)
        assert world.of_kind("sealed")[0]["excluded"] == {node: "NOT_UPLOADED"}
    world.restart()
    world.upload(2, late)
    settle(world)
    assert len(world.of_kind("sealed")[1]["contributors"]) == 3


def test_a_malformed_update_is_excluded_by_its_reason(world: World) -> None:
    """The reason that the intake found stands on the ledger."""
    world.deliver(0, 1)
    bad = world.committed_update(2, data=(b"\xff" * len(encrypted(2, 1)[0]), *encrypted(2, 1)[1:]))
    refusal(lambda: world.upload(2, bad))
    world.pass_deadline()
    settle(world)
    record = world.view.find_round(1)
    assert record is not None
    assert record.excluded == {world.node(2).address: 2}
    assert record.contributors == tuple(world.node(i).address for i in (0, 1))


def test_too_few_contributors_fail_the_round_and_the_next_opens(ready: World) -> None:
    """A failed round costs its number, and nothing else."""
    settle(ready)
    ready.deliver(0)
    ready.pass_deadline()
    settle(ready)
    assert phase(ready, 1) is Phase.FAILED
    assert phase(ready, 2) is Phase.OPEN
    (line,) = ready.of_kind("round_failed")
    assert (line["round"], line["reason"]) == (1, "TOO_FEW_CONTRIBUTORS")
    assert line["gas"] > 20_000


@pytest.mark.parametrize("damage", ["lost", "altered", "header"])
def test_a_store_that_lost_an_update_fails_the_round(world: World, damage: str) -> None:
    """After a restart the sum is made of the store, or not at all; the log names the file."""
    update = world.deliver(0, 1, 2)[1]
    world.restart()
    assert world.daemon.step()
    path = (
        world.store.header_path(update.root)
        if damage == "header"
        else (world.store.object_path(update.digests[2]))
    )
    if damage == "altered":
        path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    else:
        path.unlink()
    assert world.daemon.step()
    assert phase(world) is Phase.FAILED
    (line,) = world.of_kind("round_failed")
    assert line["reason"] == "NO_AGGREGATE"
    assert str(path) in line["message"]


def test_a_sum_that_comes_too_late_fails_the_round(world: World) -> None:
    """After the deadline for the sum the contract takes none."""
    world.deliver(0, 1, 2)
    assert world.daemon.step()
    world.pass_deadline()
    assert world.daemon.step()
    (line,) = world.of_kind("round_failed")
    assert (line["reason"], phase(world)) == ("NO_AGGREGATE", Phase.FAILED)


def test_a_quorum_waits_for_the_rest_of_the_cohort(world: World) -> None:
    """Two equal attestations of three are finalised only after the grace."""
    world.reconfigure(attest_grace_s=1000.0)
    world.deliver(0, 1, 2)
    settle(world)
    world.attest_signed(0, 1)
    settle(world)
    assert phase(world) is Phase.AGGREGATED
    world.reconfigure(attest_grace_s=0.0)
    settle(world)
    assert phase(world) is Phase.FINALISED
    assert world.of_kind("finalised")[0]["attestations"] == 2


def test_no_quorum_fails_the_round(world: World) -> None:
    """Too few attestations until the deadline finalise nothing."""
    world.deliver(0, 1, 2)
    settle(world)
    world.attest_signed(0)
    world.pass_deadline()
    assert world.daemon.step()
    (line,) = world.of_kind("round_failed")
    assert (line["reason"], phase(world)) == ("NO_QUORUM", Phase.FAILED)


def test_a_differing_signature_that_nobody_stands_by_costs_no_round(world: World) -> None:
    """Its node has most of the window to say so on the ledger; then the quorum's model is the result."""
    world.deliver(0, 1, 2)
    settle(world)
    world.attest_signed(2, model="another model")
    model = world.attest_signed(0, 1)
    assert not world.daemon.step()
    world.pass_deadline(by_s=-ATTEST_WINDOW_S // 4 - 1)
    assert not world.daemon.step()
    world.pass_deadline(by_s=-ATTEST_WINDOW_S // 4)
    settle(world)
    (line,) = world.of_kind("attestations_differ")
    other = make_digest("another model").hex()
    assert line["nodes"] == {checksum_address(world.node(2).address): other}
    record = world.view.find_round(1)
    assert record is not None
    assert (record.result, len(record.signers)) == (model, 2)


def test_a_differing_transaction_fails_the_round(world: World) -> None:
    """A node that says so on the ledger, in its own name, is heard there."""
    world.deliver(0, 1, 2)
    settle(world)
    world.attest_signed(0, 1)
    world.attest_signed(2, model="another model")
    world.attest(2, model="another model")
    world.pass_deadline(by_s=-ATTEST_WINDOW_S // 4)
    assert not world.daemon.step()
    world.attest(0)
    assert phase(world) is Phase.FAILED


def test_transactions_and_signatures_add_up(world: World) -> None:
    """A node that attested by a transaction is counted by it, and its signature is left out."""
    world.deliver(0, 1, 2)
    settle(world)
    model = world.attest_signed(0, 1, 2)
    world.attest(1)
    assert world.daemon.step()
    assert phase(world) is Phase.FINALISED
    (line,) = world.of_kind("finalised")
    assert (line["model"], line["attestations"]) == (model, 3)
    record = world.view.find_round(1)
    assert record is not None
    assert record.signers == {world.node(0).address, world.node(2).address}


@pytest.mark.parametrize("moment", range(6))
def test_a_restart_at_any_point_changes_nothing(ready: World, moment: int) -> None:
    """Whatever was done before the restart is not done again, and the round ends the same."""

    def step() -> bool:
        return ready.daemon.step()

    steps: list[Callable[[], object]] = [
        step,
        lambda: ready.deliver(0, 1, 2),
        step,
        step,
        lambda: ready.attest_signed(0, 1, 2),
        step,
    ]
    for number, take in enumerate(steps):
        take()
        if number == moment:
            ready.restart()
    assert phase(ready) is Phase.FINALISED
    counts = Counter(kinds(ready))
    assert [counts[kind] for kind in ("round_opened", "sealed", "aggregated", "finalised")] == [1, 1, 1, 1]


def test_a_crash_between_sum_and_publication_costs_nothing(world: World) -> None:
    """The journalled sum is published after the restart, without being made again."""
    updates = world.deliver(0, 1, 2)
    assert world.daemon.step()
    world.link.down.add("eth_estimateGas")
    with pytest.raises(LedgerUnreachable):
        world.daemon.step()
    world.link.down.clear()
    root = world.journal.find_aggregate(1)
    assert root is not None
    assert phase(world) is Phase.SEALED
    world.restart()
    # Without the updates no sum could be made.
    for update in updates:
        world.store.header_path(update.root).unlink()
    assert world.daemon.step()
    world.view.refresh()
    record = world.view.find_round(1)
    assert record is not None
    assert (record.phase, record.aggregate_root) == (Phase.AGGREGATED, root)


def test_a_crash_within_the_sum_costs_only_the_time(world: World) -> None:
    """A sum that is begun again stores the same bytes under the same names."""
    world.deliver(0, 1, 2)
    assert world.daemon.step()
    world.view.refresh()
    record = world.view.find_round(1)
    assert record is not None
    terms = world.shelf.find(POLICY.digest)
    before = {path.name for path in world.store.root.rglob("*")}
    contributions = world.statements.compute_contributions(record)
    roots = {world.summation.finish(record, contributions, terms) for _ in range(2)}
    assert len(roots) == 1
    after = {path.name for path in world.store.root.rglob("*") if path.is_file()}
    assert len(after - before) == terms.chunks + 1


def test_a_round_that_somebody_else_ended_is_reported(world: World) -> None:
    """The last transaction of a quorum finalises; the aggregator says so, and goes on."""
    world.deliver(0, 1, 2)
    settle(world)
    model = world.attest(0, 1, 2)
    settle(world)
    (line,) = world.of_kind("finalised")
    assert (line["round"], line["model"], line["attestations"], line["gas"]) == (1, model, 3, 0)
    world.store.put_wrapped_keys(1, wrapped_keys(world.federation))
    settle(world)
    world.pass_deadline(by_s=AGGREGATE_WINDOW_S + 1)
    world.node(3).fail(2, FailureReason.NO_QUORUM)
    world.daemon.step()
    (line,) = world.of_kind("round_failed")
    assert (line["round"], line["reason"], line["gas"]) == (2, "NO_QUORUM", 0)


# Before a round


def test_what_is_missing_is_said_once(fresh: World) -> None:
    """Each reason to wait is logged when it becomes the reason, not at every look."""
    maker = checksum_address(fresh.node(0).address)
    admin = fresh.federation.admin
    admin.suspend(fresh.node(2).address)
    for _ in range(3):
        assert not fresh.daemon.step()
    admin.admit(fresh.node(2).address)
    for _ in range(3):
        assert not fresh.daemon.step()
    admin.request_epoch(fresh.node(0).address)
    for _ in range(3):
        assert not fresh.daemon.step()
    assert [line["reason"] for line in fresh.of_kind("waiting")] == [
        "2 of 3 nodes are admitted",
        f"the wrapped keys of epoch 1 have not come from {maker}",
        f"{maker} was asked for epoch 2 and has not published it",
    ]


def test_another_adopted_policy_ends_the_loop(ready: World) -> None:
    """Between rounds, a policy that is not the configured one is refused with both digests and the file."""
    ready.federation.adopt_policy(digest=make_digest("another policy"))
    with pytest.raises(PolicyMismatch) as caught:
        ready.daemon.run()
    assert str(caught.value) == (
        f"{ready.config.policy}: expected the policy that the ledger has adopted, "
        f"digest 0x{make_digest('another policy').hex()}, got one of digest 0x{POLICY.digest.hex()}"
    )


def test_an_open_round_keeps_its_policy(ready: World) -> None:
    """A policy adopted meanwhile does not disturb the round that is under way."""
    settle(ready)
    ready.deliver(0, 1, 2)
    ready.federation.adopt_policy(digest=make_digest("another policy"))
    for _ in range(2):
        assert ready.daemon.step()
    ready.attest_signed(0, 1, 2)
    assert ready.daemon.step()
    assert phase(ready) is Phase.FINALISED
    with pytest.raises(PolicyMismatch):
        ready.daemon.step()


# The loop


def run_in_thread(world: World) -> threading.Thread:
    thread = threading.Thread(target=world.daemon.run, daemon=True)
    thread.start()
    return thread


def wait_for(world: World, kind: str, *, deadline_s: float = 20) -> dict[str, Any]:
    deadline = time.monotonic() + deadline_s
    while not world.of_kind(kind):
        assert time.monotonic() < deadline, f"no {kind} among {world.logs}"
        threading.Event().wait(0.01)
    return world.of_kind(kind)[0]


def test_the_loop_runs_a_campaign_and_leaves(ready: World) -> None:
    """With real uploads it wakes at once, and after the last round it exits, where it is told to."""
    ready.reconfigure(rounds=1, exit_when_finished=True, poll_interval_s=0.05)
    thread = run_in_thread(ready)
    wait_for(ready, "round_opened")
    ready.deliver(0, 1, 2)
    wait_for(ready, "aggregated")
    ready.attest(0, 1, 2)
    thread.join(20)
    assert not thread.is_alive()
    assert kinds(ready)[-2:] == ["finalised", "finished"]
    assert ready.of_kind("finished")[0]["rounds"] == 1


def test_the_loop_stays_for_nodes_that_have_not_attested(ready: World) -> None:
    """It does not leave while a node may still fetch the last sum, up to its grace."""
    ready.reconfigure(rounds=1, exit_when_finished=True, finish_grace_s=1000.0)
    settle(ready)
    ready.deliver(0, 1, 2)
    settle(ready)
    model = ready.attest(0, 1)
    thread = run_in_thread(ready)
    wait_for(ready, "finished")
    assert thread.is_alive()
    ready.node(2).attest(1, model)
    thread.join(20)
    assert not thread.is_alive()


def test_the_loop_idles_after_the_last_round_until_it_is_stopped(ready: World) -> None:
    """Without exit_when_finished it goes on serving, and stop() ends it."""
    ready.reconfigure(rounds=1)
    settle(ready)
    ready.federation.aggregator.fail(1, FailureReason.ABANDONED)
    thread = run_in_thread(ready)
    wait_for(ready, "finished")
    assert thread.is_alive()
    ready.daemon.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert len(ready.of_kind("finished")) == 1


def test_the_loop_outlives_an_outage_of_the_chain(ready: World) -> None:
    """While the chain is away it logs the error and looks again; then it goes on where it was."""
    ready.federation.chain.provider.outages = 3
    thread = run_in_thread(ready)
    error = wait_for(ready, "error")
    assert "memory: expected an answer" in error["message"]
    wait_for(ready, "round_opened")
    ready.daemon.stop()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), sqlite3.OperationalError("database or disk is full")],
    ids=["store", "journal"],
)
def test_the_loop_outlives_a_full_disk(
    ready: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """While nothing can be written it logs the error and looks again; then it goes on where it was."""
    settle(ready)
    ready.deliver(0, 1, 2)
    owner, name = (ready.store, "put") if isinstance(error, OSError) else (ready.journal, "record_aggregate")
    write = getattr(owner, name)
    errors = [error] * 3

    def fail_at_first(*args: object, **keywords: object) -> object:
        if errors:
            raise errors.pop()
        return write(*args, **keywords)

    monkeypatch.setattr(owner, name, fail_at_first)
    thread = run_in_thread(ready)
    assert wait_for(ready, "aggregated")["round"] == 1
    ready.daemon.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert {line["message"] for line in ready.of_kind("error")} == {f"disk: {error}"}


def test_getfederation_is_answered_before_anything_is_ready(fresh: World) -> None:
    """Nodes find their aggregator while it still waits."""
    assert fresh.stub().GetFederation(wire.GetFederationRequest()).policy_digest == POLICY.digest
