"""What the doctor says of `finality`: on a chain that may drop blocks, and against the policy's windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from structlog import get_logger
from structlog.testing import capture_logs

from fedproof.config import AddressBook
from fedproof.digests import as_address, checksum_address
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import deploy_federation
from fedproof.ledger.doctor import Finding, examine, examine_finality, warn_about_finality
from fedproof.ledger.endpoints import connect_endpoints
from fedproof.ledger.events import DEFAULT_ADMIN_ROLE
from fedproof.ledger.finality import Finality
from tests.chain import Federation, MemoryChain, make_account
from tests.foundry import run_anvil
from tests.ledger.anvil import Answer, Anvil, proxied
from tests.office import write_policy

ADMIN = make_account(1)
AT_ONCE: list[Finality] = ["latest", 0]


@pytest.fixture(scope="module", params=[424242, 31337])
def anvil(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anvil]:
    """A chain whose blocks are final once two others follow: one like any other, and one for development."""
    options = ("--slots-in-an-epoch", "1", "--chain-id", str(request.param))
    with run_anvil(tmp_path_factory.mktemp("anvil"), *options) as url:
        anvil = Anvil(url)
        anvil.fund(ADMIN.address)
        yield anvil
        anvil.close()


@pytest.fixture
def ledger(anvil: Anvil, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A federation with a policy."""
    folder = tmp_path_factory.mktemp("federation")
    aggregator = as_address(ADMIN.address, "test")
    book = deploy_federation(anvil.url, ADMIN, aggregator=aggregator, output=folder / "book.json")
    ledger = Ledger.connect(anvil.url, book.contract, account=ADMIN)
    ledger.adopt_policy(write_policy(folder / "policy.toml"))
    return ledger


def look(ledger: Ledger, finality: Finality) -> dict[str, Finding]:
    """Return the findings by their names."""
    return {finding.check: finding for finding in examine_finality(ledger, finality)}


def mine_each_second(federation: Federation) -> None:
    """Mine as many blocks as are measured, each a second after the one before."""
    # Ahead of this machine's clock, where nothing but the last block's time decides about the next one's.
    federation.chain.travel_to(federation.admin.latest_block().timestamp + 10_000)
    federation.chain.mine(101)


def name_windows(finding: Finding) -> list[str]:
    """Return the windows that a finding names as too short."""
    assert finding.is_fine is ("too late" not in finding.found)
    return [name for name in ("commit", "aggregate", "attest") if f"{name}_window_s = " in finding.found]


@pytest.mark.parametrize(
    ("depth", "short"),
    [
        (50, []),
        (51, ["attest"]),
        (75, ["attest"]),
        (76, ["aggregate", "attest"]),
        (151, ["commit", "aggregate", "attest"]),
    ],
)
def test_a_window_has_room_for_four_times_the_lag(
    federation: Federation, depth: int, short: list[str]
) -> None:
    """With a block each second and windows of 600, 300 and 200 s: enough is fine, a block more is not."""
    mine_each_second(federation)
    finding = look(federation.admin, depth)["windows"]
    assert name_windows(finding) == short
    assert f"finality = {depth}: a block counts after {depth} s" in finding.found
    if short:
        assert f"at least {4 * depth} s" in finding.advice
        assert "fewer blocks" in finding.advice


@pytest.mark.parametrize("finality", AT_ONCE)
def test_nothing_waits_where_blocks_count_at_once(federation: Federation, finality: Finality) -> None:
    """On a chain that calls its newest block final, acting on it is fine, and no window is too short."""
    findings = look(federation.admin, finality)
    assert [finding.is_fine for finding in findings.values()] == [True, True]
    assert "shortest window is 200 s" in findings["windows"].found


def test_without_a_policy_the_need_is_told() -> None:
    """Before a policy is adopted nothing is too short, and what its windows will need is there to read."""
    federation = Federation(MemoryChain())
    mine_each_second(federation)
    finding = look(federation.admin, 30)["windows"]
    assert finding.is_fine
    assert "no policy is adopted yet, whose windows need 120 s" in finding.found


