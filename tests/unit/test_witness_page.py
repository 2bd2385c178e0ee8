"""The witness's page: what it shows, and that nothing from outside becomes markup."""

from __future__ import annotations

from gradseal.proof.cosignature import CosigningKey
from gradseal.witness.page import HEADERS, render
from gradseal.witness.state import Latest
from gradseal.witness.storage import Listing

KEY = CosigningKey(name="witness.example.org", seed=b"\x31" * 32).verification_key
LATEST = Latest(size=1_234_567, root=bytes(32), timestamp=1_800_000_000)


def test_it_lists_logs_with_size_root_and_time() -> None:
    page = render([KEY], Listing(total=1, logs=(("example.org/models/1", LATEST),)))
    for shown in (str(KEY.name), "example.org/models/1", "1,234,567", "A" * 43, "2027-01-15 08:00:00 UTC"):
        assert shown in page
    assert "1 in all." in page


def test_it_says_how_many_it_leaves_out() -> None:
    page = render([KEY], Listing(total=5_000, logs=(("a", LATEST),)))
    assert "5,000 in all; the 1 that were cosigned last." in page
    assert "None was cosigned yet." in render([KEY], Listing(total=0, logs=()))


def test_what_comes_from_outside_is_escaped_and_printable() -> None:
    hostile = Listing(total=1, logs=(("<script>alert(1)</script>\u202e\x7f&\"'", LATEST),))
    name = CosigningKey(name="<img/src=x>", seed=bytes(32)).verification_key
    page = render([name], hostile)
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "\x7f" not in page


def test_it_needs_nothing_from_elsewhere() -> None:
    page = render([KEY], Listing(total=1, logs=(("a", LATEST),)))
    for outside in ("http:", "https:", "src=", "href=", "url(", "@import", "<script"):
        assert outside not in page
    assert HEADERS["Content-Security-Policy"].startswith("default-src 'none'")


def test_a_time_that_no_calendar_has_is_shown_in_seconds() -> None:
    far = Latest(size=1, root=bytes(32), timestamp=2**63 - 1)
    assert f"{2**63 - 1} s" in render([KEY], Listing(total=1, logs=(("a", far),)))
