"""The ledger as it can be read: the chain's blocks, the contract's events in a history, and its views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from eth_typing import BlockNumber, ChecksumAddress
from web3 import Web3
from web3.exceptions import Web3RPCError
from web3.types import BlockIdentifier, RPCEndpoint, TxParams

from fedproof.digests import ZERO_DIGEST, Address, Digest, as_address, checksum_address
from fedproof.errors import HistoryBroken, LedgerError, WrongContract
from fedproof.ledger.answers import as_hash, as_int64
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.endpoint import Endpoint, reading_answer
from fedproof.ledger.events import Event, MemberStatus, Phase
from fedproof.ledger.finality import Finality, find_final_tag
from fedproof.ledger.history import History
from fedproof.ledger.logs import decode_logs
from fedproof.ledger.standing import Member, Privacy, Round, State

# Public endpoints refuse wider ranges, and answers of more than some thousand events.
BLOCKS_PER_QUERY = 2_000
EVENTS_PER_QUERY = 2_000
_BLOCKS_AT_FIRST = 100
_FEWEST_TO_SPLIT = 64


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block: its number, its hash, its Unix time and the hash of the one before it."""

    number: int
    hash: Digest
    timestamp: int
    parent_hash: Digest = ZERO_DIGEST


class LedgerReader:
    """One connection, bound to one federation's contract.

    Every method raises LedgerUnreachable when the endpoint does not answer, and Reverted, with the custom
    error's name and arguments, when the contract refuses.

    Attributes:
        chain_id: the chain's EIP-155 number.
        contract: the contract's address.
    """

    def __init__(self, endpoint: Endpoint, contract: Address, *, chain_id: int | None = None) -> None:
        """Bind an endpoint to the contract at an address.

        Args:
            endpoint: one, or several as one.
            contract: the contract's address.
            chain_id: the chain's number, where it is known from elsewhere.

        Raises:
            LedgerUnreachable: the endpoint does not answer.
            WrongContract: the chain is another one, or the code at the address not the Federation contract's.
        """
        artifact = load_artifact()
        self.contract = contract
        self._endpoint = endpoint
        self._address = cast("ChecksumAddress", checksum_address(contract))
        self._contract = endpoint.web3.eth.contract(address=self._address, abi=cast("Any", artifact.abi))
        self._history_hash_call = self._contract.encode_abi("historyHash")
        self.chain_id = endpoint.chain_id
        # One account's first contract has the same address on every chain.
        if chain_id not in (None, self.chain_id):
            raise WrongContract(
                f"{endpoint.url}: expected chain {chain_id}, as the address book says, got {self.chain_id}"
            )
        code = endpoint.agree("eth_getCode", lambda web3: bytes(web3.eth.get_code(self._address)))
        artifact.verify_code(code, where=f"{self._address} at {endpoint.url}, chain {self.chain_id}")

    # The chain

    def block_number(self) -> int:
        """Return the newest block's number."""
        return self._endpoint.height()

    def block(self, number: int) -> BlockRef:
        """Return a block by its number."""
        return self._fetch_block(BlockNumber(number))

    def latest_block(self) -> BlockRef:
        """Return the newest block."""
        return self._fetch_block("latest")

    def final_block(self, finality: Finality) -> BlockRef:
        """Return the newest block that counts."""
        return self._fetch_block(find_final_tag(self._endpoint, finality))

    def events(self, from_block: int, to_block: int) -> list[Event]:
        """Return the contract's events in a range of blocks, both ends included, in the chain's order."""
        return [event for _, events in self._read_events(from_block, to_block) for event in events]

    def _read_events(self, from_block: int, to_block: int) -> Iterator[tuple[int, list[Event]]]:
        """Yield the last block of each part of a range, and the events up to it.

        A part is so many blocks as would have held EVENTS_PER_QUERY, had they been like the part before.
        """
        first, blocks = from_block, min(_BLOCKS_AT_FIRST, BLOCKS_PER_QUERY)
        while first <= to_block:
            last = min(first + blocks - 1, to_block)
            query = {"address": self._address, "fromBlock": hex(first), "toBlock": hex(last)}

            def request(
                web3: Web3, query: Mapping[str, str] = query, last: int = last
            ) -> tuple[bytes, list[Event]]:
                # One that lags may leave out the events of blocks that it does not know, and say nothing.
                is_one = self._endpoint.members == 1
                known = b"" if is_one else as_hash(web3.eth.get_block(BlockNumber(last))["hash"], "block")
                # Not by web3's own method, whose formatting of each log takes as long as all the rest.
                answer: Any = web3.provider.make_request(RPCEndpoint("eth_getLogs"), [query])
                with reading_answer("eth_getLogs"):
                    if answer.get("error") is not None:
                        raise Web3RPCError(str(answer["error"]), rpc_response=answer)
                    return known, decode_logs(answer["result"])

            # The running hash covers a commitment only from its round's seal on.
            try:
                _, events = self._endpoint.agree("eth_getLogs", request)
            except LedgerError:
                if last - first < _FEWEST_TO_SPLIT:
                    raise
                # After a quiet time, they may hold too many for one answer.
                blocks = max(1, (last - first + 1) // 16)
                continue
            yield last, events
            like_before = (last - first + 1) * EVENTS_PER_QUERY // max(1, len(events))
            first, blocks = last + 1, max(1, min(like_before, BLOCKS_PER_QUERY))

    def catch_up(
        self, history: History, *, to_block: int | None = None, block_hash: Digest | None = None
    ) -> None:
        """Replay into a history what has happened since.

        Args:
            history: what is known so far.
            to_block: the last block to replay; the newest by default.
            block_hash: that block's; looked at where several endpoints have to agree.

        Raises:
            HistoryBroken: the endpoint left an event out or altered one, or the chain has been reorganised.
        """
        last = self.block_number() if to_block is None else to_block
        if last < history.next_block:
            return
        # Part by part, so that memory holds the state and one part.
        for upto, events in self._read_events(history.next_block, last):
            history.extend(events, to_block=upto)
        found, history_hash = self._read_history_hash(last)
        if found and block_hash not in (None, found):
            raise HistoryBroken(
                f"block {last}: expected hash 0x{(block_hash or b'').hex()}, got 0x{found.hex()}: "
                "the chain has been reorganised"
            )
        history.verify(history_hash)

    def replay(self, *, from_block: int = 0, to_block: int | None = None) -> History:
        """Return what has happened up to a block; raises as `catch_up`.

        Args:
            from_block: no event is older, such as the address book's.
            to_block: the last block to replay; the newest by default.
        """
        history = History(from_block=from_block)
        self.catch_up(history, to_block=to_block)
        return history

    def distrust(self, reason: str) -> bool:
        """Ask another endpoint first from now on, if there is one; return whether there is."""
        return self._endpoint.distrust(reason)

    # Views

    def member(self, node: Address) -> Member:
        """Return a node's standing."""
        status, *rest = self._view("member", node)
        with reading_answer("member"):
            return Member(MemberStatus(status), *rest)

    def round(self) -> Round:
        """Return the newest round's standing; before the first, its number is 0."""
        number, phase, *rest = self._view("currentRound")
        with reading_answer("round"):
            return Round(number, Phase(phase), *rest)

    def state(self) -> State:
        """Return the federation's standing."""
        values = self._view("state")
        with reading_answer("state"):
            return State(*values)

    def privacy(self) -> Privacy:
        """Return what rounds cost and have spent."""
        values = self._view("privacy")
        with reading_answer("privacy"):
            return Privacy(*values)

    def policy_digest(self) -> Digest:
        """Return the digest of the policy that the next round will follow; zero before the first."""
        return Digest(bytes(self._view("policyDigest")))

    def head_model(self) -> Digest:
        """Return the digest of the model that the next round starts from."""
        return Digest(bytes(self._view("headModel")))

    def candidate(self) -> Digest:
        """Return the model that the newest round's nodes attest, as the first of them has it."""
        return Digest(bytes(self._view("candidate")))

    def key_maker(self) -> Address:
        """Return who may publish the next epoch; the zero address while none is asked for."""
        return as_address(self._view("keyMaker"), "keyMaker")

    def predecessor(self) -> Address:
        """Return the ledger that this one goes on from, or the zero address."""
        return as_address(self._view("predecessor"), "predecessor")

    def is_in_cohort(self, node: Address) -> bool:
        """Return whether a node belongs to the newest round."""
        return bool(self._view("isInCohort", node))

    def is_signed_by(self, node: Address, digest: Digest, signature: bytes) -> bool:
        """Return whether a node signed a digest, with its own key or as a contract (EIP-1271)."""
        return bool(self._view("isSignedBy", node, digest, signature))

    def is_included(self, root: Digest, size: int, index: int, leaf: bytes, path: Sequence[Digest]) -> bool:
        """Return whether the contract finds a leaf at an index of a Merkle tree."""
        return bool(self._view("isIncluded", root, size, index, leaf, list(path)))

    def history_hash(self, *, at_block: int | None = None) -> Digest:
        """Return the running hash over all events, as it was after a block; after the newest by default."""
        return self._read_history_hash(self.block_number() if at_block is None else at_block)[1]

    def has_role(self, role: Digest, account: Address) -> bool:
        """Return whether an account holds a role."""
        return bool(self._view("hasRole", role, account))

    # Internals

    def _view(self, name: str, *arguments: Any, at_block: int | None = None) -> Any:
        """Return what as many endpoints as have to agree say, as of one block; by default the newest."""
        if self._endpoint.members == 1 and at_block is None:
            return self._endpoint.ask(name, self._contract.functions[name](*arguments).call)
        block = BlockNumber(self._endpoint.height() if at_block is None else at_block)

        def request(web3: Web3) -> Any:
            contract = web3.eth.contract(address=self._address, abi=self._contract.abi)
            return contract.functions[name](*arguments).call(block_identifier=block)

        return self._endpoint.agree(name, request)

    def _fetch_block(self, which: BlockIdentifier) -> BlockRef:
        if which == "latest":
            which = find_final_tag(self._endpoint, "latest")

        def request(web3: Web3) -> BlockRef:
            block = web3.eth.get_block(which)
            with reading_answer("eth_getBlockByNumber"):
                return BlockRef(
                    as_int64(block["number"], "block"),
                    as_hash(block["hash"], "block"),
                    as_int64(block["timestamp"], "timestamp"),
                    as_hash(block["parentHash"], "block"),
                )

        return self._endpoint.agree("eth_getBlockByNumber", request)

    def _read_history_hash(self, at_block: int) -> tuple[bytes, Digest]:
        """Return a block's hash, if there are several endpoints, and the running hash as it was after it."""
        # Asked for at each new block, and web3 takes as long again to find the function in the contract.
        call: TxParams = {"to": self._address, "data": self._history_hash_call}

        def request(web3: Web3) -> tuple[bytes, Digest]:
            is_one = self._endpoint.members == 1
            found = b"" if is_one else as_hash(web3.eth.get_block(BlockNumber(at_block))["hash"], "block")
            answer = web3.eth.call(call, BlockNumber(at_block))
            # None before the contract was there.
            return found, as_hash(answer, "historyHash") if len(answer) else ZERO_DIGEST

        return self._endpoint.agree("historyHash", request)
