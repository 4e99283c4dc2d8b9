"""Check 7: what the stored headers of a round's updates prove. Pure but for reading headers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import Protocol

from fedproof.digests import Address, Digest
from fedproof.errors import DigestMismatch, MalformedMessage
from fedproof.ledger.events import Phase, UpdateCommitted
from fedproof.manifest import AggregateManifest, Contribution, UpdateManifest, verify_base, verify_header
from fedproof.wire.aggregation_pb2 import Header
from fedproof_auditor.chronicle import RoundRecord
from fedproof_auditor.documents import AdoptedPolicy
from fedproof_auditor.findings import CheckFailed, Failure, require_equal


class HeaderStore(Protocol):
    """Where headers are read from: `fedproof_auditor.stored.StoredEvidence`."""

    def get_header(self, root: Digest) -> Header:
        """Return the header whose leaves have that root, or raise PeerError."""
        ...


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """What the ledger and the policy say about one round: the measure of everything that is stored of it.

    Attributes:
        policy: the one that the round names, whatever was adopted later.
        has_expired: whether it ended so long ago that its updates' chunks may have been deleted.
    """

    chain_id: int
    contract: Address
    record: RoundRecord
    policy: AdoptedPolicy
    has_expired: bool

    @property
    def is_binding(self) -> bool:
        """Whether the round's evidence must be there.

        It must once the sum is published, also if the round failed: else a wrong sum could be published, its
        round failed, and the proof lost. Before, only while the round has not failed.
        """
        record = self.record
        is_given_up = record.phase is Phase.FAILED and record.aggregate is None
        return record.sealed is not None and not is_given_up


class Standing(Enum):
    """What an update's evidence is needed for."""

    CONTRIBUTOR = "contributor"  # it is in the sum
    CANDIDATE = "candidate"  # its round was never sealed
    EXCLUDED = "excluded"  # sealed out of the sum, for a reason


@dataclass(frozen=True, slots=True)
class StoredUpdate:
    """An update whose header is stored and is what the node committed to.

    Attributes:
        leaves: the proven leaf digests of its chunks, in index order.
    """

    node: Address
    standing: Standing
    leaves: tuple[Digest, ...]


def find_standing(record: RoundRecord, node: Address) -> Standing:
    """Return what the evidence of a committed node is needed for."""
    if record.sealed is None:
        return Standing.CANDIDATE
    return Standing.CONTRIBUTOR if node in record.contributors else Standing.EXCLUDED


def read_header(commitment: UpdateCommitted, store: HeaderStore) -> Header:
    """Return the stored header that has the committed root.

    Raises:
        MissingObject: no header is stored.
        CheckFailed: check 7, other bytes are stored under that root.
    """
    try:
        return store.get_header(commitment.update_root)
    except (DigestMismatch, MalformedMessage) as error:
        raise header_failure(commitment, expected="one with the committed root", got=error) from error


def header_failure(commitment: UpdateCommitted, *, expected: str, got: object) -> CheckFailed:
    """Return the failure of check 7 for an update's header as a whole."""
    return CheckFailed(
        Failure(
            check=7,
            field="header",
            expected=expected,
            got=str(got),
            round=commitment.round,
            node=commitment.node,
        )
    )


def verify_update_header(header: Header, facts: RoundFacts, commitment: UpdateCommitted) -> UpdateManifest:
    """Return the manifest of an update whose header is proven, chunk digests included.

    Check 7:
    1. The root over manifest and leaves is the committed one, the manifest is canonical, and each of its
       chunks has a leaf.
    2. Each field of the manifest is what the ledger and the policy say.
    3. The values and clips that it names are those of the base model, which the ledger names.

    Raises:
        CheckFailed: naming the first field that differs.
    """
    number, node = commitment.round, commitment.node
    leaves = tuple(Digest(raw) for raw in header.chunk_digests)
    try:
        manifest = verify_header(header.manifest, leaves, root=commitment.update_root)  # 1
        if not isinstance(manifest, UpdateManifest):
            raise header_failure(commitment, expected="an update's", got="a sum's")
        expected = expect_update_manifest(
            facts, commitment, base_values=manifest.base_values, clips=manifest.clips
        )
        verify_manifest(manifest, expected, check=7, round_number=number, node=node)  # 2
        verify_base(manifest, layout_digest=facts.policy.document.model.architecture)  # 3
    except (DigestMismatch, MalformedMessage, ValueError) as error:
        raise header_failure(commitment, expected="the committed one", got=error) from error
    return manifest


def verify_manifest(
    manifest: UpdateManifest | AggregateManifest,
    expected: UpdateManifest | AggregateManifest,
    *,
    check: int,
    round_number: int,
    node: Address | None = None,
) -> None:
    """Check 7 or 10: each field of a manifest is the expected one.

    Raises:
        CheckFailed: naming the first field that differs.
    """
    kind, came = type(expected).__name__, type(manifest).__name__
    require_equal(came, kind, check=check, field="kind of manifest", round_number=round_number, node=node)
    for each in fields(expected):
        require_equal(
            getattr(manifest, each.name),
            getattr(expected, each.name),
            check=check,
            field=f"manifest's {each.name}",
            round_number=round_number,
            node=node,
        )


def expect_update_manifest(
    facts: RoundFacts, commitment: UpdateCommitted, *, base_values: Digest, clips: tuple[float, ...]
) -> UpdateManifest:
    """Return the one manifest that a committed update may have, given what its base model consists of.

    Raises:
        ValueError: the ledger's values are out of range for any manifest.
    """
    opened, policy = facts.record.opened, facts.policy
    return UpdateManifest(
        chain_id=facts.chain_id,
        contract=facts.contract,
        round=commitment.round,
        node=commitment.node,
        epoch=opened.epoch,
        policy_digest=policy.document.digest,
        base_model=opened.base_model,
        base_values=base_values,
        clips=clips,
        parameters=policy.document.model.parameters,
        chunks=policy.chunks,
        examples=commitment.examples,
    )


def expect_aggregate_manifest(facts: RoundFacts) -> AggregateManifest:
    """Return the one manifest that a sealed round's sum may have.

    Raises:
        ValueError: the sealed set is none that a manifest can name.
    """
    record, policy = facts.record, facts.policy
    if record.is_batch_unread:
        raise ValueError("its batch cannot be read (check 9)")
    contributors = record.contributors
    unknown = [node for node in contributors if node not in record.commitments]
    if unknown:
        raise ValueError(f"contributor 0x{unknown[0].hex()} did not commit")
    return AggregateManifest(
        chain_id=facts.chain_id,
        contract=facts.contract,
        round=record.number,
        epoch=record.opened.epoch,
        policy_digest=policy.document.digest,
        contributors=tuple(
            Contribution(node, record.commitments[node].update_root, record.commitments[node].examples)
            for node in contributors
        ),
        parameters=policy.document.model.parameters,
        chunks=policy.chunks,
    )
