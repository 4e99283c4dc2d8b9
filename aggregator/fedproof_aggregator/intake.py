"""Taking updates in: every check that stands between a peer's bytes and the store.

If a peer is malicious, then at most its own update is lost: nothing is stored before it is checked against
the commitment on the ledger, and what was stored before a refusal stays, so that a sender resumes there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from fedproof.codec.frames import split_seeds
from fedproof.digests import Address, Digest, as_address, as_digest, checksum_address
from fedproof.errors import DigestMismatch, MalformedMessage
from fedproof.ledger.events import ExclusionReason, Phase
from fedproof.ledger.rounds import RoundRecord
from fedproof.manifest import verify_header
from fedproof.merkle import leaf_digest
from fedproof.store import ObjectStore
from fedproof.wire.aggregation_pb2 import UploadStart
from fedproof_aggregator.journal import CopiedFrame, Journal, UploadStanding
from fedproof_aggregator.refusal import Refused, malformed, out_of_turn
from fedproof_aggregator.statements import Statements
from fedproof_aggregator.summation import Summation
from fedproof_aggregator.terms import Terms, TermsShelf, verify_update
from fedproof_aggregator.view import LedgerView

# So often a stream sees what it brought onto the disk, to which many files at once are little more than one.
# What came since then, a node sends again after a crash.
_SETTLE_S = 1.0


@dataclass(slots=True)
class Incoming:
    """An update that one stream is bringing.

    Attributes:
        round: of which round.
        node: whose.
        root: its root, as committed.
        chunk_digests: of every chunk, in index order.
        terms: the round's.
        held: how many chunks are stored, counted from the first.
        next_chunk: the index that has to come next; at the stream's beginning, the highest that may come.
        settled_at: when what it had brought was last seen onto the disk, in seconds of the monotonic clock.
        unsettled: digests of what it has brought since.
        has_begun: whether the stream's first chunk has come.
    """

    round: int
    node: Address
    root: Digest
    chunk_digests: Sequence[Digest]
    terms: Terms
    held: int
    next_chunk: int
    settled_at: float
    unsettled: list[Digest] = field(default_factory=list)
    has_begun: bool = False

    @property
    def where(self) -> str:
        """What messages about this update begin with."""
        return _where(self.round, self.node)

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is stored."""
        return self.held == len(self.chunk_digests)


