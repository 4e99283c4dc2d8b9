"""`fedproof codec plan` as an operator reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedproof.cli import app
from fedproof.errors import ConfigurationError


def run(*arguments: object) -> str:
    """Run the command in this process and return what it printed; what it refuses is raised."""
    result = CliRunner().invoke(app, ["codec", "plan", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def plan(*arguments: object) -> dict[int, dict[str, Any]]:
    """Return the rows by their bits."""
    document = json.loads(run(*arguments, "--json"))
    assert document["security_bits"] == 128
    return {row["bits"]: row for row in document["rows"]}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy for a cohort of 100, in which one of four values travels."""
    path = tmp_path / "policy.toml"
    path.write_text(
        f"""
        name = "test"
        [model]
        architecture = "0x{"ab" * 32}"
        parameters = 1000003
        genesis = "0x{"cd" * 32}"
        seed = 7
        [codec]
        bits = 12
        max_contributors = 100
        clip = 0.25
        clip_margin = 0.0
        keep_one_in = 4
        error_feedback = true
        [rounds]
        min_contributors = 2
        attestation_quorum = 2
        max_examples = 1000
        commit_window_s = 60
        aggregate_window_s = 60
        attest_window_s = 60
        [training]
        epochs = 1
        batch_size = 32
        learning_rate = 0.05
        momentum = 0.9
        weight_decay = 0.0
        """
    )
    return path


@pytest.mark.parametrize(
    ("contributors", "bits", "slot", "q_bits", "update", "aggregate", "chunks", "head_room"),
    [
        # 1,000,000 values: frames of 4096 x slot values; an update's frame has 512 x q_bits + 64 bytes, an
        # aggregate's 1024 x q_bits.
        (10, 15, 2, 48, 123 * 24_640, 123 * 49_152, 8, 4),
        (10, 12, 3, 58, 82 * 29_760, 82 * 59_392, 6, 4),
        (10, 8, 4, 58, 62 * 29_760, 62 * 59_392, 4, 4),
        (2, 24, 2, 58, 123 * 29_760, 123 * 59_392, 8, 1),
        (1000, 15, 1, 42, 245 * 21_568, 245 * 43_008, 16, 10),
    ],
)
def test_rows_are_pinned(
    contributors: int,
    bits: int,
    slot: int,
    q_bits: int,
    update: int,
    aggregate: int,
    chunks: int,
    head_room: int,
) -> None:
    """A row says what a policy of those bits packs, sends and receives."""
    (row,) = plan("--parameters", 1_000_000, "--contributors", contributors, "--bits", bits).values()
    assert (row["values_per_slot"], row["q_bits"], row["chunks"]) == (slot, q_bits, chunks)
    assert (row["update_bytes"], row["aggregate_bytes"], row["head_room_bits"]) == (
        update,
        aggregate,
        head_room,
    )
    assert row["bytes_per_value"] == (512 * q_bits + 64) / (4096 * slot)
    assert contributors <= row["exact_up_to"] <= min(2**head_room, row["noise_allows"])


def test_every_number_of_bits_has_a_row() -> None:
    """Without a choice the table runs from 8 to 24 bits, for ResNet-18's size and 16 contributors."""
    document = json.loads(run("--json"))
    assert (document["values"], document["contributors"]) == (11_200_000, 16)
    assert [row["bits"] for row in document["rows"]] == list(range(8, 25))


@pytest.mark.parametrize("contributors", [2, 3, 16, 17, 512, 513, 999, 1000])
def test_every_cohort_is_within_what_is_exact(contributors: int) -> None:
    """No row offers a cohort whose sum could overflow or drown in noise."""
    for row in plan("--contributors", contributors).values():
        assert row["exact_up_to"] >= contributors
        assert row["exact_up_to"] <= 2 ** row["head_room_bits"]


def test_table_fits_a_terminal() -> None:
    """People get a table of eighty columns with every number whole."""
    lines = run("--parameters", 123_456_789, "--contributors", 1000).splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = plan("--parameters", 123_456_789, "--contributors", 1000, "--bits", 24).values()
    cells = [cell.strip() for cell in lines[-2].split("│")]
    assert cells[1] == "24"
    assert cells[5:7] == [f"{row['update_bytes'] / 1e6:,.2f}", f"{row['aggregate_bytes'] / 1e6:,.2f}"]


def test_policy_gives_model_cohort_and_what_travels(policy: Path) -> None:
    """Of a policy's model only the values that travel are counted; another cohort may be tried."""
    document = json.loads(run("--policy", policy, "--json"))
    assert (document["values"], document["contributors"]) == (250_001, 100)
    assert "the policy's: 12 bits" in run("--policy", policy)
    assert json.loads(run("--policy", policy, "--contributors", 10, "--json"))["contributors"] == 10
    with pytest.raises(ConfigurationError, match="expected --parameters or --policy, got both"):
        run("--policy", policy, "--parameters", 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--contributors", 1001), "expected max_contributors from 2 to 1000, got 1001: .*a round may leave"),
        (("--contributors", 1), "expected max_contributors from 2 to 1000, got 1: .*give other --bits or"),
        (("--contributors", 0), "expected max_contributors from 2 to 1000, got 0: "),
        (("--bits", 25), "expected bits from 8 to 24, got 25: .*give other --bits"),
        (("--bits", 15, "--bits", 7), "expected bits from 8 to 24, got 7: .*give other --bits"),
    ],
)
def test_what_is_not_exact_is_refused(options: tuple[object, ...], message: str) -> None:
    """A cohort or a number of bits beyond the bounds is refused with what to change."""
    with pytest.raises(ConfigurationError, match=message):
        run(*options)
