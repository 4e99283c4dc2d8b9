"""The ledger as it can be written to: each of the contract's functions as a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eth_account.signers.local import LocalAccount
from web3.types import TxReceipt

from fedproof.digests import ZERO_DIGEST, Address, Digest, checksum_address
from fedproof.errors import ConfigurationError
from fedproof.ledger.endpoint import Endpoint, reading_answer
from fedproof.ledger.endpoints import connect_endpoints
from fedproof.ledger.events import Event, FailureReason, Subject
from fedproof.ledger.logs import decode_logs
from fedproof.ledger.outbox import Outbox
from fedproof.ledger.reader import LedgerReader
from fedproof.ledger.sending import SendingRules
from fedproof.ledger.signer import KeystoreSigner, Signer

if TYPE_CHECKING:
    from fedproof.policy import Policy


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined transaction and the events that it caused."""

    transaction_hash: Digest
    block_number: int
    gas_used: int
    events: tuple[Event, ...]


class Ledger(LedgerReader):
    """A reader, and an account whose transactions it sends, each of which it awaits until it is mined."""

    def __init__(
        self,
        endpoint: Endpoint,
        contract: Address,
        *,
        chain_id: int | None = None,
        account: LocalAccount | Signer | None = None,
        rules: SendingRules | None = None,
    ) -> None:
        """Bind an endpoint to the contract at an address.

        Args:
            endpoint: one, or several as one.
            contract: the contract's address.
            chain_id: the chain's number, where it is known from elsewhere.
            account: who signs transactions; without one, the ledger can only be read.
            rules: how transactions are sent. Where they name an outbox file, a call that names its round or
                its epoch is sent once: asked for again, its first transaction is awaited or returned.

        Raises:
            ConfigurationError: the outbox is no outbox, or that of another account or chain.
            LedgerUnreachable: the endpoint does not answer.
            WrongContract: the chain is another one, or the code at the address not the Federation contract's.
        """
        super().__init__(endpoint, contract, chain_id=chain_id)
        signer = KeystoreSigner(account) if isinstance(account, LocalAccount) else account
        self._outbox = None if signer is None else Outbox(endpoint, signer, rules)

    @classmethod
    def connect(
        cls,
        rpc_url: str | Sequence[str],
        contract: Address,
        *,
        chain_id: int | None = None,
        account: LocalAccount | Signer | None = None,
        rules: SendingRules | None = None,
        agreement: int = 1,
        timeout_s: float = 10.0,
        attempts: int = 6,
        receipt_timeout_s: float = 120.0,
    ) -> Ledger:
        """Return the ledger at an endpoint and an address.

        Args:
            rpc_url: an ``http://`` or ``https://`` address, or several.
            contract: the contract's address.
            chain_id: the chain's number, where it is known from elsewhere.
            account: who signs transactions; without one, the ledger can only be read.
            rules: how transactions are sent.
            agreement: how many endpoints have to say the same where it matters.
            timeout_s: for one request.
            attempts: requests that are made before the endpoint counts as unreachable.
            receipt_timeout_s: how long a transaction may take until it is mined.

        Raises:
            ConfigurationError: not an HTTP address, fewer than have to agree, or not this account's outbox.
            LedgerUnreachable: the endpoint does not answer.
            WrongContract: the chain is another one, or the code at the address not the Federation contract's.
        """
        endpoint = connect_endpoints(
            [rpc_url] if isinstance(rpc_url, str) else rpc_url,
            agreement=agreement,
            timeout_s=timeout_s,
            attempts=attempts,
            receipt_timeout_s=receipt_timeout_s,
        )
        return cls(endpoint, contract, chain_id=chain_id, account=account, rules=rules)

    @property
    def outbox(self) -> Outbox:
        """What this account has sent, and is about to.

        Raises:
            ConfigurationError: the ledger was opened for reading only.
        """
        if self._outbox is None:
            raise ConfigurationError(
                f"{self._address} at {self._endpoint.url}: expected an account to sign with, got none: "
                "this ledger was opened for reading only"
            )
        return self._outbox

    @property
    def address(self) -> Address:
        """Who signs transactions.

        Raises:
            ConfigurationError: the ledger was opened for reading only.
        """
        return self.outbox.signer.address

    def sign(self, message: Mapping[str, Any]) -> bytes:
        """Return this account's signature over EIP-712 typed data; see `fedproof.ledger.statements`."""
        return self.outbox.signer.sign_typed_data(message)

    def tend(self, final_block: int) -> None:
        """Look after this account's transactions, of which those up to a block are final."""
        if self._outbox is not None:
            self._outbox.tend(final_block)

    # Transactions

    def register(
        self,
        wrapping_key_digest: Digest,
        certificate_digest: Digest,
        metadata_digest: Digest = ZERO_DIGEST,
    ) -> Receipt:
        """Apply to take part, naming the digests of one's public keys and of what one says about oneself."""
        return self._send("register", wrapping_key_digest, certificate_digest, metadata_digest)

    def admit(self, node: Address) -> Receipt:
        """Admit a node, from the next round on. Admin only."""
        return self._send("admit", node)

    def suspend(self, node: Address) -> Receipt:
        """Suspend a node, from the next round on. Admin only."""
        return self._send("suspend", node)

    def leave(self) -> Receipt:
        """Take part no longer, from the next round on."""
        return self._send("leave")

    def rotate_keys(self, wrapping_key_digest: Digest, certificate_digest: Digest) -> Receipt:
        """Name other keys, which count from the next epoch on."""
        return self._send("rotateKeys", wrapping_key_digest, certificate_digest)

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
            rounds.batching,
            policy.privacy.round_cost,
            policy.privacy.budget,
        )
        return self._send("adoptPolicy", terms, policy.model.genesis)

    def approve_policy(self, version: int, digest: Digest) -> Receipt:
        """Agree to the newest policy."""
        return self._send("approvePolicy", version, digest)

    def request_epoch(self, key_maker: Address) -> Receipt:
        """Name the node that makes the next epoch's key. Admin or aggregator."""
        return self._send("requestEpoch", key_maker)

    def publish_epoch(
        self, epoch: int, context_digest: Digest, wrapped_keys_root: Digest, *, membership: int
    ) -> Receipt:
        """Publish the next epoch, wrapped for the members at a count of changes. Its key maker only."""
        return self._send("publishEpoch", epoch, context_digest, wrapped_keys_root, membership)

    def open_round(self, number: int) -> Receipt:
        """Open the next round. Aggregator only."""
        return self._send("openRound", number)

    def commit(self, number: int, update_root: Digest, examples: int) -> Receipt:
        """Commit to one encrypted update. Once per node and round."""
        return self._send("commit", number, update_root, examples)

    def anchor_commitments(self, number: int, root: Digest, count: int) -> Receipt:
        """Anchor signed commitments. Aggregator only, once in a round."""
        return self._send("anchorCommitments", number, root, count)

    def seal(self, number: int, reasons: Mapping[Address, int]) -> Receipt:
        """Make the contributors final. Aggregator only, until the overdue window has passed.

        Args:
            number: the round.
            reasons: of each node that committed by transaction, and of those of the batch that do not count;
                0 where it contributes, and LEAF_TOO more where its leaf in the batch does not count.
        """
        nodes = sorted(reasons)
        return self._send("seal", number, nodes, bytes(reasons[node] for node in nodes))

    def publish_aggregate(self, number: int, aggregate_root: Digest) -> Receipt:
        """Publish the root of the encrypted sum. Aggregator only."""
        return self._send("publishAggregate", number, aggregate_root)

    def attest(self, number: int, model_digest: Digest) -> Receipt:
        """Vouch for a model. Once per node and round; the quorum finalises it, a contradiction fails it."""
        return self._send("attest", number, model_digest)

    def propose_result(self, number: int, model_digest: Digest, root: Digest, count: int) -> Receipt:
        """Propose a model on signed attestations that the contract does not see. Aggregator only."""
        return self._send("proposeResult", number, model_digest, root, count)

    def finalise(
        self, number: int, model_digest: Digest, signatures: Mapping[Address, bytes] | None = None
    ) -> Receipt:
        """Make a model the head: with the signatures of enough nodes, or after a proposal. Anyone."""
        signatures = signatures or {}
        signers = sorted(signatures)
        return self._send(
            "finalise", number, model_digest, signers, [signatures[signer] for signer in signers]
        )

    def dispute(self, number: int, subject: Subject, index: int) -> Receipt:
        """Object to the sum, the batch or the proposal, which fails the round. A node of the cohort only."""
        return self._send("dispute", number, int(subject), index)

    def fail(self, number: int, reason: FailureReason) -> Receipt:
        """Give a round up. The aggregator at any time, anyone once the overdue window has passed."""
        return self._send("fail", number, int(reason))

    def release_checkpoint(self, file_digest: Digest) -> Receipt:
        """Record that the head model left the federation as a file. Admin only."""
        return self._send("releaseCheckpoint", file_digest)

    def grant_role(self, role: Digest, account: Address) -> Receipt:
        """Give a role to an account. Admin only."""
        return self._send("grantRole", role, account)

    def revoke_role(self, role: Digest, account: Address) -> Receipt:
        """Take a role from an account. Admin only."""
        return self._send("revokeRole", role, account)

    def renounce_role(self, role: Digest) -> Receipt:
        """Give up a role of one's own."""
        return self._send("renounceRole", role, self.address)

    def retire(self) -> Receipt:
        """End this ledger, so that a successor may go on from its head. Admin only."""
        return self._send("retire")

    def _send(self, name: str, *arguments: Any) -> Receipt:
        what = f"{name} by {checksum_address(self.outbox.signer.address)}"
        data = self._contract.encode_abi(name, args=arguments)
        # What names its round or epoch takes effect once; the rest, such as an admission, may be meant anew.
        is_once = bool(arguments) and isinstance(arguments[0], int)
        key = f"{self._address} {data}" if is_once and self.outbox.is_durable else None
        receipt = self.outbox.send({"to": self._address, "data": data}, what=what, key=key)
        with reading_answer("eth_getTransactionReceipt"):
            return _make_receipt(receipt)


def _make_receipt(receipt: TxReceipt) -> Receipt:
    return Receipt(
        transaction_hash=Digest(bytes(receipt["transactionHash"])),
        block_number=int(receipt["blockNumber"]),
        gas_used=int(receipt["gasUsed"]),
        events=tuple(decode_logs(receipt["logs"])),
    )
