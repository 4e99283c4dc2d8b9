"""An aggregator on a chain in memory, with real TLS, real gRPC and real ciphertexts, that a test can edit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from fedproof_aggregator.allowance import Allowance
from fedproof_aggregator.config import AggregatorConfig
from fedproof_aggregator.daemon import Daemon
from fedproof_aggregator.intake import Intake
from fedproof_aggregator.journal import Journal
from fedproof_aggregator.keyrelay import KeyRelay
from fedproof_aggregator.outlet import Outlet
from fedproof_aggregator.retention import Retention
from fedproof_aggregator.rounds import Parts
from fedproof_aggregator.server import (
    DOWNLOAD_PATIENCE_S,
    STREAMS_AT_WORK,
    UPLOAD_PATIENCE_S,
    RunningServer,
    compute_threads,
    start_server,
)
from fedproof_aggregator.service import AggregationService
from fedproof_aggregator.statements import Statements
from fedproof_aggregator.summation import Summation
from fedproof_aggregator.terms import TermsShelf
from fedproof_aggregator.turnstile import Turnstile
from fedproof_aggregator.view import LedgerView

from fedproof.config import ChainConfig, TlsConfig
from fedproof.digests import Digest
from fedproof.keys.tls import TlsFiles
from fedproof.ledger.client import Ledger
from fedproof.ledger.statements import RoundStatements
from fedproof.manifest import UpdateManifest, compute_header_root
from fedproof.merkle import leaf_digest
from fedproof.policy import Policy
from fedproof.store import ObjectStore
from fedproof.wire import aggregation_pb2 as wire
from fedproof.wire.aggregation_pb2_grpc import AggregationStub
from tests.aggregator.federation import (
    BASE_VALUES,
    CLIPS,
    EXAMPLES,
    PARAMETERS,
    POLICY,
    Link,
    encrypted,
)
from tests.chain import Federation, make_digest

CHUNKS = 3  # of each update


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Return the status and message that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


@dataclass(frozen=True, slots=True)
class Update:
    """An update as a node holds it."""

    manifest: UpdateManifest
    chunks: tuple[bytes, ...]
    raw_manifest: bytes
    digests: tuple[Digest, ...]

    @property
    def root(self) -> Digest:
        return compute_header_root(self.raw_manifest, self.digests)

    @property
    def header(self) -> wire.Header:
        return wire.Header(manifest=self.raw_manifest, chunk_digests=self.digests)


def chunks_of(update: Update, *indices: int) -> list[wire.Chunk]:
    """Return some of an update's chunks, as they are sent."""
    return [wire.Chunk(index=i, data=update.chunks[i]) for i in indices]