class Intake:
    """Admits updates, chunk by chunk."""

    def __init__(
        self,
        *,
        view: LedgerView,
        store: ObjectStore,
        journal: Journal,
        shelf: TermsShelf,
        statements: Statements,
        summation: Summation,
    ) -> None:
        self._view = view
        self._statements = statements
        self._store = store
        self._journal = journal
        self._shelf = shelf
        self._summation = summation

    def find_standing(self, round_number: int, raw_node: bytes) -> UploadStanding | None:
        """Return how far a node's update has come, or nothing if no header that counts has come.

        Raises:
            MalformedMessage: the node is no address.
        """
        node = as_address(raw_node, f"round {round_number}: node")
        record = self._view.find_round(round_number)
        commitment = None if record is None else self._statements.find_commitment(record, node)
        if commitment is None:
            return None
        return self._journal.find_upload(round_number, node, root=commitment.update_root)

    def begin(self, start: UploadStart) -> Incoming:
        """Return the update that a stream may bring, from its first message.

        The ledger is read again before it is held against a node that its answer is no.

        1. The round is open.
        2. The node is of its cohort.
        3. The node has committed in it, by transaction or by its signature.
        4. The header has as many digests as the policy wants, and its root is the committed one.
        5. The manifest is canonical, there is one digest for each chunk that it speaks of, and each of its
           fields is what the ledger and the policy say.
        6. No chunk of it has been refused for good.

        Raises:
            Refused: a check fails. From 5 on the committed update can never count, which is journalled.
            MalformedMessage: the node is no address, or a digest is not 32 bytes.
        """
        number = start.round
        node = as_address(start.node, f"round {number}: node")
        where = _where(number, node)
        if not self._is_ready(number, node):
            self._view.refresh_for_peer()
        # 1
        record = self._require_open(number, where)
        # 2
        if node not in record.cohort:
            raise Refused(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{where}: expected a node that was admitted when the round was opened, it was not",
            )
        # 3
        commitment = self._statements.find_commitment(record, node)
        if commitment is None:
            raise out_of_turn(f"{where}: expected a commitment before the upload, found none")
        # 4. A message has room for a hundred thousand digests: they are counted before they are hashed.
        terms = self._find_terms(record)
        manifest = start.header.manifest
        if len(start.header.chunk_digests) != terms.chunks:
            came = len(start.header.chunk_digests)
            raise malformed(f"{where}: header: chunks: expected {terms.chunks}, got {came}")
        chunk_digests = [
            as_digest(raw, f"{where}: chunk digest {i}") for i, raw in enumerate(start.header.chunk_digests)
        ]
        try:
            parsed = verify_header(manifest, chunk_digests, root=commitment.update_root)
        except DigestMismatch as error:
            raise out_of_turn(f"{where}: {error} (the node's commitment)") from error
        except MalformedMessage as error:
            raise self._refuse_for_good(number, node, commitment.update_root, f"{where}: {error}") from error
        # 5
        try:
            verify_update(
                parsed, view=self._view, record=record, node=node, examples=commitment.examples, terms=terms
            )
        except DigestMismatch as error:
            raise self._refuse_for_good(number, node, commitment.update_root, f"{where}: {error}") from error
        self._store.put_header(manifest, chunk_digests)
        standing = self._journal.begin_upload(
            number, node, root=commitment.update_root, chunks=len(chunk_digests)
        )
        # 6
        if standing.reason is not None:
            raise malformed(f"{standing.message} (refused before)")
        return Incoming(
            round=number,
            node=node,
            root=commitment.update_root,
            chunk_digests=chunk_digests,
            terms=terms,
            held=standing.received,
            next_chunk=standing.received,
            settled_at=time.monotonic(),
        )

    def accept(self, incoming: Incoming, index: int, data: bytes) -> None:
        """Add the next chunk of an update to the round's sum, and store it.

        1. The round is still open.
        2. The index is the next one; a stream's first chunk may be one that is held.
        3. The length is the exact one.
        4. The digest is the header's.
        5. Each frame's seed is that of no other frame, of any update and round: nobody sends again what it
           has downloaded, however changed.
        6. The frames are well formed: a codec worker reads them, adds them, and lives.

        Raises:
            Refused: a check fails; what came before stays. After 5 and 6, and after 3 where the digest is the
                header's, the committed update can never count, which is journalled.
        """
        # 1
        if not self._is_open(incoming.round):
            self._view.refresh_for_peer()
        self._require_open(incoming.round, incoming.where)
        # 2
        self._require_next(incoming, index)
        # 3
        where = f"{incoming.where}, chunk {index}"
        expected_bytes = incoming.terms.compute_chunk_bytes(index)
        expected, came = incoming.chunk_digests[index], leaf_digest(data)
        problem = ""
        if len(data) != expected_bytes:
            kind = "too large" if len(data) > expected_bytes else "too small"
            problem = f"{where}: expected {expected_bytes} bytes, got {len(data)}: {kind}"
        # 4
        if came != expected:
            raise malformed(problem or f"{where}: expected leaf digest {expected.hex()}, got {came.hex()}")
        # 5, 6
        problem = problem or self._add(incoming, index, data)
        if problem:
            # By the root that it began with: the chain may have dropped the commitment since.
            raise self._refuse_for_good(incoming.round, incoming.node, incoming.root, problem)
        # A crash before this line leaves seeds without their chunk; they are its own when the node sends it
        # again. The sum dies with this process, and is made anew from the store.
        self._store.stage(data, digest=expected)
        # A crash here leaves a chunk that the journal does not know; the node sends it again.
        incoming.unsettled.append(expected)
        incoming.next_chunk = index + 1
        incoming.held = max(incoming.held, incoming.next_chunk)
        if incoming.is_complete or time.monotonic() - incoming.settled_at >= _SETTLE_S:
            self.settle(incoming)

    def settle(self, incoming: Incoming) -> None:
        """See the chunks that came onto the disk, and then record them; also when a stream is cut."""
        if not incoming.unsettled:
            return
        self._store.sync(incoming.unsettled)
        self._journal.record_chunks(
            incoming.round,
            incoming.node,
            root=incoming.root,
            received=incoming.held,
            chunks=len(incoming.chunk_digests),
        )
        incoming.unsettled.clear()
        incoming.settled_at = time.monotonic()

    def _add(self, incoming: Incoming, index: int, data: bytes) -> str:
        """Return what is wrong with a chunk's frames; when nothing is, the round's sum holds them."""
        seeds = split_seeds(data, incoming.terms.parameters)
        try:
            self._journal.claim_seeds(incoming.round, incoming.node, chunk=index, seeds=seeds)
            self._summation.add(
                incoming.round,
                incoming.terms,
                index=index,
                digest=incoming.chunk_digests[index],
                chunk=data,
                whose=incoming.where,
            )
        except CopiedFrame as error:
            return f"{incoming.where}, chunk {index}: {_describe_copy(error, incoming)}"
        except MalformedMessage as error:
            return str(error)
        return ""

    @staticmethod
    def _require_next(incoming: Incoming, index: int) -> None:
        where, total = incoming.where, len(incoming.chunk_digests)
        # What a node was told by GetUpload may be behind what an earlier stream of its has brought since.
        if not incoming.has_begun and index < min(incoming.next_chunk, total):
            incoming.next_chunk = index
        incoming.has_begun = True
        if incoming.next_chunk == total:
            raise malformed(f"{where}: expected no chunk after the last of {total}, got chunk {index}")
        if index != incoming.next_chunk:
            kind = "again" if index < incoming.next_chunk else "out of order"
            raise malformed(f"{where}: expected chunk {incoming.next_chunk}, got chunk {index} {kind}")

    def _is_ready(self, number: int, node: Address) -> bool:
        """Whether checks 1 to 3 pass on what was read of the ledger so far."""
        record = self._view.find_round(number)
        return (
            record is not None
            and record.phase is Phase.OPEN
            and self._statements.find_commitment(record, node) is not None
        )

    def _is_open(self, number: int) -> bool:
        record = self._view.find_round(number)
        return record is not None and record.phase is Phase.OPEN

    def _require_open(self, number: int, where: str) -> RoundRecord:
        record = self._view.find_round(number)
        phase = Phase.NONE if record is None else record.phase
        if record is None or phase is not Phase.OPEN:
            newest = self._view.current_round()
            raise out_of_turn(
                f"{where}: expected an open round, round {number} is in phase {phase.name} "
                f"(the newest is round {0 if newest is None else newest.number})"
            )
        return record

    def _find_terms(self, record: RoundRecord) -> Terms:
        return self._shelf.find(self._view.round_policy(record).digest)

    def _refuse_for_good(self, number: int, node: Address, root: Digest, message: str) -> Refused:
        """Journal that a committed update can never count, since no other can take its place."""
        self._journal.record_refusal(
            number,
            node,
            root=root,
            reason=ExclusionReason.MALFORMED,
            message=message,
        )
        return malformed(message)


def _where(number: int, node: Address) -> str:
    return f"round {number}, node {checksum_address(node)}"


def _describe_copy(error: CopiedFrame, incoming: Incoming) -> str:
    is_own = (error.round, error.node) == (incoming.round, incoming.node)
    whose = "this update" if is_own else _where(error.round, error.node)
    return f"expected seeds that no other frame has, got one of {whose}, chunk {error.chunk}"
