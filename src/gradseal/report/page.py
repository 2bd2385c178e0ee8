"""A verdict as one HTML page that needs nothing else: no script, no font, no other file or host.

Everything that comes from a verdict is escaped. The page follows the reader's choice of light or dark, and a
narrow screen breaks lines where it must.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from gradseal.errors import StoreError
from gradseal.report import words
from gradseal.verify.verdict import Outcome, Verdict

_MOST = 200

_STYLE = """
:root { color-scheme: light dark; --text: #1c1f23; --page: #fff; --line: #d5d9de; --dim: #5b636d;
  --good: #14692f; --bad: #b3151c; --open: #7a5200; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ea; --page: #15181c; --line: #3a4149;
  --dim: #9aa3ad; --good: #62cf83; --bad: #ff8a86; --open: #e5b84f; } }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 60rem; color: var(--text);
  background: var(--page); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { margin-top: 2.5rem; font-size: 1.2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .5rem .75rem .5rem 0; border-top: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th, td.mark { white-space: nowrap; overflow-wrap: normal; }
p { margin: .25rem 0; } ul { padding-left: 1.2rem; }
code { font: .875em ui-monospace, monospace; } .dim { color: var(--dim); }
.outcome { font-size: 1.3rem; } .mark { font-weight: 600; }
.shown, .supported, .accepted { color: var(--good); }
.refuted, .rejected { color: var(--bad); } .not-shown, .inconclusive { color: var(--open); }
@media (max-width: 36rem) { tr, th, td { display: block; } thead { display: none; }
  th, td { padding: .1rem 0; border: 0; } tr { padding: .6rem 0; border-top: 1px solid var(--line); } }
"""


def save_page(path: Path, title: str, sections: Sequence[str]) -> None:
    """Writes a page.

    Args:
        path: The file.
        title: Its title and heading.
        sections: What `section` and `verdict_section` gave, in order.

    Raises:
        StoreError: It cannot be written.
    """
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{_text(title)}</h1>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as e:
        raise StoreError(f"the page cannot be written: {e.strerror}", where=str(path)) from e


def section(heading: str, paragraphs: Iterable[str]) -> str:
    """A heading and paragraphs of plain text."""
    return f"<h2>{_text(heading)}</h2>\n" + "".join(f"<p>{_text(p)}</p>\n" for p in paragraphs)


def verdict_section(heading: str, verdict: Verdict) -> str:
    """A verdict: its outcome and why, the run, the five claims, what was found, the cost."""
    rows = [
        (name.value, claim.status.value, words.evidence(claim, _MOST))
        for name, claim in verdict.claims.items()
    ]
    run = "".join(
        f'<p><span class="dim">{said}</span> <code>{_text(named)}</code></p>\n'
        for said, named in words.identity(verdict).items()
    )
    return (
        f"<h2>{_text(heading)}</h2>\n"
        f'<p class="outcome mark {verdict.outcome.value}">{verdict.outcome.value}</p>\n'
        f"<p>{_text(words.reason(verdict))}</p>\n{run}"
        f"<table><thead><tr><th>claim<th>status<th>evidence</thead>\n<tbody>{_rows(rows)}</tbody></table>\n"
        + _found("What is wrong", words.wrong(verdict, _MOST))
        + _found("What could not be checked", words.undecided(verdict, _MOST))
        + _found("Worth knowing", words.notes(verdict, _MOST))
        + f'<p class="dim">{_text(words.cost(verdict))}</p>\n'
    )


def outcomes_table(rows: Iterable[tuple[str, Outcome, Sequence[str]]]) -> str:
    """Several verifications: what was verified, how it ended, and some lines on it."""
    body = _rows([(name, outcome.value, lines) for name, outcome, lines in rows])
    head = "<tr><th>copy<th>outcome<th>what was done and found"
    return f"<table><thead>{head}</thead>\n<tbody>{body}</tbody></table>\n"


def _rows(rows: Iterable[tuple[str, str, Sequence[str]]]) -> str:
    return "".join(
        f'<tr><th scope="row">{_text(name)}</th>'
        f'<td class="mark {status.replace(" ", "-")}">{_text(status)}</td>'
        f"<td>{''.join(f'<p>{_text(line)}</p>' for line in lines)}</td></tr>\n"
        for name, status, lines in rows
    )


def _found(heading: str, lines: list[str]) -> str:
    items = "".join(f"<li>{_text(line)}</li>\n" for line in lines)
    return f"<h3>{_text(heading)}</h3>\n<ul>{items}</ul>\n" if lines else ""


def _text(text: str) -> str:
    return escape(words.printable(text))
