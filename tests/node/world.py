"""A federation in one process: a chain in memory, an aggregator that a test can edit, and nodes of real
parts.

The nodes are the production daemon, journal, relay client (over TLS) and codec. A test drives them turn by
turn, so nothing depends on time, and crashes them wherever they log something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fedproof_node.config import NodeConfig
from fedproof_node.daemon import Daemon
from fedproof_node.journal import Journal
from fedproof_node.membership import Membership
from fedproof_node.models import ModelShelf
from fedproof_node.relay import Relay
from fedproof_node.service import build_daemon
from fedproof_node.startup import verify_model
from fedproof_node.watch import LedgerWatch
from web3 import Web3

from fedproof.codec import Codec
from fedproof.digests import Address, Digest
from fedproof.errors import TaskFailed
from fedproof.keys.wrapping import WrappingKey
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import LEAF_TOO, ExclusionReason, FailureReason
from fedproof.ledger.finality import Finality
from fedproof.ledger.history import History
from fedproof.ledger.statements import (
    SignedAttestation,
    SignedCommitment,
    compute_batch_root,
    compute_contributions,
)
from fedproof.manifest import AggregateManifest, compute_header_root
from fedproof.merkle import leaf_digest
from fedproof.model import Model, ModelLayout, TensorSpec
from fedproof.policy import CodecPolicy, ModelPolicy, Policy, RoundPolicy, TrainingPlan
from fedproof.task import EvaluationResult
from fedproof.training import TrainOutcome
from fedproof.wire import aggregation_pb2 as wire
from tests.chain import Federation, MemoryChain
from tests.node.aggregator import ONCE, QUICK, make_tls, open_aggregator

# Nodes that every world has: no test asks for fewer.
FOUNDERS = 2


class Crash(BaseException):
    """The process is gone: nothing catches this, as nothing survives SIGKILL."""


def make_policy(
    length: int, *, codec: Mapping[str, object] | None = None, **rounds: int
) -> tuple[Policy, ModelLayout, np.ndarray]:
    """Return a policy for a model of one tensor, its layout and its first model's values."""
    layout = ModelLayout((TensorSpec("weight", (length,), "float32"),))
    genesis = np.linspace(-1, 1, length, dtype=np.float32)
    terms = {
        "min_contributors": 2,
        "attestation_quorum": 2,
        "max_examples": 100,
        "commit_window_s": 600,
        "aggregate_window_s": 600,
        "attest_window_s": 600,
        **rounds,
    }
    terms_of_codec: dict[str, Any] = {
        "bits": 15,
        "max_contributors": 16,
        "clip": 0.25,
        "clip_margin": 4.0,
        "keep_one_in": 1,
        "error_feedback": False,
        **(codec or {}),
    }
    clips = (terms_of_codec["clip"],)
    policy = Policy(
        name="test",
        model=ModelPolicy(
            architecture=layout.digest,
            parameters=length,
            genesis=Model(genesis, clips).compute_digest(layout.digest),
            seed=7,
        ),
        codec=CodecPolicy(**terms_of_codec),
        rounds=RoundPolicy(**terms),
        training=TrainingPlan(epochs=1, batch_size=1, learning_rate=0.1, momentum=0.0, weight_decay=0.0),
    )
    return policy, layout, genesis


