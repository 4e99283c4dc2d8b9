"""Logs as events, and reverts as errors: both directions, and what is refused."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from fedproof.digests import Address
from fedproof.errors import LedgerError
from fedproof.ledger.encoding import RunningHash, compute_commitment, decode_event, snake_case
from fedproof.ledger.events import ModelAttested, RoundSealed, UpdateCommitted
from fedproof.ledger.reverts import decode_revert
from tests.chain import Federation, make_digest

NODE = Address(bytes(range(20)))
ROOT = make_digest("root")
TOPIC = keccak(text="UpdateCommitted(uint24,address,bytes32,uint32)")
TOPICS = [TOPIC, encode(["uint24"], [7]), encode(["address"], [NODE])]
DATA = encode(["bytes32", "uint32"], [ROOT, 9])
PLACE = {"block_number": 5, "transaction_hash": make_digest("transaction"), "log_index": 2}


def test_a_log_becomes_an_event() -> None:
    """Indexed and plain arguments come out under their names."""
    event = decode_event(topics=TOPICS, data=DATA, **PLACE)
    assert event == UpdateCommitted(round=7, node=NODE, update_root=ROOT, examples=9, **PLACE)


def test_an_entry_is_what_the_contract_hashes() -> None:
    """The entry is the keccak of topic and arguments in the event's order, whatever is indexed."""
    event = ModelAttested(round=7, node=NODE, model_digest=ROOT, **PLACE)
    topic = keccak(text="ModelAttested(uint24,address,bytes32)")
    entry = keccak(encode(["bytes32", "uint24", "address", "bytes32"], [topic, 7, NODE, ROOT]))
    running = RunningHash()
    running.add(event)
    assert running.value == keccak(bytes(32) + entry)


def test_a_commitment_enters_with_its_seal() -> None:
    """The seal's entry has one argument more: the hash over 24 bytes of each listed node's commitment."""
    committed = UpdateCommitted(round=7, node=NODE, update_root=ROOT, examples=9, **PLACE)
    held = keccak(encode(["uint24", "address", "bytes32", "uint32"], [7, NODE, ROOT, 9]))[:24]
    assert compute_commitment(committed) == held
    other = Address(b"\xff" * 20)
    sealed = RoundSealed(round=7, nodes=(NODE, other), reasons=b"\x00\x01", deadline=11, **PLACE)
    topic = keccak(text="RoundSealed(uint24,address[],bytes,uint40)")
    digest = keccak(encode(["bytes24[]"], [[held, bytes(24)]]))
    types = ["bytes32", "uint24", "address[]", "bytes", "uint40", "bytes32"]
    entry = keccak(encode(types, [topic, 7, [NODE, other], b"\x00\x01", 11, digest]))
    running = RunningHash()
    running.add(committed)
    assert running.value == bytes(32)
    running.add(sealed)
    assert running.value == keccak(bytes(32) + entry)


@pytest.mark.parametrize("cut", range(len(DATA)))
def test_every_truncation_is_refused(cut: int) -> None:
    """A log with fewer bytes is no event."""
    with pytest.raises(LedgerError, match="block 5, log 2: expected UpdateCommitted as its ABI says"):
        decode_event(topics=TOPICS, data=DATA[:cut], **PLACE)


@pytest.mark.parametrize("topics", [[], [make_digest("other")], TOPICS[:2], [*TOPICS, TOPICS[1]]])
def test_other_topics_are_refused(topics: list[bytes]) -> None:
    """A log of another event, or with other indexed arguments, is none of ours."""
    with pytest.raises(LedgerError, match="block 5, log 2: expected"):
        decode_event(topics=topics, data=DATA, **PLACE)


def test_out_of_range_topics_are_refused() -> None:
    """An indexed argument that does not fit its type is refused."""
    with pytest.raises(LedgerError, match="expected UpdateCommitted as its ABI says"):
        decode_event(topics=[TOPIC, b"\xff" * 32, TOPICS[2]], data=DATA, **PLACE)


def test_events_come_back_as_they_went(federation: Federation) -> None:
    """What a node sent is what the chain's log says."""
    federation.run_round(1)
    last = federation.admin.events(0, federation.admin.block_number())[-1]
    assert isinstance(last, ModelAttested)
    assert (last.node, last.model_digest) == (federation.nodes[2].address, make_digest("model 1"))


@pytest.mark.parametrize(
    ("solidity", "python"), [("wrappedKeysRoot", "wrapped_keys_root"), ("node", "node"), ("Round", "round")]
)
def test_names_in_snake_case(solidity: str, python: str) -> None:
    """Names change their spelling only."""
    assert snake_case(solidity) == python


def test_a_custom_error_has_its_name_and_arguments() -> None:
    """The message spells the arguments as a reader expects them."""
    data = keccak(text="NotAdmitted(address,uint8)")[:4] + encode(["address", "uint8"], [NODE, 3])
    error = decode_revert(data, what="commit")
    assert (error.name, error.arguments) == ("NotAdmitted", {"node": NODE, "status": 3})
    assert str(error).startswith("commit: the contract refused: NotAdmitted(node=0x000102")
    assert str(error).endswith(", status=SUSPENDED)")


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"", "Revert", "no reason"),
        (bytes.fromhex("08c379a0") + encode(["string"], ["because"]), "Revert", "because"),
        (bytes.fromhex("4e487b71") + encode(["uint256"], [0x11]), "Panic", "0x11"),
        (bytes.fromhex("deadbeef"), "Revert", "0xdeadbeef"),
        (keccak(text="WrongRound(uint24,uint24)")[:4] + bytes(63), "Revert", "cannot be decoded"),
        (keccak(text="NotAdmitted(address,uint8)")[:4] + bytes(63) + b"\x09", "Revert", "cannot be decoded"),
    ],
)
def test_other_reverts_are_told_apart(data: bytes, name: str, said: str) -> None:
    """Reasons, panics, unknown and damaged errors each say what they are."""
    error = decode_revert(data, what="commit")
    assert error.name == name
    assert said in str(error)
