"""A node put together from its configuration: the one place where its parts meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from structlog.typing import FilteringBoundLogger

from fedproof.config import load_address_book
from fedproof.keys.wrapping import WrappingKey
from fedproof.ledger.client import Ledger
from fedproof.ledger.connection import open_ledger, open_signer
from fedproof.ledger.signer import Signer
from fedproof.memory import share_one_heap
from fedproof.policy import Policy
from fedproof_node.attestation import Attester
from fedproof_node.batches import Batches
from fedproof_node.commitment import Committer
from fedproof_node.conclusion import Concluder
from fedproof_node.config import NodeConfig
from fedproof_node.contribution import Contributor
from fedproof_node.daemon import Daemon, Parts
from fedproof_node.epoch import KeyRing
from fedproof_node.journal import Journal
from fedproof_node.membership import Membership
from fedproof_node.models import ModelShelf
from fedproof_node.patience import Patience
from fedproof_node.relay import Relay
from fedproof_node.startup import (
    await_admission,
    lock_state,
    verify_aggregator,
    verify_model,
    verify_policy,
)
from fedproof_node.trainer import Trainer
from fedproof_node.watch import LedgerWatch
from fedproof_node.watchtower import Watchtower, make_patience
from fedproof_node.witness import Witness


def run_node(
    config: NodeConfig, *, password: str, until_round: int | None, log: FilteringBoundLogger
) -> None:
    """Take part until a round has ended, or for good.

    Raises:
        ConfigurationError: something in the configuration cannot be used.
        PolicyMismatch: the policy document is not the ledger's.
        LedgerError: the ledger does not answer, or is not this federation's.
        NetworkError: the aggregator does not answer.
        DigestMismatch: the aggregator serves another federation.
    """
    share_one_heap()
    with _open_daemon(config, password=password, log=log) as daemon:
        daemon.run(poll_interval_s=config.poll_interval_s, until_round=until_round)


@contextmanager
def _open_daemon(config: NodeConfig, *, password: str, log: FilteringBoundLogger) -> Iterator[Daemon]:
    with ExitStack() as stack:
        stack.enter_context(lock_state(config.state_dir))
        policy = Policy.load(config.policy)
        # Started first, since importing torch takes longest; what is wrong with the task is asked for below.
        trainer = stack.enter_context(Trainer(config.task.reference, config.task.settings, policy=policy))
        signer, wrapping_key = load_keys(config, password)
        ledger = open_ledger(config.chain, signer, state_dir=config.state_dir)
        watch = LedgerWatch(ledger, from_block=find_first_block(config), finality=config.chain.finality)
        membership = Membership(
            chain_id=ledger.chain_id,
            contract=ledger.contract,
            node=ledger.address,
            policy=policy,
            policy_path=config.policy,
            codec_parameters=policy.codec_parameters(),
        )
        journal = Journal(
            config.state_dir / "journal.sqlite",
            chain_id=ledger.chain_id,
            contract=ledger.contract,
            node=ledger.address,
        )
        stack.callback(journal.close)
        history = watch.refresh()
        if history.policies:
            verify_policy(policy, history, where=config.policy)
        patience = Patience(attempts=config.aggregator.attempts)
        relay = stack.enter_context(Relay(config.aggregator.target, config.tls, patience=patience))
        patience = make_patience(policy.rounds.attest_window_s)
        lookout = stack.enter_context(Relay(config.aggregator.target, config.tls, patience=patience))
        verify_aggregator(relay, membership)
        models = verify_model(*trainer.describe(), policy, models_dir=config.state_dir / "models")
        await_admission(
            watch,
            ledger.address,
            wrapping_key_digest=wrapping_key.digest,
            poll_interval_s=config.poll_interval_s,
            log=log,
        )
        verify_policy(policy, watch.history, where=config.policy)
        relay.put_public_key(wrapping_key.public_bytes)
        yield build_daemon(
            config,
            membership,
            wrapping_key=wrapping_key,
            ledger=ledger,
            watch=watch,
            relay=relay,
            lookout=lookout,
            journal=journal,
            models=models,
            trainer=trainer,
            log=log,
        )


def build_daemon(
    config: NodeConfig,
    membership: Membership,
    *,
    wrapping_key: WrappingKey,
    ledger: Ledger,
    watch: LedgerWatch,
    relay: Relay,
    lookout: Relay,
    journal: Journal,
    models: ModelShelf,
    trainer: Trainer,
    log: FilteringBoundLogger,
) -> Daemon:
    """Return the loop over these connections and this state; `lookout` is the watchtower's relay."""
    rounds_dir = config.state_dir / "rounds"
    keys = KeyRing(
        membership,
        wrapping_key=wrapping_key,
        ledger=ledger,
        relay=relay,
        journal=journal,
        log=log,
        public_key_wait_s=config.public_key_wait_s,
    )
    witness = Witness(node=membership.node, ledger=ledger, log=log)

    def make_batches(connection: Relay) -> tuple[Batches, Committer]:
        batches = Batches(
            node=membership.node,
            policy=membership.policy,
            ledger=ledger,
            relay=connection,
            receipts_dir=config.state_dir / "receipts",
        )
        return batches, Committer(node=membership.node, ledger=ledger, batches=batches, log=log)

    batches, committer = make_batches(relay)
    watched_batches, claimer = make_batches(lookout)
    watchtower = Watchtower(
        node=membership.node,
        rounds=membership.policy.rounds,
        watch=watch,
        journal=journal,
        committer=claimer,
        batches=watched_batches,
        witness=witness,
        hang_up=lookout.close,
        log=log,
    )
    contributor = Contributor(
        membership,
        committer=committer,
        relay=relay,
        journal=journal,
        models=models,
        keys=keys,
        batches=batches,
        trainer=trainer,
        rounds_dir=rounds_dir,
        codec_processes=config.codec_processes,
        log=log,
    )
    attester = Attester(
        membership,
        journal=journal,
        models=models,
        batches=batches,
        witness=witness,
        trainer=trainer,
        log=log,
    )
    concluder = Concluder(
        membership,
        verify=config.verify,
        ledger=ledger,
        relay=relay,
        journal=journal,
        models=models,
        keys=keys,
        batches=batches,
        attester=attester,
        rounds_dir=rounds_dir,
        codec_processes=config.codec_processes,
        log=log,
    )
    return Daemon(
        Parts(
            node=membership.node,
            watch=watch,
            journal=journal,
            models=models,
            keys=keys,
            contributor=contributor,
            concluder=concluder,
            attester=attester,
            witness=witness,
            watchtower=watchtower,
            genesis=membership.policy.model.genesis,
            keep_models=config.keep_models,
            log=log,
        )
    )


def load_keys(config: NodeConfig, password: str) -> tuple[Signer, WrappingKey]:
    """Return who signs transactions, and the key that epochs' keys are wrapped for.

    Raises:
        ConfigurationError: one cannot be used.
    """
    return open_signer(config.chain, lambda: password), WrappingKey.load(config.wrapping_key, password)


def find_first_block(config: NodeConfig) -> int:
    """Return a block before which the contract had no events."""
    path = config.chain.address_book
    return 0 if path is None else load_address_book(path).block
