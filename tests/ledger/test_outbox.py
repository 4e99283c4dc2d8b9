"""The outbox on a chain that loses, delays and reorganises: nothing is sent twice or forgotten."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from fedproof.digests import as_address, checksum_address
from fedproof.errors import ConfigurationError, LedgerError, LedgerUnreachable
from fedproof.ledger.endpoint import Endpoint
from fedproof.ledger.outbox import Outbox
from fedproof.ledger.outbox_file import read_outbox
from fedproof.ledger.sending import SendingRules, SendingState
from fedproof.ledger.signer import KeystoreSigner
from tests.ledger.anvil import Answer, Anvil, Proxy, honest, proxied, until

SOMEBODY = checksum_address(as_address(b"\x77" * 20, "test"))
GWEI = 10**9


@pytest.fixture
def proxy(anvil: Anvil) -> Iterator[Proxy]:
    """A proxy before the chain."""
    with proxied(anvil.url) as proxy:
        yield proxy


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Where something waits for its receipt."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


def open_outbox(
    url: str, account: LocalAccount, path: Path | None = None, *, wait_s: float = 20.0, **rules: Any
) -> Outbox:
    """Return an outbox that waits so long for a receipt, and does not ask twice."""
    endpoint = Endpoint.connect(url, attempts=1, receipt_timeout_s=wait_s)
    return Outbox(endpoint, KeystoreSigner(account), SendingRules(path=path, **rules))


def call(number: int = 0) -> dict[str, str]:
    """Return a call that nobody refuses."""
    return {"to": SOMEBODY, "data": f"0x{number:04x}"}


def count(anvil: Anvil, account: LocalAccount) -> int:
    """Return how many of an account's transactions are mined."""
    return int(anvil.request("eth_getTransactionCount", account.address, "latest"), 16)


def states(outbox: Outbox) -> list[SendingState]:
    """Return what became of everything that was sent."""
    return [sending.state for sending in outbox.sendings()]


def test_a_call_takes_six_requests(proxy: Proxy, wallet: LocalAccount) -> None:
    """In the ordinary case nothing is asked but gas, fees, nonce and receipt."""
    outbox = open_outbox(proxy.url, wallet)
    proxy.requests.clear()
    outbox.send(call(), what="test")
    assert proxy.requests == [
        "eth_estimateGas",
        "eth_getBlockByNumber",
        "eth_maxPriorityFeePerGas",
        "eth_getTransactionCount",
        "eth_sendRawTransaction",
        "eth_getTransactionReceipt",
    ]
    assert states(outbox) == [SendingState.FINAL]


def test_a_key_is_sent_once(anvil: Anvil, wallet: LocalAccount, tmp_path: Path) -> None:
    """The same key is the same transaction, also after a restart; without a key each call is its own."""
    path = tmp_path / "outbox.sqlite"
    first = open_outbox(anvil.url, wallet, path).send(call(), what="test", key="commit 7")
    outbox = open_outbox(anvil.url, wallet, path)
    again = outbox.send(call(), what="test", key="commit 7")
    assert first["transactionHash"] == again["transactionHash"]
    assert count(anvil, wallet) == 1
    outbox.send(call(), what="test", key="commit 8")
    outbox.send(call(), what="test")
    outbox.send(call(), what="test")
    assert count(anvil, wallet) == 4
    assert [sending.nonce for sending in outbox.sendings()] == [0, 1, 2, 3]


@pytest.mark.parametrize("method", ["eth_sendRawTransaction", "eth_getTransactionReceipt"])
@pytest.mark.parametrize("arrives", [False, True])
def test_a_crash_sends_nothing_twice(
    proxy: Proxy, anvil: Anvil, wallet: LocalAccount, tmp_path: Path, *, method: str, arrives: bool
) -> None:
    """Wherever the connection is lost, the next process ends with one transaction of the key."""

    def lose(request: Answer, ask: Callable[[], Answer]) -> Answer | None:
        if request["method"] != method:
            return ask()
        if arrives:
            ask()
        return None

    path = tmp_path / "outbox.sqlite"
    proxy.twist = lose
    outbox = open_outbox(proxy.url, wallet, path, wait_s=0.2)
    with pytest.raises(LedgerUnreachable):
        outbox.send(call(), what="test", key="commit 7")
    (sending,) = outbox.sendings()
    is_handed_over = method == "eth_getTransactionReceipt"
    assert sending.state is (SendingState.PENDING if is_handed_over else SendingState.PREPARED)
    with suppress(LedgerUnreachable):  # a second crash, unless there is nothing left to do
        open_outbox(proxy.url, wallet, path, wait_s=0.2).send(call(), what="test", key="commit 7")

    outbox = open_outbox(anvil.url, wallet, path)
    receipt = outbox.send(call(), what="test", key="commit 7")
    assert bytes(receipt["transactionHash"]) == sending.versions[0].signed.hash
    assert count(anvil, wallet) == 1
    assert states(outbox) == [SendingState.FINAL]


