"""The command `gradseal` and its verbs, each loaded when it is called.

Results go to standard output, everything else to standard error. Whatever a user can cause ends in a few
lines and a status: 2 for an error, 130 where the user interrupted, 141 where the reader of the output went
away. A traceback is a bug of Gradseal's; it too ends in 2, since 1 says that a bundle was rejected.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from gradseal.errors import Error
from gradseal.report.words import printable

ACCEPTED, REJECTED, BROKEN, INCONCLUSIVE = 0, 1, 2, 3
INTERRUPTED, UNREAD = 130, 141  # as the shell reports SIGINT and SIGPIPE

_VERBS = {
    "record": "Record a recipe's training as a bundle.",
    "verify": "Check a bundle against a policy.",
    "calibrate": "Measure the noise of native replay, and sign a tolerance.",
    "plan": "Plan which segments to replay, what it costs and what it proves.",
    "anchor": "Have a recorded bundle cosigned and time-stamped.",
    "import": "Make a bundle of a proof by the released proof-of-learning code.",
    "show": "Show what a bundle says, without verifying it.",
    "key": "Make a signing key, or show its public half.",
    "beacon": "Show a beacon's chain to pin, or run a chain of one node.",
    "timestamps": "Run a time-stamp authority for those who trust you.",
    "witness": "Run a witness, which cosigns logs as long as they only grow.",
    "attack": "Carry out a published attack, and judge it by every policy.",
    "study": "Measure what verification is worth, with attacks of all kinds.",
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


@click.command(
    cls=_Verbs,
    subcommand_metavar="VERB ...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="\b\nExample:\n  gradseal demo --out demo",
)
@click.version_option(package_name="gradseal")
def gradseal() -> None:
    """Turn a PyTorch training run into evidence, and check such evidence.

    Exit status: 0 accepted or done, 1 rejected, 2 wrong usage or broken input, 3 inconclusive, 130
    interrupted. Results go to standard output, progress and errors to standard error.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process with its status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name in a bundle may have letters that the terminal's encoding has not.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    try:
        # Not `gradseal.main`, which ends in 1 when the output's reader has gone.
        with gradseal.make_context("gradseal", arguments) as context:
            gradseal.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        e.show()
        return _failed("UsageError", e.format_message(), as_json=as_json)
    except Error as e:
        click.echo(f"error: {printable(e.diagnostics())}", err=True)
        return _failed(type(e).__name__, e.message, where=e.where, advice=e.advice, as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ninterrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except (OSError, MemoryError) as e:
        said = "out of memory" if isinstance(e, MemoryError) else str(e)
        click.echo(f"error: {printable(said)}", err=True)
        return _failed(type(e).__name__, said, as_json=as_json)
    except Exception as e:  # noqa: BLE001 - the top: Python itself would end in 1, which says "rejected"
        traceback.print_exc()
        click.echo("error: this is a bug in Gradseal; please report it with the lines above", err=True)
        return _failed("Bug", f"{type(e).__name__}: {e}", as_json=as_json)
    return ACCEPTED


def _failed(kind: str, message: str, *, where: str = "", advice: str = "", as_json: bool) -> int:
    """The status of an error; with --json, its object on standard output too."""
    if as_json:
        said = {"kind": kind, "message": message, "where": where, "advice": advice}
        click.echo(json.dumps({"error": {name: text for name, text in said.items() if text}}, indent=2))
    return BROKEN
