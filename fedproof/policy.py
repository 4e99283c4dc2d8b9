"""The policy: what a federation has agreed on, as a document for people and as bytes for the ledger.

The TOML document is what people write and read; its digest on the ledger is over `Policy.canonical`, so
comments, order and spelling of numbers in the file do not matter, and every value does.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from fedproof.config import HexDigest, load_config, parse_document
from fedproof.digests import Digest, decode_float, decode_int, decode_text, encode_fields, split_fields
from fedproof.errors import ConfigurationError, MalformedMessage

if TYPE_CHECKING:
    from fedproof.codec.parameters import CodecParameters
    from fedproof.model import ModelLayout

_TAG = "fedproof.policy.v1"
_MOST_BYTES = 4096  # more than a policy with the longest name has
_MOST_FIELDS = 32
_STRICT = ConfigDict(extra="forbid", strict=True)


def _check_clip(clip: float) -> float:
    if not 2.0**-64 <= clip <= 2.0**64:
        raise ValueError(f"expected 2^-64 to 2^64, got {clip}")
    return clip


def _check_clip_margin(margin: float) -> float:
    if margin != 0 and not 1 <= margin <= 1024:
        raise ValueError(f"expected 0 (clips stay at codec.clip) or 1 to 1024, got {margin}")
    return margin


_DAY_S = 86_400
_Count = Annotated[int, Field(ge=1, lt=1 << 32)]
_Seconds = Annotated[int, Field(ge=1, lt=1 << 24)]  # 194 days; the contract keeps three bytes
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class ModelPolicy:
    """Which model is trained.

    Attributes:
        architecture: digest of the model's layout.
        parameters: values in its flat vector.
        genesis: digest of the first model, whose clips are all `codec.clip`.
        seed: what torch is seeded with before the first model is built.
    """

    architecture: HexDigest
    parameters: _Count
    genesis: HexDigest
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class CodecPolicy:
    """How an update becomes integers.

    Attributes:
        bits: bits for each value.
        max_contributors: most updates that one sum may hold.
        clip: bound of an update's every value in the first round; later clips are at most this.
        clip_margin: 0, and clips stay at `clip`; otherwise the next clip of a group (a tensor that travels)
            is this times what the changes of one node in it come to, as the sum tells.
        keep_one_in: of this many consecutive values one, drawn anew each round, travels.
        error_feedback: whether what an update leaves unsent is added to the node's next one.
    """

    bits: Annotated[int, Field(ge=8, le=24)]
    max_contributors: Annotated[int, Field(ge=2, le=1000)]
    clip: Annotated[float, AfterValidator(_check_clip)]
    clip_margin: Annotated[float, AfterValidator(_check_clip_margin)]
    keep_one_in: Annotated[int, Field(ge=1, le=1024)]
    error_feedback: bool


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class RoundPolicy:
    """When a round may go on.

    Attributes:
        min_contributors: fewest contributors that a round may be sealed with; a sum of one would hide nobody.
        attestation_quorum: equal attestations that finalise a round.
        max_examples: weight cap; a node weighs ``min(examples, max_examples) / max_examples``.
        commit_window_s: seconds from the opening to the last commitment.
        aggregate_window_s: seconds from the sealing to the aggregate.
        attest_window_s: seconds that nodes have to answer: from the aggregate to the last attestation, from
            an anchored batch to the last commitment, and from a proposed result to its finalisation.
        batching: whether signed commitments are anchored and signed attestations proposed, unseen by the
            contract, instead of each node's own transactions.
    """

    min_contributors: Annotated[int, Field(ge=2, le=1000)]
    attestation_quorum: Annotated[int, Field(ge=1, le=1000)]
    max_examples: _Count
    commit_window_s: _Seconds
    aggregate_window_s: _Seconds
    attest_window_s: _Seconds
    batching: bool = False

    def __post_init__(self) -> None:
        if self.batching and self.attest_window_s >= self.commit_window_s:
            raise ValueError(
                f"batching: expected attest_window_s ({self.attest_window_s}) below commit_window_s "
                f"({self.commit_window_s}), so that a node which is left out can commit by itself"
            )


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class PrivacyPolicy:
    """What rounds may spend of the privacy of the data, in a unit of the federation's choice that adds up.

    zCDP adds up over rounds (Bun and Steinke 2016, arXiv:1605.02065, lemma 1.7): there, a millionth of rho.

    Attributes:
        round_cost: what one round costs.
        budget: what all rounds together may cost; no round opens beyond it. 0: rounds are not accounted for,
            and cost nothing.
    """

    round_cost: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    budget: Annotated[int, Field(ge=0, lt=1 << 63)] = 0

    def __post_init__(self) -> None:
        if self.round_cost and not self.budget:
            raise ValueError(
                f"budget: expected above 0, as round_cost is {self.round_cost}, got 0: "
                "without a budget, no round would be accounted for"
            )


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class TrainingPlan:
    """How each node trains in a round: epochs over its data, and the settings of plain SGD."""

    epochs: _Count
    batch_size: _Count
    learning_rate: _Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: _NotNegative


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class EvidencePolicy:
    """How long it can be shown what a sum is made of. All nodes of an epoch can decrypt single updates.

    Attributes:
        retention_days: for how many days after the end of its round an update's ciphertexts are kept; then
            the aggregator deletes them. Headers, sums and signed statements stay. 0: nothing is deleted.
    """

    retention_days: Annotated[int, Field(ge=0, le=36_500)] = 0

    def has_expired(self, *, ended_at: int, now: int) -> bool:
        """Return whether the updates of a round are kept no longer; Unix times of the chain's blocks."""
        return self.retention_days > 0 and now - ended_at > self.retention_days * _DAY_S


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Policy:
    """What a federation has agreed on. Constructing one checks it (pydantic's ValidationError)."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    model: ModelPolicy
    codec: CodecPolicy
    rounds: RoundPolicy
    training: TrainingPlan
    privacy: PrivacyPolicy = PrivacyPolicy()
    evidence: EvidencePolicy = EvidencePolicy()

    def __post_init__(self) -> None:
        if not self.name.isprintable():
            raise ValueError(f"name: expected printable characters, got {self.name!r}")
        most = self.codec.max_contributors
        for key in ("min_contributors", "attestation_quorum"):
            if getattr(self.rounds, key) > most:
                raise ValueError(
                    f"rounds.{key}: expected at most codec.max_contributors ({most}), "
                    f"got {getattr(self.rounds, key)}"
                )

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Return the policy in a TOML document.

        Raises:
            ConfigurationError: as `fedproof.config.load_config`.
        """
        return load_config(path, cls)

    @classmethod
    def parse(cls, raw: bytes) -> Policy:
        """Return the policy that canonical bytes stand for.

        Raises:
            MalformedMessage: they are not what `canonical` returns for any policy.
        """
        if len(raw) > _MOST_BYTES:
            raise MalformedMessage(f"policy: expected at most {_MOST_BYTES} bytes, got {len(raw)}")
        fields = split_fields(raw, "policy", most=_MOST_FIELDS)
        if len(fields) != 27 or fields[0] != _TAG.encode():
            first = fields[0][:40] if fields else b""
            raise MalformedMessage(
                f"policy: expected 27 fields, the first {_TAG!r}, got {len(fields)}, the first {first!r}"
            )
        integers = {
            i: decode_int(fields[i], f"policy: field {i}") for i in (3, 5, 6, 7, *range(10, 21), 24, 25, 26)
        }
        floats = {i: decode_float(fields[i], f"policy: field {i}") for i in (8, 9, 21, 22, 23)}
        for index, key in ((11, "codec.error_feedback"), (18, "rounds.batching")):
            if integers[index] > 1:
                raise MalformedMessage(f"policy: {key}: expected 0 or 1, got {integers[index]}")
        document = {
            "name": decode_text(fields[1], "policy: name"),
            "model": {
                "architecture": fields[2],
                "parameters": integers[3],
                "genesis": fields[4],
                "seed": integers[5],
            },
            "codec": {
                "bits": integers[6],
                "max_contributors": integers[7],
                "clip": floats[8],
                "clip_margin": floats[9],
                "keep_one_in": integers[10],
                "error_feedback": bool(integers[11]),
            },
            "rounds": {
                "min_contributors": integers[12],
                "attestation_quorum": integers[13],
                "max_examples": integers[14],
                "commit_window_s": integers[15],
                "aggregate_window_s": integers[16],
                "attest_window_s": integers[17],
                "batching": bool(integers[18]),
            },
            "training": {
                "epochs": integers[19],
                "batch_size": integers[20],
                "learning_rate": floats[21],
                "momentum": floats[22],
                "weight_decay": floats[23],
            },
            "privacy": {"round_cost": integers[24], "budget": integers[25]},
            "evidence": {"retention_days": integers[26]},
        }
        try:
            return parse_document(document, cls, where="policy")
        except ConfigurationError as error:
            raise MalformedMessage(str(error)) from error

    def canonical(self) -> bytes:
        """Return the bytes that the digest is over: docs/format.md, "Policy document"."""
        model, codec, rounds, training = self.model, self.codec, self.rounds, self.training
        return encode_fields(
            _TAG,
            self.name,
            model.architecture,
            model.parameters,
            model.genesis,
            model.seed,
            codec.bits,
            codec.max_contributors,
            codec.clip,
            codec.clip_margin,
            codec.keep_one_in,
            int(codec.error_feedback),
            rounds.min_contributors,
            rounds.attestation_quorum,
            rounds.max_examples,
            rounds.commit_window_s,
            rounds.aggregate_window_s,
            rounds.attest_window_s,
            int(rounds.batching),
            training.epochs,
            training.batch_size,
            training.learning_rate,
            training.momentum,
            training.weight_decay,
            self.privacy.round_cost,
            self.privacy.budget,
            self.evidence.retention_days,
        )

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical bytes: what the ledger holds."""
        return Digest(hashlib.sha256(self.canonical()).digest())

    @property
    def update_length(self) -> int:
        """How many values of the flat vector travel in a round."""
        return -(-self.model.parameters // self.codec.keep_one_in)

    def codec_parameters(self) -> CodecParameters:
        """Return the codec's parameters for this policy; every policy has some that keep its sums exact."""
        from fedproof.codec.parameters import CodecParameters

        return CodecParameters.plan(bits=self.codec.bits, max_contributors=self.codec.max_contributors)

    def verify_layout(self, layout: ModelLayout) -> None:
        """Check that a user's model is the one that the federation trains.

        Raises:
            ConfigurationError: its architecture is another; the message lists the tensors that came.
        """
        if layout.digest != self.model.architecture:
            raise ConfigurationError(
                f"model: expected the policy's architecture {self.model.architecture.hex()} with "
                f"{self.model.parameters} values, got {layout.digest.hex()} with {layout.parameters} values: "
                + ", ".join(str(tensor) for tensor in layout.tensors)
            )

    def dump_toml(self) -> str:
        """Return the policy as a TOML document that `load` reads back."""
        model, codec, rounds, training = self.model, self.codec, self.rounds, self.training
        # A printable name as JSON is a TOML basic string, and the repr of a finite float is a TOML float.
        return f"""\
name = {json.dumps(self.name, ensure_ascii=False)}

[model]
architecture = "0x{model.architecture.hex()}"  # digest of the layout: names, shapes, types, frozen values
parameters = {model.parameters}
genesis = "0x{model.genesis.hex()}"  # digest of the first model
seed = {model.seed}  # under which every node builds that first model

[codec]
bits = {codec.bits}  # for each value of an update
max_contributors = {codec.max_contributors}
clip = {codec.clip!r}  # bound of an update's every value in the first round; later clips are at most this
clip_margin = {codec.clip_margin!r}  # x a node's usual change in a tensor = its next clip; 0: clips stay
keep_one_in = {codec.keep_one_in}  # of so many consecutive values one travels, drawn anew each round
error_feedback = {str(codec.error_feedback).lower()}  # what an update leaves unsent goes into the node's next

[rounds]
min_contributors = {rounds.min_contributors}
attestation_quorum = {rounds.attestation_quorum}
max_examples = {rounds.max_examples}  # a node weighs min(examples, max_examples) / max_examples
commit_window_s = {rounds.commit_window_s}
aggregate_window_s = {rounds.aggregate_window_s}
attest_window_s = {rounds.attest_window_s}  # for nodes to answer: attest, or object to what was batched
batching = {str(rounds.batching).lower()}  # signed statements in batches, not a transaction for each

[training]
epochs = {training.epochs}
batch_size = {training.batch_size}
learning_rate = {training.learning_rate!r}
momentum = {training.momentum!r}
weight_decay = {training.weight_decay!r}

[privacy]
round_cost = {self.privacy.round_cost}
budget = {self.privacy.budget}  # of all rounds together; 0: not accounted for

[evidence]
retention_days = {self.evidence.retention_days}  # updates are deleted so long after their round; 0: never
"""
