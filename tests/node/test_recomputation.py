"""Recomputing drawn chunks: several at a time, and nobody waits for what cannot end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NoReturn

import pytest
from fedproof_node.recomputation import recompute_chunks
from fedproof_node.spool import Spool
from fedproof_node.verification import RoundFacts

from fedproof.codec.workers import CodecWorkers
from fedproof.digests import Address, Digest
from fedproof.errors import PeerError
from fedproof.manifest import Contribution
from fedproof.merkle import leaf_digest
from tests.node.test_verification import BLOCK, NODES, PARAMETERS, make_encoding


class HalfDeadRelay:
    """Waits until two chunks are asked for; then refuses the first, and leaves the second open."""

    def __init__(self) -> None:
        self.both_asked = threading.Barrier(2)
        self.released = threading.Event()

    def fetch_update_chunk(self, _round: int, _node: Address, *, chunk: int) -> NoReturn:
        self.both_asked.wait(timeout=60)
        if chunk == 1:
            self.released.wait()
        raise PeerError(f"no chunk {chunk}")


def test_two_chunks_at_a_time_and_nobody_waits(tmp_path: Path) -> None:
    """With two processes two chunks are under way, and an error ends it although the other hangs."""
    encoding = make_encoding(PARAMETERS.values_per_chunk + 1)
    facts = RoundFacts(
        chain_id=1,
        contract=NODES[0],
        round=1,
        epoch=1,
        policy_digest=BLOCK,
        base_model=BLOCK,
        base_values=BLOCK,
        encoding=encoding,
        contributions=(Contribution(NODES[0], BLOCK, 1),),
    )
    spool = Spool(tmp_path, 1, "aggregate")
    leaves: list[Digest] = []
    for index in range(2):
        spool.write_chunk(index, bytes([index]))
        leaves.append(leaf_digest(bytes([index])))
    relay = HalfDeadRelay()
    with CodecWorkers(PARAMETERS, processes=2) as workers, pytest.raises(PeerError, match="no chunk 0"):
        recompute_chunks(
            (0, 1),
            facts,
            relay=relay,  # type: ignore[arg-type]
            workers=workers,
            spool=spool,
            leaves=leaves,
        )
    relay.released.set()
