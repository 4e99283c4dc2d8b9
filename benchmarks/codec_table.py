"""The codec benchmark's tables: what was measured, and what had to be reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]

BYTES, CLIENT = "bytes_per_param", "client_us_per_param"
AGGREGATOR, DECRYPT = "aggregator_us_per_param", "decrypt_us_per_param"
TWO_CORES = 1.8
CROWD_MB = 350.0


@dataclass(frozen=True, slots=True)
class Target:
    """What has to be reached: a figure at most, and how many times less than NVFlare's in the same run."""

    what: str
    column: str
    bits: int
    most: float
    times: float


TARGETS = (
    Target("MB on the wire", BYTES, 15, 3.45, 17),
    Target("MB on the wire", BYTES, 12, 2.55, 23),
    Target("MB on the wire", BYTES, 8, 1.92, 30),
    Target("quantise, encrypt, frame, hash, s", CLIENT, 15, 0.090, 7),
    Target("quantise, encrypt, frame, hash, s", CLIENT, 8, 0.048, 12),
    Target("verify, load, add, a contributor, s", AGGREGATOR, 15, 0.025, 10),
    Target("verify, load, add, a contributor, s", AGGREGATOR, 8, 0.013, 19),
    Target("decrypt, decode, s", DECRYPT, 15, 0.052, 4),
    Target("decrypt, decode, s", DECRYPT, 8, 0.024, 9),
)


def print_tables(rows: Sequence[Row], crowd: Row | None) -> None:
    """Print one model's tables, as Markdown.

    Args:
        rows: each system's medians.
        crowd: the memory of an aggregator of many contributors, if it was measured.
    """
    console = Console(width=150)
    head = rows[0]
    console.print(
        f"{head['parameters']:,} parameters, {head['contributors']} contributors, {head['turns']} turns; "
        "per million parameters"
    )
    console.print(_make_figures(rows))
    console.print(_make_targets(rows, crowd))


def _make_figures(rows: Sequence[Row]) -> Table:
    table = Table(
        "system", "bits", "MB up", "MB down", "client s", "add s", "write sum s", "decrypt s",
        "peak MB: client", "aggregator", "decrypt", "imports", "largest error",
        box=box.MARKDOWN,
    )  # fmt: skip
    for row in rows:
        table.add_row(
            _name(row),
            str(row["bits"] or ""),
            f"{row[BYTES]:.2f}",
            f"{row['sum_bytes_per_param']:.2f}",
            f"{row[CLIENT]:.3f}",
            f"{row[AGGREGATOR]:.4f}",
            f"{row['publish_us_per_param']:.3f}",
            f"{row[DECRYPT]:.3f}",
            *(f"{row[f'{role}_peak_mb']:,.0f}" for role in ("client", "aggregator", "decrypt")),
            f"{row['imported_mb']:.0f}",
            f"{row['error']:.1e}",
        )
    return table


def _make_targets(rows: Sequence[Row], crowd: Row | None) -> Table:
    table = Table(
        "per million parameters", "bits", "at most", "measured", "NVFlare", "to be", "is", "",
        box=box.MARKDOWN,
    )  # fmt: skip
    ours = {row["bits"]: row for row in rows if row["system"] == "fedproof" and not row["processes"]}
    peer = next((row for row in rows if row["system"] == "nvflare"), None)
    for target in TARGETS:
        if target.bits not in ours:
            continue
        measured = ours[target.bits][target.column]
        cells = [target.what, str(target.bits), f"{target.most:g}", f"{measured:.3f}"]
        verdicts = [_judge("", measured <= target.most)]
        if peer is not None:
            times = peer[target.column] / measured
            cells += [f"{peer[target.column]:.3f}", f"{target.times:g}x", f"{times:.1f}x"]
            verdicts.append(_judge("ratio ", times >= target.times))
        else:
            cells += ["", f"{target.times:g}x", ""]
        table.add_row(*cells, ", ".join(verdicts))
    _add_cores(table, rows)
    if crowd is not None:
        peak = crowd["peak_rss_mb"]
        table.add_row(
            f"aggregator's peak, {crowd['contributors']} contributors, MB",
            str(crowd["bits"]),
            f"{CROWD_MB:g}",
            f"{peak:.0f}",
            "" if peer is None else f"{peer['aggregator_peak_mb']:.0f} with {peer['contributors']}",
            "",
            "",
            _judge("", peak <= CROWD_MB),
        )
    return table


def _add_cores(table: Table, rows: Sequence[Row]) -> None:
    """Add what a second core is worth to a daemon and its workers."""
    ours = {row["processes"]: row for row in rows if row["system"] == "fedproof"}
    if not {1, 2} <= ours.keys():
        return
    bits = str(ours[1]["bits"])
    for what, column in (("client", CLIENT), ("add", AGGREGATOR), ("decrypt", DECRYPT)):
        seconds = ours[2][column]
        times = ours[1][column] / seconds
        verdict = _judge("", times >= TWO_CORES)
        cells = [f"{seconds:.3f}", "", f"{TWO_CORES}x one", f"{times:.2f}x", verdict]
        table.add_row(f"two cores, {what}, s", bits, "", *cells)


def _name(row: Row) -> str:
    if not row["processes"]:
        return str(row["system"])
    return f"{row['system']}, workers: {row['processes']}"


def _judge(what: str, is_reached: bool) -> str:
    return f"{what}{'reached' if is_reached else 'missed'}"
