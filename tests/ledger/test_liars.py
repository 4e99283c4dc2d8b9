"""One of three endpoints lies, and two have to agree: what is sent is neither silenced, doubled nor dear."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount

from fedproof.errors import LedgerError, LedgerUnreachable, Reverted
from fedproof.ledger.endpoints import connect_endpoints
from fedproof.ledger.outbox import Outbox
from fedproof.ledger.sending import SendingRules, SendingState
from fedproof.ledger.signer import KeystoreSigner
from tests.ledger.anvil import (
    Answer,
    Anvil,
    Proxy,
    Twist,
    fail,
    honest,
    make_liar_in_fees,
    make_liar_in_receipts,
    proxied,
)
from tests.ledger.test_outbox import GWEI, SOMEBODY, call, count, states

REVERTING = "0x60006000fd"  # PUSH1 0 PUSH1 0 REVERT


@pytest.fixture
def proxies(anvil: Anvil) -> Iterator[list[Proxy]]:
    """Three endpoints of one chain."""
    with ExitStack() as stack:
        yield [stack.enter_context(proxied(anvil.url)) for _ in range(3)]


def open_outbox(
    proxies: list[Proxy],
    wallet: LocalAccount,
    path: Path | None = None,
    *,
    agreement: int = 2,
    wait_s: float = 20.0,
    **rules: Any,
) -> Outbox:
    """Return an outbox through all of them, which waits so long for a receipt."""
    urls = [proxy.url for proxy in proxies]
    endpoint = connect_endpoints(urls, agreement=agreement, timeout_s=2, attempts=2, receipt_timeout_s=wait_s)
    return Outbox(endpoint, KeystoreSigner(wallet), SendingRules(path=path, **rules))


def find_receipt(anvil: Anvil, receipt: Any) -> Answer:
    """Return what the chain itself says of a receipt's transaction."""
    found: Answer = anvil.request("eth_getTransactionReceipt", receipt["transactionHash"].to_0x_hex())
    return found


