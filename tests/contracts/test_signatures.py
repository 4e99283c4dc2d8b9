"""What nodes sign for the ledger (EIP-712), and whose signatures the contract takes."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

from fedproof.digests import Address, Digest, checksum_address
from tests.chain import make_digest
from tests.contracts.evm import Machine
from tests.contracts.signing import CHAIN_ID, KEYS, ORDER, OUTSIDER, WALLET, hash_attestation, sign

NODE, OTHER = sorted(KEYS)[:2]
DIGEST = make_digest("signed")
COMMITMENT = [
    ("round", "uint24"),
    ("node", "address"),
    ("baseModel", "bytes32"),
    ("updateRoot", "bytes32"),
    ("examples", "uint32"),
    ("nonce", "uint64"),
]
ATTESTATION = [("round", "uint24"), ("node", "address"), ("modelDigest", "bytes32")]


@pytest.fixture(scope="module")
def machine() -> Machine:
    """A ledger, of which only views are used."""
    return Machine.with_ledger()


def hash_typed(contract: Address, kind: str, fields: list[tuple[str, str]], *values: Any) -> Digest:
    """Return the digest of typed data as eth-account, which is not ours, computes it."""
    signable = encode_typed_data(
        domain_data={
            "name": "fedproof",
            "version": "1",
            "chainId": CHAIN_ID,
            "verifyingContract": checksum_address(contract),
        },
        message_types={kind: [{"name": name, "type": abi_type} for name, abi_type in fields]},
        message_data={name: value for (name, _), value in zip(fields, values, strict=True)},
    )
    return Digest(keccak(b"\x19" + signable.version + signable.header + signable.body))


@pytest.mark.parametrize("number", [1, 2**24 - 1])
def test_hash_commitment_is_typed_data(machine: Machine, number: int) -> None:
    """Wallets that know EIP-712 sign what the contract hashes, at the ends of each field's range."""
    for examples, nonce in ((0, 0), (2**32 - 1, 2**64 - 1)):
        values = (number, checksum_address(NODE), make_digest("base"), make_digest("root"), examples, nonce)
        expected = hash_typed(machine.contract, "Commitment", COMMITMENT, *values)
        assert machine.view("hashCommitment", *values) == expected


@pytest.mark.parametrize("number", [1, 2**24 - 1])
def test_hash_attestation_is_typed_data(machine: Machine, number: int) -> None:
    """So with attestations; the random histories' own computation gives the same."""
    values = (number, checksum_address(NODE), DIGEST)
    expected = hash_typed(machine.contract, "Attestation", ATTESTATION, *values)
    assert machine.view("hashAttestation", *values) == expected
    assert hash_attestation(machine.contract, number, NODE, DIGEST) == expected


def test_another_ledger_has_other_digests(machine: Machine) -> None:
    """A statement for one contract is none for its successor."""
    values = (1, checksum_address(NODE), DIGEST)
    before = machine.view("hashAttestation", *values)
    with machine.rolled_back():
        machine.deploy(OUTSIDER, NODE, 1, (NODE, NODE, Address(bytes(20))))
        assert machine.view("hashAttestation", *values) != before


def test_a_key_signs_for_its_own_address(machine: Machine) -> None:
    """The signature of eth-account counts for who made it, for that digest, and for nobody else."""
    signature = Account.unsafe_sign_hash(DIGEST, KEYS[NODE].to_bytes()).signature
    assert signature == sign(NODE, DIGEST)
    assert machine.view("isSignedBy", NODE, DIGEST, signature)
    assert not machine.view("isSignedBy", OTHER, DIGEST, signature)
    assert not machine.view("isSignedBy", NODE, make_digest("another"), signature)


def test_malformed_signatures_do_not_count(machine: Machine) -> None:
    """Neither cut nor longer, nor with another last byte, nor the second one that the same key can make."""
    signature = sign(NODE, DIGEST)
    r, s, v = signature[:32], int.from_bytes(signature[32:64]), signature[64]
    twin = r + (ORDER - s).to_bytes(32) + bytes([55 - v])
    assert Account._recover_hash(DIGEST, signature=twin) == checksum_address(NODE)
    malformed = [b"", signature[:64], signature + b"\0", signature[:64] + bytes([v - 27]), twin, bytes(65)]
    assert [machine.view("isSignedBy", NODE, DIGEST, each) for each in malformed] == [False] * len(malformed)


def test_nobody_signs_for_the_zero_address(machine: Machine) -> None:
    """What cannot be recovered is not taken for the zero address's."""
    for signature in (bytes(65), bytes(64) + b"\x1b", b""):
        assert not machine.view("isSignedBy", Address(bytes(20)), DIGEST, signature)


def test_a_contract_is_asked(machine: Machine) -> None:
    """An organisation's wallet decides by itself (EIP-1271); this one takes the digest for a signature."""
    assert machine.view("isSignedBy", WALLET, DIGEST, DIGEST)
    assert not machine.view("isSignedBy", WALLET, DIGEST, make_digest("another"))


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("60016000526020" + "6000f3", id="answers 1, as one would say true"),
        pytest.param("631626ba7e6000526020" + "6000f3", id="the right answer at the wrong end of the word"),
        pytest.param("631626ba7e60e01b6000526004" + "6000f3", id="answers four bytes and not a word"),
        pytest.param("60006000fd", id="reverts"),
        pytest.param("fe", id="burns its gas"),
        pytest.param("00", id="stops without an answer"),
    ],
)
def test_a_contract_has_to_say_yes(machine: Machine, code: str) -> None:
    """Any other answer than the one of EIP-1271 is no, and an organisation that fails stops nobody else."""
    with machine.rolled_back():
        machine.place(OUTSIDER, bytes.fromhex(code))
        assert not machine.view("isSignedBy", OUTSIDER, DIGEST, DIGEST)
