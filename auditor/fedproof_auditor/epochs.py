"""Check 6: each epoch's context follows from the policy, and its key went to the members and nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fedproof.digests import Address, Digest
from fedproof.errors import PeerError
from fedproof.keys.wrapping import wrapped_keys_root
from fedproof_auditor.chronicle import Chronicle, EpochRecord
from fedproof_auditor.documents import AdoptedPolicy
from fedproof_auditor.findings import CheckFailed, Failure, Findings, require_equal, spell


class KeyStore(Protocol):
    """Where wrapped keys and public keys are read from: `fedproof_auditor.stored.StoredEvidence`."""

    def get_wrapped_keys(self, epoch: int) -> tuple[tuple[Address, bytes], ...]:
        """Return an epoch's wrapped keys by node, or raise PeerError."""
        ...

    def get_public_key(self, digest: Digest) -> bytes:
        """Return the public key of that digest, or raise PeerError."""
        ...


def verify_epochs(
    chronicle: Chronicle, policies: dict[int, AdoptedPolicy], store: KeyStore, findings: Findings
) -> None:
    """Check 6, for every epoch: its context, its wrapped keys, and the public keys behind them."""
    for record in chronicle.epochs.values():
        epoch = record.published.epoch
        for round_number, version in _rests(chronicle, record):
            with findings.collect():
                verify_context(record, policies.get(version), round_number=round_number)
        with findings.collect():
            try:
                wrapped = store.get_wrapped_keys(epoch)
            except PeerError as error:
                raise _unreadable(f"wrapped keys of epoch {epoch}", error) from error
            verify_wrapped_keys(record, wrapped)
            for node, _ in wrapped:
                verify_public_key(record, node, store)


def verify_context(record: EpochRecord, policy: AdoptedPolicy | None, *, round_number: int | None) -> None:
    """Check 6: the published context is that of the policy's codec.

    Raises:
        CheckFailed: it is not, or there is no policy document to tell from.
    """
    what = f"context of epoch {record.published.epoch}"
    if policy is None:
        expected, got = "a policy document that it follows from", "none (check 3)"
        raise CheckFailed(Failure(check=6, field=what, expected=expected, got=got, round=round_number))
    require_equal(
        record.published.context_digest,
        policy.parameters.digest,
        check=6,
        field=what,
        round_number=round_number,
    )


def verify_wrapped_keys(record: EpochRecord, wrapped: Sequence[tuple[Address, bytes]]) -> None:
    """Check 6: the wrapped keys are those of the published root, one for each admitted node and no other.

    Raises:
        CheckFailed: they are not; names the first node that lacks a key or should have none.
    """
    epoch = record.published.epoch
    try:
        root = wrapped_keys_root(wrapped)
    except PeerError as error:
        raise _unreadable(f"wrapped keys of epoch {epoch}", error) from error
    require_equal(
        root, record.published.wrapped_keys_root, check=6, field=f"root of the wrapped keys of epoch {epoch}"
    )
    covered = frozenset(node for node, _ in wrapped)
    if covered == record.members:
        return
    odd = min(covered ^ record.members)
    raise CheckFailed(
        Failure(
            check=6,
            node=odd,
            field=f"wrapped key of epoch {epoch}",
            expected="one, as the node was admitted"
            if odd in record.members
            else "none: it was not admitted",
            got="none" if odd in record.members else "one",
        )
    )


def verify_public_key(record: EpochRecord, node: Address, store: KeyStore) -> None:
    """Check 6: the public key that a node had registered when the epoch was published is stored.

    Raises:
        CheckFailed: it is missing or altered, or the node had registered none.
    """
    what = f"public key behind epoch {record.published.epoch}"
    try:
        store.get_public_key(record.wrapping_keys[node])
    except KeyError as error:
        failure = Failure(check=6, node=node, field=what, expected="a registered one", got="none")
        raise CheckFailed(failure) from error
    except PeerError as error:
        raise _unreadable(what, error, node=node) from error


def _rests(chronicle: Chronicle, record: EpochRecord) -> list[tuple[int | None, int]]:
    """Return the policy versions that an epoch's context must follow from, each with a round that shows it.

    A round that nobody committed in encrypted nothing, whatever context it would have used.
    """
    rounds: list[tuple[int | None, int]] = [
        (each.number, each.opened.policy_version)
        for each in chronicle.rounds.values()
        if each.opened.epoch == record.published.epoch and each.commitments
    ]
    return rounds or [(None, record.policy_version)]


def _unreadable(what: str, error: PeerError, *, node: Address | None = None) -> CheckFailed:
    return CheckFailed(
        Failure(check=6, field=what, expected="stored as published", got=spell(error), node=node)
    )
