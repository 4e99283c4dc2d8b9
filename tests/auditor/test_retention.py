"""Updates that the policy lets be deleted are no failure; everything else is checked as before."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from fedproof_aggregator.retention import Retention
from fedproof_aggregator.terms import TermsShelf
from fedproof_aggregator.view import LedgerView
from fedproof_auditor.audit import run_audit
from fedproof_auditor.evidence import fetch_evidence
from fedproof_auditor.report import as_document, describe
from fedproof_auditor.run import Target
from fedproof_auditor.selection import RoundSelection
from web3.types import RPCEndpoint

from fedproof.devchain.backend import DevChain
from fedproof.devchain.journal import Genesis, Journal
from fedproof.devchain.server import DevChainServer
from fedproof.digests import Digest
from fedproof.ledger.client import Ledger
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.events import AggregatePublished, PolicyAdopted, RoundFailed, RoundFinalised
from fedproof.manifest import AggregateManifest
from fedproof.policy import EvidencePolicy
from fedproof.store import ObjectStore
from tests.auditor.test_report import report_of
from tests.auditor.world import RETENTION_DAYS, World, checks_of, first_of

RETENTION_S = RETENTION_DAYS * 86_400


def expiry_of(world: World, number: int) -> int:
    """Return the last second in which a round's updates have to be there."""
    kind = RoundFailed if number == 4 else RoundFinalised
    return world.evidence.timestamps[world.find(kind, round=number).block_number] + RETENTION_S


def delete_update(world: World, store: Path, number: int, *nodes: int) -> None:
    """Delete the chunks of some nodes' updates."""
    for node in nodes:
        for leaf in world.leaves(number, node):
            ObjectStore(store).object_path(leaf).unlink()


def flip(path: Path) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[1000 % len(data)] ^= 1
    path.write_bytes(data)


def test_a_deleted_update_is_excused_from_the_first_second_after_its_retention(
    world: World, store: Path
) -> None:
    """In the last second of the retention it is missing, and so is the sum; a second later neither is."""
    delete_update(world, store, 1, 0)
    last = expiry_of(world, 1)
    audit = world.audit(store, now=last)
    assert (checks_of(audit), audit.deleted) == ({8, 10}, {})
    audit = world.audit(store, now=last + 1)
    assert (audit.findings.failures, audit.deleted) == ([], {1: RETENTION_DAYS})
    assert (audit.updates, audit.chunks, audit.sums) == (9, 16, 2)


def test_updates_that_are_kept_longer_are_added_up(world: World) -> None:
    """Nothing is taken for deleted that is there: the sum is recomputed however late it is."""
    audit = world.audit(now=expiry_of(world, 4) + RETENTION_S)
    assert (audit.findings.failures, audit.deleted, audit.sums) == ([], {}, 3)


def damage_header(world: World, store: Path) -> Path:
    return ObjectStore(store).header_path(world.commitment(1, 0).update_root)


def damage_chunk(world: World, store: Path) -> Path:
    return ObjectStore(store).object_path(world.leaves(1, 1)[0])


def damage_sum(world: World, store: Path) -> Path:
    return ObjectStore(store).object_path(world.sum_leaves(1)[0])


def damage_header_of_sum(world: World, store: Path) -> Path:
    return ObjectStore(store).header_path(world.find(AggregatePublished, round=1).aggregate_root)


@pytest.mark.parametrize(
    ("find", "check", "must_be_there"),
    [
        (damage_header, 7, True),
        (damage_chunk, 8, False),
        (damage_sum, 10, True),
        (damage_header_of_sum, 10, True),
    ],
)
@pytest.mark.parametrize("is_lost", [False, True])
def test_what_is_left_is_checked_as_before(
    world: World,
    store: Path,
    find: Callable[[World, Path], Path],
    check: int,
    must_be_there: bool,
    is_lost: bool,
) -> None:
    """Headers and sum of a round whose updates are deleted must be there; what is there must be right."""
    delete_update(world, store, 1, 0)
    path = find(world, store)
    if is_lost:
        path.unlink()
    else:
        flip(path)
    audit = world.audit(store, now=expiry_of(world, 1) + 1)
    if is_lost and not must_be_there:
        assert audit.findings.failures == []
    else:
        assert (first_of(audit).check, first_of(audit).round) == (check, 1)


def test_a_published_sum_still_names_its_contributors(world: World, store: Path) -> None:
    """Without the updates, the sum's manifest is held against the sealed set all the same."""
    delete_update(world, store, 1, 0, 1, 2)
    published, target = world.find(AggregatePublished, round=1), ObjectStore(store)
    header = target.get_header(published.aggregate_root)
    manifest = AggregateManifest.parse(header.manifest)
    fewer = replace(manifest, contributors=manifest.contributors[:2])
    root = target.put_header(fewer.encode(), [Digest(raw) for raw in header.chunk_digests])
    events = world.change(published, aggregate_root=root)
    audit = world.audit(store, events=events, now=expiry_of(world, 1) + 1)
    assert checks_of(audit) == {10}
    assert first_of(audit).field == "manifest's contributors"


