"""What is on disk, and what comes back from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproof.devchain.backend import DevChain
from fedproof.devchain.journal import BlockRecord, Genesis, Journal, RevertRecord
from fedproof.devchain.refusal import Refusal
from fedproof.devchain.transactions import decode_transaction
from fedproof.errors import ConfigurationError

START = 1_800_000_000
GENESIS = Genesis(chain_id=31337, timestamp=START)
OTHER = Genesis(chain_id=1, timestamp=START + 1)
ADDRESS = b"\x11" * 20
TRANSACTION = (
    Account.from_key("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
    .sign_transaction(
        {"to": ADDRESS, "value": 1, "gas": 21_000, "gasPrice": 3 * 10**9, "nonce": 0, "chainId": 31337}
    )
    .raw_transaction
)


def begin(folder: Path, **options: Any) -> tuple[Journal, DevChain]:
    """Open a folder's chain, or begin one."""
    journal = Journal(folder, default=GENESIS, **options)
    try:
        return journal, DevChain(journal.genesis, journal=journal, clock=lambda: START + 5.0)
    except ConfigurationError:
        journal.close()
        raise


def fill(folder: Path, blocks: int = 3) -> list[bytes]:
    """Mine some blocks into a folder and return all hashes."""
    journal, chain = begin(folder)
    with journal:
        for number in range(blocks):
            chain.mine(balances={ADDRESS: number})
        return [block.hash for block in chain.blocks]


def reopen(folder: Path, **options: Any) -> list[bytes]:
    """Return the hashes of the chain in a folder."""
    journal, chain = begin(folder, **options)
    with journal:
        return [block.hash for block in chain.blocks]


def test_same_blocks_come_back(tmp_path: Path) -> None:
    """A chain opened again has the same block hashes, balances and randomness, and goes on from there."""
    hashes = fill(tmp_path)
    journal, chain = begin(tmp_path)
    with journal:
        assert [block.hash for block in chain.blocks] == hashes
        assert chain.state(chain.head.header).get_balance(ADDRESS) == 2  # type: ignore[arg-type]
        hashes.append(chain.mine().hash)
    assert reopen(tmp_path) == hashes


def test_genesis_is_the_journals(tmp_path: Path) -> None:
    """What is given as genesis counts only for a new journal."""
    fill(tmp_path)
    with Journal(tmp_path, default=OTHER) as journal:
        assert journal.genesis == GENESIS


def test_reverted_blocks_stay_away(tmp_path: Path) -> None:
    """A revert is remembered, and what came after it too."""
    journal, chain = begin(tmp_path)
    with journal:
        kept = chain.mine().hash
        lost = chain.mine().hash
        chain.revert(1)
        new = chain.mine().hash
    assert new != lost
    assert reopen(tmp_path)[1:] == [kept, new]


@pytest.mark.parametrize("cut", [1, 10, -1])
def test_torn_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    """A last line that a crash has torn is cut off and counted, and the blocks before it come back."""
    hashes = fill(tmp_path)
    path = tmp_path / "blocks.jsonl"
    whole = path.read_bytes()
    torn = whole.splitlines(keepends=True)[-1][:cut]
    path.write_bytes(whole + torn)
    with Journal(tmp_path, default=GENESIS) as journal:
        assert journal.torn_bytes == len(torn)
    assert path.read_bytes() == whole
    assert reopen(tmp_path) == hashes


