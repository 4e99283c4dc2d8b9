"""Which refusals of a commitment end a node's part in the round, and which are tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_utils import keccak
from fedproof_node.journal import Stage
from web3.exceptions import ContractLogicError

from fedproof.errors import LedgerError
from tests.node.batching import WINDOW_S, leave_out, record_of
from tests.node.world import World, reason_of_skip

MakeWorld = Callable[..., World]

# What an endpoint says that is some blocks behind, or knows nothing of the round, or gives no reason.
HEALING = {
    "another round": ("WrongRound(uint24,uint24)", [0, 1]),
    "another phase": ("WrongPhase(uint24,uint8)", [1, 5]),
    "not yet in the cohort": ("NotInCohort(uint24,address)", [1, "0x" + "11" * 20]),
    "a clock that is ahead": ("DeadlinePassed(uint24,uint40,uint40)", [1, 7, 8]),
    "no reason": ("", []),
}


def refuse_once(world: World, error: str, values: list[Any]) -> None:
    """Let the next estimate of any node end in an error of the contract."""
    types = error.partition("(")[2].rstrip(")").split(",") if error else []
    data = keccak(text=error)[:4] + encode(types, values) if error else b""

    def answer() -> None:
        raise ContractLogicError("execution reverted", data="0x" + data.hex())

    world.chain.provider.interrupts["eth_estimateGas"] = answer


@pytest.mark.parametrize(("error", "values"), HEALING.values(), ids=HEALING)
def test_what_a_later_block_may_heal_is_tried_again(
    make_world: MakeWorld, error: str, values: list[Any]
) -> None:
    """An endpoint that lags costs no round: the commitment goes out when it has caught up."""
    world = make_world(nodes=2)
    world.begin_epoch()
    node = world.nodes[0]
    world.open_round(1)
    refuse_once(world, error, values)
    with pytest.raises(LedgerError, match="round 1: not committed yet"):
        node.settle()
    assert node.journal.entry(1).stage is Stage.ENCRYPTED
    node.settle()
    assert node.journal.entry(1).stage is Stage.UPLOADED
    assert set(record_of(world).commitments) == {node.address}


def test_a_claim_is_tried_again_too(make_world: MakeWorld) -> None:
    """A node that the batch leaves out commits in the next look, if an endpoint was behind in this one."""
    world = make_world(batching=True, attest_window_s=WINDOW_S)
    world.begin_epoch()
    world.open_round(1)
    world.settle()
    victim = world.nodes[0]
    world.anchor(1, spoil=leave_out(victim))
    refuse_once(world, *HEALING["another round"])
    with pytest.raises(LedgerError, match="round 1: not committed yet"):
        victim.daemon.watchtower.attend()
    assert victim.daemon.watchtower.attend()
    assert set(record_of(world).commitments) == {victim.address}


def test_what_no_block_heals_skips_the_round(make_world: MakeWorld) -> None:
    """A count of examples that the round's terms do not allow is refused for good."""
    world = make_world(nodes=2)
    world.begin_epoch()
    node = world.nodes[0]
    world.open_round(1)
    refuse_once(world, "ExamplesOutOfRange(uint32,uint32)", [40, 7])
    node.settle()
    assert "ExamplesOutOfRange" in reason_of_skip(node, 1)
    assert not record_of(world).commitments
