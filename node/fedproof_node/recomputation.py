"""The drawn chunks of a sum, recomputed from the contributors' committed chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from fedproof.codec.workers import CodecWorkers
from fedproof.digests import Address, Digest
from fedproof_node.relay import Relay
from fedproof_node.spool import Spool
from fedproof_node.verification import RoundFacts, verify_distinct, verify_sum, verify_update_header

# One comes in while the other is added up. Each may hold 16 MiB until its part of the sum is back.
_MOST_AT_ONCE: Final = 2


def recompute_chunks(
    drawn: Sequence[int],
    facts: RoundFacts,
    *,
    relay: Relay,
    workers: CodecWorkers,
    spool: Spool,
    leaves: Sequence[Digest],
) -> None:
    """Check that the drawn chunks are the sums of the contributors' chunks, and no chunk is in two updates.

    Args:
        drawn: indices.
        facts: of the round.
        relay: where the contributors' chunks come from.
        workers: without a key.
        spool: holds the sum.
        leaves: the proven leaf digest of each of the sum's chunks.

    Raises:
        PeerError: it is not so, or the aggregator does not serve what it takes; see `verify_sum`.
        NetworkError: it has to be tried again.
        WorkerDied: a worker crashed over a chunk; names the node.
    """
    proven: dict[Address, tuple[Digest, ...]] = {}

    def fetch_updates(index: int) -> Iterator[tuple[Address, bytes, Digest]]:
        for contribution in facts.contributions:
            header, data = relay.fetch_update_chunk(facts.round, contribution.node, chunk=index)
            if contribution.node not in proven:
                proven[contribution.node] = verify_update_header(header, contribution, facts)
            yield contribution.node, data, proven[contribution.node][index]

    def recompute(index: int) -> None:
        published = spool.read_chunk(index, leaves[index])
        verify_sum(workers, published, fetch_updates(index), index=index, facts=facts)

    threads = ThreadPoolExecutor(min(_MOST_AT_ONCE, workers.processes), thread_name_prefix="recompute")
    try:
        for _ in threads.map(recompute, drawn):
            pass
    finally:
        # Not waited for: what is under way ends when the workers or the relay close, and SIGTERM closes both.
        threads.shutdown(wait=False, cancel_futures=True)
    verify_distinct(proven, round_number=facts.round)