def test_torn_genesis_begins_anew(tmp_path: Path) -> None:
    """A crash while the genesis was written leaves nothing that anyone has seen."""
    (tmp_path / "blocks.jsonl").write_bytes(b'{"format":"fed')
    assert len(fill(tmp_path)) == 4


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_every_truncation(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """However much of the end is missing, the blocks that are whole come back, and nothing else."""
    folder = tmp_path_factory.mktemp("journal")
    with Journal(folder, default=GENESIS) as journal:
        records = [
            BlockRecord(number, START + number, bytes([number]) * 32, (), (b"\x02" * number,), b"\xab" * 32)
            for number in range(1, 4)
        ] + [RevertRecord(1)]
        for record in records:
            journal.append(record)
    path = folder / "blocks.jsonl"
    raw = path.read_bytes()
    end = data.draw(st.integers(raw.index(b"\n") + 1, len(raw)))
    path.write_bytes(raw[:end])
    with Journal(folder, default=OTHER) as journal:
        assert journal.genesis == GENESIS
        assert list(journal.records) == records[: raw[:end].count(b"\n") - 1]


@pytest.mark.parametrize(
    ("line", "replacement", "reason"),
    [
        (0, b"{}", "line 1: expected format 'fedproof.devchain.v1', got None"),
        (0, b'{"format":"fedproof.devchain.v1"}', "line 1: expected a genesis"),
        (1, b"[]", "line 2: expected a JSON object"),
        (1, b"nonsense", "line 2: expected JSON"),
        (2, b'{"number":2}', "line 3: expected a block"),
    ],
)
def test_damaged_line(tmp_path: Path, line: int, replacement: bytes, reason: str) -> None:
    """A damaged line that was whole once is an error that names it; nothing is thrown away."""
    fill(tmp_path)
    path = tmp_path / "blocks.jsonl"
    lines = path.read_bytes().splitlines()
    lines[line] = replacement
    path.write_bytes(b"\n".join(lines) + b"\n")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=reason):
        begin(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("field", ["timestamp", "mix_hash", "balances", "hash"])
def test_altered_block(tmp_path: Path, field: str) -> None:
    """A block that was altered does not come out with its hash, and is named."""
    fill(tmp_path)
    path = tmp_path / "blocks.jsonl"
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    lines[2][field] = {
        "timestamp": START + 100,
        "mix_hash": "00" * 32,
        "balances": {ADDRESS.hex(): 77},
        "hash": "00" * 32,
    }[field]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigurationError, match="expected block 2 to be mined again as 0x"):
        begin(tmp_path)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_every_changed_byte(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever byte of a block is changed, the chain is refused or comes back without its last block."""
    folder = tmp_path_factory.mktemp("journal")
    journal, chain = begin(folder)
    with journal:
        chain.mine(balances={ADDRESS: 5})
        chain.mine(transactions=[decode_transaction(TRANSACTION, chain_id=31337)])
        chain.revert(1)
        chain.mine()
        hashes = [block.hash for block in chain.blocks]
    path = folder / "blocks.jsonl"
    raw = bytearray(path.read_bytes())
    position = data.draw(st.integers(raw.index(b"\n"), len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        assert reopen(folder) in (hashes, hashes[:-1])
    except ConfigurationError as error:
        assert str(path) in str(error)  # noqa: PT017 - refusing is one of the two good outcomes


def test_missing_block(tmp_path: Path) -> None:
    """A block that was taken out of the middle is noticed."""
    fill(tmp_path)
    path = tmp_path / "blocks.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(ConfigurationError, match="expected block 3 to be mined again"):
        begin(tmp_path)


def test_two_chains_on_one_journal(tmp_path: Path) -> None:
    """A journal in use cannot be opened a second time, for reading neither."""
    journal, _ = begin(tmp_path)
    with journal:
        for read_only in (False, True):
            with pytest.raises(
                ConfigurationError, match="expected a free journal, but a devchain is using it"
            ):
                Journal(tmp_path, default=GENESIS, read_only=read_only)
    assert len(reopen(tmp_path)) == 1


def test_read_only(tmp_path: Path) -> None:
    """An auditor's chain has all blocks, takes none, and leaves the file as it is, a torn line included."""
    hashes = fill(tmp_path)
    path = tmp_path / "blocks.jsonl"
    path.write_bytes(path.read_bytes() + b"torn")
    path.chmod(0o444)
    before = path.read_bytes()
    journal, chain = begin(tmp_path, read_only=True)
    with journal:
        assert journal.torn_bytes == 4
        assert [block.hash for block in chain.blocks] == hashes
        for act in (chain.mine, lambda: chain.revert(0), lambda: chain.advance_clock(1)):
            with pytest.raises(Refusal, match="read-only"):
                act()
    assert path.read_bytes() == before


def test_read_only_without_a_journal(tmp_path: Path) -> None:
    """Nothing is created where an auditor expects a chain."""
    with pytest.raises(ConfigurationError, match="cannot open the journal: No such file"):
        Journal(tmp_path / "none", default=GENESIS, read_only=True)
    assert not (tmp_path / "none").exists()


def test_full_disk_loses_the_block_and_not_the_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that cannot be written is not mined; what was written of it is gone, and the chain goes on."""
    hashes = fill(tmp_path)
    journal, chain = begin(tmp_path)
    path = tmp_path / "blocks.jsonl"
    before = path.read_bytes()
    with journal:
        with monkeypatch.context() as patch:

            def fail(_descriptor: int) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr("os.fsync", fail)
            with pytest.raises(OSError, match="No space left"):
                chain.mine()
        assert path.read_bytes() == before
        assert chain.head.hash == hashes[-1]
        hashes.append(chain.mine().hash)
    assert reopen(tmp_path) == hashes
