"""What the tests of signed statements do to a round, and to the statements."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import grpc

from fedproof.digests import Digest
from fedproof.errors import LedgerError, NetworkError
from fedproof.ledger.rounds import RoundRecord
from fedproof.ledger.statements import SignedAttestation, SignedCommitment
from tests.node.world import Node, World

WINDOW_S = 200
STRANGE = Digest(b"\x66" * 32)


def record_of(world: World, number: int = 1) -> RoundRecord:
    return world.history().rounds[number]


def pass_half_window(world: World) -> None:
    """Go to where half of the time is over that nodes have to answer."""
    world.pass_deadline(by_s=1 - WINDOW_S // 2)


def pass_anchoring(world: World) -> None:
    """Go to where nothing can be anchored any more."""
    world.pass_deadline(by_s=1 - WINDOW_S)


def refuse(world: World, method: str, code: grpc.StatusCode, *, times: int = 1000) -> None:
    world.servicer.failures[method] = [code] * times


def leave_out(node: Node) -> Callable[[list[SignedCommitment]], None]:
    def spoil(leaves: list[SignedCommitment]) -> None:
        leaves[:] = [leaf for leaf in leaves if leaf.node != node.address]

    return spoil


def publish(world: World, *, forge: Callable[[list[bytes]], None] | None = None) -> None:
    """Take round 1 from the uploads to its published sum, without a look of the nodes."""
    world.anchor(1)
    world.seal(1)
    world.aggregate(1, forge=forge)


def swap_signature(leaves: list[Any]) -> None:
    leaves[1] = replace(leaves[1], signature=leaves[0].signature)


def forge_leaf(leaves: list[SignedAttestation]) -> None:
    leaves[0] = SignedAttestation(leaves[0].node, leaves[1].signature)


def forge_sum(sums: list[bytes]) -> None:
    sums[0] = sums[0][:-1] + bytes([sums[0][-1] ^ 1])


def look(node: Node) -> None:
    """Look once, as the thread does: what has to be tried again is tried in the next look."""
    with suppress(NetworkError, LedgerError):
        node.daemon.watchtower.attend()
