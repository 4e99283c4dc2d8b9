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
        add_plugin(app, entry)


def add_plugin(app: typer.Typer, entry: EntryPoint) -> None:
    """Add one plug-in, which is imported when its command runs."""
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
        with explain_missing_module(
            f"fedproof {entry.name}", extra=entry.name if entry.name in _OWN else None
        ):
            plugin = entry.load()
        typer.main.get_command(plugin).main(args=context.args, prog_name=context.command_path)


@contextmanager
def explain_missing_module(command: str, *, extra: str | None) -> Iterator[None]:
    """Turn the failed import of a library into the command that installs it.

    Args:
        command: what needs the library.
        extra: which of fedproof's extras brings it, if one does.

    Raises:
        ConfigurationError: something that is imported inside is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if extra is None or missing.startswith("fedproof"):
            raise ConfigurationError(f"{command} cannot be loaded: no module {missing!r}") from error
        raise ConfigurationError(
            f"{command} needs, in a clone of fedproof: pip install '.[{extra}]' (no module {missing!r})"
        ) from error
