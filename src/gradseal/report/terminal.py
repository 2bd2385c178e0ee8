"""A verdict for a person to read, on a terminal or as one HTML page."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gradseal.verify.verdict import Outcome, Result, Status, Verdict

_STATUS_STYLE = {
    Status.SHOWN: "green",
    Status.SUPPORTED: "cyan",
    Status.NOT_SHOWN: "yellow",
    Status.REFUTED: "bold red",
}
_OUTCOME_STYLE = {
    Outcome.ACCEPTED: "bold green",
    Outcome.REJECTED: "bold red",
    Outcome.INCONCLUSIVE: "bold yellow",
}
_PAGE_WIDTH = 110


def render(verdict: Verdict) -> RenderableType:
    """The verdict: outcome first, then the claims, then what was refuted or left open, then the cost."""
    parts: list[RenderableType] = [_headline(verdict), Text(), _claims(verdict)]
    if findings := _findings(verdict):
        parts += [Text(), findings]
    return Group(*parts, Text(), _cost(verdict))


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Prints the verdict."""
    console.print(render(verdict))


def save_page(content: list[RenderableType], path: Path, title: str) -> None:
    """Writes what would be printed as an HTML page that needs nothing else.

    Args:
        content: What is printed, in order.
        path: The file to write.
        title: The heading.
    """
    console = Console(record=True, width=_PAGE_WIDTH, file=io.StringIO())
    console.rule(title)
    for part in content:
        console.print(Padding(part, (1, 0)))
    console.save_html(str(path))


def _headline(verdict: Verdict) -> Text:
    line = Text(verdict.outcome.value.upper(), style=_OUTCOME_STYLE[verdict.outcome])
    line.append(f" under the policy {verdict.policy.name!r}", style="default")
    line.append(f"\nrun    {verdict.bundle['origin']}", style="default")
    line.append(f"\nowner  {verdict.bundle.get('owner', 'unknown')}", style="default")
    return line


def _claims(verdict: Verdict) -> Table:
    table = Table("claim", "status", "evidence", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name, claim in verdict.claims.items():
        status = Text(claim.status.value, style=_STATUS_STYLE[claim.status])
        table.add_row(name.value, status, Text("\n".join(claim.evidence)))
    return table


def _findings(verdict: Verdict) -> Table | None:
    shown = [f for f in verdict.findings if f.result in (Result.REFUTED, Result.UNDECIDED)]
    if not shown:
        return None
    table = Table("finding", "check", "where", "what", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for finding in shown:
        style = "bold red" if finding.result is Result.REFUTED else "yellow"
        table.add_row(
            Text(finding.result.value, style=style),
            finding.check.value,
            Text(finding.where),
            Text(finding.message),
        )
    return table


def _cost(verdict: Verdict) -> Text:
    cost = verdict.cost
    return Text(
        f"{cost.segments_replayed} of {cost.segments} segments replayed ({cost.steps_replayed} steps), "
        f"{cost.bytes_hashed / 1e6:.1f} MB hashed, {cost.seconds:.1f} s",
        style="dim",
    )
