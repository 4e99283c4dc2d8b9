"""One audit from its target to its report: fetches the evidence, and lets `verify` judge it."""

from __future__ import annotations

import time

from fedproof.errors import ConfigurationError
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.events import RoundOpened
from fedproof.policy import Policy
from fedproof_auditor.evidence import (
    Progress,
    fetch_evidence,
    verify_pinned,
)
from fedproof_auditor.findings import CheckFailed, Findings
from fedproof_auditor.pool import examine_in_parallel
from fedproof_auditor.report import Report
from fedproof_auditor.run import Target
from fedproof_auditor.selection import RoundSelection
from fedproof_auditor.stored import StoredEvidence
from fedproof_auditor.verify import Audit, verify


def run_audit(
    target: Target,
    endpoint: Endpoint,
    *,
    note: str,
    at_block: int | None,
    selection: RoundSelection,
    jobs: int,
    progress: Progress,
) -> Report:
    """Return what an audit of a target finds.

    Args:
        target: what to audit.
        endpoint: serves its chain.
        note: what the report should say about the endpoint.
        at_block: the newest block by default.
        selection: whose stored evidence to look at.
        jobs: how many processes add up ciphertexts; 0 for one a core.
        progress: told how far it has come.

    Raises:
        ConfigurationError: there is no store, or a policy document cannot be read, or the
            selection names a round that the ledger does not have.
        LedgerUnreachable: the endpoint stopped answering.
    """
    started = time.monotonic()
    if target.store is None or not target.store.is_dir():
        raise ConfigurationError(
            f"--store: expected the folder of an aggregator's store, got {target.store or 'none'}"
        )
    store = StoredEvidence(target.store)
    documents = {str(path): Policy.load(path) for path in target.policies}
    notes = (note,) if note else ()
    try:
        evidence = fetch_evidence(
            endpoint,
            target.contract,
            at_block=at_block,
            from_block=target.from_block,
            now=int(time.time()),
            progress=progress,
        )
    except CheckFailed as error:
        return Report(
            chain_id=endpoint.chain_id,
            contract=target.contract,
            block=None,
            audit=Audit(findings=Findings(failures=[error.failure])),
            names=target.names,
            seconds=time.monotonic() - started,
            selection=str(selection),
            stopped_at=error.failure.check,
            notes=notes,
        )
    opened = (event.round for event in evidence.events if isinstance(event, RoundOpened))
    selection.verify_opened(max(opened, default=0))
    audit = verify(
        evidence,
        store,
        documents,
        is_selected=selection.__contains__,
        examine=examine_in_parallel(store, jobs=jobs),
        progress=progress,
    )
    with audit.findings.collect():
        verify_pinned(endpoint, evidence.block)
    return Report(
        chain_id=evidence.chain_id,
        contract=evidence.contract,
        block=evidence.block,
        audit=audit,
        names=target.names,
        seconds=time.monotonic() - started,
        selection=str(selection),
        notes=notes,
        events=len(evidence.events),
    )
