"""The methods, as clients meet them."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from web3 import HTTPProvider, Web3
from web3.exceptions import ContractCustomError, ContractLogicError, Web3RPCError

# Runtime bytecode, assembled by hand.
REVERT_WITH_CALLDATA = "365f5f37365ffd"  # calldatacopy(0, 0, calldatasize) revert(0, calldatasize)
LOG_TWO_TOPICS = "365f5f376020355f35365fa200"  # log2(whole calldata, word 0, word 1)
LOG_NO_TOPIC = "5f5fa000"
STORE_WORD = "5f355f5500"  # sstore(0, word 0)
STORE_RANDOMNESS = "445f5500"  # sstore(0, prevrandao)
ENVIRONMENT = "425f524360205246604052" + "60605ff3"  # timestamp, number, chainid
INVALID = "fe"
ONE, TWO = "0x" + "11" * 20, "0x" + "22" * 20


def word(number: int) -> str:
    """Return 32 bytes in hex, without 0x."""
    return f"{number:064x}"


def test_serves_a_web3_client(world: Any) -> None:
    """web3.py reads the chain, sends a transaction, and gets its receipt and its block, all typed."""
    with_web3 = Web3(HTTPProvider(world.server.url))
    assert with_web3.eth.chain_id == 31337
    assert with_web3.net.version == "31337"
    assert with_web3.client_version.startswith("fedproof-devchain/")
    assert with_web3.eth.get_balance(world.account.address) == 10_000 * 10**18

    transaction_hash = with_web3.eth.send_raw_transaction(world.sign(ONE, value=5))
    receipt = with_web3.eth.wait_for_transaction_receipt(transaction_hash, timeout=5)
    block = with_web3.eth.get_block("latest", full_transactions=True)

    assert (receipt.status, receipt.gasUsed, receipt.blockNumber, receipt.to) == (1, 21_000, 1, ONE)
    assert block.hash == receipt.blockHash
    assert block.transactions[0] == with_web3.eth.get_transaction(transaction_hash)
    assert block.transactions[0]["from"] == world.account.address
    assert with_web3.eth.get_balance(ONE) == 5
    assert with_web3.eth.get_transaction_count(world.account.address) == 1
    assert with_web3.eth.get_block_receipts("latest") == [receipt]
    assert with_web3.eth.accounts == []
    assert with_web3.eth.syncing is False


def test_web3_names_a_custom_error(world: Any) -> None:
    """The bytes of a revert reach web3.py as they are, so it can decode the contract's custom error."""
    with_web3 = Web3(HTTPProvider(world.server.url))
    selector = with_web3.keccak(text="WrongRound(uint32,uint32)")[:4]
    payload = "0x" + (selector + encode(["uint32", "uint32"], [32, 0])).hex()
    address = Web3.to_checksum_address(world.deploy(REVERT_WITH_CALLDATA))
    with pytest.raises(ContractCustomError) as caught:
        with_web3.eth.call({"to": address, "data": payload})
    assert caught.value.data == payload
    with pytest.raises(ContractLogicError):
        with_web3.eth.estimate_gas({"to": address, "data": payload})


@pytest.mark.parametrize("method", ["eth_call", "eth_estimateGas"])
@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("0x", "execution reverted"),
        ("0xdeadbeef", "execution reverted"),
        ("0xdeadbeef" + word(32) + word(0), "execution reverted"),
        ("0x08c379a0" + encode(["string"], ["no such round"]).hex(), "execution reverted: no such round"),
        ("0x08c379a0" + word(32), "execution reverted"),
    ],
)
def test_revert_carries_its_bytes(world: Any, method: str, payload: str, message: str) -> None:
    """A revert is answered with code 3 and exactly the bytes that the contract gave."""
    address = world.deploy(REVERT_WITH_CALLDATA)
    error = world.refuse(method, {"to": address, "data": payload})
    assert error == {"code": 3, "message": message, "data": payload}


def test_failed_transaction_is_mined(world: Any) -> None:
    """A transaction that reverts at its execution stands in a block with status 0, and cost gas."""
    address = world.deploy(REVERT_WITH_CALLDATA)
    receipt = world.send(address, data="0xdeadbeef")
    assert receipt["status"] == "0x0"
    assert int(receipt["gasUsed"], 16) > 21_000
    assert receipt["logs"] == []


def test_failure_that_is_no_revert(world: Any) -> None:
    """An invalid instruction is no revert: code -32000, no data."""
    error = world.refuse("eth_call", {"to": world.deploy(INVALID)})
    assert error["code"] == -32000
    assert "InvalidInstruction" in error["message"]
    assert "data" not in error


