"""The command `fedproof`."""

from __future__ import annotations

import platform
import sys

import typer

from fedproof import __version__
from fedproof.commands import admin, codec, keys, ledger, policy
from fedproof.commands.deploy import deploy
from fedproof.commands.devchain import devchain
from fedproof.commands.options import Json
from fedproof.commands.output import report
from fedproof.commands.plugins import add_plugins
from fedproof.errors import FedproofError

OPERATOR = "Operator"

app = typer.Typer(
    help="""Federated learning whose every step can be proved afterwards.

    Each command explains itself: `fedproof COMMAND --help`.
    """,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    # A traceback with local variables could show a password.
    pretty_exceptions_enable=False,
)
add_plugins(app)
app.command(rich_help_panel=OPERATOR)(deploy)
app.add_typer(admin.app, name="admin", rich_help_panel=OPERATOR)
app.add_typer(ledger.app, name="ledger", rich_help_panel=OPERATOR)
app.add_typer(policy.app, name="policy", rich_help_panel=OPERATOR)
app.add_typer(codec.app, name="codec", rich_help_panel=OPERATOR)
app.add_typer(keys.app, name="keys", rich_help_panel=OPERATOR)
app.command(rich_help_panel=OPERATOR)(devchain)


@app.command(rich_help_panel=OPERATOR)
def version(json: Json = False) -> None:
    """Print the version.

    Example: `fedproof version --json`
    """
    report({"fedproof": __version__, "python": platform.python_version()}, as_json=json)


def main() -> None:
    """Run the command line. What fedproof refuses ends with one message and status 2."""
    try:
        app(prog_name="fedproof")
    except FedproofError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
