"""The ledger as an object: typed views, typed events, and transactions that wait until they are mined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from eth_account.signers.local import LocalAccount
from eth_typing import BlockNumber, ChecksumAddress
from hexbytes import HexBytes
from web3.types import BlockIdentifier, FilterParams, LogReceipt, TxParams, TxReceipt

from fedproof.digests import Address, Digest, as_address, checksum_address
from fedproof.errors import ConfigurationError, LedgerError
from fedproof.ledger.artifact import load_artifact
from fedproof.ledger.encoding import decode_event
from fedproof.ledger.endpoint import Endpoint, reading_answer
from fedproof.ledger.events import (
    Event,
    ExclusionReason,
    FailureReason,
    MemberStatus,
    OnChainPolicy,
    Phase,
)
from fedproof.ledger.history import History

if TYPE_CHECKING:
    from fedproof.policy import Policy

# Public endpoints refuse wider ranges.
BLOCKS_PER_QUERY = 2_000


@dataclass(frozen=True, slots=True)
class Member:
    """A node's standing: it belongs to the cohorts from `first_round` on; 0 stands for no round."""

    status: MemberStatus
    first_round: int
    last_committed: int
    last_attested: int


@dataclass(frozen=True, slots=True)
class Round:
    """A round's standing; `deadline` is the Unix time after which its phase is overdue, 0 once it is over."""

    phase: Phase
    min_contributors: int
    attestation_quorum: int
    cohort: int
    max_examples: int
    policy_version: int
    epoch: int
    deadline: int


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block: its number, its hash and its Unix time."""

    number: int
    hash: Digest
    timestamp: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined transaction and the events that it caused."""

    transaction_hash: Digest
    block_number: int
    gas_used: int
    events: tuple[Event, ...]


