"""The end of a round on this node: the sum is verified, then decrypted, applied and attested.

The order is the point. Until every check in `verification` has passed, no chunk is decrypted; until the model
is on the disk, its digest is not attested.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from structlog.typing import FilteringBoundLogger

from fedproof.codec import SecretKey
from fedproof.codec.scaling import compute_next_clips
from fedproof.codec.workers import CodecWorkers, count_cores
from fedproof.digests import Digest
from fedproof.errors import (
    DigestMismatch,
    LedgerError,
    PeerError,
    WorkerDied,
)
from fedproof.ledger.client import Ledger
from fedproof.ledger.history import History
from fedproof.ledger.rounds import RoundRecord
from fedproof.model import Model
from fedproof.wire.aggregation_pb2 import Header
from fedproof_node.attestation import Attester
from fedproof_node.batches import Batches
from fedproof_node.config import VerifyConfig
from fedproof_node.epoch import KeyRing
from fedproof_node.journal import Journal
from fedproof_node.membership import Membership
from fedproof_node.models import ModelShelf
from fedproof_node.recomputation import recompute_chunks
from fedproof_node.relay import Relay
from fedproof_node.spool import Spool
from fedproof_node.verification import (
    RoundFacts,
    compute_draw,
    verify_aggregate_header,
)

# To start a process takes as long as adding two of them.
_SUMMANDS_PER_PROCESS: Final = 64


class Concluder:
    """Takes rounds from their published sum to the model that this node derives.

    Every method raises NetworkError or LedgerError for what has to be tried again.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        verify: VerifyConfig,
        ledger: Ledger,
        relay: Relay,
        journal: Journal,
        models: ModelShelf,
        keys: KeyRing,
        batches: Batches,
        attester: Attester,
        rounds_dir: Path,
        codec_processes: int,
        log: FilteringBoundLogger,
    ) -> None:
        self._membership = membership
        self._verify = verify
        self._ledger = ledger
        self._relay = relay
        self._journal = journal
        self._models = models
        self._keys = keys
        self._batches = batches
        self._attester = attester
        self._rounds_dir = rounds_dir
        self._codec_processes = codec_processes
        self._log = log
        # Of the sum in the spool, by published root. Only in memory: after a restart `fetch` finds the spool.
        self._headers: dict[Digest | None, Header] = {}

    def is_drawable(self, record: RoundRecord, history: History) -> bool:
        """Return whether the block that the draw depends on has been mined, or nothing is left to a draw."""
        if record.aggregated_block is None:
            return False
        return self._is_whole() or history.next_block - 1 > record.aggregated_block

    def holds_sum(self, record: RoundRecord) -> bool:
        """Return whether `fetch` has brought the sum that the ledger names."""
        return record.aggregate_root in self._headers

    def fetch(self, record: RoundRecord, history: History) -> None:
        """Bring a round's sum into the spool: everything of `conclude` that need not wait for the draw.

        0. The seal accounts for every committed node: it contributes, or is excluded for a reason.
        1. The aggregate's header is proven by the published root and says what the ledger says.
        2. Every chunk of it has its proven leaf digest.

        Raises:
            MissingObject: the base model is not here, or the aggregator lost what it published.
            PeerError: a check fails.
            PolicyMismatch: the round follows another policy than this node's.
        """
        number = record.number
        facts = self._find_facts(record, history)  # 0
        self._keys.open(record.epoch, history)  # without the key, the sum is of no use
        self._log.info("phase", round=number, phase="verifying")
        header = self._relay.fetch_aggregate_header(number)
        leaves = verify_aggregate_header(header, facts)  # 1
        self._relay.fetch_aggregate(number, leaves=leaves, spool=self._spool(record))  # 2
        self._headers = {facts.aggregate_root: header}

    def conclude(self, record: RoundRecord, history: History) -> None:
        """Verify, decrypt and apply the sum that `fetch` brought; the new model is on the disk and in the
        journal afterwards. Ledger and disk may have changed since: 0 to 2 are checked once more.

        0. The seal accounts for every committed node: it contributes, or is excluded for a reason.
        1. The aggregate's header is proven by the published root and says what the ledger says.
        2. Every chunk of it has its proven leaf digest.
        3. The drawn chunks are the sums of the sealed contributors' committed chunks, none of which stands in
           two updates.
        4. Where the ledger knows the result, it is this node's as well.

        Raises:
            MissingObject: the base model or a chunk is not here, or the aggregator lost an update.
            PeerError: a check fails, or a worker crashes over what the aggregator sent; nothing was decrypted
                unless 4 is what fails.
            UpdateRefused: a value of the new model is not finite.
            PolicyMismatch: the round follows another policy than this node's.
        """
        number = record.number
        facts = self._find_facts(record, history)  # 0
        secret_key = self._keys.open(record.epoch, history)
        spool = self._spool(record)
        leaves = verify_aggregate_header(self._headers[facts.aggregate_root], facts)  # 1
        drawn = self._draw(record, facts)
        try:
            summands = len(drawn) * len(facts.contributions)
            most = 1 + summands // _SUMMANDS_PER_PROCESS
            with self._open_workers(None, most=most) as workers:
                recompute_chunks(  # 3
                    drawn, facts, relay=self._relay, workers=workers, spool=spool, leaves=leaves
                )
            self._log.info("verified", round=number, chunks=len(drawn), of=facts.chunks)
            model = self._apply(facts, spool, leaves, secret_key=secret_key)
        except WorkerDied as error:
            raise PeerError(f"round {number}: the aggregate: {error}") from error
        digest = self._models.digest(model)
        if record.result is not None and digest != record.result:  # 4
            self._attester.contradict(record, digest, history)
            raise DigestMismatch(describe_divergence(record, digest))
        self._models.save(model)
        # A crash before this line: the spool is still here, and the same sum gives the same model again.
        self._journal.note_applied(number, digest)

    def clean(self, record: RoundRecord) -> None:
        """Remove the round's spooled aggregate."""
        self._spool(record).clear()
        self._headers.clear()

    def _find_facts(self, record: RoundRecord, history: History) -> RoundFacts:
        contributions = self._batches.find_contributions(record)
        base = self._models.load(record.base_model)
        return self._membership.facts(
            record, history, layout=self._models.layout, base=base, contributions=contributions
        )

    def _is_whole(self) -> bool:
        """Return whether this node recomputes every chunk."""
        membership = self._membership
        chunks = membership.codec_parameters.chunk_count(membership.policy.update_length)
        return self._verify.chunks == "all" or self._verify.chunks >= chunks

    def _draw(self, record: RoundRecord, facts: RoundFacts) -> tuple[int, ...]:
        if self._verify.chunks == "all" or self._is_whole():
            return tuple(range(facts.chunks))
        if record.aggregated_block is None:
            raise LedgerError(f"round {record.number}: expected a block that holds AggregatePublished")
        return compute_draw(
            self._ledger.block(record.aggregated_block + 1).hash,
            self._membership.node,
            round_number=record.number,
            chunks=facts.chunks,
            count=self._verify.chunks,
        )

    def _apply(
        self,
        facts: RoundFacts,
        spool: Spool,
        leaves: tuple[Digest, ...],
        *,
        secret_key: SecretKey,
    ) -> Model:
        """Return the next model, and the clips of its first update, from the sum chunk by chunk."""
        encoding, codec = facts.encoding, self._membership.policy.codec
        base = self._models.load(facts.base_model)
        chunks = (spool.read_chunk(index, digest) for index, digest in enumerate(leaves))  # 2
        with self._open_workers(secret_key) as workers:
            sums = workers.decode(chunks, contributors=len(facts.contributions), length=encoding.length)
            flat, measured = encoding.apply(base.flat, sums, facts.total_examples)
        clips = compute_next_clips(
            encoding.scaling,
            measured,
            contributors=len(facts.contributions),
            total_examples=facts.total_examples,
            clip_margin=codec.clip_margin,
            clip_max=codec.clip,
        )
        return Model(flat, clips)

    def _open_workers(self, secret_key: SecretKey | None, *, most: int | None = None) -> CodecWorkers:
        processes = self._codec_processes or count_cores()
        return CodecWorkers(
            self._membership.codec_parameters,
            processes=min(processes, most or processes),
            secret_key=secret_key,
        )

    def _spool(self, record: RoundRecord) -> Spool:
        return Spool(self._rounds_dir, record.number, "aggregate")


def describe_divergence(record: RoundRecord, digest: Digest) -> str:
    """Return what to say when the ledger's result is not this node's model."""
    result = "none" if record.result is None else record.result.hex()
    return (
        f"round {record.number}: model diverged: expected the finalised model {result}, this node derived "
        f"{digest.hex()} from the verified sum"
    )