def test_call_and_estimate_leave_no_trace(world: Any) -> None:
    """Neither a call nor an estimate changes state or mines a block."""
    address = world.deploy(STORE_WORD)
    before = world.get("eth_blockNumber")
    world.get("eth_call", {"to": address, "data": "0x" + word(7)})
    world.get("eth_estimateGas", {"to": address, "data": "0x" + word(7)})
    assert world.get("eth_blockNumber") == before
    assert world.get("eth_getStorageAt", address, "0x0", "latest") == "0x" + word(0)


def test_call_sees_the_block_asked_for(world: Any) -> None:
    """A call runs in the environment of its block; `pending` is the next one, with its time."""
    address = world.deploy(ENVIRONMENT)
    world.clock[0] += 50
    world.get("evm_mine")
    now = int(world.clock[0])
    start = now - 50

    def environment(block: str) -> str:
        result: str = world.get("eth_call", {"to": address}, block)
        return result

    assert environment("0x1") == "0x" + word(start + 1) + word(1) + word(31337)
    assert environment("latest") == "0x" + word(now) + word(2) + word(31337)
    assert environment("pending") == "0x" + word(now + 1) + word(3) + word(31337)
    assert world.get("eth_call", {"to": address}, "earliest") == "0x"


def test_state_of_earlier_blocks(world: Any) -> None:
    """Balance, nonce, code and storage can be read as they were at any block, also by its hash (EIP-1898)."""
    address = world.deploy(STORE_WORD)
    world.send(address, data="0x" + word(9))
    by_hash = {"blockHash": world.get("eth_getBlockByNumber", "0x1", False)["hash"]}
    assert world.get("eth_getStorageAt", address, "0x0", by_hash) == "0x" + word(0)
    assert world.get("eth_getStorageAt", address, "0x0", {"blockNumber": "0x2"}) == "0x" + word(9)
    assert world.get("eth_getCode", address, "earliest") == "0x"
    assert world.get("eth_getCode", address) == "0x" + STORE_WORD
    assert world.get("eth_getTransactionCount", world.account.address, "0x1") == "0x1"
    assert world.get("eth_getTransactionCount", world.account.address, "pending") == "0x2"
    assert world.get("eth_getBalance", world.account.address, "0x0") == hex(10_000 * 10**18)


def test_randomness_is_the_blocks(world: Any) -> None:
    """What a transaction reads as PREVRANDAO is its block's mixHash, and differs from block to block."""
    address = world.deploy(STORE_RANDOMNESS)
    seen = []
    for _ in range(2):
        world.send(address)
        stored = world.get("eth_getStorageAt", address, "0x0")
        assert stored == world.get("eth_getBlockByNumber", "latest", False)["mixHash"]
        seen.append(stored)
    assert seen[0] != seen[1]


@pytest.mark.parametrize("data", ["0x" + word(5), "0x" + "ff" * 600])
def test_estimate_suffices(world: Any, data: str) -> None:
    """A transaction with just the estimated gas succeeds, and the estimate is at most 2 percent too high."""
    address = world.deploy(STORE_WORD)
    estimate = int(
        world.get("eth_estimateGas", {"from": world.account.address, "to": address, "data": data}), 16
    )
    receipt = world.send(address, data=data, gas=estimate)
    assert receipt["status"] == "0x1"
    assert estimate <= int(receipt["gasUsed"], 16) * 1.02


def test_estimate_covers_gas_that_is_refunded(world: Any) -> None:
    """Clearing a slot refunds gas afterwards, which has to be there before: the estimate includes it."""
    address = world.deploy(STORE_WORD)
    world.send(address, data="0x" + word(5))
    estimate = int(world.get("eth_estimateGas", {"to": address, "data": "0x" + word(0)}), 16)
    receipt = world.send(address, data="0x" + word(0), gas=estimate)
    assert receipt["status"] == "0x1"
    assert int(receipt["gasUsed"], 16) < estimate


