"""`gradseal witness`: run a witness, or make its key."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradseal.cli.key import write_key
from gradseal.errors import KeyFileError, StoreError
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.note import name_fault
from gradseal.record.keys import MAX_KEY_FILE_BYTES

if TYPE_CHECKING:
    from gradseal.witness.storage import Storage

_STOPPING_SECONDS = 15
_MAX_CONNECTIONS = 4096
_SWITCH_SECONDS = 0.0001


@click.group(
    name="witness",
    subcommand_metavar="VERB ...",
    epilog="\b\nExample:\n  gradseal witness new-key witness.key --name witness.example.org",
)
def command() -> None:
    """Run a witness, which cosigns logs as long as they only grow."""


@command.command(
    name="new-key", epilog="\b\nExample:\n  gradseal witness new-key witness.key --name witness.example.org"
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The witness's name, such as witness.example.org.")
def new_key(file: Path, name: str) -> None:
    """Make a witness's signing key in FILE, and print its public half.

    FILE must not exist; only you will be able to read it. Keep it secret, and give out the printed
    line, which verifiers pin. A witness that lost its database needs a new key.
    """
    if fault := name_fault(name):
        raise click.BadParameter(fault, param_hint="--name")
    key = CosigningKey.generate(name)
    write_key(file, key)
    click.echo(f"{file} holds the secret signing key; its public half is:", err=True)
    click.echo(str(key.verification_key))


@command.command(
    epilog="\b\nExample:\n  gradseal witness serve --key witness.key --logs logs.txt \\\n"
    "      --database sqlite:witness.db"
)
@click.option(
    "--key",
    "key_files",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="A signing key of the witness; repeat it while keys are rotated, and all sign.",
)
@click.option(
    "--logs",
    "logs_file",
    required=True,
    type=click.Path(path_type=Path),
    help="The verification keys of the logs to witness, one a line.",
)
@click.option(
    "--database",
    required=True,
    metavar="sqlite:PATH|postgresql://...",
    help="Where to keep what was cosigned. Several instances may share one.",
)
@click.option(
    "--mark",
    "mark_file",
    type=click.Path(path_type=Path),
    help="A file that tells after a restart whether the database went back; PATH.mark by default with "
    "sqlite. Keep it out of backups.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=8471, show_default=True, type=click.IntRange(0, 65535), help="The port; 0 for any."
)
def serve(
    key_files: tuple[Path, ...],
    logs_file: Path,
    database: str,
    mark_file: Path | None,
    host: str,
    port: int,
) -> None:
    """Serve a witness over HTTP, until it is told to stop.

    It answers POST /add-checkpoint as C2SP tlog-witness says, shows its logs at / and its metrics at
    /metrics. It prints its address and public keys, and stops on SIGTERM or SIGINT once what it took
    is answered. Put a reverse proxy in front for TLS.
    """
    keys = [_load_key(file) for file in key_files]
    try:
        import uvicorn

        from gradseal.precede import serving
        from gradseal.witness.app import make_app
        from gradseal.witness.logs import load_logs
        from gradseal.witness.mark import Mark
    except ImportError as e:
        raise StoreError(
            f"what a witness needs is not installed: {e.name}",
            advice="install it with: pip install 'gradseal[witness]'",
        ) from e
    logs = load_logs(logs_file)
    storage, default_mark = _open_storage(database)
    mark = mark_file or default_mark
    try:
        app = make_app(storage=storage, keys=keys, logs=logs, mark=Mark(mark) if mark else None)
        listening = _listen(host, port)
    except BaseException:
        storage.close()
        raise
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_STOPPING_SECONDS,
    )
    click.echo(serving.address(listening))
    for key in keys:
        click.echo(str(key.verification_key))
    # The thread that commits takes the interpreter's lock back after every call of the database, and must not
    # wait 5 ms for it each time while the event loop works.
    sys.setswitchinterval(_SWITCH_SECONDS)
    # The server handles both while it runs, and raises them again once all is answered and closed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    from gradseal.precede import serving

    try:
        return serving.listen(host, port)
    except OSError as e:
        raise click.UsageError(f"cannot listen on {host}, port {port}: {e.strerror}") from e


def _load_key(file: Path) -> CosigningKey:
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_KEY_FILE_BYTES).decode()
    except (OSError, ValueError) as e:
        raise KeyFileError(
            f"no signing key can be read: {e}",
            where=str(file),
            advice="make one with `gradseal witness new-key`",
        ) from e
    return CosigningKey.parse(text.strip(), where=str(file))


def _open_storage(database: str) -> tuple[Storage, Path | None]:
    """The database, and where its mark is if the user does not say."""
    from gradseal.witness.storage import SqliteStorage

    if database.startswith("sqlite:") and database != "sqlite:":
        path = Path(database.removeprefix("sqlite:"))
        return SqliteStorage(path), path.with_name(f"{path.name}.mark")
    if database.startswith(("postgresql://", "postgres://")):
        from gradseal.witness.postgres import PostgresStorage

        return PostgresStorage(database), None
    # Not repeated: it may hold a password.
    raise click.BadParameter("neither sqlite:PATH nor postgresql://...", param_hint="--database")
