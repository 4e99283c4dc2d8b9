"""`fedproof keys`: the keys and certificates of operators and participants."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedproof.commands.options import Json, PasswordFile
from fedproof.commands.output import report

app = typer.Typer(
    no_args_is_help=True,
    help="""Make wallets, certificates and wrapping keys. Existing files are never overwritten.

    A password comes from a file (`--password-file`) or from the variable FEDPROOF_PASSWORD, never from the
    command line itself, where other users of the machine could read it.
    """,
)


@app.command()
def wallet(
    path: Annotated[Path, typer.Argument(help="The keystore to write.")],
    password_file: PasswordFile = None,
    json: Json = False,
) -> None:
    """Make a wallet: a new key that signs transactions, in an encrypted keystore. Prints its address.

    Example: `fedproof keys wallet admin.json --password-file admin.password`
    """
    from fedproof.keys.wallet import create_wallet, read_password

    account = create_wallet(path, read_password(password_file))
    report({"address": account.address, "keystore": path}, as_json=json)


@app.command()
def wrapping(
    path: Annotated[Path, typer.Argument(help="The key file to write.")],
    password_file: PasswordFile = None,
    json: Json = False,
) -> None:
    """Make a wrapping key, to which an epoch's secret key is encrypted. `fedproof node init` makes one too.

    Example: `fedproof keys wrapping wrapping.key --password-file node.password`
    """
    from fedproof.keys.wallet import read_password
    from fedproof.keys.wrapping import WrappingKey

    password = read_password(password_file)
    key = WrappingKey.generate()
    key.save(path, password)
    report({"digest": key.digest, "public_key": key.public_bytes, "key": path}, as_json=json)


@app.command()
def tls_authority(
    folder: Annotated[Path, typer.Argument(help="Where ca.crt and ca.key go.")],
    name: Annotated[str, typer.Option(help="The authority's common name.")] = "fedproof authority",
    json: Json = False,
) -> None:
    """Make a certificate authority, for a federation that has none of its own.

    Everybody gets ca.crt; ca.key stays with whoever issues certificates.

    Example: `fedproof keys tls-authority authority`
    """
    from fedproof.keys.tls import make_authority

    files = make_authority(folder, name)
    report({"certificate": files.certificate, "key": files.key}, as_json=json)


@app.command()
def tls_certificate(
    folder: Annotated[Path, typer.Argument(help="Where tls.crt and tls.key go.")],
    authority: Annotated[Path, typer.Option(help="The folder of `fedproof keys tls-authority`.")],
    name: Annotated[str, typer.Option(help="Whose certificate it is.")],
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="DNS name or IP address that it is for; may be repeated.", show_default="localhost"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Issue a certificate. Its digest is what a node registers on the ledger.

    Example: `fedproof keys tls-certificate aggregator --authority authority --name aggregator`
    """
    from fedproof.keys.tls import certificate_digest, issue_certificate

    files = issue_certificate(folder, authority, name, hosts=host or ["localhost", "127.0.0.1"])
    digest = certificate_digest(files.certificate)
    report({"certificate": files.certificate, "key": files.key, "digest": digest}, as_json=json)
