"""A node that is a contract (EIP-1271): whatever it says, the round ends, at a bounded price."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from web3 import Web3

from fedproof.digests import Address, as_address, checksum_address
from fedproof.errors import Reverted
from fedproof.keys.tls import TlsFiles
from fedproof.ledger.events import Phase
from fedproof.ledger.outbox import Outbox
from fedproof.ledger.rounds import RoundRecord
from fedproof.ledger.signer import KeystoreSigner
from fedproof.ledger.statements import SignedAttestation
from fedproof.wire import aggregation_pb2 as wire
from tests.aggregator.federation import ATTEST_WINDOW_S, BATCHING, Link, codec
from tests.aggregator.world import World, opened, refusal
from tests.chain import ABI, Federation, make_account, make_digest

SAYS_NO = bytes.fromhex("60006000fd")  # PUSH1 0 PUSH1 0 REVERT
BURNS_ALL = bytes.fromhex("fe")  # INVALID
MODEL = make_digest("model")


def make_wallet(federation: Address, when_paid: bytes) -> bytes:
    """Return the code of a wallet whose signatures are good for whoever asks, and not for whoever pays.

    00  PUSH1 0 CALLDATALOAD PUSH1 e0 SHR PUSH4 1626ba7e EQ PUSH1 3f JUMPI  isValidSignature?
    0f  CALLDATASIZE PUSH1 0 PUSH1 0 CALLDATACOPY                           otherwise call the federation
    15  PUSH1 0 PUSH1 0 CALLDATASIZE PUSH1 0 PUSH1 0 PUSH20 .. GAS CALL
    35  PUSH1 3d JUMPI PUSH1 0 PUSH1 0 REVERT
    3d  JUMPDEST STOP
    3f  JUMPDEST PUSH4 3b9aca00 GASPRICE GT PUSH1 5a JUMPI                  a transaction pays above 1 gwei
    4a  PUSH4 1626ba7e PUSH1 e0 SHL PUSH1 0 MSTORE PUSH1 20 PUSH1 0 RETURN
    5a  JUMPDEST ..
    """
    code = (
        "60003560e01c631626ba7e14603f5736600060003760006000366000600073"
        + federation.hex()
        + "5af1603d5760006000fd5b005b633b9aca003a11605a57631626ba7e60e01b60005260206000f35b"
    )
    return bytes.fromhex(code) + when_paid


class Wallet:
    """A contract that is a member, in place of the third node, with round 1 open.

    Attributes:
        world: where.
        address: its address.
    """

    def __init__(self, world: World, when_paid: bytes) -> None:
        self.world = world
        self._outbox = Outbox(world.federation.chain.endpoint, KeystoreSigner(make_account(9)))
        federation, admin = world.federation, world.federation.admin
        code = make_wallet(federation.contract, when_paid)
        # PUSH1 length DUP1 PUSH1 0b PUSH1 0 CODECOPY PUSH1 0 RETURN
        created = bytes([0x60, len(code)]) + bytes.fromhex("80600b6000396000f3") + code
        self.address = as_address(self._send({"data": "0x" + created.hex()})["contractAddress"], "receipt")
        self.call("register", make_digest("wrapping key"), make_digest("certificate"), bytes(32))
        admin.suspend(world.node(2).address)
        admin.admit(self.address)
        admin.request_epoch(world.node(0).address)
        world.node(0).publish_epoch(
            2, codec().parameters.digest, make_digest("keys"), membership=admin.state().membership
        )
        world.open_round()

    def call(self, name: str, *arguments: Any) -> None:
        """Do something on the ledger, as a member."""
        data = self.world.federation.chain.web3.eth.contract(abi=ABI).encode_abi(name, args=arguments)
        self._send({"to": checksum_address(self.address), "data": data})

    def put_commitment(self) -> None:
        """Hand over a commitment with what it says is its signature."""
        root = make_digest("root")
        signature = b"what the wallet takes"
        self.world.put_commitment(
            wire.SignedCommitment(node=self.address, update_root=root, examples=1, signature=signature)
        )

    def put_attestation(self) -> None:
        """Hand over what it says is its signature, while it says so."""
        signed = wire.SignedAttestation(node=self.address, signature=b"what the wallet takes")
        self.world.put_attestation(signed, MODEL)

    def _send(self, call: Any) -> Any:
        return self._outbox.send(call, what="the wallet's transaction")


@pytest.fixture(params=[SAYS_NO, BURNS_ALL], ids=["says no", "burns all gas"])
def wallet(fresh: World, request: pytest.FixtureRequest) -> Wallet:
    """A wallet in a round whose sum, of the two others' updates, is published."""
    found = Wallet(fresh, request.param)
    for index in (0, 1):
        fresh.upload(index, fresh.committed_update(index, epoch=2))
    fresh.pass_deadline()
    for event in ("sealed", "aggregated"):
        assert fresh.daemon.step()
        assert fresh.logs[-1]["event"] == event
    return found


@pytest.fixture
def batching_wallet(
    batching_federation: tuple[Federation, Link],
    aggregator_certificates: tuple[list[TlsFiles], Path],
    tmp_path: Path,
) -> Iterator[Wallet]:
    """A wallet in an open round, in a policy with batching."""
    with opened(*batching_federation, tmp_path, *aggregator_certificates, policy=BATCHING) as world:
        yield Wallet(world, SAYS_NO)


def record_of(world: World) -> RoundRecord:
    world.view.refresh()
    record = world.view.find_round(1)
    assert record is not None
    return record