def test_estimate_sees_the_time_of_the_next_block(world: Any) -> None:
    """A deadline that passes before the next block is seen by the estimate, though not by the last block."""
    # if timestamp > word 0: revert with nothing
    address = world.deploy("5f3542" + "11" + "6008" + "57" + "00" + "5b5f5ffd")
    deadline = {"to": address, "data": "0x" + word(int(world.clock[0]) + 5)}
    world.get("eth_estimateGas", deadline)
    world.clock[0] += 6
    assert world.get("eth_call", deadline) == "0x"
    assert world.refuse("eth_estimateGas", deadline)["code"] == 3


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"nonce": 0, "value": 1}, "nonce too low: next nonce 1, tx nonce 0"),
        ({"nonce": 2}, "nonce too high: next nonce 1, tx nonce 2"),
        ({"chainId": 1}, "invalid chain id for signer: have 1 want 31337"),
        ({"value": 10_001 * 10**18}, "insufficient funds for gas * price + value"),
        ({"gas": 20_999}, "intrinsic gas too low: gas 20999, minimum needed 21000"),
        ({"gas": 30_029_123}, "exceeds block gas limit: tx gas 30029123, limit 30029122"),
        ({"maxFeePerGas": 1, "maxPriorityFeePerGas": 1}, "max fee per gas less than block base fee"),
        ({"maxPriorityFeePerGas": 4 * 10**9}, "max priority fee per gas higher than max fee per gas"),
        (
            {"data": "0x" + "ff" * 100, "gas": 24_999},
            "intrinsic gas too low: gas 24999, minimum needed 25000",
        ),
    ],
)
def test_refused_transaction(world: Any, fields: dict[str, Any], reason: str) -> None:
    """A transaction that no block may include is refused with -32000 and the reason; nothing is mined."""
    world.send(ONE)
    error = world.refuse("eth_sendRawTransaction", world.sign(ONE, **fields))
    assert error["code"] == -32000
    assert error["message"].startswith(reason)
    assert world.get("eth_blockNumber") == "0x1"


def test_sent_twice(world: Any) -> None:
    """A transaction sent again is answered `already known`, which clients take for success."""
    raw = world.sign(ONE)
    world.get("eth_sendRawTransaction", raw)
    error = world.refuse("eth_sendRawTransaction", raw)
    assert error["code"] == -32000
    assert error["message"].startswith("already known")


def test_legacy_and_access_list_transactions(world: Any) -> None:
    """Older transaction types work and are shown as what they are; one without a chain id is refused."""
    fees = {"gasPrice": 2 * 10**9, "gas": 30_000, "to": ONE, "value": 1, "data": "0x"}
    legacy = world.account.sign_transaction({**fees, "chainId": 31337, "nonce": 0})
    listed = world.account.sign_transaction(
        {
            **fees,
            "chainId": 31337,
            "nonce": 1,
            "type": 1,
            "accessList": [{"address": TWO, "storageKeys": ["0x" + word(3)]}],
        }
    )
    for signed in (legacy, listed):
        world.get("eth_sendRawTransaction", signed.raw_transaction.to_0x_hex())
    shown = [world.get("eth_getTransactionByHash", signed.hash.to_0x_hex()) for signed in (legacy, listed)]
    assert [each["type"] for each in shown] == ["0x0", "0x1"]
    assert [each["chainId"] for each in shown] == ["0x7a69", "0x7a69"]
    assert shown[0]["v"] in (hex(31337 * 2 + 35), hex(31337 * 2 + 36))
    assert shown[1]["accessList"] == [{"address": TWO, "storageKeys": ["0x" + word(3)]}]

    unprotected = world.account.sign_transaction({**fees, "nonce": 2})
    error = world.refuse("eth_sendRawTransaction", unprotected.raw_transaction.to_0x_hex())
    assert error["message"] == "invalid chain id for signer: have None want 31337"


@pytest.mark.parametrize("raw", ["0x", "0x02", "0xff", "0x00ff", "0x02c0", "0xf800", "0x7f" + "00" * 50])
def test_bytes_that_are_no_transaction(world: Any, raw: str) -> None:
    """Bytes that are no transaction are invalid parameters."""
    assert world.refuse("eth_sendRawTransaction", raw)["code"] == -32602


def test_blob_transaction_is_refused(world: Any) -> None:
    """Blobs are not served, and the answer says so."""
    assert "blob transactions" in world.refuse("eth_sendRawTransaction", "0x03c0")["message"]


def test_every_prefix_of_a_transaction_is_refused(world: Any) -> None:
    """No truncation of a signed transaction is taken for one."""
    raw = world.sign(ONE)
    for end in range(2, len(raw), 8):
        assert world.refuse("eth_sendRawTransaction", raw[:end])["code"] == -32602
    assert world.get("eth_blockNumber") == "0x0"


