"""The commands `fedproof aggregator ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedproof.config import load_config
from fedproof.logs import configure_logs
from fedproof_aggregator.config import AggregatorConfig
from fedproof_aggregator.process import run_aggregator

app = typer.Typer(
    help="Run the aggregator, which adds what it cannot read.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


# With a single command and no callback, Typer would leave the word `run` out.
@app.callback()
def _root() -> None:
    """Run the aggregator, which adds what it cannot read."""


@app.command()
def run(
    config: Annotated[Path, typer.Option(help="The configuration; see aggregator/aggregator.example.toml.")],
) -> None:
    """Take encrypted updates, add them up, and drive the rounds on the ledger.

    The keystore's password comes from the file that the configuration names, or else from $FEDPROOF_PASSWORD.
    SIGTERM and Ctrl-C end it cleanly; after a crash, the same command goes on where it was.

    Example: `fedproof aggregator run --config aggregator.toml`
    """
    settings = load_config(config, AggregatorConfig)
    run_aggregator(settings, logger=configure_logs("aggregator", settings.name))
