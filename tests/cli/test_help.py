"""The help of every verb: as README shows it, with an example, and without loading torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gradseal.cli.main import gradseal

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
SHOWN = dict(re.findall(r"^```text\n\$ gradseal ((?:[a-z-]+ )*)--help\n(.*?)^```$", README, re.M | re.S))


def verbs(command: click.Command, *path: str) -> list[tuple[str, ...]]:
    found = [path]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found += verbs(below, *path, name)
    return found


VERBS = verbs(gradseal)


def help_of(verb: tuple[str, ...]) -> str:
    # What click takes for a terminal of 80 columns.
    ended = CliRunner().invoke(gradseal, [*verb, "--help"], prog_name="gradseal", terminal_width=78)
    assert ended.exit_code == 0
    return ended.output


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_readme_shows_the_help_as_it_is(verb: tuple[str, ...]) -> None:
    assert SHOWN["".join(f"{name} " for name in verb)] == help_of(verb)


def test_readme_shows_no_other_verb() -> None:
    assert set(SHOWN) == {"".join(f"{name} " for name in verb) for verb in VERBS}


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_has_an_example_and_fits_80_columns(verb: tuple[str, ...]) -> None:
    said = help_of(verb)
    assert re.search(r"^  Examples?:\n    gradseal ", said, re.M)
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["record", "--help"],
        ["verify", "--help"],
        ["demo", "--help"],
        ["verify", "nowhere"],
        ["key", "new", "k", "--name", "example.org"],
        ["show", "nowhere"],
        ["witness", "new-key", "w", "--name", "witness.example.org"],
        ["witness", "serve", "--key", "no", "--logs", "no", "--database", "no"],
    ],
    ids=" ".join,
)
def test_torch_is_not_loaded_where_nothing_is_computed(arguments: list[str], tmp_path: Path) -> None:
    if arguments == ["verify", "nowhere"]:
        arguments = ["verify", "nowhere", "--draw", "no"]
    source = (
        "import json, sys\nfrom gradseal.cli import main\n"
        "try:\n    main(json.loads(sys.argv[1]))\n"
        "except SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", source, json.dumps(arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
