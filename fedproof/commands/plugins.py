"""Commands that other packages bring, found by the entry-point group `fedproof.commands`.

A plug-in is a Typer application. It is imported only when it runs, so help stays quick and a role whose
libraries are not installed is in nobody's way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points

import typer

from fedproof.errors import ConfigurationError

GROUP = "fedproof.commands"

_OWN = {
    "node": "Take part with your own data and model: init, register, run.",
    "aggregator": "Run the aggregator, which adds what it cannot read.",
    "audit": "Query the ledger's history, and recompute what it claims.",
}


def add_plugins(app: typer.Typer) -> None:
    """Add every installed plug-in to the root command."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        _add_plugin(app, entry)


@contextmanager
def explain_missing_extra(command: str, extra: str) -> Iterator[None]:
    """Turn the failed import of a library into the command that installs it.

    Raises:
        ConfigurationError: something that is imported inside is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if missing.partition(".")[0].startswith("fedproof"):
            # Our own module: no extra would bring it.
            raise ConfigurationError(f"{command} cannot be loaded: {error}") from error
        raise ConfigurationError(
            f"{command} needs: pip install 'fedproof[{extra}]' (no module {missing!r})"
        ) from error


def _add_plugin(app: typer.Typer, entry: EntryPoint) -> None:
    # Everything after the name is the plug-in's business, --help included.
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}

    @app.command(
        entry.name,
        help=_OWN.get(entry.name, f"From the plug-in {entry.value}."),
        rich_help_panel="Roles",
        context_settings=settings,
        add_help_option=False,
    )
    def run_plugin(context: typer.Context) -> None:
        with explain_missing_extra(f"fedproof {entry.name}", entry.name):
            plugin = entry.load()
        typer.main.get_command(plugin).main(args=context.args, prog_name=context.command_path)
