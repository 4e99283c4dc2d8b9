"""An epoch's key has to be the present members': with every change among them, another one is due."""

from __future__ import annotations

from fedproof_aggregator.opening import explain_recipients

from fedproof.digests import Address, checksum_address
from fedproof.keys.wrapping import wrapped_keys_root
from fedproof.ledger.history import EpochRecord
from tests.aggregator.federation import POLICY, codec, wrapped_keys
from tests.aggregator.world import World
from tests.chain import make_digest

NODES = tuple(Address(bytes([i]) * 20) for i in range(1, 5))
EPOCH = EpochRecord(
    number=3,
    key_maker=NODES[0],
    context_digest=make_digest("context"),
    wrapped_keys_root=make_digest("root"),
    membership=3,
    published_block=50,
)
STALE = "the members have changed since epoch 3, ask for another (`fedproof admin epoch`)"


def explain(recipients: tuple[Address, ...], admitted: tuple[Address, ...], *, is_stale: bool) -> str | None:
    return explain_recipients(EPOCH, recipients, admitted=admitted, is_stale=is_stale)


def publish_epoch(world: World, *nodes: int, number: int = 2) -> None:
    """Ask for an epoch, and publish and leave it with a key for those nodes."""
    world.federation.admin.request_epoch(world.node(0).address)
    wrapped = sorted((world.node(i).address, b"key") for i in nodes)
    membership = world.node(0).state().membership
    root = wrapped_keys_root(wrapped)
    world.node(0).publish_epoch(number, codec().parameters.digest, root, membership=membership)
    world.store.put_wrapped_keys(number, wrapped)


def test_a_key_of_the_present_members_serves() -> None:
    """Also where a node that was admitted before the publication was silent and has none."""
    assert explain(NODES[:3], NODES[:3], is_stale=False) is None
    assert explain(NODES[:2], NODES[:3], is_stale=False) is None


def test_any_change_of_members_makes_another_epoch_due() -> None:
    """Whoever can unwrap the key and is not admitted is named, and whoever is admitted and cannot."""
    gone = f"{checksum_address(NODES[2])} has its key and is not admitted"
    new = f"{checksum_address(NODES[3])} is admitted and has no key"
    assert explain(NODES[:3], NODES[:2], is_stale=True) == f"{STALE}; {gone}"
    assert explain(NODES[:3], NODES, is_stale=True) == f"{STALE}; {new}"
    assert explain(NODES[:3], (*NODES[:2], NODES[3]), is_stale=True) == f"{STALE}; {gone}; {new}"
    assert explain(NODES[:3], NODES[:3], is_stale=True) == STALE, "suspended and admitted again"


def test_no_round_opens_on_the_key_of_other_members(fresh: World) -> None:
    """A node replaced by another is said once, with both; the next epoch lets the round open."""
    fresh.store.put_wrapped_keys(1, wrapped_keys(fresh.federation))
    fresh.federation.admin.suspend(fresh.node(2).address)
    fresh.node(3).register(make_digest("wrapping 3"), make_digest("certificate 3"))
    fresh.federation.admin.admit(fresh.node(3).address)
    for _ in range(2):
        assert not fresh.daemon.step()
    (line,) = fresh.of_kind("waiting")
    gone, new = (checksum_address(fresh.node(i).address) for i in (2, 3))
    assert line["reason"] == (
        "the members have changed since epoch 1, ask for another (`fedproof admin epoch`); "
        f"{gone} has its key and is not admitted; {new} is admitted and has no key"
    )
    publish_epoch(fresh, 0, 1, 3)
    assert fresh.daemon.step()
    assert fresh.of_kind("round_opened")[0]["round"] == 1


def test_a_silent_node_holds_nobody_up(fresh: World) -> None:
    """An epoch that was published without a node which was admitted before is served."""
    publish_epoch(fresh, 0, 1)
    assert fresh.daemon.step()
    assert fresh.of_kind("round_opened")[0]["round"] == 1


def test_no_round_opens_on_the_key_of_another_codec(fresh: World) -> None:
    """An epoch from before a policy with other bits is out of date: nodes would refuse its key."""
    other = make_digest("another codec")
    fresh.federation.admin.request_epoch(fresh.node(0).address)
    wrapped = wrapped_keys(fresh.federation)
    fresh.node(0).publish_epoch(2, other, wrapped_keys_root(wrapped), membership=3)
    fresh.store.put_wrapped_keys(2, wrapped)
    assert not fresh.daemon.step()
    ours = POLICY.codec_parameters().digest
    assert fresh.of_kind("waiting")[0]["reason"] == (
        f"epoch 2 is of another codec ({other.hex()}) than the policy's ({ours.hex()}), "
        "ask for another (`fedproof admin epoch`)"
    )
    publish_epoch(fresh, 0, 1, 2, number=3)
    assert fresh.daemon.step()
