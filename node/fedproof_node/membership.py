"""Who this node is, and what it has agreed to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedproof.codec import CodecParameters
from fedproof.codec.round_encoding import RoundEncoding
from fedproof.codec.scaling import Scaling
from fedproof.codec.selection import Selection, compute_selection_seed
from fedproof.digests import Address
from fedproof.errors import PolicyMismatch
from fedproof.ledger.history import History
from fedproof.ledger.rounds import RoundRecord
from fedproof.manifest import Contribution
from fedproof.model import Model, ModelLayout
from fedproof.policy import Policy
from fedproof_node.verification import RoundFacts


@dataclass(frozen=True, slots=True)
class Membership:
    """One node of one federation.

    Attributes:
        node: this node's address.
        policy: the federation's, equal to the ledger's when this was made.
        policy_path: where its document lies, for messages.
        codec_parameters: what follows from the policy's codec section.
    """

    chain_id: int
    contract: Address
    node: Address
    policy: Policy
    policy_path: Path
    codec_parameters: CodecParameters

    def facts(
        self,
        record: RoundRecord,
        history: History,
        *,
        layout: ModelLayout,
        base: Model,
        contributions: tuple[Contribution, ...] = (),
    ) -> RoundFacts:
        """Return what the ledger, the policy and the base model say about a round.

        Args:
            record: the round.
            history: holds its policy.
            layout: the model's.
            base: the model that the round starts from.
            contributions: what the round adds up, once it is sealed.

        Raises:
            PolicyMismatch: the round follows another policy than this node's.
        """
        policy = history.policies[record.policy_version]
        if policy.digest != self.policy.digest:
            newest = history.policies[len(history.policies)]
            is_old = newest.digest != self.policy.digest
            advice = ": put the adopted document there, and start this node again" if is_old else ""
            raise PolicyMismatch(
                f"round {record.number} follows policy version {record.policy_version} of digest "
                f"{policy.digest.hex()}; {self.policy_path} has {self.policy.digest.hex()}{advice}"
            )
        encoding = RoundEncoding(
            self.codec_parameters,
            Scaling(
                limit=self.codec_parameters.limit,
                max_examples=self.policy.rounds.max_examples,
                group_sizes=layout.group_sizes,
                clips=base.clips,
            ),
            Selection(
                layout.parameters,
                self.policy.codec.keep_one_in,
                compute_selection_seed(
                    chain_id=self.chain_id,
                    contract=self.contract,
                    round=record.number,
                    base_model=record.base_model,
                ),
            ),
        )
        return RoundFacts(
            chain_id=self.chain_id,
            contract=self.contract,
            round=record.number,
            epoch=record.epoch,
            policy_digest=policy.digest,
            base_model=record.base_model,
            base_values=base.values_digest,
            encoding=encoding,
            contributions=contributions,
            aggregate_root=record.aggregate_root,
        )
