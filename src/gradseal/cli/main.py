"""The command `gradseal` and its verbs, each loaded when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from gradseal.errors import Error

ACCEPTED, REJECTED, BROKEN, INCONCLUSIVE = 0, 1, 2, 3

_VERBS = {
    "record": "Record a recipe's training as a bundle.",
    "verify": "Check a bundle against a policy.",
    "show": "Show what a bundle says, without verifying it.",
    "key": "Make a signing key, or show its public half.",
    "demo": "Record a real run, verify it, and see tampered copies rejected.",
}


class _Verbs(click.Group):
    """Knows every verb's name and first line without loading its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = import_module(f"gradseal.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(_VERBS.items()))


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gradseal")
def gradseal() -> None:
    """Turn a PyTorch training run into evidence, and check such evidence.

    Exit status: 0 accepted or done, 1 rejected, 2 wrong usage or broken input, 3 inconclusive.
    """


def main() -> None:
    """Runs the command line; errors of Gradseal's own end in a few lines and status 2."""
    try:
        gradseal.main(prog_name="gradseal", standalone_mode=False)
    except Error as e:
        click.echo(f"error: {e.diagnostics()}", err=True)
        sys.exit(BROKEN)
    except click.ClickException as e:
        e.show()
        sys.exit(BROKEN)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
