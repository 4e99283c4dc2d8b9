"""The watch over what was sent, where a chain misses nonces, a wallet lacks money, and processes differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from fedproof.errors import LedgerError, TransactionRefused
from fedproof.ledger.endpoints import connect_endpoints
from fedproof.ledger.outbox import Outbox
from fedproof.ledger.sending import SendingState
from fedproof.ledger.signer import KeystoreSigner
from tests.ledger.anvil import Answer, Anvil, Proxy, Twist, honest, lie_in_nonce, proxied, until
from tests.ledger.test_outbox import GWEI, call, count, open_outbox, states

FINAL, MINED = SendingState.FINAL, SendingState.MINED


@pytest.fixture
def proxy(anvil: Anvil) -> Iterator[Proxy]:
    """A proxy before the chain."""
    with proxied(anvil.url) as proxy:
        yield proxy


def settle(outbox: Outbox) -> None:
    """Wait as a command does before it sends."""
    outbox.settle(lambda _: None)


def answer_to_sending(message: str, *, is_kept: bool) -> Twist:
    """Return a twist that answers what is sent with an error, after it was taken or without that."""

    def refuse(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        if request["method"] != "eth_sendRawTransaction":
            return ask()
        if is_kept:
            ask()
        return {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32002, "message": message}}

    return refuse


# An error is no proof that nothing arrived


@pytest.mark.parametrize("message", ["request timed out", "internal error", "insufficient funds"])
def test_what_arrived_in_spite_of_an_error_is_awaited(
    proxy: Proxy, anvil: Anvil, wallet: LocalAccount, tmp_path: Path, message: str
) -> None:
    """An endpoint that has the transaction, whatever it answered, ends neither the sending nor its key."""
    proxy.twist = answer_to_sending(message, is_kept=True)
    outbox = open_outbox(proxy.url, wallet, tmp_path / "outbox.sqlite")
    for _ in range(2):
        assert outbox.send(call(), what="test", key="commit 7")["status"] == 1
    assert states(outbox) == [FINAL]
    assert count(anvil, wallet) == 1


def test_what_may_have_arrived_keeps_its_nonce(
    proxy: Proxy, anvil: Anvil, wallet: LocalAccount, tmp_path: Path
) -> None:
    """Where nobody shows a transaction that met an error, which is no refusal, it is the call's still."""
    keep = answer_to_sending("request timed out", is_kept=True)

    def hide(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        if request["method"] == "eth_getTransactionByHash":
            return {"jsonrpc": "2.0", "id": request["id"], "result": None}
        return keep(request, ask)

    proxy.twist = hide
    outbox = open_outbox(proxy.url, wallet, tmp_path / "outbox.sqlite")
    with pytest.raises(LedgerError, match="test: request timed out; it may have arrived all the same"):
        outbox.send(call(), what="test", key="commit 7")
    assert states(outbox) == [SendingState.PREPARED]
    assert outbox.send(call(), what="test", key="commit 7")["status"] == 1
    assert count(anvil, wallet) == 1


def test_one_refusal_beside_an_error_is_no_refusal(anvil: Anvil, wallet: LocalAccount) -> None:
    """Every endpoint has to refuse: what one of them answers with a time-out may be on its way."""
    with proxied(anvil.url) as first, proxied(anvil.url) as second:
        endpoint = connect_endpoints([first.url, second.url], agreement=1, attempts=1)
        outbox = Outbox(endpoint, KeystoreSigner(wallet))
        first.twist = answer_to_sending("insufficient funds", is_kept=False)
        second.twist = answer_to_sending("request timed out", is_kept=False)
        with pytest.raises(LedgerError, match="it may have arrived all the same"):
            outbox.send(call(), what="test", key="commit 7")
        assert states(outbox) == [SendingState.PREPARED]
        second.twist = honest
        assert outbox.send(call(), what="test", key="commit 7")["status"] == 1
    assert count(anvil, wallet) == 1


def test_an_unknown_type_is_a_refusal(proxy: Proxy, wallet: LocalAccount) -> None:
    """'unknown transaction type 2' does not say 'known transaction'."""
    proxy.twist = answer_to_sending("unknown transaction type 2", is_kept=False)
    outbox = open_outbox(proxy.url, wallet)
    with pytest.raises(TransactionRefused, match="unknown transaction type 2"):
        outbox.send(call(), what="test")
    assert states(outbox) == [SendingState.SUPERSEDED]


# One file, several processes


@pytest.mark.parametrize("is_settled", [True, False])
def test_a_command_ends_no_watch_of_a_daemon(
    anvil: Anvil, wallet: LocalAccount, tmp_path: Path, *, is_settled: bool
) -> None:
    """A command, for which every block counts, leaves a daemon's transaction mined until its own do."""
    path = tmp_path / "outbox.sqlite"
    daemon = open_outbox(anvil.url, wallet, path, wait_s=0.2, finality=20)
    with pytest.raises(LedgerError, match="to be final within"):
        daemon.send(call(), what="test", key="commit 7")
    command = open_outbox(anvil.url, wallet, path)
    if is_settled:
        settle(command)
    else:
        assert command.send(call(), what="test", key="commit 7")["status"] == 1
    command.tend(10**6)
    assert states(daemon) == [MINED]
    anvil.request("anvil_reorg", 1, [])
    assert count(anvil, wallet) == 0
    daemon.tend(0)
    assert count(anvil, wallet) == 1
    anvil.mine(20)
    daemon.tend(int(anvil.request("eth_blockNumber"), 16) - 20)
    assert states(daemon) == [FINAL]


def test_a_daemon_waits_by_its_own_finality(anvil: Anvil, wallet: LocalAccount, tmp_path: Path) -> None:
    """What a command sent and calls final is returned to a daemon only once its blocks count for that."""
    path = tmp_path / "outbox.sqlite"
    open_outbox(anvil.url, wallet, path).send(call(), what="test", key="seal 7")
    daemon = open_outbox(anvil.url, wallet, path, wait_s=0.2, finality=20)
    with pytest.raises(LedgerError, match="to be final within"):
        daemon.send(call(), what="test", key="seal 7")
    anvil.mine(20)
    assert daemon.send(call(), what="test", key="seal 7")["status"] == 1


# Nonces that the chain misses


def test_a_nonce_that_a_foreign_transaction_left_is_filled(
    anvil: Anvil, wallet: LocalAccount, tmp_path: Path
) -> None:
    """A transaction behind one that the pool then drops is mined, and commands go on."""
    path = tmp_path / "outbox.sqlite"
    foreign = wallet.sign_transaction(
        {**call(9), "value": 0, "chainId": 31337, "nonce": 0, "gas": 50_000, "gasPrice": 3 * GWEI}
    )
    with anvil.mining_by_hand():
        pending = anvil.request("eth_sendRawTransaction", "0x" + foreign.raw_transaction.hex())
        with pytest.raises(LedgerError, match="it was not: it is pending"):
            open_outbox(anvil.url, wallet, path, wait_s=0.1).send(call(), what="test", key="commit 7")
        anvil.request("anvil_dropTransaction", pending)
    outbox = open_outbox(anvil.url, wallet, path, replace_after_s=0.1)
    settle(outbox)
    assert outbox.send(call(), what="test", key="commit 7")["status"] == 1
    settle(outbox)
    assert [(each.nonce, each.state) for each in outbox.sendings()] == [(1, FINAL), (0, FINAL)]
    assert outbox.sendings()[1].what == f"fill nonce 0 by {wallet.address}"
    assert count(anvil, wallet) == 2


def test_nonces_are_filled_once(proxy: Proxy, anvil: Anvil, wallet: LocalAccount, tmp_path: Path) -> None:
    """What an endpoint left that claimed nonces is filled by one of several processes that wait."""
    path = tmp_path / "outbox.sqlite"
    proxy.twist = lie_in_nonce
    with pytest.raises(LedgerError, match="it was not"):
        open_outbox(proxy.url, wallet, path, wait_s=0.1).send(call(), what="test", key="commit 7")
    outboxes = [open_outbox(anvil.url, wallet, path, replace_after_s=0.1) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        receipts = list(pool.map(lambda each: each.send(call(), what="test", key="commit 7"), outboxes))
    assert len({receipt["transactionHash"] for receipt in receipts}) == 1
    settle(outboxes[0])
    assert sorted(each.nonce for each in outboxes[0].sendings()) == [0, 1, 2, 3]
    assert set(states(outboxes[0])) == {FINAL}
    assert count(anvil, wallet) == 4


def test_a_nonce_that_was_refused_is_filled(
    proxy: Proxy, anvil: Anvil, wallet: LocalAccount, tmp_path: Path
) -> None:
    """A call whose nonce was given up does not hold up one of another process that came after it."""
    path = tmp_path / "outbox.sqlite"
    refuse = answer_to_sending("insufficient funds", is_kept=False)
    later = open_outbox(proxy.url, wallet, path, replace_after_s=0.1)
    with ThreadPoolExecutor(1) as pool:
        waiting = []

        def refuse_first(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
            first = later.sendings()[0].versions[0].signed.raw if later.sendings() else b""
            if request["params"][:1] != ["0x" + first.hex()]:
                return ask()
            if not waiting:
                waiting.append(pool.submit(later.send, call(2), what="test", key="second"))
                until(lambda: SendingState.PENDING in states(later))
            return refuse(request, ask)

        proxy.twist = refuse_first
        with pytest.raises(TransactionRefused):
            open_outbox(proxy.url, wallet, path).send(call(1), what="test", key="first")
        assert waiting[0].result()["status"] == 1
    assert [each.nonce for each in later.sendings()] == [0, 1, 0]
    assert count(anvil, wallet) == 2


def test_too_many_nonces_are_not_filled(proxy: Proxy, anvil: Anvil, wallet: LocalAccount) -> None:
    """A liar that claims many does not make the wallet pay for each; the error names the first missing."""

    def exaggerate_once(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        answer = ask()
        if request["method"] != "eth_getTransactionCount":
            return answer
        proxy.twist = honest
        return {**answer, "result": "0x11"}

    proxy.twist = exaggerate_once
    outbox = open_outbox(proxy.url, wallet, replace_after_s=0.1)
    with pytest.raises(LedgerError, match=r"expected at most 16 nonces .* from the next, 0, to 17, got more"):
        outbox.send(call(), what="test", key="commit 7")
    assert count(anvil, wallet) == 0


def test_a_final_transaction_whose_block_went_is_no_gap(
    anvil: Anvil, wallet: LocalAccount, tmp_path: Path
) -> None:
    """What a command took for final, and the chain dropped, is sent again before what comes after it."""
    path = tmp_path / "outbox.sqlite"
    outbox = open_outbox(anvil.url, wallet, path, wait_s=5.0, replace_after_s=0.1)
    outbox.send(call(1), what="test", key="first")
    with anvil.mining_by_hand():
        with pytest.raises(LedgerError, match="it was not: it is pending"):
            open_outbox(anvil.url, wallet, path, wait_s=0.1).send(call(2), what="test", key="second")
        anvil.request("anvil_reorg", 1, [])
    assert count(anvil, wallet) == 0
    settle(outbox)
    assert count(anvil, wallet) == 2
    assert [each.key for each in outbox.sendings()] == ["first", "second"]


# Fees


def test_a_replacement_beyond_the_wallet_ends_nothing(anvil: Anvil, tmp_path: Path) -> None:
    """Fees that cannot be paid leave the version before in its place, also after the pool lost it."""
    poor: LocalAccount = Account.create()
    path = tmp_path / "outbox.sqlite"
    anvil.fund(poor.address)
    outbox = open_outbox(anvil.url, poor, path, wait_s=1.5, replace_after_s=0.1)
    with anvil.mining_by_hand():
        with pytest.raises(LedgerError, match="it was not: it is pending"):
            open_outbox(anvil.url, poor, path, wait_s=0.1).send(call(), what="test", key="commit 7")
        (first,) = outbox.sendings()[0].versions
        cost = outbox.sendings()[0].call["gas"] * first.fees["maxFeePerGas"]
        anvil.request("anvil_setBalance", poor.address, hex(cost))
        with pytest.raises(LedgerError, match="it was not: it is pending"):
            outbox.send(call(), what="test", key="commit 7")
        assert len(outbox.sendings()[0].versions) == 2  # no third one, which would be dearer still
        anvil.request("anvil_dropAllTransactions")
    receipt = open_outbox(anvil.url, poor, path).send(call(), what="test", key="commit 7")
    assert bytes(receipt["transactionHash"]) == first.signed.hash


def test_a_clock_that_was_ahead_holds_nothing_up(
    anvil: Anvil, wallet: LocalAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that was signed tomorrow is replaced today."""
    outbox = open_outbox(anvil.url, wallet, wait_s=1.0, replace_after_s=0.1)
    tomorrow = time.time() + 86_400
    with anvil.mining_by_hand():
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: tomorrow)
            with pytest.raises(LedgerError, match="it was not: it is pending"):
                outbox.send(call(), what="test", key="commit 7")
        known = len(outbox.sendings()[0].versions)
        with pytest.raises(LedgerError, match="it was not: it is pending"):
            outbox.send(call(), what="test", key="commit 7")
        assert len(outbox.sendings()[0].versions) > known
