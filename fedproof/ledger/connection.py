"""The ledger as a daemon's configuration describes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedproof.config import ChainConfig
from fedproof.errors import ConfigurationError
from fedproof.keys.wallet import load_wallet
from fedproof.ledger.client import Ledger
from fedproof.ledger.rehearsal import Rehearsal
from fedproof.ledger.sending import SendingRules
from fedproof.ledger.signer import KeystoreSigner, RemoteSigner, Signer

OUTBOX_FILE = "outbox.sqlite"


def open_signer(chain: ChainConfig, password: Callable[[], str]) -> Signer:
    """Return who signs the transactions.

    Args:
        chain: names the keystore or the remote signer.
        password: returns the keystore's.

    Raises:
        ConfigurationError: the keystore cannot be used, or the signer's address is none.
    """
    if chain.keystore is not None:
        return KeystoreSigner(load_wallet(chain.keystore, password()))
    if chain.signer_url is None or chain.signer_account is None:
        raise ConfigurationError("chain: expected the keys signer_url and signer_account, or keystore")
    return RemoteSigner(chain.signer_url, chain.signer_account)


def open_rehearsal(chain: ChainConfig, signer: Signer, *, attempts: int = 6) -> Ledger:
    """Return the ledger, for reading and to learn what sending would cost; raises as `open_ledger`."""
    endpoint = chain.resolve()
    return Rehearsal.connect(
        endpoint.rpc_url,
        endpoint.contract,
        chain_id=endpoint.chain_id,
        account=signer,
        agreement=chain.agreement,
        attempts=attempts,
    )


def open_ledger(chain: ChainConfig, signer: Signer, *, state_dir: Path, attempts: int = 6) -> Ledger:
    """Return the ledger, for reading and sending.

    Args:
        chain: where it is, and how much is believed.
        signer: who signs transactions.
        state_dir: the folder of the outbox, unless the configuration names another place.
        attempts: requests that are made before the chain counts as unreachable.

    Raises:
        ConfigurationError: the address book or the outbox cannot be used.
        LedgerError: the chain cannot be reached, or the contract is another one.
    """
    endpoint = chain.resolve()
    return Ledger.connect(
        endpoint.rpc_url,
        endpoint.contract,
        chain_id=endpoint.chain_id,
        account=signer,
        agreement=chain.agreement,
        attempts=attempts,
        rules=SendingRules(
            path=chain.outbox or state_dir / OUTBOX_FILE,
            finality=chain.finality,
            replace_after_s=chain.replace_after_s,
            max_fee_gwei=chain.max_fee_gwei,
            max_tip_gwei=chain.max_tip_gwei,
        ),
    )