def test_a_later_policy_excuses_nothing(world: World, store: Path) -> None:
    """A round names its policy; one that was adopted afterwards cannot shorten what it promised."""
    delete_update(world, store, 1, 0)
    hasty = replace(world.policy, evidence=EvidencePolicy(retention_days=1))
    adopted, last = world.find(PolicyAdopted), world.evidence.events[-1]
    later = replace(
        adopted,
        block_number=last.block_number,
        transaction_hash=last.transaction_hash,
        log_index=last.log_index + 1,
        version=2,
        policy=replace(adopted.policy, digest=hasty.digest),
        head_model=world.evidence.head_model,
    )
    audit = world.audit(
        store,
        events=(*world.evidence.events, later),
        policies=[world.policy, hasty],
        now=expiry_of(world, 1),
    )
    assert (checks_of(audit), audit.deleted) == ({8, 10}, {})


def test_nothing_of_a_round_that_never_was_sealed_is_said_to_be_deleted(world: World, store: Path) -> None:
    """What is missing of it may never have come; nobody had to keep it."""
    delete_update(world, store, 4, 0)
    audit = world.audit(store, now=expiry_of(world, 4) + 1)
    assert (audit.findings.failures, audit.deleted) == ([], {})


def test_the_report_says_which_sums_were_not_recomputed(world: World, store: Path) -> None:
    """For people in a line, for machines under the round."""
    delete_update(world, store, 1, 0)
    report = report_of(world, world.audit(store, now=expiry_of(world, 1) + 1))
    assert report.holds
    lines = [line for line, _ in describe(report, tick="+", cross="x")]
    assert "round 1: updates deleted after 30 days, as the policy says: sum not recomputed" in lines
    assert sum("deleted" in line for line in lines) == 1
    days = {each["round"]: each["deleted_after_days"] for each in as_document(report)["rounds"]}
    assert days == {1: 30, 2: None, 3: None, 4: None}


@pytest.mark.parametrize(("ahead_s", "counted_s"), [(-1, -1), (0, 0), (1, 0)])
def test_the_earlier_of_two_clocks_counts(world: World, ahead_s: int, counted_s: int) -> None:
    """The store is looked at now, also where an older block is audited; no endpoint makes now any later."""
    newest = world.evidence.block
    evidence = fetch_evidence(
        world.endpoint,
        world.evidence.contract,
        at_block=newest.number - 3,
        from_block=0,
        now=newest.timestamp + ahead_s,
        progress=lambda *_: None,
    )
    assert (evidence.block.number, evidence.now) == (newest.number - 3, newest.timestamp + counted_s)


def test_a_block_dated_ahead_excuses_nothing(world: World, store: Path, tmp_path: Path) -> None:
    """An aggregator that deletes early, on a chain whose newest block is of next year, is found out."""
    delete_update(world, store, 1, 0)
    shutil.copytree(world.folder / "chain", tmp_path / "chain")
    with closing(Journal(tmp_path / "chain", default=Genesis(chain_id=0, timestamp=0))) as journal:
        chain = DevChain(journal.genesis, journal=journal, clock=lambda: time.time() + 365 * 86_400)
        with DevChainServer(chain, port=0, block_time_s=0) as server:
            endpoint = Endpoint.connect(server.url)
            endpoint.web3.provider.make_request(RPCEndpoint("evm_mine"), [])
            report = run_audit(
                Target(rpc_url=server.url, contract=world.evidence.contract, store=store),
                endpoint,
                note="",
                at_block=None,
                selection=RoundSelection(1, 1),
                jobs=1,
                progress=lambda *_: None,
            )
    assert report.block is not None
    assert report.block.timestamp > expiry_of(world, 1)
    assert (checks_of(report.audit), report.audit.deleted) == ({8, 10}, {})


def test_an_end_dated_back_excuses_nothing(world: World, store: Path) -> None:
    """A round whose sum was published in its time, which the hash shows, did not end years before."""
    delete_update(world, store, 1, 0)
    timestamps = {**world.evidence.timestamps, world.find(RoundFinalised, round=1).block_number: 1}
    published = world.evidence.timestamps[world.find(AggregatePublished, round=1).block_number]
    audit = world.audit(store, timestamps=timestamps, now=published + RETENTION_S)
    assert (checks_of(audit), audit.deleted) == ({8, 10}, {})


@pytest.mark.parametrize("name", ["world", "batched", "disputed"])
@pytest.mark.parametrize("is_over", [False, True])
def test_what_the_aggregator_deletes_an_audit_excuses(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_over: bool
) -> None:
    """To the second: both look at the same blocks. What the audit says of the rest stays the same."""
    world: World = request.getfixturevalue(name)
    copy = tmp_path / "copy"
    shutil.copytree(world.store, copy)
    ends = [event for event in world.evidence.events if isinstance(event, RoundFinalised | RoundFailed)]
    now = world.evidence.timestamps[ends[0].block_number] + RETENTION_S + is_over
    ledger, store = Ledger(world.endpoint, world.evidence.contract), ObjectStore(copy)
    newest = replace(ledger.latest_block(), timestamp=now)
    monkeypatch.setattr(ledger, "final_block", lambda _finality: newest)
    retention = Retention(
        ledger,
        view=(view := LedgerView(Ledger(world.endpoint, world.evidence.contract))),
        store=store,
        shelf=TermsShelf(world.policy, store=store),
        finality="latest",
        logger=structlog.get_logger(),
    )
    assert len(list(view.ended_rounds())) == len(ends)
    before = world.audit(copy, now=now)
    retention.delete_expired()
    after = world.audit(copy, now=now)
    assert (1 in retention.expired) == is_over
    assert after.deleted.keys() == retention.expired.keys()
    assert [each for each in after.findings.failures if each not in before.findings.failures] == []
    assert (after.updates, after.chunks < before.chunks) == (before.updates, is_over)
