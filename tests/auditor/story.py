"""A real ledger on which everything happened that the contract records; there are no ciphertexts to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from eth_typing import ChecksumAddress
from fedproof_auditor.checks import verify_seal
from fedproof_auditor.chronicle import Chronicle
from fedproof_auditor.findings import Findings
from fedproof_auditor.replay import replay

from fedproof.digests import Address, Digest, checksum_address
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import LEAF_TOO, Event, ExclusionReason, FailureReason, Subject
from tests.chain import ABI, Federation, MemoryChain, make_account, make_digest

E = TypeVar("E", bound=Event)
Found = set[tuple[int, str]]


@dataclass(frozen=True)
class Story:
    """What happened on one ledger.

    Attributes:
        nodes: ascending; the fourth is an outsider.
        history_hash: the contract's, at the end.
    """

    events: tuple[Event, ...]
    timestamps: Mapping[int, int]
    nodes: tuple[Address, ...]
    history_hash: Digest

    def find(self, kind: type[E], **attributes: object) -> E:
        """Return the last event of a kind with these attributes."""
        return [
            event
            for event in self.events
            if isinstance(event, kind)
            and all(getattr(event, name) == value for name, value in attributes.items())
        ][-1]

    def swap(self, old: Event, *new: Event) -> tuple[Event, ...]:
        """Return all events, with others in the place of one."""
        index = self.events.index(old)
        return (*self.events[:index], *new, *self.events[index + 1 :])

    def judge(self, events: tuple[Event, ...] | None = None, times: Mapping[int, int] | None = None) -> Found:
        """Return the check and the field of each failure, the seals' included."""
        findings = Findings()
        chronicle = replay(
            self.events if events is None else events, {**self.timestamps, **(times or {})}, findings
        )
        for record in chronicle.rounds.values():
            findings.failures += verify_seal(record)
        return {(each.check, each.field) for each in findings.failures}

    def follow(self) -> Chronicle:
        """Return what the auditor understands."""
        return replay(self.events, self.timestamps, Findings())


def sign_attestation(federation: Federation, number: int, node: Ledger, model: Digest) -> bytes:
    """Return a node's signature under a model."""
    address = cast("ChecksumAddress", checksum_address(federation.contract))
    contract = federation.chain.web3.eth.contract(address=address, abi=cast("Any", ABI))
    digest = contract.functions.hashAttestation(number, checksum_address(node.address), model).call()
    accounts = map(make_account, range(1, 11))
    account = next(each for each in accounts if each.address == checksum_address(node.address))
    return bytes(account.unsafe_sign_hash(digest).signature)


def read(ledger: Ledger, nodes: tuple[Address, ...]) -> Story:
    """Return what happened on a ledger so far."""
    events = tuple(ledger.events(0, ledger.block_number()))
    numbers = {event.block_number for event in events}
    timestamps = {number: ledger.block(number).timestamp for number in numbers}
    return Story(events, timestamps, nodes, ledger.history_hash())


def aggregate(federation: Federation, number: int, *indices: int) -> None:
    """Take a round from its opening to the sum of these nodes' updates."""
    federation.aggregator.open_round(number)
    federation.aggregator.seal(number, dict.fromkeys(federation.commit(*indices, number=number), 0))
    federation.aggregator.publish_aggregate(number, make_digest(f"sum {number}"))


def play() -> Federation:
    """Return a federation in which everything has happened."""
    federation = Federation(MemoryChain())
    admin, aggregator, nodes = federation.admin, federation.aggregator, federation.nodes
    federation.admit_all()
    federation.adopt_policy(privacy_cost=2, privacy_budget=6)
    nodes[0].approve_policy(1, make_digest("policy"))
    federation.publish_epoch(1)

    # 1: a node is suspended within the round and keeps its place; it is admitted again and keeps it still.
    aggregator.open_round(1)
    admin.suspend(nodes[2].address)
    committed = federation.commit(0, 1, 2)
    admin.admit(nodes[2].address)
    aggregator.seal(1, dict.fromkeys(committed, 0))
    aggregator.publish_aggregate(1, make_digest("sum 1"))
    for node in nodes[:3]:
        node.attest(1, make_digest("model 1"))
    nodes[1].rotate_keys(make_digest("new wrapping"), make_digest("new certificate"))
    federation.publish_epoch(2)

    # 2: two nodes attest different models.
    aggregate(federation, 2, 0, 1, 2)
    nodes[0].attest(2, make_digest("model 2"))
    nodes[1].attest(2, make_digest("another model"))

    # 3: one attests by transaction, one by signature, and then by transaction as well.
    aggregate(federation, 3, 0, 1, 2)
    model = make_digest("model 3")
    nodes[0].attest(3, model)
    aggregator.finalise(3, model, {nodes[1].address: sign_attestation(federation, 3, nodes[1], model)})
    nodes[1].attest(3, model)
    admin.release_checkpoint(make_digest("file"))

    # 4: a batch, in which one node stands that committed by itself, and one that is left out; and a proposal.
    federation.adopt_policy(batching=True, digest=make_digest("policy 2"))
    aggregator.open_round(4)
    federation.commit(0, number=4)
    aggregator.anchor_commitments(4, make_digest("batch"), 3)
    federation.pass_deadline()
    excluded = {nodes[0].address: LEAF_TOO, nodes[2].address: int(ExclusionReason.NOT_UPLOADED)}
    aggregator.seal(4, excluded)
    aggregator.publish_aggregate(4, make_digest("sum 4"))
    nodes[0].attest(4, make_digest("model 4"))
    aggregator.propose_result(4, make_digest("model 4"), make_digest("signatures"), 2)
    federation.pass_deadline()
    aggregator.finalise(4, make_digest("model 4"))

    # 5: a node finds a leaf of a batch wrong.
    aggregator.open_round(5)
    aggregator.anchor_commitments(5, make_digest("batch 5"), 3)
    aggregator.seal(5, {})
    nodes[1].dispute(5, Subject.COMMITMENT, 2)

    # 6: one node fewer, and the aggregator gives up.
    nodes[2].leave()
    federation.publish_epoch(3)
    aggregator.open_round(6)
    aggregator.fail(6, FailureReason.ABANDONED)
    nodes[2].register(make_digest("w"), make_digest("c"), make_digest("m"))
    admin.retire()
    return federation
