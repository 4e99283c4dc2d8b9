"""A node's own standing on the ledger: it applies, names other keys, approves the policy, and leaves."""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from fedproof.digests import Digest, checksum_address
from fedproof.errors import NetworkError, PeerError
from fedproof.keys.tls import certificate_digest
from fedproof.keys.wrapping import WrappingKey
from fedproof.ledger.client import Ledger
from fedproof.ledger.events import MemberStatus
from fedproof.ledger.rehearsal import Rehearsal
from fedproof.policy import Policy
from fedproof_node.config import NodeConfig
from fedproof_node.patience import Patience
from fedproof_node.relay import Relay
from fedproof_node.service import find_first_block
from fedproof_node.startup import verify_policy
from fedproof_node.watch import LedgerWatch


def register_node(
    config: NodeConfig,
    ledger: Ledger,
    *,
    wrapping_key: WrappingKey,
    metadata: Digest,
    log: FilteringBoundLogger,
) -> None:
    """Apply on the ledger with this node's keys, and leave its public key at the aggregator if that answers.

    Doing it again changes nothing. With other keys, an admitted node names them in place of the old ones.

    Args:
        config: the node's.
        ledger: signs as the node, or rehearses.
        wrapping_key: the node's.
        metadata: digest of a document about the node, or zero.
        log: hears what was done.

    Raises:
        ConfigurationError: the certificate cannot be used.
        LedgerError: the ledger does not answer or refuses.
    """
    watch = LedgerWatch(ledger, from_block=find_first_block(config), finality=config.chain.finality)
    member = watch.refresh().members.get(ledger.address)
    keys = (wrapping_key.digest, certificate_digest(config.tls.certificate))
    node = checksum_address(ledger.address)
    is_known = member is not None and (member.wrapping_key_digest, member.certificate_digest) == keys
    if member is not None and is_known and member.status is not MemberStatus.LEFT:
        log.info("registered", node=node, gas=0)
    elif member is not None and member.status is MemberStatus.ADMITTED:
        receipt = ledger.rotate_keys(*keys)
        log.info("keys_rotated", node=node, gas=receipt.gas_used, counts="from the next epoch on")
    else:
        receipt = ledger.register(*keys, metadata)
        log.info("registered", node=node, gas=receipt.gas_used)
    if isinstance(ledger, Rehearsal):
        return
    try:
        with Relay(config.aggregator.target, config.tls, patience=Patience(attempts=1)) as relay:
            relay.put_public_key(wrapping_key.public_bytes)
    except (NetworkError, PeerError) as error:
        cause = error.__cause__ if isinstance(error, NetworkError) else error  # not that one attempt is all
        log.info(
            "waiting",
            reason="the ledger has this node's keys; the aggregator has not taken the public key yet, "
            f"`fedproof node run` hands it over: {cause}",
        )


def leave_federation(ledger: Ledger, *, log: FilteringBoundLogger) -> None:
    """Take part no longer, from the next round on.

    Raises:
        LedgerError: the ledger does not answer, or the node is not admitted.
    """
    receipt = ledger.leave()
    log.info("left", node=checksum_address(ledger.address), gas=receipt.gas_used)


def approve_policy(config: NodeConfig, ledger: Ledger, *, log: FilteringBoundLogger) -> None:
    """Say on the ledger that this node agrees to the adopted policy, which has to be the configured one.

    Doing it again changes nothing.

    Raises:
        ConfigurationError: the policy cannot be used.
        PolicyMismatch: the ledger has adopted another policy.
        LedgerError: the ledger does not answer, or the node is not admitted.
    """
    policy = Policy.load(config.policy)
    watch = LedgerWatch(ledger, from_block=find_first_block(config), finality=config.chain.finality)
    history = watch.refresh()
    verify_policy(policy, history, where=config.policy)
    version = len(history.policies)
    is_known = ledger.address in history.approvals.get(version, ())
    gas = 0 if is_known else ledger.approve_policy(version, policy.digest).gas_used
    log.info("approved", version=version, policy=policy.digest, gas=gas)
