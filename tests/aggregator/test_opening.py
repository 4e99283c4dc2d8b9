"""An epoch's key has to be the present members': with every change among them, another one is due."""

from __future__ import annotations

from fedproof_aggregator.opening import explain_recipients

from fedproof.digests import Address, checksum_address
from fedproof.keys.wrapping import wrapped_keys_root
from fedproof.ledger.events import MemberStatus
from fedproof.ledger.history import EpochRecord, MemberRecord
from tests.aggregator.world import POLICY, World, codec, wrapped_keys
from tests.chain import make_digest

NODES = tuple(Address(bytes([i]) * 20) for i in range(1, 5))
EPOCH = EpochRecord(
    number=3,
    key_maker=NODES[0],
    context_digest=make_digest("context"),
    wrapped_keys_root=make_digest("root"),
    published_block=50,
)
STALE = "epoch 3 is out of date, ask for another (`fedproof admin epoch`): "


def explain(recipients: tuple[Address, ...], admitted: dict[Address, int]) -> str | None:
    members = {
        node: MemberRecord(
            status=MemberStatus.ADMITTED,
            wrapping_key_digest=make_digest("wrapping"),
            certificate_digest=make_digest("certificate"),
            admitted_block=block,
        )
        for node, block in admitted.items()
    }
    return explain_recipients(EPOCH, recipients, admitted=members)


def publish_epoch(world: World, *nodes: int, number: int = 2) -> None:
    """Ask for an epoch, and publish and leave it with a key for those nodes."""
    world.federation.admin.request_epoch(world.node(0).address)
    wrapped = sorted((world.node(i).address, b"key") for i in nodes)
    world.node(0).publish_epoch(number, codec().parameters.digest, wrapped_keys_root(wrapped))
    world.store.put_wrapped_keys(number, wrapped)


def test_a_key_of_the_present_members_serves() -> None:
    """Also where one was suspended and admitted again: it has the key."""
    assert explain(NODES[:3], dict.fromkeys(NODES[:3], 7)) is None
    assert explain(NODES[:3], {NODES[0]: 7, NODES[1]: 7, NODES[2]: 51}) is None


def test_a_node_that_has_left_makes_another_epoch_due() -> None:
    """Whoever can unwrap the key and is not admitted is named."""
    who = checksum_address(NODES[2])
    assert explain(NODES[:3], dict.fromkeys(NODES[:2], 7)) == f"{STALE}{who} has its key and is not admitted"


def test_a_node_that_was_admitted_since_makes_another_epoch_due() -> None:
    """An admission in the publication's own block counts; one before it was of a node that kept silent."""
    who = checksum_address(NODES[3])
    admitted = dict.fromkeys(NODES[:3], 7)
    assert explain(NODES[:3], {**admitted, NODES[3]: 49}) is None
    for block in (50, 51):
        assert (
            explain(NODES[:3], {**admitted, NODES[3]: block})
            == f"{STALE}{who} was admitted since and has no key"
        )


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
        "epoch 1 is out of date, ask for another (`fedproof admin epoch`): "
        f"{gone} has its key and is not admitted; {new} was admitted since and has no key"
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
    fresh.node(0).publish_epoch(2, other, wrapped_keys_root(wrapped))
    fresh.store.put_wrapped_keys(2, wrapped)
    assert not fresh.daemon.step()
    ours = POLICY.codec_parameters().digest
    assert fresh.of_kind("waiting")[0]["reason"] == (
        f"epoch 2 is of another codec ({other.hex()}) than the policy's ({ours.hex()}), "
        "ask for another (`fedproof admin epoch`)"
    )
    publish_epoch(fresh, 0, 1, 2, number=3)
    assert fresh.daemon.step()