def test_a_gap_is_filled(proxy: Proxy, anvil: Anvil, wallet: LocalAccount, tmp_path: Path) -> None:
    """A call whose process died before it was sent does not hold up those after it."""
    path = tmp_path / "outbox.sqlite"
    proxy.twist = lambda request, ask: None if request["method"] == "eth_sendRawTransaction" else ask()
    with pytest.raises(LedgerUnreachable):
        open_outbox(proxy.url, wallet, path).send(call(1), what="test", key="commit 7")
    outbox = open_outbox(anvil.url, wallet, path)
    assert outbox.send(call(2), what="test", key="attest 7")["status"] == 1
    assert count(anvil, wallet) == 2
    outbox.tend(10**6)
    assert states(outbox) == [SendingState.FINAL, SendingState.FINAL]


def test_a_refused_call_keeps_no_nonce(anvil: Anvil, tmp_path: Path) -> None:
    """What the endpoint does not take leaves its nonce and its key to the next."""
    poor: LocalAccount = Account.create()
    outbox = open_outbox(anvil.url, poor, tmp_path / "outbox.sqlite")
    with pytest.raises(LedgerError, match=r"test: .*(?i:insufficient funds)"):
        outbox.send(call(), what="test", key="commit 7")
    assert states(outbox) == [SendingState.SUPERSEDED]
    anvil.fund(poor.address)
    outbox.send(call(), what="test", key="commit 7")
    assert [sending.nonce for sending in outbox.sendings()] == [0, 0]
    assert states(outbox) == [SendingState.SUPERSEDED, SendingState.FINAL]


def test_a_dropped_transaction_is_sent_again(
    anvil: Anvil, wallet: LocalAccount, threads: ThreadPoolExecutor
) -> None:
    """A pool that forgets a transaction is given it again, the same one."""
    outbox = open_outbox(anvil.url, wallet, replace_after_s=0.2)
    with anvil.mining_by_hand():
        waiting = threads.submit(outbox.send, call(), what="test")
        until(lambda: states(outbox) == [SendingState.PENDING])
        # Before a version of it is replaced, or after.
        dropped = outbox.sendings()[0].versions[-1].signed.hash
        for transaction_hash in anvil.pool():
            anvil.request("anvil_dropTransaction", transaction_hash)
        until(anvil.pool)
        anvil.mine()
    hashes = [version.signed.hash for version in outbox.sendings()[0].versions]
    assert dropped in hashes
    assert bytes(waiting.result()["transactionHash"]) in hashes
    assert count(anvil, wallet) == 1


