"""A federation that really happened: a chain, a contract, three nodes' updates and their sums, in a folder.

Four rounds: two in which all nodes contribute, one that leaves a node out that never uploaded, and one that
failed. Nobody trains: an update is random numbers, which is all that an auditor ever sees of one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from eth_account import Account
from eth_account.signers.local import LocalAccount
from fedproof_auditor.checks import compute_history_hash
from fedproof_auditor.evidence import LedgerEvidence, fetch_evidence
from fedproof_auditor.findings import Failure
from fedproof_auditor.pool import examine_in_parallel
from fedproof_auditor.stored import StoredEvidence
from fedproof_auditor.verify import Audit, verify
from web3.types import RPCEndpoint

from fedproof.codec import Codec, SecretKey
from fedproof.devchain.backend import DevChain
from fedproof.devchain.journal import Genesis, Journal
from fedproof.devchain.server import DevChainServer
from fedproof.digests import Address, Digest, as_address, checksum_address, tagged_digest
from fedproof.keys.wrapping import WrappingKey, wrap, wrapped_keys_root, wrapping_info
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import deploy_through
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.events import (
    AggregatePublished,
    Event,
    ExclusionReason,
    FailureReason,
    UpdateCommitted,
)
from fedproof.manifest import AggregateManifest, Contribution, UpdateManifest
from fedproof.model import compute_model_digest
from fedproof.policy import (
    CodecPolicy,
    EvidencePolicy,
    ModelPolicy,
    Policy,
    PrivacyPolicy,
    RoundPolicy,
    TrainingPlan,
)
from fedproof.store import ObjectStore

E = TypeVar("E", bound=Event)
Update = tuple[Contribution, list[bytes]]
"""What a node committed to, and its chunks."""

NAMES = ("hospital-a", "hospital-b", "hospital-c")
PARAMETERS = 140_000
UPDATE_LENGTH = 70_000  # two chunks at 24 bits: one of 16 frames, one of 2
WINDOW_S = 600
ROUND_COST, PRIVACY_BUDGET = 3, 15  # enough for five rounds
RETENTION_DAYS = 30  # not over for any round, unless a test says that it is later than it is


def make_digest(label: object) -> Digest:
    """Return a digest that is the same for the same label."""
    return tagged_digest("fedproof.test.v1", str(label))


def make_account(label: str) -> LocalAccount:
    """Return an account whose key follows from its label."""
    account: LocalAccount = Account.from_key(hashlib.sha256(label.encode()).digest())
    return account


@dataclass(frozen=True)
class Base:
    """What a model consists of, as far as anybody without it can know."""

    values: Digest
    clips: tuple[float, ...]

    @property
    def digest(self) -> Digest:
        """The model's digest."""
        return compute_model_digest(make_digest("layout"), PARAMETERS, self.values, self.clips)


def make_base(number: int) -> Base:
    """Return the model that a round ended with; the genesis for 0."""
    return Base(make_digest(f"values {number}"), (0.5, 0.5 / (number + 1)))


def make_policy() -> Policy:
    """Return the policy of the federation."""
    return Policy(
        name="audited",
        model=ModelPolicy(
            architecture=make_digest("layout"), parameters=PARAMETERS, genesis=make_base(0).digest, seed=7
        ),
        codec=CodecPolicy(
            bits=24, max_contributors=4, clip=0.5, clip_margin=4.0, keep_one_in=2, error_feedback=False
        ),
        rounds=RoundPolicy(
            min_contributors=2,
            attestation_quorum=2,
            max_examples=1000,
            commit_window_s=WINDOW_S,
            aggregate_window_s=WINDOW_S,
            attest_window_s=WINDOW_S,
        ),
        training=TrainingPlan(epochs=1, batch_size=8, learning_rate=0.1, momentum=0.0, weight_decay=0.0),
        privacy=PrivacyPolicy(round_cost=ROUND_COST, budget=PRIVACY_BUDGET),
        evidence=EvidencePolicy(retention_days=RETENTION_DAYS),
    )


