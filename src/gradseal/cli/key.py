"""`gradseal key`: make a signing key, or show its public half."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import click

from gradseal.errors import KeyFileError
from gradseal.proof.note import SigningKey, name_fault
from gradseal.record.keys import load_signer


@click.group(
    name="key",
    subcommand_metavar="VERB ...",
    epilog="\b\nExample:\n  gradseal key new owner.key --name example.org/models > owner.pub",
)
def command() -> None:
    """Make a signing key, or show its public half."""


@command.command(epilog="\b\nExample:\n  gradseal key new owner.key --name example.org/models > owner.pub")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--name", required=True, help="Whose key it is, such as example.org/models; part of every signature."
)
def new(file: Path, name: str) -> None:
    """Make an Ed25519 signing key in FILE, and print its public half.

    FILE must not exist; only you will be able to read it. Keep it secret, and give out the printed
    line, which verifiers pin with --key.
    """
    if fault := name_fault(name):
        raise click.BadParameter(fault, param_hint="--name")
    key = SigningKey.generate(name)
    write_key(file, key)
    click.echo(f"{file} holds the secret signing key; its public half is:", err=True)
    click.echo(str(key.verification_key))


@command.command(epilog="\b\nExample:\n  gradseal key show owner.key")
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """Print the public half of the signing key in FILE."""
    click.echo(str(load_signer(file).verification_key))


class SecretKey(Protocol):
    """A key that has a text to be kept secret."""

    def encode(self) -> str:
        """The text."""
        ...


def write_key(file: Path, key: SecretKey) -> None:
    """Writes a secret key to a new file that only its owner can read.

    Raises:
        KeyFileError: The file exists or cannot be written.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as e:
        raise KeyFileError(
            "the file exists, and a key is never overwritten", where=str(file), advice="name another file"
        ) from e
    except OSError as e:
        raise KeyFileError(f"no key can be written there: {e.strerror}", where=str(file)) from e
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(key.encode() + "\n")
    except OSError as e:
        with suppress(OSError):
            file.unlink()
        raise KeyFileError(f"no key can be written there: {e.strerror}", where=str(file)) from e
