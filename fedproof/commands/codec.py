"""`fedproof codec`: what encrypting an update costs, and for how many nodes its sums are exact."""

from __future__ import annotations

import json as json_module
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedproof.commands.options import Json
from fedproof.errors import ConfigurationError

if TYPE_CHECKING:
    from fedproof.codec.parameters import CodecParameters

DEFAULT_PARAMETERS = 11_200_000
DEFAULT_CONTRIBUTORS = 16
MEGABYTE = 1_000_000
SECURITY_BITS = 128
"""homomorphicencryption.org's standard allows n = 4096 a q of 109 bits for it; ours has at most 60."""

app = typer.Typer(no_args_is_help=True, help="Choose how updates are encoded before a policy fixes it.")


@app.callback()
def codec() -> None:
    """Keep `plan` a command of its own: an application of one command would swallow its name."""


@app.command()
def plan(
    *,
    parameters: Annotated[
        int | None,
        typer.Option(min=1, help="Values of the model. [default: 11.2 million]", show_default=False),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Take model, cohort and what travels from a policy.")
    ] = None,
    contributors: Annotated[
        int | None,
        typer.Option(help="Most updates that one sum may hold. [default: 16]", show_default=False),
    ] = None,
    bits: Annotated[
        list[int] | None,
        typer.Option(
            help="Bits for each value; may be repeated. [default: all of 8 to 24]", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what each number of bits a value costs, for a model and a cohort.

    A row is what a policy with those bits gets. Sums are exact up to the number of contributors that it
    shows: they neither overflow the bits of head room nor drown in the ciphertexts' noise, of which half the
    bound is kept in hand. What could not be exact is refused. MB are millions of bytes; an update is what
    each node sends in a round, and the aggregate what each node receives.

    Example: `fedproof codec plan --parameters 1000000 --contributors 100 --bits 12 --bits 15`
    """
    from fedproof.codec.parameters import CodecParameters
    from fedproof.policy import Policy

    if parameters is not None and policy is not None:
        raise ConfigurationError("expected --parameters or --policy, got both")
    agreed = None if policy is None else Policy.load(policy)
    values = agreed.update_length if agreed else parameters or DEFAULT_PARAMETERS
    most = agreed.codec.max_contributors if agreed else DEFAULT_CONTRIBUTORS
    most = most if contributors is None else contributors
    rows = []
    for each in bits or range(8, 25):
        try:
            rows.append(_describe(CodecParameters.plan(bits=each, max_contributors=most), values))
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{error}: sums are exact only within that range; give other --bits or --contributors "
                "(a round may leave nodes out)"
            ) from error
    if json:
        facts = {"values": values, "contributors": most, "security_bits": SECURITY_BITS, "rows": rows}
        typer.echo(json_module.dumps(facts))
    else:
        _print(rows, values, most, agreed.codec.bits if agreed else None)


def compute_update_bytes(parameters: CodecParameters, length: int) -> int:
    """Return the bytes of all chunks of an update of `length` values."""
    return math.ceil(length / parameters.values_per_frame) * parameters.update_frame_bytes


def _describe(parameters: CodecParameters, length: int) -> dict[str, int | float]:
    head_room = parameters.field_bits - parameters.bits
    return {
        "bits": parameters.bits,
        "values_per_slot": parameters.values_per_slot,
        "q_bits": parameters.coefficient_bits,
        "bytes_per_value": parameters.update_frame_bytes / parameters.values_per_frame,
        "update_bytes": compute_update_bytes(parameters, length),
        "aggregate_bytes": math.ceil(length / parameters.values_per_frame) * parameters.aggregate_frame_bytes,
        "chunks": parameters.chunk_count(length),
        "head_room_bits": head_room,
        "noise_allows": parameters.exact_contributors,
        "exact_up_to": min(1 << head_room, parameters.exact_contributors),
    }


def _print(rows: Sequence[dict[str, int | float]], values: int, most: int, chosen: int | None) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    headings = (
        "bits", "values\na slot", "bits\nof q", "bytes\na value", "update\nMB", "aggregate\nMB",
        "head room\nbits", "exact\nup to",
    )  # fmt: skip
    table = Table(
        *(Column(heading, justify="right") for heading in headings),
        title=f"{values:,} values, up to {most:,} contributors, {SECURITY_BITS} bits of security",
        title_justify="left",
        caption=None if chosen is None else f"the policy's: {chosen} bits",
        caption_justify="left",
    )
    for row in rows:
        table.add_row(
            str(row["bits"]),
            str(row["values_per_slot"]),
            str(row["q_bits"]),
            f"{row['bytes_per_value']:.3f}",
            f"{row['update_bytes'] / MEGABYTE:,.2f}",
            f"{row['aggregate_bytes'] / MEGABYTE:,.2f}",
            str(row["head_room_bits"]),
            f"{row['exact_up_to']:,}",
            style="bold" if row["bits"] == chosen else None,
        )
    Console().print(table)
