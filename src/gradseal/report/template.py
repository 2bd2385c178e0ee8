"""The templates of pages: whatever a value is, it is escaped, and printable, on its way into one."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from gradseal.report.facts import number
from gradseal.report.words import printable


@cache
def template(name: str) -> Template:
    """The template of this file name."""
    environment = Environment(
        loader=PackageLoader("gradseal.report"),
        autoescape=True,
        finalize=_finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template(name)


def _finalized(value: Any) -> Any:
    """Every value on its way into the page: text without characters that are not printed."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)