@pytest.mark.parametrize("liar", [0, 1, 2])
def test_one_liar_silences_nobody(
    anvil: Anvil, proxies: list[Proxy], wallet: LocalAccount, liar: int
) -> None:
    """Fees that the others refuse, and a receipt for what they never got: the call is on the chain still."""
    outbox = open_outbox(proxies, wallet)
    cheapen, swallow = make_liar_in_fees(base_fee=0, tip=0), make_liar_in_receipts(1)

    def silence(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        return swallow(request, lambda other=request: cheapen(other, lambda: ask(other)))  # type: ignore[misc]

    proxies[liar].twist = silence
    receipt = outbox.send(call(), what="test")
    assert find_receipt(anvil, receipt)["status"] == "0x1"
    assert count(anvil, wallet) == 1


@pytest.mark.parametrize("liar", [0, 1, 2])
def test_an_invented_receipt_is_not_believed(
    anvil: Anvil, proxies: list[Proxy], wallet: LocalAccount, liar: int
) -> None:
    """A transaction that one endpoint swallows and calls mined goes to the others, and is mined there."""
    outbox = open_outbox(proxies, wallet)
    proxies[liar].twist = make_liar_in_receipts(1)
    receipt = outbox.send(call(), what="test")
    assert find_receipt(anvil, receipt)["blockHash"] == receipt["blockHash"].to_0x_hex()
    assert count(anvil, wallet) == 1
    assert states(outbox) == [SendingState.FINAL]


def test_who_took_it_alone_does_not_end_the_sending(
    anvil: Anvil, proxies: list[Proxy], wallet: LocalAccount, tmp_path: Path
) -> None:
    """While one endpoint has a transaction and the others refuse it, it is offered to them at each look."""

    def refuse(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        if request["method"] != "eth_sendRawTransaction":
            return ask()
        return {"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "transaction underpriced"}}

    outbox = open_outbox(proxies, wallet, tmp_path / "outbox.sqlite", replace_after_s=600, wait_s=1.5)
    proxies[0].twist = make_liar_in_receipts(1)
    proxies[1].twist = proxies[2].twist = refuse
    with pytest.raises(LedgerError, match="to be mined within 2 s, it was not: it is prepared"):
        outbox.send(call(), what="test", key="commit 7")
    assert states(outbox) == [SendingState.PREPARED]
    assert proxies[1].requests.count("eth_sendRawTransaction") > 3
    proxies[1].twist = proxies[2].twist = honest
    outbox.tend(0)
    assert count(anvil, wallet) == 1
    assert outbox.send(call(), what="test", key="commit 7")["status"] == 1
    assert count(anvil, wallet) == 1


def test_an_invented_refusal_is_not_believed(
    anvil: Anvil, proxies: list[Proxy], wallet: LocalAccount, tmp_path: Path
) -> None:
    """What one endpoint says to have reverted gets no second nonce."""
    outbox = open_outbox(proxies, wallet, tmp_path / "outbox.sqlite")
    proxies[0].twist = make_liar_in_receipts(0)
    hashes = {outbox.send(call(), what="test", key="commit 7")["transactionHash"] for _ in range(2)}
    assert len(hashes) == 1
    assert count(anvil, wallet) == 1
    assert states(outbox) == [SendingState.FINAL]


@pytest.mark.parametrize(("base_fee", "tip"), [(0, 0), (GWEI, 450 * GWEI)])
@pytest.mark.parametrize("liar", [0, 1, 2])
def test_invented_fees_are_not_offered(
    anvil: Anvil, proxies: list[Proxy], wallet: LocalAccount, *, base_fee: int, tip: int, liar: int
) -> None:
    """One endpoint makes a transaction neither so cheap that the others refuse it, nor dear."""
    honest_tip = int(anvil.request("eth_maxPriorityFeePerGas"), 16)
    proxies[liar].twist = make_liar_in_fees(base_fee=base_fee, tip=tip)
    outbox = open_outbox(proxies, wallet)
    outbox.send(call(), what="test")
    (sending,) = outbox.sendings()
    (version,) = sending.versions
    assert version.fees["maxPriorityFeePerGas"] == honest_tip
    assert version.fees["maxFeePerGas"] > honest_tip


def test_the_tip_has_a_ceiling(proxies: list[Proxy], wallet: LocalAccount) -> None:
    """Where nobody contradicts, a tip beyond the ceiling is an error that names the key."""
    proxies[0].twist = make_liar_in_fees(base_fee=GWEI, tip=3 * GWEI)
    outbox = open_outbox(proxies[:1], wallet, agreement=1, max_tip_gwei=2.5)
    with pytest.raises(LedgerError, match=r"tip: expected at most 2.5 gwei .*\(max_tip_gwei\), got 3"):
        outbox.send(call(), what="test")
    assert states(outbox) == []
    outbox = open_outbox(proxies[:1], wallet, agreement=1, max_tip_gwei=3.0)
    assert outbox.send(call(), what="test")["status"] == 1


@pytest.mark.parametrize("gas", [5_000, 10**9])
def test_an_invented_estimate_is_not_used(proxies: list[Proxy], wallet: LocalAccount, gas: int) -> None:
    """One endpoint's gas neither makes a transaction run out of it, nor too large for a block, ever."""

    def misjudge(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        return {**ask(), "result": hex(gas)} if request["method"] == "eth_estimateGas" else ask()

    proxies[0].twist = misjudge
    assert open_outbox(proxies, wallet).send(call(), what="test")["status"] == 1
    outbox = open_outbox(proxies[:2], wallet)
    with pytest.raises(LedgerError, match="expected 2 endpoints to name about the same gas, got"):
        outbox.send(call(), what="test")
    assert states(outbox) == []


def test_a_refusal_needs_agreement(anvil: Anvil, proxies: list[Proxy], wallet: LocalAccount) -> None:
    """What one endpoint says the contract refuses is sent; what two say so of is refused."""

    def refuse(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        if request["method"] != "eth_estimateGas":
            return ask()
        error = {"code": 3, "message": "execution reverted", "data": "0x"}
        return {"jsonrpc": "2.0", "id": request["id"], "error": error}

    proxies[0].twist = refuse
    assert open_outbox(proxies, wallet).send(call(), what="test")["status"] == 1
    proxies[1].twist = refuse
    with pytest.raises(Reverted):
        open_outbox(proxies, wallet).send(call(), what="test")
    assert count(anvil, wallet) == 1


def refuse_with(reason: str | None) -> Twist:
    """Return a twist that refuses with Error(reason), or without data, as some endpoints do."""
    data = {} if reason is None else {"data": "0x08c379a0" + encode(["string"], [reason]).hex()}

    def refuse(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        if request["method"] != "eth_estimateGas":
            return ask()
        error = {"code": 3, "message": "execution reverted", **data}
        return {"jsonrpc": "2.0", "id": request["id"], "error": error}

    return refuse


def test_receipts_agree_on_what_a_call_creates(proxies: list[Proxy], wallet: LocalAccount) -> None:
    """A call creates no contract, whether an endpoint says so with null, with zeros, or not at all."""

    def name_none(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        answer = ask()
        if request["method"] == "eth_getTransactionReceipt" and answer["result"]:
            answer["result"]["contractAddress"] = "0x" + "00" * 20
        return answer

    proxies[0].twist, proxies[1].twist = fail, name_none
    assert open_outbox(proxies, wallet, wait_s=5.0).send(call(), what="test")["status"] == 1


def fail_once_each() -> Twist:
    """Return a twist that fails the first time that it is asked for something."""
    seen: set[str] = set()

    def hiccup(request: Answer, ask: Callable[..., Answer]) -> Answer | None:
        is_first = request["method"] not in seen
        seen.add(request["method"])
        return None if is_first else ask()

    return hiccup


def test_a_refusal_without_a_reason_agrees_with_any(proxies: list[Proxy], wallet: LocalAccount) -> None:
    """Endpoints that pass the reason on and those that do not refuse the same; most give the reason."""
    proxies[0].twist, proxies[1].twist, proxies[2].twist = refuse_with("closed"), refuse_with(None), fail
    with pytest.raises(Reverted, match="closed"):
        open_outbox(proxies, wallet).send(call(), what="test")
    proxies[2].twist = refuse_with("open")
    with pytest.raises(Reverted) as refused:
        open_outbox(proxies, wallet).send(call(), what="test")
    assert refused.value.arguments == {}
    proxies[1].twist = refuse_with("open")
    with pytest.raises(Reverted, match="open"):
        open_outbox(proxies, wallet).send(call(), what="test")


def test_a_hiccup_beside_an_outage_ends_no_sending(
    anvil: Anvil, proxies: list[Proxy], wallet: LocalAccount
) -> None:
    """With one of three away, the others may each fail once at each kind of request."""
    outbox = open_outbox(proxies, wallet)
    proxies[0].twist = fail
    for proxy in proxies[1:]:
        proxy.twist = fail_once_each()
    assert outbox.send(call(), what="test")["status"] == 1
    assert count(anvil, wallet) == 1


def test_what_all_refuse_is_no_outage(proxies: list[Proxy]) -> None:
    """A wallet without money is told so, also where one endpoint is away; with two away, that is said."""
    poor: LocalAccount = Account.create()
    outbox = open_outbox(proxies, poor)
    proxies[0].twist = fail
    with pytest.raises(LedgerError, match=r"(?i)insufficient funds") as refused:
        outbox.send({**call(), "value": 1}, what="test")
    assert not isinstance(refused.value, LedgerUnreachable)
    proxies[1].twist = fail
    with pytest.raises(LedgerUnreachable):
        outbox.send(call(), what="test")


def test_a_transaction_that_reverts_is_watched_until_it_is_final(
    anvil: Anvil, proxies: list[Proxy], wallet: LocalAccount, tmp_path: Path
) -> None:
    """A refusal in a block that goes may be none in the next: until finality, its nonce stays the call's."""
    outbox = open_outbox(proxies, wallet, tmp_path / "outbox.sqlite", finality=2, wait_s=0.4)
    with anvil.mining_by_hand():
        with pytest.raises(LedgerError, match="it was not: it is pending"):
            outbox.send(call(), what="test", key="commit 7")
        anvil.request("anvil_setCode", SOMEBODY, REVERTING)
        anvil.mine()
    with pytest.raises(LedgerError, match="it was not: it is mined"):
        outbox.send(call(), what="test", key="commit 7")
    anvil.mine(2)
    with pytest.raises(Reverted):
        outbox.send(call(), what="test", key="commit 7")
    anvil.request("anvil_setCode", SOMEBODY, "0x")
    assert states(outbox) == [SendingState.REVERTED]
    assert count(anvil, wallet) == 1
