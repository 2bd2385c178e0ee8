"""`gradseal beacon`: show a chain to pin, or run a chain of one node."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gradseal.cli.key import write_key
from gradseal.errors import KeyFileError
from gradseal.precede.chain import MAX_GENESIS_UNIX_SECONDS, MAX_PERIOD_SECONDS, QUICKNET, Chain
from gradseal.precede.local_chain import LocalChain, load_local_chain
from gradseal.proof.canonical import encode


@click.group(
    name="beacon",
    subcommand_metavar="VERB ...",
    epilog="\b\nExample:\n  gradseal beacon show > quicknet.json",
)
def command() -> None:
    """Show a beacon's chain to pin, or run a chain of one node.

    A chain publishes one random value a period that nobody without its key knows before. The public one
    is drand's quicknet; where there is no network, a chain of one node is served by the same rules. It
    shows a time only to those who trust whoever holds its key.
    """


@command.command(
    name="new-key",
    epilog="\b\nExample:\n  gradseal beacon new-key beacon.key --period 3 > chain.json",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", default="local", show_default=True, help="The chain's name: letters, digits, - _ .")
@click.option(
    "--period",
    type=click.IntRange(1, MAX_PERIOD_SECONDS),
    default=3,
    show_default=True,
    help="Seconds from one round to the next.",
)
@click.option(
    "--genesis",
    type=click.IntRange(0, MAX_GENESIS_UNIX_SECONDS),
    metavar="UNIX-SECONDS",
    help="When round 1 is due; by default now.",
)
def new_key(file: Path, name: str, period: int, genesis: int | None) -> None:
    """Make the key of a one-node chain in FILE.

    FILE must not exist; only you will be able to read it. Whoever reads it knows every value of the chain
    beforehand. What is printed is the chain, for recorders and verifiers to pin.
    """
    genesis = int(time.time()) if genesis is None else genesis
    try:
        local = LocalChain.generate(beacon_id=name, period_seconds=period, genesis_unix_seconds=genesis)
    except KeyFileError as e:
        raise click.BadParameter(e.message, param_hint="--name") from e
    write_key(file, local)
    click.echo(f"{file} holds the secret key; recorders and verifiers pin this:", err=True)
    _show(local.chain)


@command.command(
    epilog="\b\nExamples:\n  gradseal beacon show\n  gradseal beacon show beacon.key > chain.json"
)
@click.argument("file", type=click.Path(path_type=Path), required=False)
def show(file: Path | None) -> None:
    """Print a chain to pin: of the key in FILE, or drand's quicknet."""
    _show(QUICKNET if file is None else load_local_chain(file).chain)


@command.command(epilog="\b\nExample:\n  gradseal beacon serve beacon.key --port 8090")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8090,
    show_default=True,
    help="The port to listen at; 0 takes a free one.",
)
def serve(file: Path, host: str, port: int) -> None:
    """Serve the chain of the key in FILE over HTTP.

    Prints the URL, to be given to recorders as a relay, and runs until it is stopped. A round is given out
    once it is due by this machine's clock, and not before.
    """
    local = load_local_chain(file)
    try:
        from gradseal.precede import serving
    except ImportError as e:
        raise click.ClickException(
            f"no server is installed ({e.name}): pip install 'gradseal[witness]'"
        ) from e
    with serving.listen(host, port) as listener:
        click.echo(f"serving chain {local.chain.hash.hex()}", err=True)
        url = serving.address(listener)
        serving.serve(serving.application(local), listener, ready=lambda: click.echo(url))


def _show(chain: Chain) -> None:
    click.echo(encode(chain.to_json()).decode())
