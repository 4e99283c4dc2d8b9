"""What has to hold before a node takes part; each error says what was expected and what came."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from structlog.typing import FilteringBoundLogger

from fedproof.digests import Address, Digest, checksum_address
from fedproof.errors import ConfigurationError, DigestMismatch, PolicyMismatch
from fedproof.ledger.doctor import warn_about_finality
from fedproof.ledger.events import MemberStatus
from fedproof.ledger.history import History
from fedproof.model import Model, ModelLayout, load_model, verify_layout
from fedproof.policy import Policy
from fedproof_node.membership import Membership
from fedproof_node.models import ModelShelf
from fedproof_node.relay import Relay
from fedproof_node.watch import LedgerWatch


@contextmanager
def lock_state(state_dir: Path) -> Iterator[None]:
    """Hold the state folder for this process alone: two daemons on one journal would contradict each other.

    Raises:
        ConfigurationError: another process holds it.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "lock").open("w") as file:
        try:
            # The kernel lets go of it however the process ends.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"{state_dir}: expected no other daemon on this state folder, one is running"
            ) from error
        yield


def verify_model(
    layout: ModelLayout, flat: NDArray[np.float32], policy: Policy, *, models_dir: Path
) -> ModelShelf:
    """Return the shelf of models, with the first one on it, once the task's model is the policy's.

    1. The layout has the policy's architecture digest, and as many parameters.
    2. The first model, built under the policy's seed and with the policy's clip, has the policy's digest.

    Args:
        layout: of the task's model.
        flat: the values that the task built.
        policy: the federation's.
        models_dir: where models lie.

    Raises:
        ConfigurationError: a check fails. Where this node has run before, the first tensor that differs is
            named; otherwise the task's tensors are listed, as the policy holds only their digest.
    """
    expected = policy.model
    shelf = ModelShelf(models_dir, layout)
    if (layout.digest, layout.parameters) != (expected.architecture, expected.parameters):  # 1
        if shelf.holds(expected.genesis):
            verify_layout(layout, expected=load_model(shelf.path(expected.genesis))[0])
        tensors = ", ".join(map(str, layout.tensors))
        raise ConfigurationError(
            f"model: expected the policy's architecture {expected.architecture.hex()} of "
            f"{expected.parameters} "
            f"parameters, the task built {layout.digest.hex()} of {layout.parameters} parameters: {tensors}"
        )
    genesis = Model(flat, (policy.codec.clip,) * len(layout.group_sizes))
    came = shelf.digest(genesis)
    if came != expected.genesis:  # 2
        raise ConfigurationError(
            f"model: expected the first model {expected.genesis.hex()} of the policy, the task built "
            f"{came.hex()} "
            f"under seed {expected.seed}: does build_model draw from torch's generator alone?"
        )
    shelf.save(genesis)
    return shelf


def verify_policy(policy: Policy, history: History, *, where: Path) -> None:
    """Check that the policy document is the one that the next round follows.

    Raises:
        PolicyMismatch: it is not; the message names both digests.
    """
    version = len(history.policies)
    if not version:
        raise PolicyMismatch(f"{where}: expected a policy that the ledger has adopted, it has adopted none")
    on_ledger = history.policies[version].digest
    if policy.digest != on_ledger:
        raise PolicyMismatch(
            f"{where}: expected the policy of digest {on_ledger.hex()} (version {version} on the ledger), "
            f"the document has {policy.digest.hex()}: put the adopted document there, and start again"
        )


def verify_aggregator(relay: Relay, membership: Membership) -> None:
    """Check that the aggregator serves this federation.

    Raises:
        DigestMismatch: it serves another one.
        NetworkError: it does not answer.
    """
    answer = relay.fetch_federation()
    ours = (membership.chain_id, membership.contract, membership.policy.digest)
    theirs = (answer.chain_id, answer.contract, answer.policy_digest)
    if theirs != ours:
        raise DigestMismatch(
            f"aggregator {relay.target}: expected {_describe(*ours)}, it serves "
            f"{_describe(answer.chain_id, answer.contract, answer.policy_digest)}"
        )


def await_admission(
    watch: LedgerWatch,
    node: Address,
    *,
    wrapping_key_digest: Digest,
    poll_interval_s: float,
    log: FilteringBoundLogger,
) -> None:
    """Return once the node is admitted and a policy is adopted; a warning says if its windows are too short.

    Raises:
        ConfigurationError: the node has not applied, or has applied with another wrapping key.
    """
    last = ""
    while True:
        history = watch.refresh()
        reason = _find_obstacle(history, node, wrapping_key_digest=wrapping_key_digest)
        if not reason:
            log.info("admitted", node=checksum_address(node))
            warn_about_finality(watch.ledger, watch.finality, log)
            return
        if reason != last:
            last = reason
            log.info("waiting", reason=reason)
        time.sleep(poll_interval_s)


def _find_obstacle(history: History, node: Address, *, wrapping_key_digest: Digest) -> str:
    member = history.members.get(node)
    name = checksum_address(node)
    if member is None:
        raise ConfigurationError(
            f"expected node {name} to be registered on the ledger, it is not: "
            "run `fedproof node register` first"
        )
    if member.wrapping_key_digest != wrapping_key_digest:
        raise ConfigurationError(
            f"node {name}: expected the wrapping key of digest {member.wrapping_key_digest.hex()} that the "
            f"ledger holds, the configured one has {wrapping_key_digest.hex()} (`fedproof node register` "
            "names it in place of the old one)"
        )
    if member.status is not MemberStatus.ADMITTED:
        return f"node {name} is {member.status.name}: the operator has to admit it (`fedproof admin admit`)"
    if not history.policies:
        return "no policy has been adopted yet (`fedproof admin policy`)"
    return ""


def _describe(chain_id: int, contract: bytes, policy_digest: bytes) -> str:
    return f"chain {chain_id}, contract 0x{contract.hex()}, policy {policy_digest.hex()}"