class World:
    """A federation of three admitted nodes and an outsider, its aggregator, and what it keeps on disk.

    Attributes:
        federation: the contract, and everybody's connection to it.
        link: the line to the chain.
        logs: what the aggregator logged.
        clock: by which calls are counted.
        view: what the aggregator has read of the ledger.
    """

    def __init__(
        self,
        federation: Federation,
        link: Link,
        folder: Path,
        tls: Sequence[TlsFiles],
        ca: Path,
        *,
        policy: Policy = POLICY,
    ) -> None:
        self.policy = policy
        self.federation = federation
        self.link = link
        self.folder = folder
        self.logs: list[dict[str, Any]] = []
        self.clock: Callable[[], float] = time.monotonic
        self._tls = tls
        self._ca = ca
        self._channels: list[grpc.Channel] = []
        self._server: RunningServer | None = None
        self.config = AggregatorConfig(
            name="aggregator",
            state_dir=folder / "state",
            policy=folder / "policy.toml",
            listen="localhost:0",
            rounds=3,
            expected_nodes=3,
            codec_processes=1,
            poll_interval_s=0.02,
            seal_grace_s=10.0,
            attest_grace_s=0.0,
            shutdown_grace_s=0.0,
            chain=ChainConfig(rpc_url="http://memory", contract=federation.contract, keystore=folder / "x"),
            tls=TlsConfig(ca=ca, certificate=tls[0].certificate, key=tls[0].key),
        )
        self.build()

    # The aggregator

    def build(self) -> None:
        """Make every object of the aggregator from what is on disk and on the chain, as a restart does."""
        ledger = self.federation.aggregator
        self.store = ObjectStore(self.config.store_dir)
        self.journal = Journal(
            self.config.state_dir / "state.sqlite", chain_id=ledger.chain_id, contract=ledger.contract
        )
        self.view = LedgerView(ledger)
        self.shelf = TermsShelf(self.policy, store=self.store)
        self.key_relay = KeyRelay(view=self.view, store=self.store)
        self.summation = Summation(view=self.view, store=self.store, processes=self.config.codec_processes)
        logger = structlog.wrap_logger(None, processors=[self._keep_line])
        self.retention = Retention(
            ledger, view=self.view, store=self.store, shelf=self.shelf, finality="latest", logger=logger
        )
        self.statements = Statements(ledger=ledger, view=self.view, journal=self.journal, store=self.store)
        parts = Parts(
            ledger,
            self.view,
            self.store,
            self.journal,
            self.shelf,
            self.statements,
            self.key_relay,
            self.summation,
        )
        self.daemon = Daemon(self.config, self.policy, parts, logger=logger)
        self.intake = Intake(
            view=self.view,
            store=self.store,
            journal=self.journal,
            shelf=self.shelf,
            statements=self.statements,
            summation=self.summation,
        )
        self.service = AggregationService(
            view=self.view,
            outlet=Outlet(
                view=self.view, store=self.store, statements=self.statements, retention=self.retention
            ),
            intake=self.intake,
            key_relay=self.key_relay,
            statements=self.statements,
            uploads=Turnstile(STREAMS_AT_WORK, patience_s=UPLOAD_PATIENCE_S),
            downloads=Turnstile(STREAMS_AT_WORK, patience_s=DOWNLOAD_PATIENCE_S),
            policy_digest=self.policy.digest,
            logger=logger,
            on_progress=self.daemon.wake,
        )

    def reconfigure(self, **changes: Any) -> None:
        """Start again with another configuration."""
        self.config = self.config.model_copy(update=changes)
        self.restart()

    def restart(self) -> None:
        """Throw away everything in memory, and start on the same disk and chain."""
        self.close()
        self.build()

    def close(self) -> None:
        """End the server, if it was started, and close the files."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        self.stop_server(0)
        self.summation.stop()
        self.journal.close()

    def stop_server(self, grace_s: float) -> None:
        """End the server, if it was started."""
        if self._server is not None:
            self._server.stop(grace_s)
            self._server = None

    @property
    def address(self) -> str:
        """Where it serves; the server starts when it is asked for first."""
        if self._server is None:
            self._server = start_server(
                self.service,
                self.config.listen,
                tls=self.config.tls,
                threads=compute_threads(2),
                allowance=Allowance(clock=self.clock),
            )
        return self._server.address

    def _keep_line(self, _logger: object, level: str, event: dict[str, Any]) -> str:
        self.logs.append({"level": level, **event})
        raise structlog.DropEvent

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return the logged events of a kind."""
        return [line for line in self.logs if line["event"] == kind]

    # The nodes

    def node(self, index: int) -> Ledger:
        """Return a node's connection to the ledger."""
        return self.federation.nodes[index]

    def stub(self, index: int = 0) -> AggregationStub:
        """Return a connection to the aggregator under a node's certificate."""
        files = self._tls[index]
        credentials = grpc.ssl_channel_credentials(
            self._ca.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
        )
        channel = grpc.secure_channel(self.address, credentials)
        self._channels.append(channel)
        return AggregationStub(channel)

    def open_round(self, number: int = 1) -> None:
        """Open a round, as the aggregator's daemon would."""
        self.federation.aggregator.open_round(number)

    def make_update(
        self,
        index: int,
        *,
        number: int = 1,
        data: Sequence[bytes] | None = None,
        raw_manifest: bytes | None = None,
        **changes: Any,
    ) -> Update:
        """Return a node's update, with another manifest or other chunks where asked."""
        taken = tuple(encrypted(index, number) if data is None else data)
        ledger = self.node(index)
        manifest = UpdateManifest(
            chain_id=ledger.chain_id,
            contract=ledger.contract,
            round=number,
            node=ledger.address,
            epoch=1,
            policy_digest=self.policy.digest,
            base_model=ledger.head_model(),
            base_values=BASE_VALUES,
            clips=CLIPS,
            parameters=PARAMETERS,
            chunks=len(taken),
            examples=EXAMPLES[index % 3],
        )
        manifest = replace(manifest, **changes)
        raw = manifest.encode() if raw_manifest is None else raw_manifest
        return Update(manifest, taken, raw, tuple(map(leaf_digest, taken)))

    def commit(self, index: int, update: Update, *, number: int = 1) -> Update:
        """Commit to an update on the ledger, and return it."""
        self.node(index).commit(number, update.root, EXAMPLES[index % 3])
        return update

    def committed_update(self, index: int, *, number: int = 1, **changes: Any) -> Update:
        """Return a node's update after committing to it."""
        return self.commit(index, self.make_update(index, number=number, **changes), number=number)

    def upload(
        self,
        index: int,
        update: Update,
        *,
        number: int = 1,
        chunks: Sequence[wire.Chunk] | None = None,
        node: bytes | None = None,
    ) -> wire.UploadResponse:
        """Send an update as a node, or the chunks given in place of its own."""
        if chunks is None:
            chunks = chunks_of(update, *range(len(update.chunks)))
        address = self.node(index).address if node is None else node
        start = wire.UploadStart(round=number, node=address, header=update.header)
        parts = [wire.UploadRequest(start=start), *(wire.UploadRequest(chunk=each) for each in chunks)]
        return self.stub(index).Upload(iter(parts))

    def deliver(self, *indices: int, number: int = 1) -> list[Update]:
        """Let nodes commit and upload."""
        updates = [self.committed_update(index, number=number) for index in indices]
        for index, update in zip(indices, updates, strict=True):
            self.upload(index, update, number=number)
        return updates

    def describe(self) -> RoundStatements:
        """Return what the newest round's signatures are bound to."""
        self.view.refresh()
        record = self.view.current_round()
        assert record is not None
        return self.statements.describe(record)

    def sign_update(self, index: int, update: Update, **changes: Any) -> wire.SignedCommitment:
        """Return a node's signed commitment to an update, with other fields where asked."""
        terms = {"update_root": update.root, "examples": EXAMPLES[index % 3], "nonce": 0, **changes}
        ledger = self.node(index)
        message = self.describe().describe_commitment(ledger.address, **terms)
        return wire.SignedCommitment(node=ledger.address, signature=ledger.sign(message), **terms)

    def put_commitment(self, signed: wire.SignedCommitment, *, number: int = 1) -> None:
        """Hand a signed commitment over."""
        self.stub().PutCommitment(wire.PutCommitmentRequest(round=number, commitment=signed))

    def signed_update(self, index: int, *, number: int = 1, **changes: Any) -> Update:
        """Return a node's update after handing over the signed commitment to it."""
        update = self.make_update(index, number=number, **changes)
        self.put_commitment(self.sign_update(index, update), number=number)
        return update

    def deliver_signed(self, *indices: int, number: int = 1) -> list[Update]:
        """Let nodes sign their commitments and upload."""
        updates = [self.signed_update(index, number=number) for index in indices]
        for index, update in zip(indices, updates, strict=True):
            self.upload(index, update, number=number)
        return updates

    def sign_model(self, index: int, model: Digest) -> wire.SignedAttestation:
        """Return a node's signed attestation."""
        ledger = self.node(index)
        message = self.describe().describe_attestation(ledger.address, model)
        return wire.SignedAttestation(node=ledger.address, signature=ledger.sign(message))

    def put_attestation(self, signed: wire.SignedAttestation, model: Digest, *, number: int = 1) -> None:
        """Hand a signed attestation over."""
        request = wire.PutAttestationRequest(round=number, model_digest=model, attestation=signed)
        self.stub().PutAttestation(request)

    def attest_signed(self, *indices: int, number: int = 1, model: object = "model") -> Digest:
        """Let nodes attest a model by their signatures, and return its digest."""
        digest = make_digest(model)
        for index in indices:
            self.put_attestation(self.sign_model(index, digest), digest, number=number)
        return digest

    def standing(self, index: int, *, number: int = 1) -> wire.GetUploadResponse:
        """Ask how far a node's update has come."""
        request = wire.GetUploadRequest(round=number, node=self.node(index).address)
        return self.stub(index).GetUpload(request)

    def attest(self, *indices: int, number: int = 1, model: object = "model") -> Digest:
        """Let nodes attest a model by transactions, and return its digest."""
        digest = make_digest(model)
        for index in indices:
            self.node(index).attest(number, digest)
        return digest

    def pass_deadline(self, *, by_s: int = 1) -> None:
        """Mine a block that much after the round's deadline."""
        self.federation.pass_deadline(by_s=by_s)
        self.federation.chain.mine()


@contextmanager
def opened(
    federation: Federation,
    link: Link,
    folder: Path,
    tls: Sequence[TlsFiles],
    ca: Path,
    *,
    policy: Policy = POLICY,
) -> Iterator[World]:
    """Give a world, and leave the chain as it was."""
    with federation.chain.rolled_back():
        world = World(federation, link, folder, tls, ca, policy=policy)
        try:
            yield world
        finally:
            link.down.clear()
            link.is_terse = False
            world.close()
