"""Every snippet and command in README and the guide runs, in the order of its page; so do the examples."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs/guide").glob("*.md"))]
RUN, SHOWN = ("python", "sh"), ("text", "json")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

_FENCE = re.compile(
    r"(?:<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)

# In a process of its own, as a reader would run it: one namespace for a page, one directory for all.
_RUNNER = """
import json, subprocess, sys
namespace = {"__name__": "__main__"}
for block in json.load(sys.stdin):
    print("--", block["where"], flush=True)
    if block["kind"] == "sh":
        subprocess.run(["bash", "-euo", "pipefail", "-c", block["code"]], check=True)
    else:
        exec(compile(block["code"], block["where"], "exec"), namespace)
"""


@dataclass(frozen=True, kw_only=True)
class Block:
    where: str
    kind: str
    code: str
    why_not_run: str


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            where=f"{page}:{text.count(chr(10), 0, match.start('code')) + 1}",
            kind=match["kind"],
            code=match["code"],
            why_not_run=match["why"] or "",
        )
        for match in _FENCE.finditer(text)
    ]


def reader_environment() -> dict[str, str]:
    here = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_run_or_shown(page: str) -> None:
    assert [b.where for b in blocks(page) if b.kind not in (*RUN, *SHOWN)] == []
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(blocks(page))


def test_few_blocks_are_not_run() -> None:
    assert sum(bool(b.why_not_run) for page in PAGES for b in blocks(page)) <= 1


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, tmp_path: Path) -> None:
    run = [vars(b) for b in blocks(page) if b.kind in RUN and not b.why_not_run]
    assert run
    ended = subprocess.run(
        [sys.executable, "-c", _RUNNER],
        input=json.dumps(run),
        cwd=tmp_path,
        env=reader_environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_error_object_in_the_guide_is_what_is_printed(tmp_path: Path) -> None:
    (shown,) = [b for b in blocks("docs/guide/verify.md") if b.kind == "json"]
    ended = subprocess.run(
        ["gradseal", "verify", "runs/none", "--json"],
        cwd=tmp_path,
        env=reader_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, shown.code)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_every_example_runs(example: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(example), str(tmp_path)],
        cwd=tmp_path,
        env=reader_environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("accepted") == 2