def count_paid(world: World) -> int:
    """Return how many transactions of the aggregator were mined."""
    address = Web3.to_checksum_address(world.federation.aggregator.address)
    return world.federation.chain.web3.eth.get_transaction_count(address)


def test_a_result_does_without_a_wallet_that_says_no_when_it_is_paid_for(wallet: Wallet) -> None:
    """One transaction reverts; the next carries the signatures of keys alone. The log names the wallet."""
    world = wallet.world
    wallet.put_attestation()
    world.attest_signed(0, 1)
    before = count_paid(world)
    assert not world.daemon.step(), "time passes before the next one is tried"
    (line,) = world.of_kind("signatures_left_out")
    assert line["nodes"] == [checksum_address(wallet.address)]
    assert world.daemon.step()
    record = record_of(world)
    assert (record.phase, record.result) == (Phase.FINALISED, MODEL)
    assert record.signers == {world.node(0).address, world.node(1).address}
    assert count_paid(world) == before + 2


def test_without_enough_others_a_wallet_has_to_send_a_transaction(wallet: Wallet) -> None:
    """Its signature is tried once; what it then sends counts like anybody's."""
    world = wallet.world
    wallet.put_attestation()
    world.attest_signed(0)
    before = count_paid(world)
    for _ in range(4):
        assert not world.daemon.step()
    assert count_paid(world) == before + 1
    wallet.call("attest", 1, MODEL)
    assert world.daemon.step()
    assert record_of(world).result == MODEL


def test_a_wallet_cannot_keep_a_round_from_failing(wallet: Wallet) -> None:
    """Once the deadline has passed without a quorum that the contract takes, the round is over."""
    world = wallet.world
    wallet.put_attestation()
    world.attest_signed(0)
    assert not world.daemon.step()
    world.pass_deadline(by_s=10**6)
    assert world.daemon.step()
    (line,) = world.of_kind("round_failed")
    assert (line["reason"], record_of(world).phase) == ("NO_QUORUM", Phase.FAILED)


def test_a_result_that_is_refused_again_and_again_is_given_up(
    wallet: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where contracts have signed, whichever was left out before: the third time, the round fails."""
    world = wallet.world
    wallet.put_attestation()
    world.attest_signed(0)
    monkeypatch.setattr(world.statements, "find_contracts", lambda *_: {world.node(3).address})
    before = count_paid(world)
    for _ in range(2):
        assert not world.daemon.step()
    assert world.daemon.step()
    (line,) = world.of_kind("round_failed")
    assert line["reason"] == "ABANDONED"
    assert "expected the contract to take the result, it refused 3 times: memory: finalise" in line["message"]
    assert count_paid(world) == before + 4


def test_a_signature_that_is_refused_when_it_is_asked_costs_nothing(world: World) -> None:
    """Its node is named by the contract and left out; the others' signatures are the result's."""
    world.deliver(0, 1, 2)
    for _ in range(2):
        assert world.daemon.step()
    world.attest_signed(0, 2)
    node = world.node(1).address
    world.journal.record_attestation(1, MODEL, SignedAttestation(node, b"what a wallet took before"))
    before = count_paid(world)
    assert not world.daemon.step()
    assert world.of_kind("signatures_left_out")[0]["nodes"] == [checksum_address(node)]
    assert world.daemon.step()
    assert record_of(world).signers == {world.node(0).address, world.node(2).address}
    assert count_paid(world) == before + 1


def test_a_refusal_without_a_reason_costs_no_key_its_signature(world: World) -> None:
    """It was for something else, such as a transaction that came meanwhile: it is tried again later."""
    world.deliver(0, 1, 2)
    for _ in range(2):
        assert world.daemon.step()
    world.attest_signed(0, 1, 2)
    world.link.is_terse = True
    world.federation.chain.provider.interrupts["eth_estimateGas"] = lambda: world.attest(0)
    with pytest.raises(Reverted, match="no reason"):
        world.daemon.step()
    assert not world.of_kind("signatures_left_out")
    assert world.daemon.step()
    assert record_of(world).signers == {world.node(1).address, world.node(2).address}


# With batching


def test_a_wallet_is_told_to_commit_by_a_transaction(batching_wallet: Wallet) -> None:
    """Whatever it says of its signature: it may say otherwise to the nodes that check the batch."""
    code, message = refusal(batching_wallet.put_commitment)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.endswith(
        "expected its signature, got another; a node that is a contract commits by a transaction"
    )
    assert not batching_wallet.world.journal.find_commitments(1)


@pytest.mark.parametrize("keys", [2, 1])
def test_no_wallets_signature_is_proposed(batching_wallet: Wallet, keys: int) -> None:
    """The keys' are, where they are enough; else the contract checks all of them in one transaction."""
    world = batching_wallet.world
    world.reconfigure(most_signatures=1)
    for index in (0, 1):
        world.upload(index, world.signed_update(index, epoch=2))
    world.pass_deadline(by_s=-ATTEST_WINDOW_S - 10)
    assert world.daemon.step()
    world.pass_deadline()
    for _ in range(2):
        assert world.daemon.step()
    batching_wallet.put_attestation()
    world.attest_signed(*range(keys))
    world.daemon.step()
    record = record_of(world)
    if keys == 2:
        leaves = world.stub().GetProposal(wire.GetProposalRequest(round=1)).attestations
        assert record.phase is Phase.PROPOSED
        assert {leaf.node for leaf in leaves} == {world.node(0).address, world.node(1).address}
    else:
        assert record.proposal is None
        assert world.of_kind("signatures_left_out"), "finalise carried them"
