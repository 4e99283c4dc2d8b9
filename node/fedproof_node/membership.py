"""Who this node is, and what it has agreed to."""

from __future__ import annotations

from dataclasses import dataclass

from fedproof.codec import Codec
from fedproof.digests import Address
from fedproof.errors import PolicyMismatch
from fedproof.ledger.history import History, RoundRecord
from fedproof.manifest import Contribution
from fedproof.policy import Policy
from fedproof_node.verification import RoundFacts


@dataclass(frozen=True, slots=True)
class Membership:
    """One node of one federation.

    Attributes:
        node: this node's address.
        policy: the federation's, equal to the ledger's when this was made.
        codec: what the policy's codec section says.
    """

    chain_id: int
    contract: Address
    node: Address
    policy: Policy
    codec: Codec

    def facts(self, record: RoundRecord, history: History) -> RoundFacts:
        """Return what the ledger and the policy say about a round.

        Raises:
            PolicyMismatch: the round follows another policy than this node's.
        """
        policy = history.policies[record.policy_version]
        if policy.digest != self.policy.digest:
            raise PolicyMismatch(
                f"round {record.number} follows policy version {record.policy_version} of digest "
                f"{policy.digest.hex()}; this node's policy document has {self.policy.digest.hex()}"
            )
        length = self.policy.model.parameters
        return RoundFacts(
            chain_id=self.chain_id,
            contract=self.contract,
            round=record.number,
            epoch=record.epoch,
            policy_digest=policy.digest,
            base_model=record.base_model,
            parameters=length,
            chunks=self.codec.parameters.chunk_count(length),
            contributions=tuple(
                Contribution(node, *record.commitments[node]) for node in record.contributors
            ),
            aggregate_root=record.aggregate_root,
        )
