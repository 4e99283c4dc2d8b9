"""What a round's policy means for updates: their manifests and their chunks."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from fedproof.codec.parameters import CodecParameters
from fedproof.digests import Address, Digest
from fedproof.errors import DigestMismatch, PolicyMismatch
from fedproof.ledger.events import OnChainPolicy
from fedproof.ledger.rounds import RoundRecord
from fedproof.manifest import (
    AggregateManifest,
    Contribution,
    Manifest,
    UpdateManifest,
    verify_base,
    verify_manifest,
)
from fedproof.policy import Policy
from fedproof.store import ObjectStore
from fedproof_aggregator.view import LedgerView


@dataclass(frozen=True, slots=True)
class Terms:
    """A policy and what follows from it.

    Attributes:
        policy: the document.
        parameters: the codec's.
        chunks: how many chunks each update and sum has.
    """

    policy: Policy
    parameters: CodecParameters
    chunks: int

    def compute_chunk_bytes(self, index: int) -> int:
        """Return the exact length of an update's chunk."""
        frames = self.parameters.frames_in_chunk(index, self.policy.update_length)
        return frames * self.parameters.update_frame_bytes

    def compute_update_bytes(self) -> int:
        """Return the exact length of an update's chunks together."""
        return sum(self.compute_chunk_bytes(index) for index in range(self.chunks))


class TermsShelf:
    """The terms of each policy that was served: the configured one, and older ones from the store."""

    def __init__(self, policy: Policy, *, store: ObjectStore) -> None:
        """Put the configured policy on the shelf, and into the store for auditors."""
        self._store = store
        self._lock = threading.Lock()
        self._terms = {policy.digest: _derive(policy)}
        store.put_policy(policy.digest, policy.canonical())

    def find(self, digest: Digest) -> Terms:
        """Return the terms of the policy of that digest.

        Raises:
            MissingObject: neither the configuration nor the store holds it.
            PeerError: the store's copy has rotted.
        """
        with self._lock:
            terms = self._terms.get(digest)
            if terms is None:
                terms = self._terms[digest] = _derive(Policy.parse(self._store.get_policy(digest)))
            return terms


def _derive(policy: Policy) -> Terms:
    parameters = policy.codec_parameters()
    return Terms(policy, parameters, parameters.chunk_count(policy.update_length))


def verify_policy(policy: Policy, adopted: OnChainPolicy, *, path: Path) -> None:
    """Return if the configured policy is the adopted one.

    Args:
        policy: from the file at `path`.
        adopted: the ledger's newest.
        path: what the message names.

    Raises:
        PolicyMismatch: their digests differ.
    """
    if policy.digest != adopted.digest:
        raise PolicyMismatch(
            f"{path}: expected the policy that the ledger has adopted, digest 0x{adopted.digest.hex()}, "
            f"got one of digest 0x{policy.digest.hex()}"
        )


def verify_update(
    manifest: Manifest, *, view: LedgerView, record: RoundRecord, node: Address, examples: int, terms: Terms
) -> None:
    """Check that a manifest is the one that the node's update may have: ledger and policy fix each field.

    Values and clips of the base model stand on the ledger as a digest alone, so they are the manifest's own.

    Raises:
        DigestMismatch: it is another; the message names the first field that differs.
    """
    if not isinstance(manifest, UpdateManifest):
        raise DigestMismatch(f"expected an UpdateManifest, got an {type(manifest).__name__}")
    expected = UpdateManifest(
        chain_id=view.chain_id,
        contract=view.contract,
        round=record.number,
        node=node,
        epoch=record.epoch,
        policy_digest=terms.policy.digest,
        base_model=record.base_model,
        base_values=manifest.base_values,
        clips=manifest.clips,
        parameters=terms.policy.model.parameters,
        chunks=terms.chunks,
        examples=examples,
    )
    verify_manifest(manifest, expected=expected)
    verify_base(manifest, layout_digest=terms.policy.model.architecture)


def describe_aggregate(
    view: LedgerView, record: RoundRecord, contributions: tuple[Contribution, ...], terms: Terms
) -> AggregateManifest:
    """Return the manifest of a sealed round's sum."""
    return AggregateManifest(
        chain_id=view.chain_id,
        contract=view.contract,
        round=record.number,
        epoch=record.epoch,
        policy_digest=terms.policy.digest,
        contributors=contributions,
        parameters=terms.policy.model.parameters,
        chunks=terms.chunks,
    )