def test_the_chains_own_finality_is_measured(anvil: Anvil, ledger: Ledger) -> None:
    """With "finalized", two blocks of 7 s leave room within windows of 60 s, and two of 8 s do not."""
    for block_time_s, short in ((7, []), (8, ["commit", "aggregate", "attest"])):
        anvil.request("anvil_setBlockTimestampInterval", block_time_s)
        anvil.mine(3)
        findings = look(ledger, "finalized")
        assert findings["finality"].is_fine
        assert name_windows(findings["windows"]) == short


def test_the_newest_block_counts_only_for_development(anvil: Anvil, ledger: Ledger) -> None:
    """Where blocks are final later, acting on the newest is wrong, but for a development chain."""
    for finality in AT_ONCE:
        finding, *others = examine_finality(ledger, finality)
        assert finding.is_fine is (ledger.chain_id == 31337)
        assert bool(others) is finding.is_fine
        assert "2 before the newest" in finding.found
        assert 'a number of blocks or to "finalized"' in finding.advice


def test_a_chain_may_name_no_final_block(anvil: Anvil, ledger: Ledger) -> None:
    """Then only a number of blocks is fine, and on a development chain the newest block."""

    def name_none(request: Answer, ask: Callable[..., Answer]) -> Answer:
        if request["params"][:1] == ["finalized"]:
            return {"jsonrpc": "2.0", "id": request["id"], "result": None}
        return ask()

    with proxied(anvil.url) as proxy:
        proxy.twist = name_none
        blind = Ledger.connect(proxy.url, ledger.contract)
        expected: dict[Finality, bool] = {
            "latest": blind.chain_id == 31337,
            "finalized": False,
            3: True,
        }
        for finality, is_fine in expected.items():
            finding = look(blind, finality)["finality"]
            assert finding.is_fine is is_fine
            assert is_fine or "names no finalized block" in finding.found
            assert is_fine or finding.advice.endswith("to a number of blocks")


@pytest.mark.parametrize("balance", ["0x0", None, "0x" + "f" * 65, True])
def test_a_balance_needs_agreement(anvil: Anvil, ledger: Ledger, balance: object) -> None:
    """One of three endpoints makes nobody poor, and an account of the whole chain's ether is no error."""

    def misname(request: Answer, ask: Callable[..., Answer]) -> Answer:
        return {**ask(), "result": balance} if request["method"] == "eth_getBalance" else ask()

    account = as_address(ADMIN.address, "test")
    anvil.request("anvil_setBalance", ADMIN.address, "0x" + "f" * 64)
    with ExitStack() as stack:
        proxies = [stack.enter_context(proxied(anvil.url)) for _ in range(3)]
        proxies[0].twist = misname
        endpoint = connect_endpoints([proxy.url for proxy in proxies], agreement=2, attempts=1)
        book = AddressBook(
            chain_id=ledger.chain_id, contract=ledger.contract, admin=account, aggregator=account, block=0
        )
        findings = [finding for finding in examine(book, endpoint, [account]) if finding.check == "balance"]
    assert [finding.is_fine for finding in findings] == [True]


def test_a_multisig_wallet_needs_no_ether(federation: Federation) -> None:
    """Who calls a contract that holds a role pays for it; an account without code has to pay itself."""
    admin = federation.admin
    poor = as_address("0x" + "77" * 20, "test")
    for account in (admin.contract, poor):
        admin.grant_role(DEFAULT_ADMIN_ROLE, account)
    book = AddressBook(
        chain_id=admin.chain_id,
        contract=admin.contract,
        admin=admin.address,
        aggregator=federation.aggregator.address,
        block=0,
    )
    findings = [each for each in examine(book, federation.chain.endpoint, []) if each.check == "balance"]
    assert [each.is_fine for each in findings if checksum_address(poor) in each.found] == [False]
    assert not [each for each in findings if checksum_address(admin.contract) in each.found]


def test_a_daemon_warns_once(federation: Federation) -> None:
    """What is wrong goes to the log in one line, with what to do; what is fine does not."""
    mine_each_second(federation)
    for depth, count in ((50, 0), (51, 1)):
        with capture_logs() as logs:
            warn_about_finality(federation.admin, depth, get_logger())
        assert [(log["event"], log["log_level"]) for log in logs] == [("finality_unfit", "warning")] * count
    assert "attest_window_s = 200" in logs[0]["found"]
    assert "at least 204 s" in logs[0]["advice"]