def test_blocks_by_tag_number_and_hash(world: Any) -> None:
    """Tags name the last block, `earliest` the first, `pending` one without a hash; unknown ones are null."""
    world.send(ONE)
    latest = world.get("eth_getBlockByNumber", "latest", False)
    assert latest["number"] == "0x1"
    assert len(latest["transactions"]) == 1
    for tag in ("safe", "finalized", "0x1"):
        assert world.get("eth_getBlockByNumber", tag, False) == latest
    assert world.get("eth_getBlockByHash", latest["hash"], False) == latest
    assert world.get("eth_getBlockByNumber", "earliest", False)["hash"] == latest["parentHash"]
    assert world.get("eth_getBlockReceipts", latest["hash"]) == world.get("eth_getBlockReceipts", "latest")
    pending = world.get("eth_getBlockByNumber", "pending", False)
    assert (pending["number"], pending["hash"], pending["parentHash"]) == ("0x2", None, latest["hash"])
    assert world.get("eth_getBlockByNumber", "0x2", False) is None
    assert world.get("eth_getBlockByHash", "0x" + "00" * 32, False) is None
    assert world.get("eth_getTransactionByHash", "0x" + "00" * 32) is None
    assert world.get("eth_getTransactionReceipt", "0x" + "00" * 32) is None
    assert world.refuse("eth_call", {"to": ONE}, "0x2")["message"].startswith("header not found")


def test_transactions_by_place(world: Any) -> None:
    """A block's transactions can be counted, and taken by index."""
    receipt = world.send(ONE)
    expected = world.get("eth_getTransactionByHash", receipt["transactionHash"])
    assert world.get("eth_getTransactionByBlockNumberAndIndex", "latest", "0x0") == expected
    assert world.get("eth_getTransactionByBlockHashAndIndex", receipt["blockHash"], "0x0") == expected
    assert world.get("eth_getTransactionByBlockNumberAndIndex", "latest", "0x1") is None
    assert world.get("eth_getBlockTransactionCountByNumber", "latest") == "0x1"
    assert world.get("eth_getBlockTransactionCountByHash", receipt["blockHash"]) == "0x1"
    assert world.get("eth_getBlockTransactionCountByNumber", "0x9") is None


def test_logs_by_address_topics_and_blocks(world: Any) -> None:
    """Filters combine address, topics by position (null, one, any of several) and blocks, as on any node."""
    first, second = world.deploy(LOG_TWO_TOPICS), world.deploy(LOG_TWO_TOPICS)
    silent = world.deploy(LOG_NO_TOPIC)
    sent = [(first, 1, 10), (first, 2, 10), (second, 1, 20), (second, 3, 30)]
    blocks = [world.send(to, data="0x" + word(a) + word(b))["blockNumber"] for to, a, b in sent]
    last = world.send(silent)

    def found(**filter: Any) -> list[tuple[str, int, int]]:
        logs = world.get("eth_getLogs", {"fromBlock": "earliest", **filter})
        return [
            (log["address"], *(int(topic, 16) for topic in log["topics"])) for log in logs if log["topics"]
        ]

    topic = {number: "0x" + word(number) for number in (1, 2, 3, 10, 20)}
    assert found() == sent
    assert found(address=first) == sent[:2]
    assert found(address=[first.upper().replace("0X", "0x"), second]) == sent
    assert found(address=[]) == sent
    assert found(address=ONE) == []
    assert found(topics=[topic[1]]) == [sent[0], sent[2]]
    assert found(topics=[None, topic[10]]) == sent[:2]
    assert found(topics=[[topic[1], topic[3]], [topic[20], topic[10]]]) == [sent[0], sent[2]]
    assert found(topics=[[], []]) == sent
    assert found(topics=[None, None, None]) == []
    assert found(fromBlock=blocks[1], toBlock=blocks[2]) == sent[1:3]
    assert found(fromBlock=blocks[3]) == sent[3:]
    assert world.get("eth_getLogs", {}) == last["logs"] != []
    assert world.get("eth_getLogs", {"blockHash": last["blockHash"]}) == last["logs"]
    assert world.get("eth_getLogs", {"fromBlock": "0x63"}) == []
    assert world.get("eth_getLogs", {"fromBlock": "0x63", "toBlock": "0x64"}) == []
    assert world.refuse("eth_getLogs", {"fromBlock": "0x3", "toBlock": "0x2"})["code"] == -32602
    assert world.refuse("eth_getLogs", {"blockHash": "0x" + "00" * 32})["message"].startswith("unknown block")


def test_receipts_in_a_shared_block(world: Any) -> None:
    """In a block of several transactions gas adds up and log indexes run on, as consensus has them."""
    from fedproof.devchain.transactions import decode_transaction

    address = world.deploy(LOG_TWO_TOPICS)
    nonce = int(world.get("eth_getTransactionCount", world.account.address), 16)
    raws = [world.sign(address, nonce=nonce + i, data="0x" + word(i) + word(0)) for i in range(3)]
    world.chain.mine(
        transactions=[decode_transaction(bytes.fromhex(raw[2:]), chain_id=31337) for raw in raws]
    )
    receipts = world.get("eth_getBlockReceipts", "latest")
    used = [int(receipt["gasUsed"], 16) for receipt in receipts]
    assert [int(receipt["cumulativeGasUsed"], 16) for receipt in receipts] == [
        sum(used[: i + 1]) for i in range(3)
    ]
    assert [log["logIndex"] for receipt in receipts for log in receipt["logs"]] == ["0x0", "0x1", "0x2"]
    assert [receipt["transactionIndex"] for receipt in receipts] == ["0x0", "0x1", "0x2"]
    assert int(world.get("eth_getBlockByNumber", "latest", False)["gasUsed"], 16) == sum(used)


