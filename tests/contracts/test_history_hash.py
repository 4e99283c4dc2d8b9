"""The running hash over the events, and what a commitment that enters it costs."""

from __future__ import annotations

from dataclasses import replace

from fedproof.ledger.events import AGGREGATOR_ROLE, EVENT_TYPES, LEAF_TOO, Event, FailureReason, Subject
from fedproof.ledger.history import History
from tests.chain import Federation, MemoryChain, make_digest
from tests.contracts.calls import DIGESTS, POLICY, START, Call, make_stages
from tests.contracts.differential import Pair
from tests.contracts.signing import ADMIN, AGGREGATOR, NODES, OUTSIDER, hash_attestation, sign

MOST_GAS_FOR_A_COMMITMENT = 36_000
LATE = START + POLICY.commit_window + 1
MODEL = DIGESTS[1]


class Recorder:
    """Replays what the contract records, each call in a block of its own, and compares the hashes."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.history, self.seen = pair, History(), set[type[Event]]()

    def make(self, call: Call) -> None:
        """Make a call, which must be accepted, and replay it."""
        events = self.pair.act(call.sender, call.function, *call.arguments, at=call.now)
        block = self.history.next_block
        self.history.extend([replace(event, block_number=block) for event in events], to_block=block)
        self.history.verify(self.pair.view("historyHash"))
        self.seen |= {type(event) for event in events}


def test_the_replay_reaches_the_contracts_hash() -> None:
    """After each call of a life with every kind of event, and of its successor's first ones."""
    pair = Pair()
    recorder = Recorder(pair)
    for call in make_stages()["batched"]:
        recorder.make(call)
    signers = NODES[1:4]
    digests = [hash_attestation(pair.model.address, 1, node, MODEL) for node in signers]
    signatures = [sign(node, digest) for node, digest in zip(signers, digests, strict=True)]
    for call in [
        Call(NODES[0], START, "approvePolicy", (1, POLICY.digest)),
        Call(AGGREGATOR, START, "openRound", (1,)),
        Call(NODES[0], START, "commit", (1, DIGESTS[0], 7)),
        Call(NODES[2], START, "commit", (1, DIGESTS[1], 8)),
        Call(AGGREGATOR, START, "anchorCommitments", (1, DIGESTS[2], 3)),
        Call(AGGREGATOR, LATE, "seal", (1, NODES[:3], bytes([0, 1, LEAF_TOO]))),
        Call(AGGREGATOR, LATE, "publishAggregate", (1, DIGESTS[0])),
        Call(NODES[0], LATE, "attest", (1, MODEL)),
        Call(AGGREGATOR, LATE, "proposeResult", (1, MODEL, DIGESTS[2], 3)),
        Call(OUTSIDER, LATE, "finalise", (1, MODEL, signers, signatures)),
        Call(NODES[4], LATE, "attest", (1, DIGESTS[0])),
        Call(AGGREGATOR, LATE, "openRound", (2,)),
        *(Call(node, LATE, "commit", (2, DIGESTS[0], 7)) for node in NODES[:5]),
        Call(AGGREGATOR, LATE, "seal", (2, NODES[:5], bytes(5))),
        Call(NODES[0], LATE, "dispute", (2, Subject.CHUNK, 3)),
        Call(NODES[0], LATE, "rotateKeys", DIGESTS[:2]),
        Call(ADMIN, LATE, "suspend", NODES[1:2]),
        Call(NODES[2], LATE, "leave"),
        Call(ADMIN, LATE, "grantRole", (AGGREGATOR_ROLE, OUTSIDER)),
        Call(AGGREGATOR, LATE, "renounceRole", (AGGREGATOR_ROLE, AGGREGATOR)),
        Call(ADMIN, LATE, "releaseCheckpoint", DIGESTS[:1]),
        Call(ADMIN, LATE, "retire"),
    ]:
        recorder.make(call)
    successor = Recorder(pair)
    successor.make(Call(ADMIN, LATE, "constructor", (ADMIN, AGGREGATOR, pair.model.address)))
    assert recorder.seen | successor.seen == set(EVENT_TYPES)


def test_gas_of_a_commitment() -> None:
    """A commitment stays under its limit, in a node's first round and in later ones."""
    federation = Federation(MemoryChain())
    federation.admit_all()
    federation.adopt_policy()
    federation.publish_epoch()
    for number in (1, 2):
        federation.aggregator.open_round(number)
        for node in federation.nodes[:3]:
            receipt = node.commit(number, make_digest(("update", number, node.address)), 9_999)
            assert receipt.gas_used <= MOST_GAS_FOR_A_COMMITMENT
        federation.aggregator.fail(number, FailureReason.ABANDONED)