def test_a_base_fee_that_rises_is_followed(
    anvil: Anvil, wallet: LocalAccount, threads: ThreadPoolExecutor
) -> None:
    """A transaction that became too cheap is replaced under its nonce, each fee an eighth higher or more."""
    outbox = open_outbox(anvil.url, wallet, replace_after_s=0.3)
    with anvil.mining_by_hand():
        waiting = threads.submit(outbox.send, call(), what="test")
        until(lambda: states(outbox) == [SendingState.PENDING])
        cheap = outbox.sendings()[0].versions[-1].fees
        spike = cheap["maxFeePerGas"] + GWEI
        for _ in range(40):
            anvil.request("anvil_setNextBlockBaseFeePerGas", hex(spike))
            anvil.mine()
            if waiting.done():
                break
            known = len(outbox.sendings()[0].versions)
            until(lambda known=known: waiting.done() or len(outbox.sendings()[0].versions) > known)  # type: ignore[misc]
        receipt = waiting.result(timeout=20)
    (sending,) = outbox.sendings()
    assert (sending.state, sending.nonce, count(anvil, wallet)) == (SendingState.FINAL, 0, 1)
    assert bytes(receipt["transactionHash"]) in [version.signed.hash for version in sending.versions]
    assert len(sending.versions) > 1
    fees = [version.fees for version in reversed(sending.versions)]
    for before, after in itertools.pairwise(fees):
        assert all(after[key] * 8 >= before[key] * 9 for key in before)
    anvil.request("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
    anvil.mine()


def test_the_ceiling_is_named(
    anvil: Anvil, wallet: LocalAccount, tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    """Fees stop at the ceiling with an error; the call stays pending, and goes on under a higher one."""
    path = tmp_path / "outbox.sqlite"
    with pytest.raises(LedgerError, match=r"expected at most 0.001 gwei .*max_fee_gwei"):
        open_outbox(anvil.url, wallet, path, max_fee_gwei=0.001).send(call(), what="test", key="commit 7")
    base = int(anvil.request("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
    ceiling = 2 * base / GWEI + 2
    outbox = open_outbox(anvil.url, wallet, path, replace_after_s=0.05, max_fee_gwei=ceiling)
    with anvil.mining_by_hand():
        with pytest.raises(LedgerError, match=r"test: still pending as 0x\w{64}: .*max_fee_gwei"):
            outbox.send(call(), what="test", key="commit 7")
        assert states(outbox) == [SendingState.PENDING]
        outbox = open_outbox(anvil.url, wallet, path, replace_after_s=0.05)
        waiting = threads.submit(outbox.send, call(), what="test", key="commit 7")
        anvil.mine()
        assert waiting.result()["status"] == 1
    assert states(outbox) == [SendingState.FINAL]
    assert count(anvil, wallet) == 1


def test_a_foreign_transaction_takes_the_nonce(
    anvil: Anvil, wallet: LocalAccount, threads: ThreadPoolExecutor
) -> None:
    """The call gets another nonce, but only once the foreign transaction is final."""
    outbox = open_outbox(anvil.url, wallet, replace_after_s=0.1, finality=3)
    foreign = wallet.sign_transaction(
        {**call(9), "value": 0, "chainId": 31337, "nonce": 0, "gas": 50_000, "gasPrice": 400 * GWEI}
    )
    with anvil.mining_by_hand():
        waiting = threads.submit(outbox.send, call(), what="test")
        until(lambda: states(outbox) == [SendingState.PENDING])
        anvil.request("eth_sendRawTransaction", "0x" + foreign.raw_transaction.hex())
        anvil.mine()
        assert anvil.request("eth_getTransactionReceipt", foreign.hash.to_0x_hex()) is not None
        anvil.mine(2)
        assert states(outbox) == [SendingState.PENDING]
    while not waiting.done():
        anvil.mine()
    ours = [sending for sending in outbox.sendings() if sending.state is not SendingState.SUPERSEDED]
    assert len(ours) == 1
    assert bytes(waiting.result()["transactionHash"]) in [version.signed.hash for version in ours[0].versions]
    assert count(anvil, wallet) == len(outbox.sendings())


@pytest.mark.parametrize("depth", [1, 3])
def test_a_reorganised_transaction_is_mined_again(
    anvil: Anvil, wallet: LocalAccount, tmp_path: Path, threads: ThreadPoolExecutor, depth: int
) -> None:
    """What a reorganisation removes is sent again, and returned only once finality covers it."""
    outbox = open_outbox(anvil.url, wallet, tmp_path / "outbox.sqlite", finality=6, replace_after_s=0.1)
    waiting = threads.submit(outbox.send, call(), what="test", key="commit 7")
    until(lambda: states(outbox) == [SendingState.MINED])
    anvil.mine(depth - 1)
    anvil.request("anvil_reorg", depth, [])
    until(lambda: states(outbox) == [SendingState.MINED] and count(anvil, wallet) == 1)
    assert not waiting.done()
    while not waiting.done():
        anvil.mine()
    assert states(outbox) == [SendingState.FINAL]
    transaction = anvil.request("eth_getTransactionReceipt", waiting.result()["transactionHash"].to_0x_hex())
    assert int(transaction["blockNumber"], 16) == outbox.sendings()[0].block
    assert count(anvil, wallet) == 1


def test_what_nobody_waits_for_is_tended(anvil: Anvil, wallet: LocalAccount, tmp_path: Path) -> None:
    """A reorganisation after the receipt is noticed by the next look, also by another process."""
    path = tmp_path / "outbox.sqlite"
    endpoint = Endpoint.connect(anvil.url, receipt_timeout_s=0.2)
    first = Outbox(endpoint, KeystoreSigner(wallet), SendingRules(path=path, finality=2))
    with pytest.raises(LedgerError, match=r"to be final within .* it is mined"):
        first.send(call(), what="test", key="commit 7")
    anvil.request("anvil_reorg", 1, [])
    assert count(anvil, wallet) == 0
    second = open_outbox(anvil.url, wallet, path, finality=2)
    head = int(anvil.request("eth_blockNumber"), 16)
    second.tend(head - 2)
    assert count(anvil, wallet) == 1
    second.tend(head - 1)
    assert states(second) == [SendingState.MINED]
    anvil.mine(2)
    second.tend(head + 1)
    assert states(second) == [SendingState.FINAL]


def test_two_processes_share_a_file(anvil: Anvil, wallet: LocalAccount, tmp_path: Path) -> None:
    """Each nonce is allotted once, whichever process asks, and a common key is one transaction."""
    code = (
        "import sys; from pathlib import Path; from eth_account import Account\n"
        "from tests.ledger.test_outbox import call, open_outbox\n"
        "outbox = open_outbox(sys.argv[1], Account.from_key(sys.argv[2]), Path(sys.argv[3]))\n"
        "for number in range(6):\n"
        "    outbox.send(call(number), what='test')\n"
        "    outbox.send(call(number), what='test', key=f'commit {number}')\n"
    )
    path = tmp_path / "outbox.sqlite"
    command = [sys.executable, "-c", code, anvil.url, wallet.key.hex(), str(path)]
    processes = [
        subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE) for _ in range(2)
    ]
    errors = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert errors == ["", ""]
    sendings = open_outbox(anvil.url, wallet, path).sendings()
    assert sorted(sending.nonce for sending in sendings) == list(range(18))
    assert {sending.state for sending in sendings} == {SendingState.FINAL}
    assert count(anvil, wallet) == 18


def test_what_was_sent_can_be_read_by_others(anvil: Anvil, wallet: LocalAccount, tmp_path: Path) -> None:
    """The file alone tells what was sent, and for whom is not asked."""
    outbox = open_outbox(anvil.url, wallet, tmp_path / "outbox.sqlite")
    outbox.send(call(), what="test", key="commit 7")
    assert read_outbox(tmp_path / "outbox.sqlite") == outbox.sendings()
    with pytest.raises(ConfigurationError, match="found no file"):
        read_outbox(tmp_path / "none.sqlite")


def test_other_files_are_refused(anvil: Anvil, wallet: LocalAccount, tmp_path: Path) -> None:
    """Another wallet's outbox, and what is no outbox, are named."""
    open_outbox(anvil.url, wallet, tmp_path / "outbox.sqlite")
    other: LocalAccount = Account.create()
    with pytest.raises(
        ConfigurationError, match=f"expected the outbox of {other.address} .* {wallet.address}"
    ):
        open_outbox(anvil.url, other, tmp_path / "outbox.sqlite")
    (tmp_path / "text").write_text("no database\n" * 100)
    with pytest.raises(ConfigurationError, match=r"text: expected an outbox \(SQLite\)"):
        open_outbox(anvil.url, wallet, tmp_path / "text")


@pytest.mark.parametrize(
    "method",
    [
        "eth_estimateGas",
        "eth_getBlockByNumber",
        "eth_maxPriorityFeePerGas",
        "eth_getTransactionCount",
        "eth_sendRawTransaction",
        "eth_getTransactionReceipt",
    ],
)
def test_nonsense_is_a_ledger_error(proxy: Proxy, wallet: LocalAccount, method: str) -> None:
    """Whatever an endpoint answers on the way, no other exception leaves the outbox."""
    nonsense: list[object] = [None, "0x", "0xzz", -1, [], {}, "0x" + "f" * 80, {"status": "0x7"}]
    nonsense += [{"transactionHash": "0x" + "11" * 32, "status": "0x1", "blockNumber": "0x1", "logs": 5}]
    told: list[object] = []
    for result in nonsense:

        def twist(request: Answer, ask: Callable[..., Answer], result: object = result) -> Answer | None:
            if request["method"] != method:
                return ask()
            told.append(result)
            return {**ask(), "result": result}

        proxy.twist = honest
        endpoint = Endpoint.connect(proxy.url, attempts=1, receipt_timeout_s=0.01)
        outbox = Outbox(endpoint, KeystoreSigner(wallet), SendingRules())
        proxy.twist = twist
        with suppress(LedgerError):
            outbox.send(call(), what="test")
    assert all(result in told for result in nonsense)


def test_a_receipt_may_leave_out_what_is_null(proxy: Proxy, wallet: LocalAccount) -> None:
    """Only what creates a contract has that contract's address; other receipts need not name it."""

    def shorten(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        answer = ask()
        if request["method"] == "eth_getTransactionReceipt" and answer["result"]:
            answer["result"].pop("contractAddress", None)
        return answer

    proxy.twist = shorten
    assert open_outbox(proxy.url, wallet).send(call(), what="test")["status"] == 1


def test_silence_while_waiting_is_no_news(proxy: Proxy, wallet: LocalAccount) -> None:
    """An endpoint that is away for a moment does not end the wait for a receipt."""
    answers = itertools.count()

    def pause(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        is_away = request["method"] == "eth_getTransactionReceipt" and next(answers) < 3
        return None if is_away else ask()

    proxy.twist = pause
    assert open_outbox(proxy.url, wallet).send(call(), what="test")["status"] == 1
