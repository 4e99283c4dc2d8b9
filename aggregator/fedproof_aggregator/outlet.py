"""Giving updates and sums out: the bytes that came, once nobody can make use of a copy.

If whoever asks is malicious, then at most it gets what the ledger vouches for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedproof.digests import Address, Digest, as_address, checksum_address
from fedproof.errors import DigestMismatch, MalformedMessage, MissingObject
from fedproof.ledger.events import Phase
from fedproof.ledger.rounds import RoundRecord
from fedproof.store import ObjectStore
from fedproof.wire import aggregation_pb2 as wire
from fedproof_aggregator.refusal import malformed, not_found, out_of_turn
from fedproof_aggregator.retention import Retention
from fedproof_aggregator.statements import Statements
from fedproof_aggregator.view import LedgerView


class Outlet:
    """Reads what the store holds of sealed rounds; for all threads."""

    def __init__(
        self, *, view: LedgerView, store: ObjectStore, statements: Statements, retention: Retention
    ) -> None:
        self._view = view
        self._store = store
        self._statements = statements
        self._retention = retention

    def read_update(
        self, number: int, raw_node: bytes, chunks: Sequence[int]
    ) -> Iterator[wire.DownloadResponse]:
        """Return a sealed contributor's header, and its chunks: those asked for, or all of them.

        Raises:
            Refused: the round is open, the node is no contributor of it, or its update has been deleted.
            MalformedMessage: the node is no address.
        """
        node = as_address(raw_node, f"round {number}: node")
        where = f"round {number}, node {checksum_address(node)}"
        record = self._view.fetch_round(number, lambda record: record.phase is not Phase.OPEN)
        if record.phase is Phase.OPEN:
            raise out_of_turn(f"{where}: updates can be downloaded once the round is sealed, it is open")
        # Of other updates, a power failure may have taken back whose their frames are.
        root = self._find_contribution(record, node)
        if root is None:
            raise not_found(f"{where}: the node is no contributor of this round")
        return self._read(root, chunks, where=where, kept_days=self._retention.expired.get(number, 0))

    def read_aggregate(self, number: int, chunks: Sequence[int]) -> Iterator[wire.DownloadResponse]:
        """Return a published sum's header, and its chunks, as `read_update`.

        Raises:
            Refused: no sum is published.
        """
        where = f"round {number}, aggregate"
        record = self._view.fetch_round(number, lambda record: record.aggregate_root is not None)
        if record.aggregate_root is None:
            raise not_found(f"{where}: not published, the round is in phase {record.phase.name}")
        return self._read(record.aggregate_root, chunks, where=where, kept_days=0)

    def _find_contribution(self, record: RoundRecord, node: Address) -> Digest | None:
        if node in record.contributors:
            return record.commitments[node].update_root
        if record.batch is None or record.sealed_block is None:
            return None
        by_node = {each.node: each.update_root for each in self._statements.compute_contributions(record)}
        return by_node.get(node)

    def _read(
        self, root: Digest, asked: Sequence[int], *, where: str, kept_days: int
    ) -> Iterator[wire.DownloadResponse]:
        try:
            header = self._store.get_header(root)
        except MissingObject as error:
            raise not_found(f"{where}: no header of root {root.hex()} has come") from error
        except MalformedMessage as error:
            raise DigestMismatch(str(error)) from error
        total = len(header.chunk_digests)
        if len(asked) > total or any(index >= total for index in asked):
            came = f"{len(asked)}, the highest {max(asked)}"
            raise malformed(f"{where}: expected at most {total} chunks, each below {total}, got {came}")
        yield wire.DownloadResponse(header=header)
        for index in asked or range(total):
            try:
                data = self._store.get(Digest(header.chunk_digests[index]))
            except MissingObject as error:
                why = f"was deleted after the retention of the round's policy (retention_days = {kept_days})"
                raise not_found(f"{where}: chunk {index} {why if kept_days else 'has not come'}") from error
            response = wire.DownloadResponse()
            # In place, as a chunk that is handed over is copied.
            response.chunk.index, response.chunk.data = index, data
            yield response