@dataclass
class Recorder:
    """A log that remembers, and that a test can make the process die at.

    Attributes:
        crash_at: called with each event; where it returns true, the process is gone.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    crash_at: Callable[[dict[str, Any]], bool] = lambda _event: False

    def info(self, event: str, **values: Any) -> None:
        entry = {"event": event, **values}
        self.events.append(entry)
        if self.crash_at(entry):
            raise Crash

    warning = info
    error = info

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.events if entry["event"] == kind]


class NumpyTrainer:
    """Training and evaluation without torch, in this process.

    Attributes:
        spoil: what a test does to the trained model.
        trained: the base models that training was asked for.
    """

    def __init__(self, layout: ModelLayout, genesis: np.ndarray, *, seed: int, examples: int) -> None:
        self._layout = layout
        self._genesis = genesis
        self._rng = np.random.default_rng(seed)
        self._examples = examples
        self.spoil: Callable[[np.ndarray], None] = lambda _flat: None
        self.trained: list[np.ndarray] = []
        self.evaluation_fails = False

    def describe(self) -> tuple[ModelLayout, np.ndarray]:
        return self._layout, self._genesis

    def train(self, base: np.ndarray, *, round_number: int) -> TrainOutcome:
        self.trained.append(base)
        flat = base + self._rng.normal(scale=0.05, size=base.size).astype(np.float32)
        self.spoil(flat)
        return TrainOutcome(flat=flat, examples=self._examples, loss=1.0 / round_number, seconds=0.0)

    def evaluate(self, model: np.ndarray) -> EvaluationResult:
        if self.evaluation_fails:
            raise TaskFailed("task: evaluate raised")
        return EvaluationResult(examples=10, loss=float(np.abs(model).mean()), accuracy=0.5)


@cache
def wrapping_key(index: int) -> WrappingKey:
    """Return a node's wrapping key, the same in each world."""
    return WrappingKey.generate()


def found_federation() -> Federation:
    """Return what each world begins with, and rolls back to: a contract with two nodes."""
    federation = Federation(MemoryChain())
    for index in range(FOUNDERS):
        admit(federation, index)
    return federation


def admit(federation: Federation, index: int) -> None:
    """Register a node, and admit it."""
    node = federation.nodes[index]
    node.register(wrapping_key(index).digest, Digest(b"\x0c" * 32))
    federation.admin.admit(node.address)


class Node:
    """One participant: a folder on the disk, and a process that can be started, crashed and started again."""

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.ledger: Ledger = world.chain_federation.nodes[index]
        self.address: Address = self.ledger.address
        self.folder = world.folder / f"node-{index}"
        self.wrapping_key = wrapping_key(index)
        self.tls = make_tls(world.folder, f"node-{index}", authority=world.folder / "authority")
        self.trainer = NumpyTrainer(world.layout, world.genesis, seed=index, examples=40 + index)
        self.settings: dict[str, Any] = {}
        self.finality: Finality = "latest"
        self.log = Recorder()
        self.sent_before = 0
        self._stack = ExitStack()
        self._daemon: Daemon | None = None

    @property
    def daemon(self) -> Daemon:
        if self._daemon is None:
            self.start()
        assert self._daemon is not None
        return self._daemon

    def start(self) -> None:
        world = self.world
        self._stack = ExitStack()
        config = NodeConfig.model_validate(
            {
                "name": self.folder.name,
                "state_dir": self.folder / "state",
                "policy": Path("unused"),
                "wrapping_key": Path("unused"),
                "public_key_wait_s": 0.0,
                "codec_processes": 1,
                "task": {"reference": "unused:Unused"},
                "chain": {"rpc_url": "unused", "contract": world.contract, "keystore": Path("unused")},
                "aggregator": {"target": world.aggregator.target},
                "tls": self.tls.model_dump(),
                **self.settings,
            }
        )
        config.state_dir.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(
            config.state_dir / "journal.sqlite",
            chain_id=self.ledger.chain_id,
            contract=world.contract,
            node=self.address,
        )
        self._stack.callback(self.journal.close)
        self.models: ModelShelf = verify_model(
            *self.trainer.describe(), world.policy, models_dir=config.state_dir / "models"
        )
        relay = self._stack.enter_context(Relay(world.aggregator.target, self.tls, patience=QUICK))
        self._daemon = build_daemon(
            config,
            Membership(
                chain_id=self.ledger.chain_id,
                contract=world.contract,
                node=self.address,
                policy=world.policy,
                policy_path=Path("policy.toml"),
                codec_parameters=world.codec.parameters,
            ),
            wrapping_key=self.wrapping_key,
            ledger=self.ledger,
            watch=LedgerWatch(self.ledger, from_block=0, finality=self.finality),
            relay=relay,
            lookout=self._stack.enter_context(Relay(world.aggregator.target, self.tls, patience=ONCE)),
            journal=self.journal,
            models=self.models,
            trainer=self.trainer,  # type: ignore[arg-type]
            log=self.log,  # type: ignore[arg-type]
        )
        relay.put_public_key(self.wrapping_key.public_bytes)

    def stop(self) -> None:
        """End the process; what it had in memory is gone."""
        self._stack.close()
        self._daemon = None

    def turn(self) -> bool:
        """Take one turn of each thread; a crash ends the process, and the next turn starts another."""
        try:
            has_attended = self.daemon.watchtower.attend()
            return self.daemon.turn() or has_attended
        except Crash:
            self.stop()
            return True

    @property
    def transactions(self) -> int:
        """How many it has sent since the epoch began."""
        eth = self.world.chain.web3.eth
        return eth.get_transaction_count(Web3.to_checksum_address(self.address)) - self.sent_before

    def settle(self, *, most: int = 60) -> None:
        """Take turns until there is nothing to do."""
        for _ in range(most):
            if not self.turn():
                return
        raise AssertionError(f"still busy after {most} turns: {self.log.events[-5:]}")


