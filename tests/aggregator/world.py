"""An aggregator on a chain in memory, with real TLS, real gRPC and real ciphertexts, that a test can edit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import numpy as np
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
from requests.exceptions import ConnectionError as NoConnection

from fedproof.codec.secret_key import SecretKey
from fedproof.codec.update import Codec
from fedproof.config import ChainConfig, TlsConfig
from fedproof.digests import Address, Digest
from fedproof.keys.tls import TlsFiles, issue_certificate, make_authority
from fedproof.keys.wrapping import WrappingKey, wrapped_keys_root
from fedproof.ledger.client import Ledger
from fedproof.ledger.statements import RoundStatements
from fedproof.manifest import UpdateManifest, compute_header_root
from fedproof.merkle import leaf_digest
from fedproof.model import compute_model_digest
from fedproof.policy import CodecPolicy, ModelPolicy, Policy, RoundPolicy, TrainingPlan
from fedproof.store import ObjectStore
from fedproof.wire import aggregation_pb2 as wire
from fedproof.wire.aggregation_pb2_grpc import AggregationStub
from tests.chain import Federation, MemoryChain, make_digest

COMMIT_WINDOW_S = 600
ATTEST_WINDOW_S = 200
EXAMPLES = (100, 200, 300)
WRAPPED = b"only the node can open this"

# What is behind the digest of the first model.
PARAMETERS = 400_000
BASE_VALUES = make_digest("values")
CLIPS = (0.25, 0.25)

POLICY = Policy(
    name="three nodes",
    model=ModelPolicy(
        architecture=make_digest("layout"),
        parameters=PARAMETERS,
        genesis=compute_model_digest(make_digest("layout"), PARAMETERS, BASE_VALUES, CLIPS),
        seed=7,
    ),
    codec=CodecPolicy(
        bits=15, max_contributors=4, clip=0.25, clip_margin=4.0, keep_one_in=1, error_feedback=False
    ),
    rounds=RoundPolicy(
        min_contributors=2,
        attestation_quorum=2,
        max_examples=1000,
        commit_window_s=COMMIT_WINDOW_S,
        aggregate_window_s=300,
        attest_window_s=ATTEST_WINDOW_S,
    ),
    training=TrainingPlan(epochs=1, batch_size=32, learning_rate=0.05, momentum=0.9, weight_decay=0.0),
)
BATCHING = replace(POLICY, rounds=replace(POLICY.rounds, batching=True))


@cache
def codec() -> Codec:
    """Return the policy's codec; learning SEAL's file form takes a moment."""
    return Codec(POLICY.codec_parameters())


@cache
def secret_key() -> SecretKey:
    """Return the epoch's key, which the nodes share and nobody else has."""
    return codec().generate_secret_key()


@cache
def wrapping_key() -> WrappingKey:
    """Return the first node's wrapping key."""
    return WrappingKey.generate()


@cache
def values(node: int, version: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return a node's quantised update."""
    rng = np.random.default_rng([node, version])
    return rng.integers(-16_383, 16_384, PARAMETERS, dtype=np.int64)


@cache
def encrypted(node: int, version: int = 0) -> tuple[bytes, ...]:
    """Return a node's encrypted chunks: two whole ones and a shorter one."""
    encryptor = codec().make_encryptor(secret_key())
    size = codec().parameters.values_per_chunk
    update = values(node, version)
    return tuple(
        codec().encrypt_chunk(update[start : start + size], encryptor)
        for start in range(0, update.size, size)
    )


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


class Link:
    """The line to the chain: threads take turns on it, and a test can cut it.

    Attributes:
        down: methods that get no answer.
        is_terse: whether a refusal comes without its reason, as from some endpoints.
    """

    def __init__(self, chain: MemoryChain) -> None:
        self.down: set[str] = set()
        self.is_terse = False
        self._lock = threading.RLock()  # an answer may take further requests
        self._ask = chain.provider.make_request
        chain.provider.make_request = self._make_request  # type: ignore[method-assign]

    def _make_request(self, method: Any, params: Any) -> Any:
        if method in self.down:
            raise NoConnection(f"{method}: connection refused")
        with self._lock:
            answer = self._ask(method, params)
        if self.is_terse and "error" in answer:
            answer["error"].pop("data", None)
        return answer


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
            chunks = [wire.Chunk(index=i, data=data) for i, data in enumerate(update.chunks)]
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


def wrapped_keys(federation: Federation) -> list[tuple[Address, bytes]]:
    """Return the first epoch's wrapped keys, which nobody here can open."""
    return [(node.address, WRAPPED + bytes([i])) for i, node in enumerate(federation.nodes[:3])]


def deploy_federation(policy: Policy = POLICY) -> tuple[Federation, Link]:
    """Return a federation with its policy and first epoch, and the line to its chain."""
    chain = MemoryChain()
    # Before the first request: web3 keeps hold of what it has called once.
    link = Link(chain)
    federation = Federation(chain)
    for index, node in enumerate(federation.nodes[:3]):
        digest = wrapping_key().digest if index == 0 else make_digest(f"wrapping {index}")
        node.register(digest, make_digest(f"certificate {index}"))
        federation.admin.admit(node.address)
    federation.admin.adopt_policy(policy)
    federation.admin.request_epoch(federation.nodes[0].address)
    root = wrapped_keys_root(wrapped_keys(federation))
    federation.nodes[0].publish_epoch(1, codec().parameters.digest, root, membership=3)
    return federation, link


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


def make_certificates(folder: Path) -> tuple[list[TlsFiles], Path]:
    """Return a certificate for each of four nodes, and their authority's."""
    authority = folder / "authority"
    ca = make_authority(authority, "authority").certificate
    files = [
        issue_certificate(folder / f"node-{i}", authority, f"node-{i}", hosts=["localhost"]) for i in range(4)
    ]
    return files, ca
