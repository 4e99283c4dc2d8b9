"""The client's views, events and refusals, on a chain in memory."""

from __future__ import annotations

from typing import Any

import pytest
from web3.types import RPCEndpoint, RPCResponse

from fedproof.digests import Address
from fedproof.errors import ConfigurationError, HistoryBroken, LedgerError, Reverted, WrongContract
from fedproof.ledger import reader
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import AGGREGATOR_ROLE, DEFAULT_ADMIN_ROLE, UpdateCommitted
from fedproof.ledger.history import History
from fedproof.ledger.outbox import Outbox
from fedproof.ledger.signer import KeystoreSigner
from fedproof.policy import CodecPolicy, ModelPolicy, Policy, RoundPolicy, TrainingPlan
from tests.chain import MAX_EXAMPLES, Federation, make_account, make_digest

POLICY = Policy(
    name="test",
    model=ModelPolicy(
        architecture=make_digest("layout"), parameters=10, genesis=make_digest("other genesis"), seed=1
    ),
    codec=CodecPolicy(
        bits=15, max_contributors=4, clip=0.25, clip_margin=0.0, keep_one_in=1, error_feedback=False
    ),
    rounds=RoundPolicy(
        min_contributors=3,
        attestation_quorum=2,
        max_examples=500,
        commit_window_s=60,
        aggregate_window_s=50,
        attest_window_s=40,
    ),
    training=TrainingPlan(epochs=1, batch_size=8, learning_rate=0.1, momentum=0.0, weight_decay=0.0),
)


def test_views_of_a_new_federation(federation: Federation) -> None:
    """Each view returns what the set-up left behind."""
    ledger = federation.admin
    assert ledger.chain_id == federation.chain.web3.eth.chain_id
    assert ledger.address == Address(bytes.fromhex(make_account(1).address[2:]))
    state = ledger.state()
    assert (ledger.round().number, state.epoch, state.policy_version) == (0, 1, 1)
    assert (state.admitted, ledger.head_model()) == (3, make_digest("genesis"))
    assert ledger.has_role(DEFAULT_ADMIN_ROLE, ledger.address)
    assert not ledger.has_role(AGGREGATOR_ROLE, ledger.address)
    assert ledger.policy_digest() == make_digest("policy")
    assert (state.min_contributors, state.attestation_quorum, state.max_examples) == (2, 2, MAX_EXAMPLES)
    assert (state.commit_window, state.aggregate_window, state.attest_window) == (600, 300, 200)


def test_adopt_policy_takes_the_document(federation: Federation) -> None:
    """A policy document's digest and terms reach the ledger."""
    federation.admin.adopt_policy(POLICY)
    state = federation.admin.state()
    assert federation.admin.policy_digest() == POLICY.digest
    assert (state.min_contributors, state.attestation_quorum, state.max_examples) == (3, 2, 500)
    assert (state.commit_window, state.aggregate_window, state.attest_window) == (60, 50, 40)


def test_blocks_can_be_named(federation: Federation) -> None:
    """A block's reference is the same by number and as the newest."""
    number = federation.admin.block_number()
    assert federation.admin.block(number) == federation.admin.latest_block()
    assert federation.admin.block(number - 1).hash != federation.admin.block(number).hash


