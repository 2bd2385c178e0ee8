"""The blocks of a page, run in order as a reader would run them.

A block of Python or shell is run. One with a file's name as its title is saved under that name. A text with
the title *Output* is what the block before it prints, with `…` for what differs from run to run: within a
line anything, on a line of its own any number of lines.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = "Output"

_FENCE = re.compile(
    r"(?:<!-- not run: (?P<why>[^\n]+) -->\n)?"
    r'^```(?P<kind>\w*)(?: title="(?P<title>[^"\n]+)")?(?: hl_lines="[\d -]+")?\n(?P<code>.*?)^```$',
    re.M | re.S,
)

# In a process of its own, as a reader would run it: one namespace for a page, one directory for all.
_RUNNER = """
import contextlib, io, json, pathlib, subprocess, sys
namespace, printed = {"__name__": "__main__"}, []
for block in json.load(sys.stdin):
    print("--", block["where"], flush=True)
    if block["title"]:
        pathlib.Path(block["title"]).write_text(block["code"], encoding="utf-8")
        printed.append("")
    elif block["kind"] == "sh":
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block["code"]],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        print(ended.stdout, flush=True)
        ended.check_returncode()
        printed.append(ended.stdout)
    else:
        with contextlib.redirect_stdout(io.StringIO()) as caught:
            exec(compile(block["code"], block["where"], "exec"), namespace)
        print(caught.getvalue(), flush=True)
        printed.append(caught.getvalue())
pathlib.Path(sys.argv[1]).write_text(json.dumps(printed), encoding="utf-8")
"""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page; `after` is the number of the block before it."""

    where: str
    kind: str
    title: str
    code: str
    why_not_run: str
    after: int

    @property
    def is_run(self) -> bool:
        """Whether a reader runs or saves it."""
        return self.kind in ("python", "sh") and not self.why_not_run

    @property
    def is_output(self) -> bool:
        """Whether it is what the block before it prints."""
        return self.kind == "text" and self.title == OUTPUT


def pages() -> list[str]:
    """README, tutorial and guides: the pages whose blocks are run."""
    guides = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs/guide").glob("*.md"))
    return ["README.md", "docs/tutorial.md", *guides]


def blocks(page: str) -> list[Block]:
    """Every fenced block of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            where=f"{page}:{text.count(chr(10), 0, match.start('code')) + 1}",
            kind=match["kind"],
            title=match["title"] or "",
            code=match["code"],
            why_not_run=match["why"] or "",
            after=number - 1,
        )
        for number, match in enumerate(_FENCE.finditer(text))
    ]


def reader_environment() -> dict[str, str]:
    """A reader's: one thread, 80 columns, and the commands of this interpreter's environment."""
    here = str(Path(sys.executable).parent)
    path = f"{here}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


def run_page(page: str, directory: Path) -> dict[int, str]:
    """Runs a page's blocks from top to bottom in a directory; what each printed, by its number."""
    numbered = [(number, block) for number, block in enumerate(blocks(page)) if block.is_run]
    printed = directory / ".printed"
    ended = subprocess.run(
        [sys.executable, "-c", _RUNNER, str(printed)],
        input=json.dumps([vars(block) for _, block in numbered]),
        cwd=directory,
        env=reader_environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    outputs = json.loads(printed.read_text(encoding="utf-8"))
    return {number: output for (number, _), output in zip(numbered, outputs, strict=True)}


def matches(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed."""
    pattern = "".join(
        r"(?:[^\n]*\n)*" if line == "…\n" else ".*".join(map(re.escape, line.split("…")))
        for line in shown.splitlines(keepends=True)
    )
    return re.fullmatch(pattern, printed) is not None