class World:
    """A contract, an aggregator, and nodes of which as many are admitted as a test asks for, two at least."""

    def __init__(
        self,
        folder: Path,
        federation: Federation,
        *,
        length: int = 300,
        codec: Mapping[str, object] | None = None,
        **rounds: int,
    ) -> None:
        self.folder = folder
        self.policy, self.layout, self.genesis = make_policy(length, codec=codec, **rounds)
        self.codec = Codec(self.policy.codec_parameters())
        self.chain = federation.chain
        self.chain_federation = federation
        self.contract = federation.contract
        self.admin = federation.admin
        self.operator = federation.aggregator
        self.aggregator = open_aggregator(folder)
        self.servicer = self.aggregator.servicer
        self.nodes: list[Node] = []
        self.leaves: dict[int, list[SignedCommitment]] = {}
        self._history = History()
        self.admin.adopt_policy(self.policy)

    def close(self) -> None:
        for node in self.nodes:
            node.stop()
        self.aggregator.stop()

    def admit(self, count: int) -> list[Node]:
        """Let more nodes join."""
        joined = []
        for index in range(len(self.nodes), len(self.nodes) + count):
            if index >= FOUNDERS:
                admit(self.chain_federation, index)
            node = Node(self, index)
            self.nodes.append(node)
            joined.append(node)
        return joined

    def begin_epoch(self, maker: int = 0) -> None:
        """Ask a node for an epoch, and let everybody open it."""
        self.admin.request_epoch(self.nodes[maker].address)
        for node in self.nodes:
            node.start()
        self.nodes[maker].settle()
        for node in self.nodes:
            node.settle()
            node.sent_before += node.transactions

    def history(self) -> History:
        self.admin.catch_up(self._history)
        return self._history

    # What an aggregator does

    def open_round(self, number: int) -> None:
        self.operator.open_round(number)

    def anchor(self, number: int, *, spoil: Callable[[list[SignedCommitment]], None] | None = None) -> None:
        """Anchor the signed commitments of everybody whose update is whole, or what a test makes of them."""
        leaves = [
            SignedCommitment(
                Address(node), Digest(each.update_root), each.examples, each.nonce, each.signature
            )
            for (of, node), each in sorted(self.servicer.commitments.items())
            if of == number and self.is_whole(number, node)
        ]
        if spoil is not None:
            spoil(leaves)
        self.leaves[number] = leaves
        self.servicer.batches[number] = [
            wire.SignedCommitment(
                node=leaf.node,
                update_root=leaf.update_root,
                examples=leaf.examples,
                nonce=leaf.nonce,
                signature=leaf.signature,
            )
            for leaf in leaves
        ]
        self.operator.anchor_commitments(number, compute_batch_root(leaves), len(leaves))

    def is_whole(self, number: int, node: bytes) -> bool:
        return len(self.servicer.uploads.get((number, node), [])) == self.chunks

    def seal(self, number: int, *, after_deadline: bool = False) -> list[Address]:
        """Seal with everybody who committed by transaction and whose update is whole, and with the batch."""
        record = self.history().rounds[number]
        reasons = {
            node: 0 if self.is_whole(number, node) else int(ExclusionReason.NOT_UPLOADED)
            for node in record.commitments
        }
        for leaf in self.leaves.get(number, []):
            if leaf.node in reasons:
                reasons[leaf.node] += LEAF_TOO
        if after_deadline:
            self.chain_federation.pass_deadline()
        self.operator.seal(number, reasons)
        return sorted(node for node, code in reasons.items() if code % LEAF_TOO == 0)

    @property
    def chunks(self) -> int:
        return self.codec.parameters.chunk_count(self.policy.update_length)

    def aggregate(
        self, number: int, *, forge: Callable[[list[bytes]], None] | None = None, blocks_after: int = 1
    ) -> None:
        """Publish the sum of the sealed updates, or what a test makes of it, and mine some blocks."""
        record = self.history().rounds[number]
        contributions = compute_contributions(record, self.leaves.get(number, []))
        sums = [
            self.codec.sum_chunks([self.servicer.uploads[number, each.node][i] for each in contributions])
            for i in range(self.chunks)
        ]
        if forge is not None:
            forge(sums)
        manifest = AggregateManifest(
            chain_id=self.admin.chain_id,
            contract=self.contract,
            round=number,
            epoch=record.epoch,
            policy_digest=self.policy.digest,
            contributors=contributions,
            parameters=self.policy.model.parameters,
            chunks=self.chunks,
        ).encode()
        leaves = [leaf_digest(chunk) for chunk in sums]
        self.servicer.aggregates[number] = (wire.Header(manifest=manifest, chunk_digests=leaves), sums)
        self.operator.publish_aggregate(number, compute_header_root(manifest, leaves))
        self.chain.mine(blocks_after)

    def attestations(self, number: int) -> dict[Address, Digest]:
        """Return what nodes attested: by signatures that were handed over, and by transactions."""
        signed = {
            Address(node): Digest(each.model_digest)
            for (of, node), each in self.servicer.attestations.items()
            if of == number
        }
        return {**signed, **self.history().rounds[number].attestations}

    def finalise(self, number: int) -> Digest:
        """Make the model that most attested the head, with their signatures."""
        attested = list(self.attestations(number).values())
        model = max(attested, key=attested.count)
        record = self.history().rounds[number]
        signatures = {
            Address(node): each.attestation.signature
            for (of, node), each in self.servicer.attestations.items()
            if of == number and each.model_digest == model and node not in record.attestations
        }
        self.operator.finalise(number, model, signatures)
        return model

    def propose(
        self,
        number: int,
        *,
        model: Digest | None = None,
        spoil: Callable[[list[SignedAttestation]], None] | None = None,
    ) -> None:
        """Propose the attested model on the signatures that nodes gave, or what a test makes of them."""
        signed = sorted(
            (Address(node), each) for (of, node), each in self.servicer.attestations.items() if of == number
        )
        leaves = [SignedAttestation(node, each.attestation.signature) for node, each in signed]
        if spoil is not None:
            spoil(leaves)
        self.servicer.proposals[number] = [
            wire.SignedAttestation(node=leaf.node, signature=leaf.signature) for leaf in leaves
        ]
        digest = model or Digest(signed[0][1].model_digest)
        self.operator.propose_result(number, digest, compute_batch_root(leaves), len(leaves))

    def pass_deadline(self, *, by_s: int = 1) -> None:
        """Mine a block that much after the round's deadline."""
        self.chain_federation.pass_deadline(by_s=by_s)
        self.chain.mine()

    def fail(self, number: int) -> None:
        self.operator.fail(number, FailureReason.ABANDONED)

    def settle(self) -> None:
        """Let every node do what there is to do."""
        for node in self.nodes:
            node.settle()

    def play_round(self, number: int) -> Digest:
        """Play one whole round with every node, and return its result."""
        self.open_round(number)
        self.settle()
        if self.policy.rounds.batching:
            self.anchor(number)
        self.seal(number)
        self.aggregate(number)
        self.settle()
        model = self.finalise(number)
        self.settle()
        return model


def reason_of_skip(node: Node, number: int) -> str:
    reasons = [entry["reason"] for entry in node.log.of("round_skipped") if entry["round"] == number]
    assert len(reasons) == 1, node.log.events
    return str(reasons[0])
