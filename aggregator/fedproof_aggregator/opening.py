"""Why no round can be opened yet: what somebody else has to do first."""

from __future__ import annotations

from collections.abc import Collection

from fedproof.digests import Address, checksum_address
from fedproof.ledger.events import OnChainPolicy
from fedproof.ledger.history import EpochRecord
from fedproof.policy import Policy
from fedproof_aggregator.config import AggregatorConfig
from fedproof_aggregator.keyrelay import KeyRelay
from fedproof_aggregator.terms import verify_policy
from fedproof_aggregator.view import LedgerView


def explain_waiting(
    view: LedgerView, key_relay: KeyRelay, *, policy: Policy, config: AggregatorConfig
) -> str | None:
    """Return what the next round waits for, or nothing when it can be opened.

    Raises:
        PolicyMismatch: the ledger has adopted another policy than ours.
    """
    adopted = view.policy()
    if adopted is None:
        return f"no policy is adopted; this aggregator's has the digest 0x{policy.digest.hex()}"
    verify_policy(policy, adopted, path=config.policy)
    reason = explain_cohort(
        adopted,
        max_contributors=policy.codec.max_contributors,
        expected_nodes=config.expected_nodes,
        admitted=len(view.admitted()),
    )
    return reason if reason is not None else explain_epoch(view, key_relay, policy=policy)


def explain_cohort(
    policy: OnChainPolicy, *, max_contributors: int, expected_nodes: int, admitted: int
) -> str | None:
    """Return why the admitted nodes make no cohort, or nothing when they do."""
    needed = max(expected_nodes, policy.min_contributors, policy.attestation_quorum)
    if admitted < needed:
        return f"{admitted} of {needed} nodes are admitted"
    if admitted > max_contributors:
        return (
            f"{admitted} nodes are admitted, the policy's codec adds at most {max_contributors} updates: "
            "suspend some, or adopt another policy"
        )
    quorum = policy.attestation_quorum
    if 2 * quorum <= admitted:
        return (
            f"{admitted} nodes are admitted, and the attestation quorum of {quorum} is not more than half of "
            "them: adopt a policy with a larger one"
        )
    return None


def explain_epoch(view: LedgerView, key_relay: KeyRelay, *, policy: Policy) -> str | None:
    """Return why the nodes cannot have the key yet, or nothing when they can."""
    epoch, key_maker = view.current_epoch(), view.key_maker()
    number = 0 if epoch is None else epoch.number
    if key_maker is not None:
        return f"{checksum_address(key_maker)} was asked for epoch {number + 1} and has not published it"
    if epoch is None:
        return "no epoch is published, and nobody has been asked for one (`fedproof admin epoch`)"
    context = policy.codec_parameters().digest
    if epoch.context_digest != context:
        return (
            f"epoch {epoch.number} is of another codec ({epoch.context_digest.hex()}) than the policy's "
            f"({context.hex()}), ask for another (`fedproof admin epoch`)"
        )
    recipients = key_relay.find_recipients(epoch)
    if recipients is None:
        return f"the wrapped keys of epoch {number} have not come from {checksum_address(epoch.key_maker)}"
    return explain_recipients(epoch, recipients, admitted=view.admitted(), is_stale=view.is_epoch_stale())


def explain_recipients(
    epoch: EpochRecord, recipients: Collection[Address], *, admitted: Collection[Address], is_stale: bool
) -> str | None:
    """Return why the ledger takes no round on the newest epoch, or nothing when it does.

    A node that was admitted before the publication and has no key was silent then; the others go on.

    Args:
        epoch: the newest.
        recipients: who can unwrap its key.
        admitted: the nodes that are admitted now.
        is_stale: whether the membership has changed since the publication.
    """
    if not is_stale:
        return None
    changes = [
        f"{checksum_address(node)} has its key and is not admitted"
        for node in sorted(recipients)
        if node not in admitted
    ]
    changes += [
        f"{checksum_address(node)} is admitted and has no key"
        for node in sorted(admitted)
        if node not in recipients
    ]
    return (
        f"the members have changed since epoch {epoch.number}, ask for another (`fedproof admin epoch`)"
        + "".join(f"; {change}" for change in changes)
    )
