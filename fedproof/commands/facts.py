"""Where a federation stands, as `fedproof ledger show` prints it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedproof.digests import Digest
    from fedproof.ledger.client import Ledger
    from fedproof.ledger.history import History


def collect_facts(ledger: Ledger, history: History) -> dict[str, Any]:
    """Return where a federation stands, as JSON has it."""
    from fedproof.digests import checksum_address
    from fedproof.ledger.events import AGGREGATOR_ROLE, DEFAULT_ADMIN_ROLE

    terms = history.policies.get(len(history.policies))
    approvals = history.approvals.get(len(history.policies), ())
    current, key = history.current_round, history.current_epoch

    def spell_role(role: Digest) -> list[str]:
        return [checksum_address(account) for account in sorted(history.roles.get(role, ()))]

    return {
        "chain_id": ledger.chain_id,
        "contract": checksum_address(ledger.contract),
        "admin": spell_role(DEFAULT_ADMIN_ROLE),
        "aggregator": spell_role(AGGREGATOR_ROLE),
        "block": history.next_block - 1,
        "events": history.event_count,
        "history_hash": "0x" + history.history_hash.hex(),
        "policy_version": len(history.policies),
        "policy": None if terms is None else "0x" + terms.digest.hex(),
        "head_model": "0x" + history.head_model.hex(),
        "epoch": None if key is None else key.number,
        "is_epoch_stale": history.is_epoch_stale,
        "key_maker": None if history.key_maker is None else checksum_address(history.key_maker),
        "privacy": None
        if terms is None or not terms.privacy_budget
        else {"spent": history.privacy_spent, "cost": terms.privacy_cost, "budget": terms.privacy_budget},
        "predecessor": None if history.predecessor is None else checksum_address(history.predecessor),
        "is_retired": history.is_retired,
        "round": None
        if current is None
        else {
            "number": current.number,
            "phase": current.phase.name.lower(),
            "deadline": current.deadline,
            "committed": len(current.commitments),
            "batched": 0 if current.batch is None else current.batch.count,
            "contributors": len(current.contributors),
            "attested": len(current.attestations),
            "proposed": 0 if current.proposal is None else current.proposal.count,
        },
        "members": [
            {
                "node": checksum_address(node),
                "status": member.status.name.lower(),
                "first_round": member.first_round,
                "approved_policy": node in approvals,
                "wrapping_key_digest": "0x" + member.wrapping_key_digest.hex(),
                "certificate_digest": "0x" + member.certificate_digest.hex(),
            }
            for node, member in sorted(history.members.items())
        ],
    }


def print_facts(facts: dict[str, Any]) -> None:
    """Print them as tables."""
    from rich.console import Console
    from rich.table import Column, Table

    ledger = Table("", Column("", overflow="fold"), title="Federation", show_header=False)
    for key in ("contract", "chain_id", "block", "events", "history_hash"):
        ledger.add_row(key.replace("_", " "), str(facts[key]))
    for key in ("admin", "aggregator"):
        ledger.add_row(key, "\n".join(facts[key]) or "nobody any more")
    ledger.add_row("policy", f"version {facts['policy_version']}, {facts['policy'] or 'none adopted'}")
    ledger.add_row("head model", facts["head_model"])
    ledger.add_row("epoch", _describe_epoch(facts))
    if privacy := facts["privacy"]:
        ledger.add_row(
            "privacy", f"{privacy['spent']} of {privacy['budget']} spent, {privacy['cost']} a round"
        )
    if facts["predecessor"]:
        ledger.add_row("goes on from", facts["predecessor"])
    ledger.add_row("round", "retired" if facts["is_retired"] else _describe_round(facts["round"]))
    members = Table(
        Column("Node", overflow="fold"), "Status", "First round", "Agreed to the policy", title="Members"
    )
    for member in facts["members"]:
        agreed = "in public" if member["approved_policy"] else "-"
        members.add_row(member["node"], member["status"], str(member["first_round"] or "-"), agreed)
    # Else rich takes 80 columns where there is no terminal, and breaks digests in two.
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(ledger)
    console.print(members)


def _describe_epoch(facts: dict[str, Any]) -> str:
    now = "none" if facts["epoch"] is None else str(facts["epoch"])
    if facts["key_maker"] is not None:
        return f"{now}; the next one awaited from {facts['key_maker']}"
    return f"{now}, out of date" if facts["epoch"] is not None and facts["is_epoch_stale"] else now


def _describe_round(current: dict[str, Any] | None) -> str:
    if current is None:
        return "none opened"
    text = (
        f"{current['number']}, {current['phase']}: {current['committed']} committed, "
        f"{current['batched']} in a batch, {current['attested']} attested, "
        f"{current['proposed']} in a proposal"
    )
    if current["deadline"]:
        text += f"; until {datetime.fromtimestamp(current['deadline'], UTC):%Y-%m-%d %H:%M:%S} UTC"
    return text
