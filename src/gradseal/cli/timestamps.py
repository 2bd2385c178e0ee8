"""`gradseal timestamps`: run a time-stamp authority of one's own, or make its key."""

from __future__ import annotations

from pathlib import Path

import click

from gradseal.cli.key import write_key
from gradseal.errors import KeyFileError
from gradseal.precede.answers import MAX_ACCURACY_SECONDS
from gradseal.precede.local_authority import (
    DEFAULT_ACCURACY_SECONDS,
    DEFAULT_DAYS,
    MAX_DAYS,
    LocalAuthority,
    load_local_authority,
)


@click.group(
    name="timestamps",
    subcommand_metavar="VERB ...",
    epilog="\b\nExample:\n  gradseal timestamps new-key authority.key --name lab > root.pem",
)
def command() -> None:
    """Run a time-stamp authority for those who trust you.

    For places without network. It signs when it was shown a digest, as RFC 3161 says, and any client of that
    standard can ask it. But whoever holds its key can date a time-stamp as they like: a local authority
    shows a time only to those who trust its holder. To convince strangers, ask public authorities.
    """


@command.command(
    name="new-key",
    epilog="\b\nExample:\n  gradseal timestamps new-key authority.key --name lab > root.pem",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--name", default="local", show_default=True, help="The authority's name: letters, digits, - _ ."
)
@click.option(
    "--days",
    type=click.IntRange(1, MAX_DAYS),
    default=DEFAULT_DAYS,
    show_default=True,
    help="For how long it may sign.",
)
def new_key(file: Path, name: str, days: int) -> None:
    """Make the key of a time-stamp authority in FILE.

    FILE must not exist; only you will be able to read it. Whoever reads it can date a time-stamp as they
    like. What is printed is the root certificate, for those to pin who trust you with that.
    """
    try:
        local = LocalAuthority.generate(name=name, days=days)
    except KeyFileError as e:
        raise click.BadParameter(e.message, param_hint="--name") from e
    write_key(file, local)
    click.echo(f"{file} holds the secret key; recorders and verifiers pin this:", err=True)
    click.echo(local.root_pem, nl=False)


@command.command(epilog="\b\nExample:\n  gradseal timestamps show authority.key > root.pem")
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """Print the root certificate, PEM, of the key in FILE."""
    click.echo(load_local_authority(file).root_pem, nl=False)


@command.command(epilog="\b\nExample:\n  gradseal timestamps serve --key authority.key --port 8091")
@click.option("--key", "file", required=True, type=click.Path(path_type=Path), help="The authority's key.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8091,
    show_default=True,
    help="The port to listen at; 0 takes a free one.",
)
@click.option(
    "--accuracy",
    "accuracy_seconds",
    type=click.IntRange(1, MAX_ACCURACY_SECONDS),
    default=DEFAULT_ACCURACY_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How far this machine's clock may be off, which every time-stamp says.",
)
def serve(file: Path, host: str, port: int, accuracy_seconds: int) -> None:
    """Give time-stamps over HTTP, by this machine's clock.

    Prints the URL, which recorders ask, and runs until it is stopped. Its time-stamps show a time only to
    those who trust whoever holds the key and sets the clock.
    """
    local = load_local_authority(file)
    try:
        from gradseal.precede import authority_serving, serving
    except ImportError as e:
        raise click.ClickException(
            f"no server is installed ({e.name}): pip install 'gradseal[witness]'"
        ) from e
    app = authority_serving.application(local, accuracy_seconds=accuracy_seconds)
    with serving.listen(host, port) as listener:
        click.echo(f"time-stamps of {local.name}, which may sign until {local.expires:%Y-%m-%d}", err=True)
        url = serving.address(listener)
        serving.serve(app, listener, ready=lambda: click.echo(url))