def test_events_are_fetched_in_ranges(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide ranges are asked for piece by piece, and no event is lost or doubled at a seam."""
    last = federation.admin.block_number()
    whole = federation.admin.events(0, last)
    federation.chain.provider.requests.clear()
    monkeypatch.setattr(reader, "BLOCKS_PER_QUERY", 2)
    assert federation.admin.events(0, last) == whole
    assert federation.chain.provider.requests.count("eth_getLogs") == last // 2 + 1
    assert federation.admin.events(last + 1, last) == []


def test_ranges_follow_how_much_happens(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where blocks are full of events, fewer are asked for at once, and no event is lost or doubled."""
    last = federation.admin.block_number()
    whole = federation.admin.events(0, last)
    monkeypatch.setattr(reader, "EVENTS_PER_QUERY", 1)
    federation.chain.provider.requests.clear()
    assert federation.admin.events(0, last) == whole  # too few blocks for a second range
    assert federation.chain.provider.requests.count("eth_getLogs") == 1
    monkeypatch.setattr(reader, "_BLOCKS_AT_FIRST", 2)
    assert federation.admin.events(0, last) == whole
    assert federation.chain.provider.requests.count("eth_getLogs") > last // 2


def test_a_range_that_is_too_much_is_split(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that answers only for few blocks at once is asked for fewer; a few are never split."""
    last = federation.admin.block_number()
    whole = federation.admin.events(0, last)
    provider = federation.chain.provider
    ask = provider.make_request

    def answer_for_few(method: RPCEndpoint, params: Any) -> RPCResponse:
        if method == "eth_getLogs" and int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) >= 2:
            error = {"code": -32005, "message": "query returned more than 10000 results"}
            return {"jsonrpc": "2.0", "id": 1, "error": error}  # type: ignore[typeddict-item]
        return ask(method, params)

    monkeypatch.setattr(provider, "make_request", answer_for_few)
    monkeypatch.setattr(reader, "_FEWEST_TO_SPLIT", last + 1)
    with pytest.raises(LedgerError, match="more than 10000 results"):
        federation.admin.events(0, last)
    monkeypatch.setattr(reader, "_FEWEST_TO_SPLIT", 2)
    assert federation.admin.events(0, last) == whole


def test_receipts_carry_their_events(federation: Federation) -> None:
    """What a transaction caused is in its receipt, and the same as on the chain."""
    federation.aggregator.open_round(1)
    receipt = federation.nodes[0].commit(1, make_digest("update"), 3)
    (event,) = receipt.events
    assert isinstance(event, UpdateCommitted)
    assert (event.transaction_hash, event.block_number) == (receipt.transaction_hash, receipt.block_number)
    assert federation.admin.events(receipt.block_number, receipt.block_number) == [event]


def test_refusals_name_the_error_and_the_caller(federation: Federation) -> None:
    """A refusal's message says who asked for what, and which error came with which arguments."""
    federation.aggregator.open_round(1)
    federation.commit(0)
    caller = federation.nodes[0].address.hex()
    with pytest.raises(
        Reverted, match=rf"(?i)memory: commit by 0x{caller}: .*AlreadyCommitted\(round=1, node=0x{caller}\)"
    ):
        federation.commit(0)


def test_without_an_account_nothing_is_sent(federation: Federation) -> None:
    """A ledger that was opened for reading reads, and says why it does not write."""
    reader = Ledger(federation.chain.endpoint, federation.contract)
    assert reader.state().epoch == 1
    with pytest.raises(ConfigurationError, match="opened for reading only"):
        reader.open_round(1)
    with pytest.raises(ConfigurationError, match="opened for reading only"):
        _ = reader.address


def test_an_address_without_code_is_refused(federation: Federation) -> None:
    """Where there is no contract, no ledger is opened; the message names address and endpoint."""
    with pytest.raises(WrongContract, match=r"0x\w{40} at memory, chain \d+: .* no contract is there"):
        Ledger(federation.chain.endpoint, Address(bytes(19) + b"\x99"))


def test_another_contract_is_refused(federation: Federation) -> None:
    """Where there is another contract, no ledger is opened."""
    # PUSH1 1, PUSH1 0, RETURN: creates a contract whose code is a single zero byte.
    outbox = Outbox(federation.chain.endpoint, KeystoreSigner(make_account(1)))
    receipt = outbox.send({"data": "0x60016000f3"}, what="other")
    other = Address(bytes.fromhex(receipt["contractAddress"][2:]))
    with pytest.raises(WrongContract, match=r"got 1 bytes that differ"):
        Ledger(federation.chain.endpoint, other)


def test_catch_up_replays_only_what_is_new(federation: Federation) -> None:
    """Each event is replayed once, and the history is verified up to the block that was asked for."""
    history = History()
    federation.admin.catch_up(history, to_block=federation.admin.block_number() - 1)
    count = history.event_count
    federation.admin.catch_up(history)
    assert history.event_count == count + 1
    assert history.event_count == len(federation.admin.events(0, federation.admin.block_number()))
    federation.admin.catch_up(history)
    assert history.event_count == count + 1


def test_catch_up_notices_an_event_left_out(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that leaves an event out is caught by the contract's hash."""
    whole = federation.admin.events(0, federation.admin.block_number())
    liar = Ledger(federation.chain.endpoint, federation.contract)
    monkeypatch.setattr(liar, "_read_events", lambda _from, to: [(to, whole[:-1])])
    with pytest.raises(HistoryBroken, match="at least one is missing, altered or out of order"):
        liar.catch_up(History())