def test_fees(world: Any) -> None:
    """Suggested fees are accepted, and the fee history agrees with the blocks."""
    for _ in range(3):
        world.send(ONE, maxPriorityFeePerGas=10**9)
    history = world.get("eth_feeHistory", "0x2", "latest", [10, 90])
    blocks = [world.get("eth_getBlockByNumber", hex(number), False) for number in (2, 3)]
    assert history["oldestBlock"] == "0x2"
    assert history["baseFeePerGas"][:2] == [block["baseFeePerGas"] for block in blocks]
    assert len(history["baseFeePerGas"]) == 3
    assert history["reward"] == [[hex(10**9)] * 2] * 2
    assert history["gasUsedRatio"] == [21_000 / 30_029_122] * 2
    assert "reward" not in world.get("eth_feeHistory", "0x400", "latest", [])
    price = int(world.get("eth_gasPrice"), 16)
    assert world.send(ONE, maxFeePerGas=price, maxPriorityFeePerGas=10**9)["status"] == "0x1"
    assert world.get("eth_maxPriorityFeePerGas") == hex(10**9)


def test_test_ether_for_the_asking(world: Any) -> None:
    """`anvil_setBalance` sets any balance in a block of its own, and its owner can spend it."""
    owner = Account.from_key("0x" + "01" * 32)
    assert world.get("anvil_setBalance", owner.address, hex(10**18)) is None
    assert world.get("eth_getBalance", owner.address) == hex(10**18)
    assert world.send(ONE, account=owner, value=7)["status"] == "0x1"
    world.get("hardhat_setBalance", owner.address, "0x0")
    assert world.get("eth_getBalance", owner.address) == "0x0"


def test_time_can_be_put_forward(world: Any) -> None:
    """`evm_increaseTime` moves the time of the blocks to come, from hex and from plain numbers."""
    world.get("evm_increaseTime", 3600)
    world.get("evm_increaseTime", "0x10")
    world.get("evm_mine")
    block = world.get("eth_getBlockByNumber", "latest", False)
    assert int(block["timestamp"], 16) == int(world.clock[0]) + 3616


def test_revert_to_a_snapshot(world: Any) -> None:
    """A revert forgets blocks, transactions, logs and state; what is mined then gets other hashes."""
    address = world.deploy(LOG_TWO_TOPICS)
    snapshot = world.get("evm_snapshot")
    raw = world.sign(address, data="0x" + word(1) + word(2))
    lost_hash = world.get("eth_sendRawTransaction", raw)
    lost = world.get("eth_getTransactionReceipt", lost_hash)

    assert world.get("evm_revert", snapshot) is True
    assert world.get("eth_blockNumber") == "0x1"
    assert world.get("eth_getTransactionReceipt", lost_hash) is None
    assert world.get("eth_getBlockByHash", lost["blockHash"], False) is None
    assert world.get("eth_getLogs", {"fromBlock": "0x0"}) == []
    assert world.get("eth_getTransactionCount", world.account.address) == "0x1"
    assert world.get("evm_revert", snapshot) is False

    assert world.get("eth_sendRawTransaction", raw) == lost_hash
    again = world.get("eth_getTransactionReceipt", lost_hash)
    assert again["blockHash"] != lost["blockHash"]
    assert len(world.get("eth_getLogs", {"fromBlock": "0x0"})) == 1


def test_web3_error_for_an_unknown_method(world: Any) -> None:
    """A method that is not served is refused in words that web3.py passes on."""
    with pytest.raises(Web3RPCError, match="eth_mining does not exist"):
        Web3(HTTPProvider(world.server.url)).manager.request_blocking("eth_mining", [])


def test_deepest_calls(world: Any) -> None:
    """A contract that calls itself until its gas is used up neither fails nor takes the server along."""
    address = world.deploy("5f5f5f5f5f305af100")  # call(gas, this, 0, 0, 0, 0, 0) stop
    assert world.get("eth_call", {"to": address}) == "0x"
    assert world.send(address, gas=30_000_000)["status"] == "0x1"