@dataclass(frozen=True)
class World:
    """The finished federation.

    Attributes:
        folder: laid out as a run's: run.json, policy.toml, chain/, aggregator/store/.
        nodes: ascending by address; index i is called NAMES[i], and what is beyond them has no name.
        evidence: what its chain says.
    """

    folder: Path
    endpoint: Endpoint
    policy: Policy
    nodes: tuple[Address, ...]
    evidence: LedgerEvidence

    @property
    def store(self) -> Path:
        """The aggregator's store."""
        return self.folder / "aggregator" / "store"

    @property
    def names(self) -> dict[Address, str]:
        """What people call the nodes."""
        return dict(zip(self.nodes, NAMES, strict=False))

    def find(self, kind: type[E], **attributes: object) -> E:
        """Return the first event of a kind with these attributes."""
        return next(
            event
            for event in self.evidence.events
            if isinstance(event, kind)
            and all(getattr(event, name) == value for name, value in attributes.items())
        )

    def commitment(self, number: int, node: int) -> UpdateCommitted:
        """Return what a node, by its index, committed to in a round."""
        return self.find(UpdateCommitted, round=number, node=self.nodes[node])

    def leaves(self, number: int, node: int) -> list[Digest]:
        """Return the leaf digests of an update's chunks."""
        header = ObjectStore(self.store).get_header(self.commitment(number, node).update_root)
        return [Digest(raw) for raw in header.chunk_digests]

    def sum_leaves(self, number: int) -> list[Digest]:
        """Return the leaf digests of a sum's chunks."""
        published = self.find(AggregatePublished, round=number)
        header = ObjectStore(self.store).get_header(published.aggregate_root)
        return [Digest(raw) for raw in header.chunk_digests]

    def swap(self, old: Event, *new: Event) -> tuple[Event, ...]:
        """Return all events, with others in the place of one."""
        events = list(self.evidence.events)
        index = events.index(old)
        events[index : index + 1] = new
        return tuple(events)

    def change(self, event: Event, **changes: object) -> tuple[Event, ...]:
        """Return all events, with one of them changed."""
        return self.swap(event, replace(event, **changes))  # type: ignore[arg-type]

    def audit(
        self,
        store: Path | None = None,
        *,
        events: tuple[Event, ...] | None = None,
        policies: Sequence[Policy] | None = None,
        is_selected: Callable[[int], bool] = lambda _number: True,
        **changes: object,
    ) -> Audit:
        """Audit the federation, with some of its evidence exchanged.

        Events come with the history hash that a chain would have if they were true, unless one is given: such
        a chain lies consistently, and only the later checks can tell.
        """
        if events is not None:
            changes = {"events": events, "history_hash": compute_history_hash(events), **changes}
        stored = StoredEvidence(store or self.store)
        given = [self.policy] if policies is None else policies
        return verify(
            replace(self.evidence, **changes),  # type: ignore[arg-type]
            stored,
            {f"policy {i}": policy for i, policy in enumerate(given)},
            is_selected=is_selected,
            examine=examine_in_parallel(stored, jobs=1),
            progress=lambda _what, _done, _total: None,
        )


def checks_of(audit: Audit) -> set[int]:
    """Return the numbers of the checks that failed."""
    return {failure.check for failure in audit.findings.failures}


def first_of(audit: Audit) -> Failure:
    """Return the failure that is named first."""
    first = audit.findings.first()
    assert first is not None, "the audit found nothing"
    return first


