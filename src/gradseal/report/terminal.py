"""A verdict for a person to read on a terminal, or in a file.

The outcome first and why, then the five claims, then what is wrong. Colours only where the console has them;
no character that a plain terminal lacks.
"""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.text import Text

from gradseal.report import when, words
from gradseal.verify.verdict import Outcome, Status, Verdict

STATUS_STYLE = {
    Status.SHOWN: "green",
    Status.SUPPORTED: "cyan",
    Status.NOT_SHOWN: "yellow",
    Status.REFUTED: "bold red",
}
OUTCOME_STYLE = {
    Outcome.ACCEPTED: "bold green",
    Outcome.REJECTED: "bold red",
    Outcome.INCONCLUSIVE: "bold yellow",
}
_NAME, _STATUS = 16, 11
_WIDEST = 110
_MOST = 10


class Terminal(Console):
    """Standard output, whose reader may go away: an error here, and not yet the end of the process."""

    def on_broken_pipe(self) -> None:
        """Called within the handling of the error.

        Raises:
            BrokenPipeError: Always.
        """
        raise BrokenPipeError


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Prints the verdict, at the console's width."""
    say(render(verdict, width=line_width(console)), console)


def line_width(console: Console) -> int:
    """How many columns a line may take: the console's, but no more than is easy to read."""
    return min(console.width, _WIDEST)


def say(text: Text | str, console: Console) -> None:
    """Prints text as it is: no markup, no highlights, long words unbroken so that they can be copied."""
    console.print(Text(text) if isinstance(text, str) else text, soft_wrap=True, highlight=False)


def render(verdict: Verdict, width: int) -> Text:
    """The verdict as lines of at most `width` columns, digests and keys apart."""
    text = Text()
    text.append(verdict.outcome.value.upper(), style=OUTCOME_STYLE[verdict.outcome])
    text.append(f"\n{wrapped(words.reason(verdict), '', width)}\n")
    for said, named in words.identity(verdict).items():
        text.append(f"\n{said:<7}", style="dim").append(named)
    for said, line in when.lines(verdict.windows).items():
        text.append(f"\n{said:<7}", style="dim").append(wrapped(line, " " * 7, width))
    text.append("\n")
    for claimed, claim in verdict.claims.items():
        text.append(f"\n{claimed.value:<{_NAME}}", style="bold")
        text.append(f"{claim.status.value:<{_STATUS}}", style=STATUS_STYLE[claim.status])
        text.append(_listed(words.evidence(claim, _MOST), _NAME + _STATUS, width))
    _append_list(text, "What is wrong", "bold red", words.wrong(verdict, _MOST), width)
    _append_list(text, "What could not be checked", "bold yellow", words.undecided(verdict, _MOST), width)
    _append_list(text, "Worth knowing", "bold", words.notes(verdict, _MOST), width)
    text.append(f"\n\n{words.cost(verdict)}", style="dim")
    return text


def wrapped(line: str, indent: str, width: int) -> str:
    """The line in several, each after the first indented; words are never broken."""
    room = max(20, width - len(indent))
    pieces = textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False)
    return f"\n{indent}".join(pieces)


def _append_list(text: Text, heading: str, style: str, lines: list[str], width: int) -> None:
    if lines:
        text.append(f"\n\n{heading}", style=style)
        for line in lines:
            text.append(f"\n- {wrapped(line, '  ', width)}")


def _listed(lines: list[str], indent: int, width: int) -> str:
    return ("\n" + " " * indent).join(wrapped(line, " " * indent, width) for line in lines)
