"""Malformed uploads of every kind at a real aggregator: refused, not stored, and nobody else is disturbed."""

from __future__ import annotations

import re

import pytest

from fedproof.merkle import leaf_digest
from tests.aggregator.federation import encrypted
from tests.aggregator.world import World, refusal
from tests.fuzz.registry import LONGEST_MESSAGE
from tests.hostile import chunk_attacks, header_attacks
from tests.hostile.attack import Attack

ATTACKS = [*header_attacks.attacks(), *chunk_attacks.attacks()]


def stored(world: World) -> set[str]:
    """Return the names of all chunks that the aggregator holds."""
    objects = world.store.root / "objects"
    return {path.parent.name + path.name for path in objects.glob("*/*")}


def workers(world: World) -> set[int]:
    """Return the processes that add ciphertexts up."""
    growing = world.summation._growing
    return set() if growing is None else {each.pid for each in growing.workers._workers if each.pid}


def honest(number: int) -> set[str]:
    """Return the names of all chunks that honest nodes send, up to a round."""
    rounds = range(1, number + 1)
    return {leaf_digest(data).hex() for node in range(3) for each in rounds for data in encrypted(node, each)}


def own(number: int) -> set[str]:
    """Return the names of the first node's honest chunks of a round."""
    return {leaf_digest(data).hex() for data in encrypted(0, number)}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_malformed_upload_is_refused(world: World, attack: Attack) -> None:
    """The status and its words say why; nothing of it is stored; honest updates are taken as before."""
    code, message = refusal(lambda: attack.send(world))
    assert code is attack.code
    assert re.search(attack.message, message), message
    assert len(message) <= LONGEST_MESSAGE
    assert stored(world) <= honest(attack.number)
    assert world.standing(0, number=attack.number).complete == (own(attack.number) <= stored(world))
    (line,) = world.of_kind("upload_refused") or [{"reason": message}]
    assert line["reason"] == message
    alive = workers(world)
    world.deliver(1, number=attack.number)
    assert world.standing(1, number=attack.number).complete
    assert alive <= workers(world) or attack.number > 1, "each round has workers of its own"
    recover(world, attack)


def recover(world: World, attack: Attack) -> None:
    """Let the attacker send its honest update, if it has not committed to another one."""
    update = world.make_update(0, number=attack.number)
    world.view.refresh()
    record = world.view.find_round(attack.number)
    assert record is not None
    commitment = record.commitments.get(update.manifest.node)
    if commitment is None:
        world.commit(0, update, number=attack.number)
    elif commitment.update_root != update.root:
        return
    assert world.upload(0, update, number=attack.number).update_root == update.root


def test_kinds_are_told_apart() -> None:
    """Each has a name of its own."""
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
