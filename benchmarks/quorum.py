"""Three ways to prove on chain, in one transaction, that a quorum of nodes has signed: their gas.

    python benchmarks/quorum.py                the tables, as Markdown (a minute)
    python benchmarks/quorum.py --nodes 5 10   smaller cohorts only

The contracts of `benchmarks/quorum/` run on anvil by the rules of Prague. Each figure is the gas of a whole
transaction. All n nodes have signed, unless it says otherwise. Slots that change have been written before, as
in every round but the first. The last two columns are the straight line through the first and the last figure
(but a challenge grows with the tree's depth). Each way is also shown wrong proofs, which it has to refuse.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from eth_account import Account
from eth_account.messages import SignableMessage, encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_typing import ChecksumAddress
from eth_utils.crypto import keccak
from quorum_bls import MIN_PK, MIN_SIG, Suite, aggregate, encode_point, is_standard, pack_key
from quorum_chain import HARDFORK, Chain, compile_contracts, open_chain
from web3.contract import Contract

from fedproof.digests import Digest
from fedproof.merkle import compute_root, leaf_digest

NODES = (5, 10, 20, 50, 100, 1000)
ABSENT = (0, 1, 2, 5, 10)
# py_ecc takes 0.2 s for a message in G2.
MOST_MESSAGES = 20
ROUND = 1
MODEL = keccak(text="model")
EXAMPLES = 1000
FIELDS = {
    "Attestation": {"round": "uint32", "modelDigest": "bytes32"},
    "Commitment": {"round": "uint32", "node": "address", "updateRoot": "bytes32", "examples": "uint32"},
}
# The contract's struct of that name.
LEAF = "((address,bytes32,uint32),(bytes32,bytes32))"

Figures = dict[int, int]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES, help="cohorts, of 2 or more")
    sizes = sorted(parser.parse_args().nodes)
    artifacts = compile_contracts()
    keys = (keccak(text=f"node {i}") for i in range(sizes[-1]))
    nodes = sorted(map(Account.from_key, keys), key=lambda node: int(node.address, 16))
    with open_chain() as web3:
        chain = Chain(web3, artifacts, nodes)
        rows = _measure_ecdsa(chain, sizes)
        absences = {}
        for suite in (MIN_PK, MIN_SIG):
            more, absences[suite.contract] = _measure_bls(chain, sizes, suite)
            rows |= more
        rows |= _measure_optimistic(chain, sizes)
        print(f"solc 0.8.30, {web3.client_version}, {HARDFORK}\n")
    _print_table("gas for n nodes", sizes, rows)
    _print_table(f"gas, absent of {sizes[-1]}", ABSENT, absences)


def _measure_ecdsa(chain: Chain, sizes: Sequence[int]) -> dict[str, Figures]:
    contract = chain.deploy("Ecdsa")
    functions = contract.functions
    attested = [_sign(node, _typed(contract, "Attestation", (ROUND, MODEL))) for node in chain.nodes]
    said, messages = _commitments(contract, chain.nodes)
    committed = [_sign(node, message) for node, message in zip(chain.nodes, messages, strict=True)]
    rows: dict[str, Figures] = {"ECDSA, one attestation": {}, "ECDSA, n commitments": {}}
    for n in sizes:
        chain.send(functions.open(ROUND, n, n))
        rows["ECDSA, one attestation"][n] = chain.send(functions.proveAttestation(ROUND, MODEL, attested[:n]))
        rows["ECDSA, n commitments"][n] = chain.send(
            functions.proveCommitments(ROUND, said[:n], committed[:n])
        )
    n = sizes[0]
    chain.send(functions.open(ROUND, n, n))
    chain.refuse(functions.proveAttestation(ROUND, MODEL, attested[: n - 1]), "CountOutOfRange")
    chain.refuse(functions.proveAttestation(ROUND, MODEL, [attested[0]] * n), "NotAscending")
    forged = [*committed[: n - 1], committed[0]]
    chain.refuse(functions.proveCommitments(ROUND, said[:n], forged), "WrongSignature")
    return rows


def _measure_bls(chain: Chain, sizes: Sequence[int], suite: Suite) -> tuple[dict[str, Figures], Figures]:
    contract = chain.deploy(suite.contract)
    functions = contract.functions
    nodes = chain.addresses
    keys = suite.make_keys(len(nodes))
    for portion in chain.portions:
        chain.send(functions.register(nodes[portion], [pack_key(key) for key in keys[portion]]))
    message = _digest(_typed(contract, "Attestation", (ROUND, MODEL)))
    signatures = suite.sign_all(len(nodes), message)
    if suite is MIN_PK and not is_standard(signatures[0], message):
        raise SystemExit(f"{suite.contract}: another signature than py_ecc's")
    added, stored, distinct = (
        f"{suite.contract}, {what}"
        for what in ("one attestation, keys added up", "one attestation, sum stored", "n commitments")
    )
    rows: dict[str, Figures] = {added: {}, stored: {}, distinct: {}}
    for n in sizes:
        chain.send(functions.open(ROUND, n, n))
        chain.send(functions.setAllKeys(pack_key(aggregate(keys[:n]))))
        total = encode_point(aggregate(signatures[:n]))
        rows[added][n] = chain.send(functions.proveBySum(ROUND, MODEL, nodes[:n], total))
        rows[stored][n] = chain.send(functions.proveByAbsence(ROUND, MODEL, [], total))

    # All nodes make the stored sum now.
    n = sizes[-1]
    absence: Figures = {}
    for count in (count for count in ABSENT if count < n):
        chain.send(functions.open(ROUND, n, n - count))
        rest = encode_point(aggregate(signatures[count:]))
        absence[count] = chain.send(functions.proveByAbsence(ROUND, MODEL, nodes[:count], rest))
    chain.refuse(functions.proveByAbsence(ROUND, MODEL, nodes[: count + 1], rest), "CountOutOfRange")
    without_one = encode_point(aggregate(signatures[1:]))
    chain.refuse(functions.proveBySum(ROUND, MODEL, nodes, without_one), "WrongSignature")
    chain.refuse(functions.proveByAbsence(ROUND, MODEL, nodes[1:2], without_one), "WrongSignature")
    chain.refuse(functions.proveByAbsence(ROUND, keccak(MODEL), [], total), "WrongSignature")

    said, messages = _commitments(contract, chain.nodes[:MOST_MESSAGES])
    committed = suite.sign_each([_digest(message) for message in messages])
    for n in (n for n in sizes if n <= MOST_MESSAGES):
        chain.send(functions.open(ROUND, n, n))
        rows[distinct][n] = chain.send(
            functions.proveCommitments(ROUND, said[:n], encode_point(aggregate(committed[:n])))
        )
        forged = encode_point(aggregate([*committed[1:n], committed[1]]))
        chain.refuse(functions.proveCommitments(ROUND, said[:n], forged), "WrongSignature")
    return rows, absence


def _measure_optimistic(chain: Chain, sizes: Sequence[int]) -> dict[str, Figures]:
    contract = chain.deploy("Optimistic")
    functions = contract.functions
    said, messages = _commitments(contract, chain.nodes)
    committed = [_sign(node, message) for node, message in zip(chain.nodes, messages, strict=True)]
    # The first node's leaf has the longest proof.
    leaves = [*zip(said, [committed[-1], *committed[1:]], strict=True)]
    digests = [leaf_digest(chain.web3.codec.encode([LEAF], [leaf])) for leaf in leaves]
    chain.send(functions.open(ROUND, sizes[0], sizes[0]))
    rows: dict[str, Figures] = {
        "optimistic, the first root": {sizes[0]: chain.send(functions.anchor(ROUND, MODEL, sizes[0]))},
        "optimistic, one root": {},
        "optimistic, a challenge": {},
    }
    for n in sizes:
        chain.send(functions.open(ROUND, n, n))
        rows["optimistic, one root"][n] = chain.send(functions.anchor(ROUND, compute_root(digests[:n]), n))
        for i in (1, n // 2, n - 1):
            proof = _prove_inclusion(digests[:n], i)
            chain.refuse(functions.challenge(ROUND, i, leaves[i], proof), "SoundLeaf")
            chain.refuse(functions.challenge(ROUND, i - 1, leaves[i], proof), "WrongInclusion")
        proof = _prove_inclusion(digests[:n], 0)
        rows["optimistic, a challenge"][n] = chain.send(functions.challenge(ROUND, 0, leaves[0], proof))
        chain.refuse(functions.challenge(ROUND, 0, leaves[0], proof), "WrongPhase")
    return rows


def _commitments(
    contract: Contract, nodes: Sequence[LocalAccount]
) -> tuple[list[tuple[ChecksumAddress, bytes, int]], list[SignableMessage]]:
    """Return what each node says of its update, and what it signs."""
    said = [(node.address, keccak(text=f"update of {node.address}"), EXAMPLES) for node in nodes]
    return said, [_typed(contract, "Commitment", (ROUND, *one)) for one in said]


def _typed(contract: Contract, kind: str, values: Sequence[object]) -> SignableMessage:
    """Return EIP-712 typed data."""
    domain = {
        "name": "Quorum",
        "version": "1",
        "chainId": contract.w3.eth.chain_id,
        "verifyingContract": contract.address,
    }
    fields = [{"name": name, "type": type_} for name, type_ in FIELDS[kind].items()]
    return encode_typed_data(domain, {kind: fields}, dict(zip(FIELDS[kind], values, strict=True)))


def _digest(message: SignableMessage) -> bytes:
    return keccak(b"\x19" + message.version + message.header + message.body)


def _sign(node: LocalAccount, message: SignableMessage) -> tuple[bytes, bytes]:
    """Return a signature in the 64 bytes of EIP-2098."""
    signed = node.sign_message(message)
    return signed.r.to_bytes(32), (signed.s | (signed.v - 27) << 255).to_bytes(32)


def _prove_inclusion(level: Sequence[Digest], index: int) -> list[Digest]:
    """Return the siblings on the way from a leaf to the root, as RFC 6962 has them."""
    proof = []
    while len(level) > 1:
        if index ^ 1 < len(level):
            proof.append(level[index ^ 1])
        level = [compute_root(level[i : i + 2]) for i in range(0, len(level), 2)]
        index //= 2
    return proof


def _print_table(title: str, columns: Sequence[int], rows: Mapping[str, Figures]) -> None:
    """Print rows of gas, with the straight line through the first and the last figure."""
    print(f"| {title} | {' | '.join(map(str, columns))} | fixed | for each |")
    print(f"|---|{'---:|' * (len(columns) + 2)}")
    for name, figures in rows.items():
        first, last = min(figures), max(figures)
        slope = (figures[last] - figures[first]) / (last - first) if last > first else 0
        cells = [f"{figures[n]:,}" if n in figures else "" for n in columns]
        cells += [f"{figures[first] - slope * first:,.0f}", f"{slope:,.0f}"]
        print(f"| {name} | {' | '.join(cells)} |")
    print()


if __name__ == "__main__":
    main()