class Builder:
    """Plays every role, one step after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy = self.make_policy()
        self.parameters = self.policy.codec_parameters()
        self.codec = Codec(self.parameters)
        self.key: SecretKey = self.codec.generate_secret_key()
        self.rng = np.random.default_rng(11)
        self.last_finished = 0
        self.store = ObjectStore(folder / "aggregator" / "store")
        self.accounts = sorted(
            map(make_account, NAMES), key=lambda account: bytes.fromhex(account.address[2:])
        )
        self.nodes = tuple(as_address(account.address, "node") for account in self.accounts)
        genesis = Genesis(chain_id=31337, timestamp=int(time.time()) - 10_000)
        self.journal = Journal(folder / "chain", default=genesis)
        self.server = DevChainServer(DevChain(genesis, journal=self.journal), port=0, block_time_s=0)
        self.endpoint = Endpoint.connect(self.server.url)

    def make_policy(self) -> Policy:
        """Return what is agreed on."""
        return make_policy()

    def close(self) -> None:
        """Stop the chain; its journal stays."""
        self.server.close()
        self.journal.close()

    def build(self) -> World:
        """Let everything happen."""
        admin, aggregator = make_account("admin"), make_account("aggregator")
        for account in (admin, aggregator, *self.accounts):
            self.request("anvil_setBalance", account.address, hex(10**20))
        book = deploy_through(
            self.endpoint,
            admin,
            aggregator=as_address(aggregator.address, "aggregator"),
            output=self.folder / "address-book.json",
        )
        self.contract = book.contract
        self.admin, self.aggregator = self.connect(admin), self.connect(aggregator)
        self.ledgers = [self.connect(account) for account in self.accounts]
        self.admit()
        self.admin.adopt_policy(self.policy)
        self.store.put_policy(self.policy.digest, self.policy.canonical())
        self.publish_epoch()
        self.play()
        evidence = fetch_evidence(
            self.endpoint,
            self.contract,
            at_block=None,
            from_block=0,
            now=int(time.time()),
            progress=lambda *_: None,
        )
        self.write_run()
        return World(self.folder, self.endpoint, self.policy, self.nodes, evidence)

    def play(self) -> None:
        """Let all rounds happen."""
        self.run_round(1)
        self.run_round(2)
        self.run_round(3, left_out=2)
        self.fail_round(4)

    def connect(self, account: LocalAccount) -> Ledger:
        """Return the ledger as an account sees it."""
        return Ledger(self.endpoint, self.contract, account=account)

    def request(self, method: str, *parameters: object) -> None:
        """Ask the development chain for something that only it does."""
        answer = self.endpoint.web3.provider.make_request(RPCEndpoint(method), list(parameters))
        assert "error" not in answer, answer

    def admit(self) -> None:
        """Register and admit every node; leave its public key with the aggregator."""
        self.wrapping_keys = [WrappingKey.generate() for _ in self.nodes]
        for ledger, node, key in zip(self.ledgers, self.nodes, self.wrapping_keys, strict=True):
            labels = (f"certificate {node.hex()}", f"metadata {node.hex()}")
            ledger.register(key.digest, *map(make_digest, labels))
            self.store.put_public_key(key.digest, key.public_bytes)
            self.admin.admit(node)

    def publish_epoch(self) -> None:
        """Let the first node wrap the epoch's key for all."""
        self.admin.request_epoch(self.nodes[0])
        context = self.parameters.digest
        wrapped = [
            (
                node,
                wrap(
                    self.key.reveal(),
                    key.public_bytes,
                    info=wrapping_info(
                        chain_id=self.admin.chain_id,
                        contract=self.contract,
                        epoch=1,
                        node=node,
                        context_digest=context,
                    ),
                ),
            )
            for node, key in zip(self.nodes, self.wrapping_keys, strict=True)
        ]
        membership = self.admin.state().membership
        self.ledgers[0].publish_epoch(1, context, wrapped_keys_root(wrapped), membership=membership)
        self.store.put_wrapped_keys(1, wrapped)

    def encrypt(self, number: int, node: int, *, examples: int) -> tuple[bytes, list[bytes]]:
        """Return the manifest and the chunks of a node's update."""
        limit, size = self.parameters.limit, self.parameters.values_per_chunk
        values = self.rng.integers(-limit, limit + 1, UPDATE_LENGTH)
        encryptor = self.codec.make_encryptor(self.key)
        chunks = [
            self.codec.encrypt_chunk(values[start : start + size], encryptor)
            for start in range(0, UPDATE_LENGTH, size)
        ]
        base = make_base(self.last_finished)
        manifest = UpdateManifest(
            chain_id=self.admin.chain_id,
            contract=self.contract,
            round=number,
            node=self.nodes[node],
            epoch=1,
            policy_digest=self.policy.digest,
            base_model=base.digest,
            base_values=base.values,
            clips=base.clips,
            parameters=PARAMETERS,
            chunks=len(chunks),
            examples=examples,
        )
        return manifest.encode(), chunks

    def upload(self, number: int, node: int, *, is_uploaded: bool = True) -> Update:
        """Let a node make an update, and send it unless it is to get lost."""
        examples = 100 + 10 * node
        manifest, chunks = self.encrypt(number, node, examples=examples)
        scratch = self.store if is_uploaded else ObjectStore(self.folder / "lost")
        root = scratch.put_header(manifest, [scratch.put(chunk) for chunk in chunks])
        return Contribution(self.nodes[node], root, examples), chunks

    def commit(self, number: int, node: int, *, is_uploaded: bool = True) -> Update:
        """Let a node make an update, and commit to it."""
        contribution, chunks = self.upload(number, node, is_uploaded=is_uploaded)
        self.ledgers[node].commit(number, contribution.update_root, contribution.examples)
        return contribution, chunks

    def run_round(self, number: int, *, left_out: int | None = None) -> None:
        """Take a round to its end; the node that is left out commits, never uploads, and attests.

        The second attestation finalises the round, the third comes after.
        """
        self.aggregator.open_round(number)
        updates = [self.commit(number, node, is_uploaded=node != left_out) for node in range(3)]
        counted = [update for node, update in enumerate(updates) if node != left_out]
        reasons = dict.fromkeys(self.nodes, 0)
        if left_out is not None:
            reasons[self.nodes[left_out]] = ExclusionReason.NOT_UPLOADED
            self.request("evm_increaseTime", WINDOW_S + 60)
        self.aggregator.seal(number, reasons)
        self.publish(number, counted)
        model = make_base(number).digest
        for ledger in self.ledgers:
            ledger.attest(number, model)
        self.last_finished = number

    def publish(self, number: int, counted: Sequence[Update]) -> None:
        """Publish the sum of updates, which come ascending by node."""
        sums = [self.codec.sum_chunks(row) for row in zip(*(chunks for _, chunks in counted), strict=True)]
        manifest = AggregateManifest(
            chain_id=self.admin.chain_id,
            contract=self.contract,
            round=number,
            epoch=1,
            policy_digest=self.policy.digest,
            contributors=tuple(contribution for contribution, _ in counted),
            parameters=PARAMETERS,
            chunks=len(sums),
        )
        root = self.store.put_header(manifest.encode(), [self.store.put(chunk) for chunk in sums])
        self.aggregator.publish_aggregate(number, root)

    def fail_round(self, number: int) -> None:
        """Let one node commit and upload, and the aggregator give up."""
        self.aggregator.open_round(number)
        self.commit(number, 0)
        self.aggregator.fail(number, FailureReason.TOO_FEW_CONTRIBUTORS)

    def write_run(self) -> None:
        """Write what describes a run."""
        (self.folder / "policy.toml").write_text(self.policy.dump_toml())
        facts = {
            "rpc_url": self.server.url,
            "chain_id": self.admin.chain_id,
            "contract": checksum_address(self.contract),
            "policy": "policy.toml",
            "store": "aggregator/store",
            "chain": "chain",
            "nodes": {checksum_address(node): name for node, name in zip(self.nodes, NAMES, strict=False)},
        }
        (self.folder / "run.json").write_text(json.dumps(facts))