class Ledger:
    """One connection, bound to one federation's contract.

    Every method raises LedgerUnreachable when the endpoint does not answer, and Reverted, with the custom
    error's name and arguments, when the contract refuses.

    Attributes:
        chain_id: the chain's EIP-155 number.
        contract: the contract's address.
    """

    def __init__(self, endpoint: Endpoint, contract: Address, *, account: LocalAccount | None = None) -> None:
        """Bind an endpoint to the contract at an address.

        Raises:
            LedgerUnreachable: the endpoint does not answer.
            WrongContract: the code at the address is not the Federation contract's.
        """
        artifact = load_artifact()
        self.contract = contract
        self._endpoint = endpoint
        self._account = account
        self._address = cast("ChecksumAddress", checksum_address(contract))
        self._eth = endpoint.web3.eth
        self._contract = self._eth.contract(address=self._address, abi=cast("Any", artifact.abi))
        self._history_hash_call = self._contract.encode_abi("historyHash")
        self.chain_id = _as_uint64(endpoint.chain_id, "chain")
        code = endpoint.ask("eth_getCode", lambda: self._eth.get_code(self._address))
        artifact.verify_code(bytes(code), where=f"{self._address} at {endpoint.url}, chain {self.chain_id}")

    @classmethod
    def connect(
        cls,
        rpc_url: str,
        contract: Address,
        *,
        account: LocalAccount | None = None,
        timeout_s: float = 10.0,
        attempts: int = 6,
        receipt_timeout_s: float = 120.0,
    ) -> Ledger:
        """Return the ledger at an endpoint and an address.

        Args:
            rpc_url: an ``http://`` or ``https://`` address.
            contract: the contract's address.
            account: who signs transactions; without one, the ledger can only be read.
            timeout_s: for one request.
            attempts: requests that are made before the endpoint counts as unreachable.
            receipt_timeout_s: how long a transaction may take until it is mined.

        Raises:
            ConfigurationError: not an HTTP address.
            LedgerUnreachable: the endpoint does not answer.
            WrongContract: the code at the address is not the Federation contract's.
        """
        endpoint = Endpoint.connect(
            rpc_url, timeout_s=timeout_s, attempts=attempts, receipt_timeout_s=receipt_timeout_s
        )
        return cls(endpoint, contract, account=account)

    @property
    def address(self) -> Address:
        """Who signs transactions.

        Raises:
            ConfigurationError: the ledger was opened for reading only.
        """
        return as_address(self._signer().address, "account")

    # The chain

    def block_number(self) -> int:
        """Return the newest block's number."""
        return _as_uint64(
            self._endpoint.ask("eth_blockNumber", lambda: self._eth.block_number), "newest block"
        )

    def block(self, number: int) -> BlockRef:
        """Return a block by its number."""
        return self._fetch_block(BlockNumber(number))

    def latest_block(self) -> BlockRef:
        """Return the newest block."""
        return self._fetch_block("latest")

    def events(self, from_block: int, to_block: int) -> list[Event]:
        """Return the contract's events in a range of blocks, both ends included, in the chain's order."""
        logs: list[LogReceipt] = []
        for first in range(from_block, to_block + 1, BLOCKS_PER_QUERY):
            last = min(first + BLOCKS_PER_QUERY - 1, to_block)
            query: FilterParams = {
                "address": self._address,
                "fromBlock": BlockNumber(first),
                "toBlock": BlockNumber(last),
            }
            logs += self._endpoint.ask("eth_getLogs", lambda query=query: self._eth.get_logs(query))  # type: ignore[misc]
        with reading_answer("eth_getLogs"):
            return _decode_logs(logs)

    def catch_up(self, history: History, *, to_block: int | None = None) -> list[Event]:
        """Replay what has happened since into a history, and return it.

        Args:
            history: what is known so far.
            to_block: the last block to replay; the newest by default.

        Raises:
            HistoryBroken: the endpoint left an event out or altered one, or the chain has been reorganised.
        """
        last = self.block_number() if to_block is None else to_block
        if last < history.next_block:
            return []
        events = self.events(history.next_block, last)
        history.extend(events, to_block=last)
        history.verify(self.history_hash(at_block=last))
        return events

    # Views

    def member(self, node: Address) -> Member:
        """Return a node's standing."""
        status, first_round, last_committed, last_attested = self._view("member", node)
        with reading_answer("member"):
            return Member(MemberStatus(status), first_round, last_committed, last_attested)

    def round(self, number: int) -> Round:
        """Return a round's standing; a round that has not been opened is in Phase.NONE."""
        phase, *rest = self._view("round", number)
        with reading_answer("round"):
            return Round(Phase(phase), *rest)

    def policy(self) -> OnChainPolicy:
        """Return the policy that the next round will follow; its digest is zero before there is one."""
        digest, contributors, quorum, examples, commit, aggregate, attest = self._view("policy")
        return OnChainPolicy(
            digest=Digest(digest),
            min_contributors=contributors,
            attestation_quorum=quorum,
            max_examples=examples,
            commit_window=commit,
            aggregate_window=aggregate,
            attest_window=attest,
        )

    def head_model(self) -> Digest:
        """Return the digest of the model that the next round starts from."""
        return Digest(bytes(self._view("headModel")))

    def current_round(self) -> int:
        """Return the newest round's number; 0 before the first."""
        return int(self._view("currentRound"))

    def current_epoch(self) -> int:
        """Return the newest epoch's number; 0 before the first."""
        return int(self._view("currentEpoch"))

    def policy_version(self) -> int:
        """Return the newest policy's number; 0 before the first."""
        return int(self._view("policyVersion"))

    def key_maker(self) -> Address:
        """Return who may publish the next epoch; the zero address while none is asked for."""
        return as_address(self._view("keyMaker"), "keyMaker")

    def admitted_count(self) -> int:
        """Return how many nodes are admitted."""
        return int(self._view("admittedCount"))

    def attestations(self, number: int, model_digest: Digest) -> int:
        """Return how many nodes attested a model in a round."""
        return int(self._view("attestations", number, model_digest))

    def history_hash(self, *, at_block: int | None = None) -> Digest:
        """Return the running hash over all events, as it was after a block; after the newest by default."""
        # Asked for at each new block, and web3 takes as long again to find the function in the contract.
        call: TxParams = {"to": self._address, "data": self._history_hash_call}
        block: BlockIdentifier = "latest" if at_block is None else BlockNumber(at_block)
        answer = self._endpoint.ask("historyHash", lambda: self._eth.call(call, block))
        if len(answer) != 32:
            raise LedgerError(f"{self._endpoint.url}: historyHash: expected 32 bytes, got {len(answer)}")
        return Digest(bytes(answer))

    def has_role(self, role: Digest, account: Address) -> bool:
        """Return whether an account holds a role."""
        return bool(self._view("hasRole", role, account))

    # Transactions

    def register(self, wrapping_key_digest: Digest, certificate_digest: Digest) -> Receipt:
        """Apply to take part, naming the digests of one's public keys."""
        return self._send("register", wrapping_key_digest, certificate_digest)

    def admit(self, node: Address) -> Receipt:
        """Admit a node, from the next round on. Admin only."""
        return self._send("admit", node)

    def suspend(self, node: Address) -> Receipt:
        """Suspend a node. Admin only."""
        return self._send("suspend", node)

    def adopt_policy(self, policy: Policy) -> Receipt:
        """Adopt a policy for the rounds to come; its genesis counts only for the first. Admin only."""
        rounds = policy.rounds
        terms = (
            policy.digest,
            rounds.min_contributors,
            rounds.attestation_quorum,
            rounds.max_examples,
            rounds.commit_window_s,
            rounds.aggregate_window_s,
            rounds.attest_window_s,
        )
        return self._send("adoptPolicy", terms, policy.model.genesis)

    def request_epoch(self, key_maker: Address) -> Receipt:
        """Name the node that makes the next epoch's key. Admin only."""
        return self._send("requestEpoch", key_maker)

    def publish_epoch(self, epoch: int, context_digest: Digest, wrapped_keys_root: Digest) -> Receipt:
        """Publish the next epoch. Its key maker only."""
        return self._send("publishEpoch", epoch, context_digest, wrapped_keys_root)

    def open_round(self, number: int) -> Receipt:
        """Open the next round. Aggregator only."""
        return self._send("openRound", number)

    def commit(self, number: int, update_root: Digest, examples: int) -> Receipt:
        """Commit to one encrypted update. Once per node and round."""
        return self._send("commit", number, update_root, examples)

    def seal(
        self,
        number: int,
        contributors: Sequence[Address],
        excluded: Sequence[tuple[Address, ExclusionReason]] = (),
    ) -> Receipt:
        """Make the contributors final, in whatever order they are given. Aggregator only."""
        ordered = sorted(excluded)
        return self._send(
            "seal",
            number,
            sorted(contributors),
            [node for node, _ in ordered],
            [int(reason) for _, reason in ordered],
        )

    def publish_aggregate(self, number: int, aggregate_root: Digest) -> Receipt:
        """Publish the root of the encrypted sum. Aggregator only."""
        return self._send("publishAggregate", number, aggregate_root)

    def attest(self, number: int, model_digest: Digest) -> Receipt:
        """Vouch for a model. Once per node and round."""
        return self._send("attest", number, model_digest)

    def finalise(self, number: int, model_digest: Digest) -> Receipt:
        """Make a model the head, once enough nodes attested it. Anyone."""
        return self._send("finalise", number, model_digest)

    def fail(self, number: int, reason: FailureReason) -> Receipt:
        """Give a round up. The aggregator at any time, anyone once the overdue window has passed."""
        return self._send("fail", number, int(reason))

    # Internals

    def _signer(self) -> LocalAccount:
        if self._account is None:
            raise ConfigurationError(
                f"{self._address} at {self._endpoint.url}: expected an account to sign with, got none: "
                "this ledger was opened for reading only"
            )
        return self._account

    def _view(self, name: str, *arguments: Any) -> Any:
        call = self._contract.functions[name](*arguments)
        return self._endpoint.ask(name, call.call)

    def _send(self, name: str, *arguments: Any) -> Receipt:
        signer = self._signer()
        call = {"to": self._address, "data": self._contract.encode_abi(name, args=arguments)}
        receipt = self._endpoint.send(signer, call, what=f"{name} by {signer.address}")
        with reading_answer("eth_getTransactionReceipt"):
            return _make_receipt(receipt)

    def _fetch_block(self, which: BlockIdentifier) -> BlockRef:
        block = self._endpoint.ask("eth_getBlockByNumber", lambda: self._eth.get_block(which))
        with reading_answer("eth_getBlockByNumber"):
            return BlockRef(
                _as_uint64(block["number"], "block"),
                Digest(bytes(block["hash"])),
                _as_uint64(block["timestamp"], "timestamp"),
            )


def _as_uint64(number: object, what: str) -> int:
    # What is larger Python may refuse to print.
    if not isinstance(number, int) or not 0 <= number < 1 << 64:
        raise LedgerError(f"{what}: expected a number from 0 to 2^64 - 1, got another answer")
    return number


def _make_receipt(receipt: TxReceipt) -> Receipt:
    return Receipt(
        transaction_hash=Digest(bytes(receipt["transactionHash"])),
        block_number=int(receipt["blockNumber"]),
        gas_used=int(receipt["gasUsed"]),
        events=tuple(_decode_logs(receipt["logs"])),
    )


def _decode_logs(logs: Sequence[LogReceipt]) -> list[Event]:
    ordered = sorted(logs, key=lambda log: (log["blockNumber"], log["logIndex"]))
    return [
        decode_event(
            topics=[bytes(topic) for topic in log["topics"]],
            data=bytes(HexBytes(log["data"])),
            block_number=int(log["blockNumber"]),
            transaction_hash=bytes(log["transactionHash"]),
            log_index=int(log["logIndex"]),
        )
        for log in ordered
    ]
