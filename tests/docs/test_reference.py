"""The reference has every public name, and says of enumerations what they are."""

from __future__ import annotations

import inspect
import pkgutil
import re

import pytest

import gradseal
from gradseal import errors
from gradseal.verify import policy, verdict
from pages import ROOT

PAGES = {p.name: p.read_text(encoding="utf-8") for p in sorted((ROOT / "docs/reference").glob("*.md"))}
NAMED = [
    identifier for text in PAGES.values() for identifier in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
]
ENUMERATIONS = [verdict.Outcome, verdict.ClaimName, verdict.Status, verdict.Result, verdict.Check]


@pytest.mark.parametrize("identifier", NAMED)
def test_what_the_reference_names_is_there_and_says_what_it_is(identifier: str) -> None:
    assert inspect.getdoc(pkgutil.resolve_name(identifier))


def test_every_public_name_is_in_the_reference() -> None:
    found = {pkgutil.resolve_name(identifier) for identifier in NAMED}
    assert {name for name in gradseal.__all__ if getattr(gradseal, name) not in found} == set()


def test_every_error_and_warning_is_in_the_reference() -> None:
    own = {c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__}
    assert own <= {pkgutil.resolve_name(identifier) for identifier in NAMED}


@pytest.mark.parametrize("enumeration", ENUMERATIONS, ids=lambda e: e.__name__)
def test_enumerations_are_listed_as_they_are(enumeration: type) -> None:
    (row,) = re.findall(rf"^\| `{enumeration.__name__}`[^|]*\|(.*)\|$", PAGES["verdict.md"], re.MULTILINE)
    assert re.findall(r"`([^`]+)`", row) == [str(member) for member in enumeration]  # type: ignore[attr-defined]


def test_replays_are_listed_as_they_are() -> None:
    listed = PAGES["verify.md"].partition("Which segments are replayed is")[2].partition("the values of")[0]
    assert re.findall(r"`([^`]+)`", listed) == list(policy.Replay)
